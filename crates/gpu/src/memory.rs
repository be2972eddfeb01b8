//! How much memory a device has, where its driver tells, and how much a model takes of it.

use gguf::Gguf;
use model::{AttentionMode, BatchLimits, KvShape, LlamaConfig};

use crate::attention::SCRATCH_BYTES;
use crate::device::Capabilities;
use crate::pack;
use crate::product::{MAX_HALF_COLS, padded_rows};

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it.
    pub total: u64,
    /// What this process may have now: the rest belongs to others.
    pub available: u64,
}

/// Asks the driver. Vulkan alone has an answer that can be had without unsafe calls of an operating system's own.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn of(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    use ash::{ext, vk};

    // SAFETY: the adapter's handles are used here alone, only to ask, and nothing of them is destroyed.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    let device = vulkan.raw_physical_device();
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let has_budget = vulkan.shared_instance().instance_api_version() >= vk::API_VERSION_1_1
        && vulkan.physical_device_capabilities().supports_extension(ext::memory_budget::NAME);
    let properties = if has_budget {
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the device is the instance's, whose version has the call; the structures are chained as the extension,
        // which the device has, demands.
        unsafe { instance.get_physical_device_memory_properties2(device, &mut properties) };
        properties.memory_properties
    } else {
        // SAFETY: the device is the instance's.
        unsafe { instance.get_physical_device_memory_properties(device) }
    };
    let heaps = properties.memory_heaps_as_slice().iter().enumerate();
    let local = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    // Buffers lie in the largest: others are windows for the host.
    let (idx, heap) = local.max_by_key(|(_, heap)| heap.size)?;
    let available = match has_budget {
        true => budget.heap_budget[idx].saturating_sub(budget.heap_usage[idx]),
        false => heap.size,
    };
    Some(DeviceMemory { total: heap.size, available: available.min(heap.size) })
}

/// Asks the driver.
#[cfg(target_vendor = "apple")]
pub(crate) fn of(_: &wgpu::Adapter) -> Option<DeviceMemory> {
    None
}

/// Bytes that the weights of a file take on a device.
pub fn weight_bytes(gguf: &Gguf, config: &LlamaConfig) -> u64 {
    let of_tensors = gguf.tensors().map(|tensor| match tensor.dims().len() {
        2 => pack::packed_bytes(tensor.format(), tensor.rows(), tensor.cols()),
        _ => values(1, tensor.cols()),
    });
    of_tensors.sum::<u64>() + values(config.max_seq_len, config.rope.dim)
}

/// Bytes that a runner takes for steps up to `limits` over a cache of this shape.
pub fn run_bytes(
    capabilities: Capabilities,
    config: &LlamaConfig,
    limits: BatchLimits,
    cache: KvShape,
    attention: AttentionMode,
) -> u64 {
    let (hidden, inner, q) = (config.hidden_size, config.intermediate_size, config.q_dim());
    let tokens = limits.max_tokens;
    let f32s = |cols: usize| values(tokens, cols);
    let scores = match attention {
        AttentionMode::Fused => 0,
        AttentionMode::Reference => f32s(config.num_heads * config.max_seq_len),
    };
    let activations =
        3 * f32s(hidden) + f32s(q + 2 * config.kv_dim()) + f32s(q) + f32s(2 * inner) + f32s(inner);
    // What is multiplied is there in f16 as well.
    let halves = match capabilities.matrix_tile {
        Some(_) => {
            [hidden, hidden, hidden, q, inner].map(|cols| f32s(cols.min(MAX_HALF_COLS)) / 2).iter().sum()
        }
        None => 0,
    };
    let logits = values(limits.max_logit_rows, config.vocab_size);
    cache.bytes() + activations + halves + logits + scores + SCRATCH_BYTES
}

/// Bytes of a buffer of activations.
fn values(rows: usize, cols: usize) -> u64 {
    padded_rows(rows) as u64 * cols as u64 * 4
}
