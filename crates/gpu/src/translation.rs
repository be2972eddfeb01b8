//! Every kernel in every specialisation becomes SPIR-V, MSL and HLSL: what Vulkan, Metal and DX12 are given.

use std::collections::HashSet;
use std::path::Path;

use gguf::Format;
use model::{Activation, Gating, KvDtype, QkvShape, Routing};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, proc::BoundsCheckPolicies};

use crate::attention::Specs;
use crate::backend::{gated_spec, norm_spec};
use crate::experts;
use crate::kernel::KernelSpec;
use crate::peak;
use crate::planes::kernel_part;
use crate::product::{NumericPath, Shape, embed_spec, spec_for};
use crate::tiling::Grid;

/// A kernel, and what of the platforms it is for.
struct Case {
    spec: KernelSpec,
    /// Matrix units are out of reach on DX12.
    on_dx12: bool,
}

/// A format for each file that reads formats.
fn formats() -> Vec<Format> {
    let mut formats = Format::ALL.to_vec();
    let mut seen = HashSet::new();
    formats.retain(|&format| seen.insert(kernel_part(format)));
    formats
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats() {
        cases.push(Case { spec: embed_spec(format), on_dx12: true });
        for path in [NumericPath::Float, NumericPath::MatrixUnits] {
            // Rows of which a workgroup takes one tile, two or four at a time.
            let shapes: HashSet<Shape> =
                [4096, 6144, 28_672].into_iter().flat_map(|rows| Shape::all_of(path, format, rows)).collect();
            for shape in shapes {
                for (vectors, bias) in [(false, false), (false, true), (true, false)] {
                    let on_dx12 = path == NumericPath::Float;
                    cases.push(Case { spec: spec_for(vectors, format, shape, bias), on_dx12 });
                }
            }
        }
    }
    cases
}

fn expert_kernels() -> Vec<Case> {
    let mut specs = vec![experts::sort_spec()];
    for (gating, norm) in [Gating::Softmax, Gating::SoftmaxOfSelected]
        .into_iter()
        .flat_map(|gating| [false, true].map(|norm| (gating, norm)))
    {
        specs.push(experts::route_spec(Routing { top_k: 2, gating, norm, scale: 1.0 }));
    }
    specs.extend([(false, false), (true, false), (true, true)].map(|(s, g)| experts::combine_spec(s, g)));
    for format in formats() {
        for group in experts::GROUPS {
            specs.extend([false, true].map(|bias| experts::product_spec(format, group, bias)));
        }
    }
    specs.into_iter().map(|spec| Case { spec, on_dx12: true }).collect()
}

fn row_kernels() -> Vec<Case> {
    let mut specs: Vec<KernelSpec> = [
        "add",
        "argmax",
        "copy",
        "gather_rows",
        "norm_heads",
        "scale",
        "scale_queries",
        "softcap",
        "to_half",
    ]
    .map(KernelSpec::new)
    .to_vec();
    for act in [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwiglu] {
        specs.extend([false, true].map(|half| gated_spec(act, half)));
    }
    for adds in [false, true] {
        for subgroup in [None, Some(8), Some(32)] {
            for half in [false, true] {
                specs.extend([4096, 4098].map(|cols| norm_spec(adds, cols, subgroup, half)));
            }
        }
    }
    for (interleaved, wide) in [(false, false), (false, true), (true, false), (true, true)] {
        let spec = KernelSpec::new("rope_store_kv");
        specs.push(spec.with_flag("INTERLEAVED", interleaved).with_flag("KV_F32", wide));
    }
    specs.into_iter().map(|spec| Case { spec, on_dx12: true }).collect()
}

