//! NVIDIA GPUs that CUDA reaches.

use std::sync::Arc;

use conformance::{Finding, Report};
use cuda::{Card, CardError, Cards, CudaBackend};
use devices::{DeviceMemory, GpuOptions};
use gguf::Gguf;
use model::{Backend, LlamaConfig, ModelShard};

use super::loaded::{Described, Opened};
use super::{DeviceInfo, OpenDevice, Platform, fit};
use crate::memory_fit::Limits;
use crate::{Device, Error, LoadOptions, Result};

pub(super) struct CudaPlatform;

impl Platform for CudaPlatform {
    fn list(&self) -> Vec<DeviceInfo> {
        let info = |card: &Card| DeviceInfo {
            device: Device::Cuda(Some(card.index())),
            name: card.name().to_owned(),
            gpu: Some(card.describe()),
        };
        Cards::find().map_or_else(|_| Vec::new(), |cards| cards.iter().map(info).collect())
    }

    fn open(
        &self,
        device: Device,
        gguf: &Gguf,
        config: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        let Device::Cuda(index) = device else { return Ok(None) };
        let cards = Cards::find().map_err(not_usable)?;
        let card = cards.choose(index.unwrap_or(0)).map_err(not_usable)?;
        let backend = Arc::new(CudaBackend::new(card)?);
        check_fit(&backend, gguf, config, options)?;
        Ok(Some(Box::new(Opened::one(Device::Cuda(Some(card.index())), backend))))
    }

    fn open_group(
        &self,
        devices: &[Device],
        gguf: &Gguf,
        config: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        let index = |device: &Device| match device {
            Device::Cuda(index) => Some(index.unwrap_or(0)),
            _ => None,
        };
        let Some(indices) = devices.iter().map(index).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let cards = Cards::find().map_err(not_usable)?;
        let choose = |index| cards.choose(index).cloned().map_err(not_usable);
        let chosen = indices.into_iter().map(choose).collect::<Result<Vec<Card>>>()?;
        let backends: Vec<_> = CudaBackend::group(&chosen)?.into_iter().map(Arc::new).collect();
        backends.iter().try_for_each(|backend| check_fit(backend, gguf, config, options))?;
        Ok(Some(Box::new(Opened::group(devices[0], backends)?)))
    }

    fn check(
        &self,
        device: Device,
        _: GpuOptions,
        model: &Gguf,
        found: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        let Device::Cuda(index) = device else { return Ok(None) };
        let cards = Cards::find().map_err(not_usable)?;
        let card = cards.choose(index.unwrap_or(0)).map_err(not_usable)?;
        let others: Vec<Card> = cards.iter().filter(|other| other.index() != card.index()).cloned().collect();
        Ok(Some(cuda::check::run(card, &others, model, found)?))
    }
}

fn check_fit(
    backend: &Arc<CudaBackend>,
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<()> {
    let shard = ModelShard::new(&config.spec, backend.rank())?;
    let weights = cuda::weight_bytes(gguf, config, &shard);
    fit::check(backend, &backend.limits(), weights, gguf, config, options)
}

fn not_usable(error: CardError) -> Error {
    Error::Model(model::Error::Device(error.to_string()))
}

impl Described for CudaBackend {
    fn describe(&self) -> String {
        format!("{} (CUDA)", self.card().name())
    }

    fn limits(&self) -> Limits {
        let memory = self.memory().ok().map(|(available, total)| DeviceMemory { total, available });
        let device = format!("{} (cuda:{})", self.card().name(), self.card().index());
        Limits { device, max_buffer_bytes: u64::MAX, memory }
    }
}
