//! The NVIDIA cards of the machine.

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use devices::{DeviceMemory, GpuDescription};
use model::Result;

use crate::driver::{self, Context, RawCard};
use crate::modules::{LEAST_CAPABILITY, kernels_wait};

/// The least driver: it takes machine code of CUDA 12, as the embedded kernels are.
const LEAST_DRIVER: u32 = 12_000;

/// Why there is no card to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The driver's library is not there.
    #[error(
        "cuda: expected NVIDIA's driver (libcuda.so.1 or nvcuda.dll), found none\n\
         hint: install the driver, or take another device: `rustorch devices` lists them"
    )]
    NoDriver,
    /// The driver is there and does not start.
    #[error("cuda: {0}")]
    Fails(String),
    /// The driver is older than the kernels.
    #[error(
        "cuda: expected a driver for CUDA {}.{} or newer (525 or newer), found one for {}.{}\n\
         hint: update the driver, or use --device vulkan",
        LEAST_DRIVER / 1000, LEAST_DRIVER % 1000 / 10, .0 / 1000, .0 % 1000 / 10
    )]
    OldDriver(u32),
    /// There is no card of this number.
    #[error("cuda:{index}: expected a number below {count}, the number of NVIDIA cards")]
    NoCard {
        /// The number asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The card lacks what kernels use.
    #[error(
        "cuda: {name}: expected compute capability {}.{} or higher, found {}.{}\nhint: use --device vulkan",
        LEAST_CAPABILITY.0, LEAST_CAPABILITY.1, .capability.0, .capability.1
    )]
    OldCard {
        /// The card.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
}

/// All cards, in the driver's order.
#[derive(Debug)]
pub struct Cards {
    cards: Vec<Card>,
}

/// A card.
#[derive(Debug, Clone)]
pub struct Card {
    raw: RawCard,
    index: usize,
    name: String,
    capability: (u32, u32),
    driver: u32,
}

impl Cards {
    /// Asks the driver for its cards.
    ///
    /// # Errors
    /// When there is no driver, or it is too old.
    pub fn find() -> std::result::Result<Self, CardError> {
        if !driver::is_present() {
            return Err(CardError::NoDriver);
        }
        let fails = |error: model::Error| CardError::Fails(error.to_string());
        let version = driver::initialize().map_err(fails)?;
        if version < LEAST_DRIVER {
            return Err(CardError::OldDriver(version));
        }
        let card = |index| Card::new(index, version).map_err(fails);
        let cards = (0..driver::count().map_err(fails)?).map(card).collect::<std::result::Result<_, _>>()?;
        Ok(Self { cards })
    }

    /// All cards.
    pub fn iter(&self) -> impl Iterator<Item = &Card> {
        self.cards.iter()
    }

    /// The card of this number, if the kernels run on it.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn choose(&self, index: usize) -> std::result::Result<&Card, CardError> {
        let card = self.cards.get(index).ok_or(CardError::NoCard { index, count: self.cards.len() })?;
        if card.capability < LEAST_CAPABILITY {
            return Err(CardError::OldCard { name: card.name.clone(), capability: card.capability });
        }
        Ok(card)
    }
}

impl Card {
    fn new(index: usize, driver: u32) -> Result<Self> {
        let raw = RawCard::new(index)?;
        let capability = (
            raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        Ok(Self { raw, index, name: raw.name()?, capability, driver })
    }

    /// Its number: `cuda:N`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its compute capability.
    pub(crate) fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// The driver, in words.
    pub(crate) fn driver(&self) -> String {
        format!("CUDA {}.{}", self.driver / 1000, self.driver % 1000 / 10)
    }

    /// Opens it; `overlaps`: kernels may start while the one before them runs, if they wait for it.
    pub(crate) fn open(&self, overlaps: bool) -> Result<Arc<Context>> {
        Context::new(self.raw, overlaps && kernels_wait(self.capability))
    }

    /// Multiprocessors.
    pub(crate) fn multiprocessors(&self) -> Result<u32> {
        self.raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Bytes of shared memory that a block can have.
    pub(crate) fn block_bytes(&self) -> Result<u32> {
        self.raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    /// What is known of it.
    pub fn describe(&self) -> GpuDescription {
        let total = self.raw.total_memory().unwrap_or(0);
        let free = self.open(false).and_then(|context| context.memory()).map_or(total, |(free, _)| free);
        let is_old = self.capability < LEAST_CAPABILITY;
        GpuDescription {
            index: self.index,
            name: self.name.clone(),
            interface: "CUDA",
            kind: "discrete",
            driver: self.driver(),
            memory: Some(DeviceMemory { total, available: free }),
            f16: true,
            subgroup_sizes: Some((32, 32)),
            matrices: if is_old { Vec::new() } else { vec!["16x8x16 f16 -> f32".to_owned()] },
            timestamps: false,
            max_binding_bytes: total,
            max_workgroup_bytes: self.block_bytes().unwrap_or(0),
            max_workgroup_size: 1024,
            lacks: is_old.then_some("compute capability 8.0"),
        }
    }
}
