//! On which devices a model runs: one, or several with a replica on each, or on each group of them.

use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::str::FromStr;

use cpu::CpuOptions;
use devices::GpuChoice;

use crate::{Device, DeviceInfo, Error, Result};

/// Where a model runs: on one device, or on several of a kind, each with all of the weights and an engine of its own, or together with
/// others ([`LoadOptions::tensor_parallel`](crate::LoadOptions::tensor_parallel)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Choice);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    One(Device),
    /// At least two, all different.
    Each(Kind, Vec<usize>),
    /// All that the machine has.
    All(Kind),
}

/// A kind of devices that have numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    Gpu,
    Cuda,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Cpu, Self::Gpu, Self::Cuda];

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Cuda => "cuda",
        }
    }

    fn device(self, index: usize) -> Device {
        match self {
            Self::Cpu => Device::Cpu(CpuOptions::default()),
            Self::Gpu => Device::Gpu(GpuChoice::Index(index)),
            Self::Cuda => Device::Cuda(Some(index)),
        }
    }

    /// The kind and the rest of `cuda:1`; of what has no colon, only the kind.
    fn split(text: &str) -> (Option<Self>, Option<&str>) {
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        (Self::ALL.into_iter().find(|kind| kind.name() == name), rest)
    }
}

impl Devices {
    /// The device, if it is one.
    pub fn one(&self) -> Option<Device> {
        match self.0 {
            Choice::One(device) => Some(device),
            Choice::Each(..) | Choice::All(_) => None,
        }
    }

    /// How many replicas of a model they have if so many of them run it together.
    ///
    /// # Errors
    /// When all of a kind are meant and there is none, or they do not make up groups.
    pub fn num_replicas(&self, tensor_parallel: Option<NonZeroUsize>) -> Result<usize> {
        let ranks = tensor_parallel.map_or(1, NonZeroUsize::get);
        Ok(self.groups(CpuOptions::default(), 1, ranks)?.len())
    }

    /// Whether they are certain to be no CPU.
    pub fn are_gpus(&self) -> bool {
        match &self.0 {
            Choice::One(device) => matches!(device, Device::Gpu(_) | Device::Cuda(_)),
            Choice::Each(kind, _) | Choice::All(kind) => *kind != Kind::Cpu,
        }
    }

    /// The groups of so many devices that run a model together, with their names: as many replicas. A CPU is cut into as many, and `cuda`
    /// means the first ones.
    ///
    /// # Errors
    /// As [`list`](Self::list), and when the devices do not make up groups.
    pub(crate) fn groups(
        &self,
        cpu: CpuOptions,
        physical_cores: usize,
        ranks: usize,
    ) -> Result<Vec<(String, Vec<Device>)>> {
        if ranks == 1 {
            let alone = |(name, device)| (name, vec![device]);
            return Ok(self.list(cpu, physical_cores)?.into_iter().map(alone).collect());
        }
        if ranks > MAX_RANKS {
            return Err(Error::InvalidValue {
                what: "tensor parallel",
                expected: format!("at most {MAX_RANKS} ranks"),
                found: ranks.to_string(),
            });
        }
        let all = match self.0 {
            Choice::One(Device::Cpu(_)) => Self(Choice::Each(Kind::Cpu, (0..ranks).collect())),
            Choice::One(Device::Cuda(None)) => Self(Choice::Each(Kind::Cuda, (0..ranks).collect())),
            _ => self.clone(),
        };
        let devices = all.list(cpu, physical_cores)?;
        if !devices.len().is_multiple_of(ranks) {
            return Err(Error::InvalidValue {
                what: "tensor parallel",
                expected: format!("cpu, or {ranks} devices or a multiple of that, as in cpu:0,1"),
                found: self.to_string(),
            });
        }
        let group = |devices: &[(String, Device)]| {
            let (names, devices): (Vec<String>, Vec<Device>) = devices.iter().cloned().unzip();
            (names.join("+"), devices)
        };
        Ok(devices.chunks(ranks).map(group).collect())
    }

