//! How much memory a device has, where its driver tells, and how much a model takes of it.

use devices::DeviceMemory;
use gguf::Gguf;
use model::{BufferRole, BufferShape, Layout, LlamaConfig};

use crate::device::Capabilities;
use crate::pack;
use crate::plan::plan_bytes;
use crate::product::padded_rows;

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
    let ropes = config.spec.ropes.iter().map(|rope| values(config.max_seq_len, rope.dim));
    of_tensors.chain(ropes).sum()
}

/// Bytes of the buffers, the KV cache and the plan of a runner.
pub(crate) fn footprint(capabilities: Capabilities, layout: &Layout) -> u64 {
    let has_half = capabilities.matrix_tile == Some(16);
    let buffer = |shape: BufferShape| {
        let is_input = shape.role == BufferRole::MatmulInput;
        let half = if is_input && has_half { half_bytes(shape.rows, shape.cols) } else { 0 };
        values(shape.rows, shape.cols) + half
    };
    layout.buffers().map(buffer).sum::<u64>() + layout.kv.bytes() + plan_bytes(layout.limits)
}

/// Bytes of the f16 copy of a buffer of activations.
pub(crate) fn half_bytes(rows: usize, cols: usize) -> u64 {
    padded_rows(rows) as u64 * half_stride(cols) as u64 * 4
}

/// Words of two f16 in a row of such a copy.
pub(crate) fn half_stride(cols: usize) -> usize {
    cols.next_multiple_of(64) / 2
}

/// Bytes of a buffer of activations.
pub(crate) fn values(rows: usize, cols: usize) -> u64 {
    padded_rows(rows) as u64 * cols as u64 * 4
}