fn attention() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes = [(4, 4, 24), (32, 8, 128), (6, 2, 80), (32, 1, 64), (2, 1, 256)];
    for (num_heads, num_kv_heads, head_dim) in shapes {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        let extras = [(None, None, false), (Some(30.0), Some(4096), false), (None, Some(128), true)];
        for (dtype, (softcap, window, sinks)) in
            [KvDtype::F16, KvDtype::F32].into_iter().flat_map(|dtype| extras.map(|extra| (dtype, extra)))
        {
            let plain = Specs {
                shape,
                scale: 0.125,
                softcap,
                window,
                sinks,
                dtype,
                has_half: false,
                on_matrix_units: false,
                has_vectors: false,
            };
            for has_half in [false, true] {
                let specs = Specs { has_half, ..plain };
                let fused = [Grid::Whole, Grid::Split].map(|grid| specs.fused(grid));
                let all =
                    fused.into_iter().chain([specs.merge(), specs.scores(), specs.softmax(), specs.values()]);
                cases.extend(all.map(|spec| Case { spec, on_dx12: true }));
            }
            if Specs::suit_matrix_units(shape, dtype) {
                for has_vectors in [false, true] {
                    let specs = Specs { has_half: true, on_matrix_units: true, has_vectors, ..plain };
                    let fused = [Grid::Whole, Grid::Split].map(|grid| specs.fused(grid));
                    cases.extend(fused.map(|spec| Case { spec, on_dx12: false }));
                }
            }
        }
    }
    cases
}

fn validated(spec: &KernelSpec) -> (Module, ModuleInfo) {
    let source = spec.source();
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{spec:?}: {:?} {}", error.as_inner(), error.emit_to_string(&source)));
    (module, info)
}

fn to_spirv(spec: &KernelSpec, module: &Module, info: &ModuleInfo) {
    let options = spv::Options {
        lang_version: (1, 4),
        bounds_check_policies: BoundsCheckPolicies::default(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..spv::Options::default()
    };
    let words = spv::write_vec(module, info, &options, None);
    words.unwrap_or_else(|error| panic!("{spec:?} as SPIR-V: {error}"));
}

fn to_msl(spec: &KernelSpec, module: &Module, info: &ModuleInfo) -> String {
    let options =
        msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..msl::Options::default() };
    let pipeline = msl::PipelineOptions::default();
    let text = msl::write_string(module, info, &options, &pipeline);
    text.unwrap_or_else(|error| panic!("{spec:?} as MSL: {error}")).0
}

fn to_hlsl(spec: &KernelSpec, module: &Module, info: &ModuleInfo) {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        immediates_target: Some(hlsl::BindTarget::default()),
        fake_missing_bindings: true,
        ..hlsl::Options::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    written.unwrap_or_else(|error| panic!("{spec:?} as HLSL: {error}"));
}

fn check(cases: Vec<Case>) {
    for Case { spec, on_dx12 } in cases {
        let (module, info) = validated(&spec);
        to_spirv(&spec, &module, &info);
        to_msl(&spec, &module, &info);
        if on_dx12 {
            to_hlsl(&spec, &module, &info);
        }
    }
}

#[test]
fn row_kernels_translate() {
    check(row_kernels());
    check(expert_kernels());
}

#[test]
fn peaks_translate() {
    let [plain, matrix] = [false, true].map(peak::spec);
    check(vec![Case { spec: plain, on_dx12: true }, Case { spec: matrix, on_dx12: false }]);
}

#[test]
fn products_translate() {
    check(products());
}

#[test]
fn attention_translates() {
    check(attention());
}

/// What Metal is given of the three kernels that take most of its time, kept to be read: a change of theirs is seen in
/// review. `UPDATE_SNAPSHOTS=1 cargo test -p rustorch-gpu snapshots` writes them anew.
#[test]
fn msl_snapshots_are_up_to_date() {
    let shape = QkvShape { num_heads: 32, num_kv_heads: 8, head_dim: 128 };
    let plain = Specs {
        shape,
        scale: 1.0 / (shape.head_dim as f32).sqrt(),
        softcap: None,
        window: None,
        sinks: false,
        dtype: KvDtype::F16,
        has_half: false,
        on_matrix_units: false,
        has_vectors: false,
    };
    let hottest = [
        ("matmul_float_q4_k", spec_for(false, Format::Q4_K, Shape::Float { tokens: 4 }, false)),
        ("attention_fused", plain.fused(Grid::Whole)),
        ("rms_norm", norm_spec(true, 4096, Some(32), false)),
    ];
    for (name, spec) in hottest {
        let (module, info) = validated(&spec);
        let text = to_msl(&spec, &module, &info);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(format!("{name}.metal"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &text).expect("the snapshot is written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "{}: the kernel's MSL has changed; read it, then update the snapshot",
            path.display()
        );
    }
}