    /// The devices with their names. Those of a CPU have these options, and share its threads.
    ///
    /// # Errors
    /// When all of a kind are meant and there is none.
    pub(crate) fn list(&self, cpu: CpuOptions, physical_cores: usize) -> Result<Vec<(String, Device)>> {
        let (kind, indices) = match &self.0 {
            Choice::One(Device::Cpu(_)) => return Ok(vec![("cpu".to_owned(), Device::Cpu(cpu))]),
            Choice::One(device) => return Ok(vec![(device.to_string(), *device)]),
            Choice::Each(kind, indices) => (*kind, indices.clone()),
            Choice::All(Kind::Cpu) => (Kind::Cpu, (0..num_nodes()).collect()),
            Choice::All(kind) => (*kind, numbers(*kind, &crate::devices())),
        };
        if indices.is_empty() {
            return Err(Error::NoDevices { kind: kind.name() });
        }
        let num_threads = cpu.threads.map_or(physical_cores, NonZeroUsize::get);
        let device = |place: usize| match kind {
            Kind::Cpu => {
                let threads = NonZeroUsize::new(share(num_threads, place, indices.len()));
                Device::Cpu(CpuOptions { threads, ..cpu })
            }
            kind => kind.device(indices[place]),
        };
        let name = |place: usize| format!("{}:{}", kind.name(), indices[place]);
        Ok((0..indices.len()).map(|place| (name(place), device(place))).collect())
    }
}

