//! NVIDIA GPUs that CUDA reaches.

use std::sync::Arc;

use conformance::{Finding, Report};
use cuda::{Card, CardError, Cards, CudaBackend};
use devices::{DeviceMemory, GpuOptions};
use gguf::Gguf;
use model::LlamaConfig;

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
        let weights = cuda::weight_bytes(gguf, config);
        fit::check(&backend, &backend.limits(), weights, gguf, config, options)?;
        Ok(Some(Box::new(Opened::one(Device::Cuda(Some(card.index())), backend))))
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
        Ok(Some(cuda::check::run(card, model, found)?))
    }
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
        Limits { device: self.card().name().to_owned(), max_buffer_bytes: u64::MAX, memory }
    }
}
