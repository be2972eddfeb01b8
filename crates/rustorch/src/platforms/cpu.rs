//! The CPU.

use std::sync::Arc;

use conformance::{Finding, Report};
use cpu::{Activations, CpuBackend, CpuOptions, Isa};
use devices::GpuOptions;
use gguf::Gguf;
use model::LlamaConfig;

use super::loaded::{Described, Opened};
use super::{DeviceInfo, OpenDevice, Platform};
use crate::{Device, LoadOptions, Result};

pub(super) struct CpuPlatform;

impl Platform for CpuPlatform {
    fn list(&self) -> Vec<DeviceInfo> {
        let name = format!("CPU ({}, {})", std::env::consts::ARCH, Isa::detect());
        vec![DeviceInfo { device: Device::Cpu(CpuOptions::default()), name, gpu: None }]
    }

    fn open(
        &self,
        device: Device,
        _: &Gguf,
        _: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        let cpu = match device {
            Device::Auto => options.cpu,
            Device::Cpu(cpu) => cpu,
            Device::Gpu(_) | Device::Cuda(_) => return Ok(None),
        };
        let backend = Arc::new(CpuBackend::new(cpu)?);
        Ok(Some(Box::new(Opened::one(Device::Cpu(cpu), backend))))
    }

    fn open_group(
        &self,
        devices: &[Device],
        _: &Gguf,
        _: &LlamaConfig,
        _: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        let options = devices.iter().map(|device| match device {
            Device::Cpu(options) => Some(*options),
            _ => None,
        });
        let Some(options) = options.collect::<Option<Vec<CpuOptions>>>() else { return Ok(None) };
        let backends = CpuBackend::group(&options)?.into_iter().map(Arc::new).collect();
        Ok(Some(Box::new(Opened::group(devices[0], backends)?)))
    }

    fn check(
        &self,
        device: Device,
        _: GpuOptions,
        model: &Gguf,
        found: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        let options = match device {
            Device::Auto => CpuOptions::default(),
            Device::Cpu(cpu) => cpu,
            Device::Gpu(_) | Device::Cuda(_) => return Ok(None),
        };
        let mut report = cpu::check::run(options, model, found)?;
        if options.activations == Activations::Bits8 {
            let golden = golden(&report);
            found(&golden);
            report.findings.push(golden);
        }
        Ok(Some(report))
    }
}

/// What the digests of the demo model's checks come to on every processor with activations of 8 bits. After a change that means to
/// change bits: copy what `rustorch devices --check --device cpu` says.
const GOLDEN: u64 = 0xac76_2dc9_6483_cded;

/// Compares the bits that the checks of the demo model found with the recorded ones.
fn golden(report: &Report) -> Finding {
    let (mut cases, mut digest) = (0, 0u64);
    for finding in report.findings.iter().filter(|finding| finding.check.starts_with("whole model")) {
        cases += 1;
        digest = (digest.rotate_left(5) ^ finding.digest).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let failure = || format!("{digest:#018x}, expected {GOLDEN:#018x}");
    Finding {
        setting: report.findings.first().map_or_else(String::new, |finding| finding.setting.clone()),
        check: "golden hash of the demo model".to_owned(),
        cases,
        error: 0.0,
        limit: 0.0,
        digest,
        seconds: 0.0,
        failure: (digest != GOLDEN).then(failure),
    }
}

impl Described for CpuBackend {
    fn describe(&self) -> String {
        let activations = match CpuBackend::activations(self) {
            Activations::Bits8 => String::new(),
            other => format!(", {other}-bit activations"),
        };
        format!("CPU ({}{activations}, {} threads)", CpuBackend::isa(self), self.num_threads())
    }

    fn isa(&self) -> Option<Isa> {
        Some(CpuBackend::isa(self))
    }

    fn activations(&self) -> Option<Activations> {
        Some(CpuBackend::activations(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bits_of_one_check_are_not_the_recorded_ones() {
        let options = CpuOptions::default();
        let checks = cpu::check::run(options, &crate::demo::gguf(), &mut |_| {}).unwrap();
        assert_eq!(golden(&checks).failure, None);
        for check in ["f16 cache", "f32 cache", "reference attention", "other constants"] {
            let mut report = checks.clone();
            let finding = report
                .findings
                .iter_mut()
                .find(|finding| finding.check.contains(&format!("whole model, {check}")));
            finding.unwrap().digest ^= 1;
            assert!(golden(&report).failure.is_some(), "{check}");
        }
    }
}
