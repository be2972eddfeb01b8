//! How much memory a device has, where its driver tells.

use devices::DeviceMemory;

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
