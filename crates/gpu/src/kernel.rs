//! Kernels: pipelines compiled once for each file and set of defines.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::device::{Counters, Gpu};
use crate::template::{self, Defines};

/// Most immediates of a kernel, in words of four bytes.
pub(crate) const MAX_IMMEDIATES: usize = 16;

/// A compiled kernel.
pub(crate) struct Kernel {
    /// Counts kernels; one number, one kernel.
    pub id: usize,
    pub name: &'static str,
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroupLayout,
    /// Bytes of its immediates.
    pub immediates: u32,
}

/// A file and what it was specialised for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KernelSpec {
    pub file: &'static str,
    pub defines: Defines,
}

impl KernelSpec {
    pub fn new(file: &'static str) -> Self {
        Self { file, defines: Defines::new() }
    }

    /// Adds a value that the file's text refers to.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.defines.push((name, value.to_string()));
        self
    }

    /// Adds a name without a value, if `on`, for the file's conditions.
    pub fn with_flag(self, name: &'static str, on: bool) -> Self {
        if on { self.with(name, "") } else { self }
    }

    /// The kernel's WGSL.
    pub fn source(&self) -> String {
        template::compose(self.file, &self.defines)
    }
}

/// The kernels of a device, each compiled when it is first asked for.
#[derive(Default)]
pub(crate) struct Kernels {
    compiled: Mutex<HashMap<KernelSpec, Arc<OnceLock<Arc<Kernel>>>>>,
    next_id: AtomicUsize,
}

impl Kernels {
    /// The kernel of `spec`. Several threads may ask: one compiles, others of the same kernel wait for it.
    pub fn get(&self, gpu: &Gpu, spec: &KernelSpec) -> Arc<Kernel> {
        let slot = {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            match compiled.get(spec) {
                Some(slot) => Arc::clone(slot),
                None => Arc::clone(compiled.entry(spec.clone()).or_default()),
            }
        };
        let id = || self.next_id.fetch_add(1, Ordering::Relaxed);
        Arc::clone(slot.get_or_init(|| Arc::new(compile(gpu, id(), spec))))
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

fn compile(gpu: &Gpu, id: usize, spec: &KernelSpec) -> Kernel {
    let source = spec.source();
    let name = spec.file;
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(source.as_str().into()),
    };
    // SAFETY: the kernels are this crate's own. Every index into a binding follows from a plan, whose values `Batch`
    // checks, and from shapes that the backend's operations assert; loops end, and no divisor is zero.
    let module = unsafe {
        gpu.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    };
    let entries: Vec<wgpu::BindGroupLayoutEntry> = storage_bindings(&source);
    let bindings = gpu
        .device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
    let immediates = immediate_words(&source) * 4;
    let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&bindings)],
        immediate_size: immediates,
    });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Kernels write what they read.
            zero_initialize_workgroup_memory: false,
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    });
    Counters::count(&gpu.counters().pipelines);
    Kernel { id, name, pipeline, bindings, immediates }
}

/// The storage buffers that a kernel's text declares, in the order of their numbers.
fn storage_bindings(source: &str) -> Vec<wgpu::BindGroupLayoutEntry> {
    let declarations =
        source.lines().filter_map(|line| line.trim_start().strip_prefix("@group(0) @binding("));
    declarations
        .map(|declaration| {
            let (binding, rest) = declaration.split_once(')').expect("a binding has a number");
            wgpu::BindGroupLayoutEntry {
                binding: binding.parse().expect("a binding's number is a number"),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: !rest.contains("read_write") },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            }
        })
        .collect()
}

/// Words of the struct `Immediates` that a kernel's text declares; none of one without.
fn immediate_words(source: &str) -> u32 {
    let Some((_, declaration)) = source.split_once("struct Immediates {") else { return 0 };
    let (fields, _) = declaration.split_once('}').expect("a struct ends");
    let words =
        fields.lines().filter(|line| line.split("//").next().is_some_and(|l| l.contains(':'))).count();
    assert!(words <= MAX_IMMEDIATES, "a kernel has more than {MAX_IMMEDIATES} immediates");
    words as u32
}
