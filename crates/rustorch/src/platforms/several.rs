//! A model on several devices, each with weights of its own.

use std::panic;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use gguf::Gguf;
use model::LlamaConfig;

use super::{LoadedModel, OpenDevice, open};
use crate::{Device, Error, LoadOptions, Result};

/// Loads a model on each of these devices, which have names, all at the same time.
///
/// # Errors
/// As [`Weights::load`](crate::Weights::load), with the name of the device; and if two devices do not compute the same bits.
pub(crate) fn load(
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &mut LoadOptions<'_>,
    devices: &[(String, Device)],
) -> Result<Vec<Arc<dyn LoadedModel>>> {
    let named = |name: &str, error| Error::OnDevice { device: name.to_owned(), source: Box::new(error) };
    let mut opened = Vec::new();
    for (name, device) in devices {
        opened.push(open(*device, gguf, config, options).map_err(|error| named(name, error))?);
    }
    check_alike(devices, &opened)?;
    let (sender, reports) = mpsc::channel();
    let loaded: Vec<Result<_>> = thread::scope(|scope| {
        let threads: Vec<_> = opened
            .into_iter()
            .enumerate()
            .map(|(idx, opened)| {
                let (sender, config) = (sender.clone(), config.clone());
                scope.spawn(move || {
                    // Nobody listens once another has failed.
                    let mut report = |done, total| {
                        let _ = sender.send((idx, done, total));
                    };
                    opened.load(gguf, config, &mut report)
                })
            })
            .collect();
        drop(sender);
        let mut done_by = vec![0; devices.len()];
        for (idx, done, total) in reports {
            done_by[idx] = done;
            if let Some(progress) = &mut options.progress {
                progress(done_by.iter().sum(), total * devices.len() as u64);
            }
        }
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|loaded| loaded.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    let named = |(loaded, (name, _)): (Result<_>, &(String, _))| loaded.map_err(|error| named(name, error));
    loaded.into_iter().zip(devices).map(named).collect()
}

/// Refuses devices of different models, whose results differ in the last bits.
fn check_alike(devices: &[(String, Device)], opened: &[Box<dyn OpenDevice>]) -> Result<()> {
    let described = || devices.iter().zip(opened).map(|((name, _), opened)| (name, opened.name()));
    let Some((first_name, first)) = described().next() else { return Ok(()) };
    // All CPUs compute the same bits.
    let mut gpus = described().filter(|_| !matches!(devices[0].1, Device::Cpu(_)));
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
                (0..names.len()).map(|idx| (device(idx).to_string(), device(idx))).collect();
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
