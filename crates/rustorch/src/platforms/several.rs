//! A model on several devices, or groups of them, each with weights of its own.

use std::sync::{Arc, Mutex, PoisonError};

use gguf::Gguf;
use model::LlamaConfig;

use super::loaded::at_the_same_time;
use super::{LoadedModel, OpenDevice, open};
use crate::{Device, Error, LoadOptions, Result};

/// Loads a model on each of these groups of devices, which have names, all at the same time.
///
/// # Errors
/// As [`Weights::load`](crate::Weights::load), with the name of the device; and if two devices do not compute the same bits.
pub(crate) fn load(
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &mut LoadOptions<'_>,
    devices: &[(String, Vec<Device>)],
) -> Result<Vec<Arc<dyn LoadedModel>>> {
    let named = |name: &str, error| Error::OnDevice { device: name.to_owned(), source: Box::new(error) };
    let mut opened = Vec::new();
    for (name, device) in devices {
        opened.push(open(device, gguf, config, options).map_err(|error| named(name, error))?);
    }
    check_alike(devices, &opened)?;
    let opened: Vec<_> = opened.into_iter().map(|opened| Mutex::new(Some(opened))).collect();
    let load = |idx: usize, report: &mut dyn FnMut(u64, u64)| {
        let opened = opened[idx].lock().unwrap_or_else(PoisonError::into_inner).take();
        opened.expect("each is loaded once").load(gguf, config.clone(), report)
    };
    let mut report = |done, total| {
        if let Some(progress) = &mut options.progress {
            progress(done, total);
        }
    };
    let loaded = at_the_same_time(devices.len(), load, &mut report);
    let named = |(loaded, (name, _)): (Result<_>, &(String, _))| loaded.map_err(|error| named(name, error));
    loaded.into_iter().zip(devices).map(named).collect()
}

/// Refuses devices of different models, whose results differ in the last bits.
fn check_alike(devices: &[(String, Vec<Device>)], opened: &[Box<dyn OpenDevice>]) -> Result<()> {
    let described = || devices.iter().zip(opened).map(|((name, _), opened)| (name, opened.name()));
    let Some((first_name, first)) = described().next() else { return Ok(()) };
    // All CPUs compute the same bits.
    let mut gpus = described().filter(|_| !matches!(devices[0].1[..], [Device::Cpu(_), ..]));
    match gpus.find(|(_, found)| *found != first) {
        None => Ok(()),
        Some((name, found)) => Err(Error::UnlikeDevices {
            first: format!("{first_name}, {first}"),
            other: format!("{name}, {found}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl OpenDevice for Named {
        fn device(&self) -> Device {
            Device::Auto
        }

        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn load(
            self: Box<Self>,
            _: &Gguf,
            _: LlamaConfig,
            _: &mut dyn FnMut(u64, u64),
        ) -> Result<Arc<dyn LoadedModel>> {
            unreachable!("it only has a name")
        }
    }

    #[test]
    fn devices_that_compute_different_bits_are_refused() {
        let check = |device: fn(usize) -> Device, names: &[&'static str]| {
            let devices: Vec<_> =
                (0..names.len()).map(|idx| (device(idx).to_string(), vec![device(idx)])).collect();
            let open = |&name: &&'static str| Box::new(Named(name)) as Box<dyn OpenDevice>;
            check_alike(&devices, &names.iter().map(open).collect::<Vec<_>>())
        };
        let cuda = |idx| Device::Cuda(Some(idx));
        check(cuda, &["a GPU", "a GPU"]).unwrap();
        let error = check(cuda, &["a GPU", "a GPU", "another"]).unwrap_err().to_string();
        assert!(error.contains("found cuda:0, a GPU and cuda:2, another\nhint: "), "{error}");
        check(|_| Device::Cpu(Default::default()), &["one with two threads", "one with three"]).unwrap();
    }
}