impl Default for Devices {
    fn default() -> Self {
        Device::default().into()
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(Choice::One(device))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::One(device) => device.fmt(f),
            Choice::All(kind) => write!(f, "{}:all", kind.name()),
            Choice::Each(kind, indices) => {
                let names: Vec<_> = indices.iter().map(|index| format!("{}:{index}", kind.name())).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// A device's name; or several such as `cuda:0,cuda:1`, which may be written `cuda:0,1`; or `cuda:all`. The same with `gpu` and `cpu`.
impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let (Some(kind), Some("all")) = Kind::split(text) {
            return Ok(Self(Choice::All(kind)));
        }
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let [first, _, ..] = parts[..] else {
            // The number of a CPU makes no difference to it alone.
            let is_cpu =
                matches!(Kind::split(text), (Some(Kind::Cpu), Some(rest)) if rest.parse::<usize>().is_ok());
            return if is_cpu { "cpu" } else { text }.parse::<Device>().map(Self::from);
        };
        let (Some(kind), _) = Kind::split(first) else { return Err(expected(first)) };
        let mut indices = Vec::new();
        for part in parts {
            let number = match Kind::split(part) {
                (None, None) => part,
                (Some(found), Some(number)) if found == kind => number,
                (Some(found), _) if found != kind => {
                    return Err(format!(
                        "expected devices of one kind, as they compute different bits, found {first} and {part}"
                    ));
                }
                _ => return Err(expected(part)),
            };
            let index: usize = number.parse().map_err(|_| expected(part))?;
            if indices.contains(&index) {
                return Err(format!("expected each device once, found {}:{index} twice", kind.name()));
            }
            indices.push(index);
        }
        Ok(Self(Choice::Each(kind, indices)))
    }
}

/// More ranks than any model has key heads.
const MAX_RANKS: usize = 256;

fn expected(found: &str) -> String {
    format!(
        "expected several devices as in cuda:0,1 or cuda:0,cuda:1, the same with gpu or cpu, found '{found}'"
    )
}

/// The numbers of all devices of a kind: of GPUs that are not software and can be used, and of those that one interface reaches, as
/// others reach the same ones.
fn numbers(kind: Kind, devices: &[DeviceInfo]) -> Vec<usize> {
    let usable = |info: &&DeviceInfo| {
        info.gpu.as_ref().is_some_and(|gpu| gpu.kind != "software" && gpu.lacks.is_none())
    };
    let interface = |info: &DeviceInfo| info.gpu.as_ref().map(|gpu| gpu.interface);
    let number = |info: &DeviceInfo| match (kind, info.device) {
        (Kind::Gpu, Device::Gpu(GpuChoice::Index(index))) | (Kind::Cuda, Device::Cuda(Some(index))) => {
            Some(index)
        }
        _ => None,
    };
    let usable: Vec<&DeviceInfo> =
        devices.iter().filter(usable).filter(|info| number(info).is_some()).collect();
    let of_first = usable.iter().filter(|info| interface(info) == interface(usable[0]));
    of_first.filter_map(|info| number(info)).collect()
}

/// The part of `num_threads` that one of `of` gets: at least one, and the first get what is left over.
fn share(num_threads: usize, place: usize, of: usize) -> usize {
    (num_threads / of + usize::from(place < num_threads % of)).max(1)
}

/// NUMA nodes of the machine that have processors (Linux); 1 where the system does not tell.
fn num_nodes() -> usize {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else { return 1 };
    let has_cpus = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.strip_prefix("node")?;
        name.parse::<usize>().ok()?;
        let cpus = fs::read_to_string(path.join("cpulist")).ok()?;
        (!cpus.trim().is_empty()).then_some(())
    };
    entries.filter_map(has_cpus).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str, num_cores: usize) -> Vec<(String, Device)> {
        text.parse::<Devices>().unwrap().list(CpuOptions::default(), num_cores).unwrap()
    }

    #[test]
    fn devices_are_what_they_are_called() {
        for text in [
            "auto",
            "cpu",
            "gpu:3",
            "cuda",
            "cuda:all",
            "gpu:all",
            "cuda:0,cuda:1",
            "gpu:2,gpu:0",
            "cpu:0,cpu:1",
        ] {
            assert_eq!(text.parse::<Devices>().unwrap().to_string(), text);
        }
        for (text, expect) in
            [("cuda:0,1", "cuda:0,cuda:1"), ("cpu:0, 1,2", "cpu:0,cpu:1,cpu:2"), ("cpu:1", "cpu")]
        {
            assert_eq!(text.parse::<Devices>().unwrap().to_string(), expect);
        }
        for (text, says) in [
            ("cpu:0,cuda:0", "found cpu:0 and cuda:0"),
            ("cuda:0,cpu", "found cuda:0 and cpu"),
            ("cuda:0,cuda:0", "found cuda:0 twice"),
            ("cuda:0,0", "found cuda:0 twice"),
            ("cuda,cuda:1", "found 'cuda'"),
            ("cuda:0,", "found ''"),
            ("cuda:0,x", "found 'x'"),
            ("auto,cpu", "found 'auto'"),
            ("cpu:x", "expected auto, cpu"),
        ] {
            let error = text.parse::<Devices>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn devices_that_run_a_model_together_are_groups() {
        let groups = |text: &str, ranks| {
            let groups = text.parse::<Devices>().unwrap().groups(CpuOptions::default(), 5, ranks);
            groups.map(|groups| {
                groups.into_iter().map(|(name, devices)| (name, devices.len())).collect::<Vec<_>>()
            })
        };
        let check = |text, ranks, expect: &[(&str, usize)]| {
            let expect: Vec<_> = expect.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
            assert_eq!(groups(text, ranks).unwrap(), expect, "{text} {ranks}");
        };
        check("cpu", 1, &[("cpu", 1)]);
        check("cpu", 3, &[("cpu:0+cpu:1+cpu:2", 3)]);
        check("cpu:0,1", 2, &[("cpu:0+cpu:1", 2)]);
        check("cpu:0,1", 1, &[("cpu:0", 1), ("cpu:1", 1)]);
        check("cuda", 2, &[("cuda:0+cuda:1", 2)]);
        check("cuda:3,0,1,2", 2, &[("cuda:3+cuda:0", 2), ("cuda:1+cuda:2", 2)]);
        for (text, ranks) in [("auto", 2), ("cuda:0", 2), ("cpu:0,1", 4), ("cpu:0,1,2", 2), ("gpu", 2)] {
            let error = groups(text, ranks).unwrap_err().to_string();
            let found: Devices = text.parse().unwrap();
            let says = format!(
                "tensor parallel: expected cpu, or {ranks} devices or a multiple of that, as in cpu:0,1, found {found}"
            );
            assert_eq!(error, says);
        }
    }

    #[test]
    fn replicas_on_a_cpu_share_its_threads() {
        let threads = |text: &str, num_cores| -> Vec<usize> {
            let threads = |(_, device)| match device {
                Device::Cpu(cpu) => cpu.threads.map_or(0, NonZeroUsize::get),
                _ => 0,
            };
            list(text, num_cores).into_iter().map(threads).collect()
        };
        assert_eq!(threads("cpu:0,cpu:1,cpu:2", 8), [3, 3, 2]);
        assert_eq!(threads("cpu:0,cpu:1", 1), [1, 1]);
        assert_eq!(threads("cpu", 8), [0], "as many as it has cores");
        assert!(!list("cpu:all", 8).is_empty());
        assert_eq!(list("cuda:1,0", 8)[0], ("cuda:1".to_owned(), Device::Cuda(Some(1))));
    }
}
