//! The compiled kernels that are embedded, and which of them a card takes.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::Read;
use std::sync::Arc;

use flate2::read::ZlibDecoder;
use gguf::Format;
use model::{Error, Result};

use crate::attention::{ROW_STATIC_BYTES, most_shared_bytes, run_shared_bytes};
use crate::driver::{Context, Kernel, Module};

/// The file of each architecture that `build.py` makes.
const SM_80: &[u8] = include_bytes!("../kernels/compiled/sm_80.bin");
const SM_89: &[u8] = include_bytes!("../kernels/compiled/sm_89.bin");
const SM_90A: &[u8] = include_bytes!("../kernels/compiled/sm_90a.bin");
const SM_120: &[u8] = include_bytes!("../kernels/compiled/sm_120.bin");
const COMPUTE_80: &[u8] = include_bytes!("../kernels/compiled/compute_80.bin");

/// The least compute capability that the kernels need.
pub(crate) const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// The file for a card of this compute capability: machine code runs on cards of the same major number that are not older, and
/// what has no file takes what the driver compiles.
fn file_for((major, minor): (u32, u32)) -> &'static [u8] {
    match (major, minor) {
        (8, 9) => SM_89,
        (8, _) => SM_80,
        (9, 0) => SM_90A,
        (12, _) => SM_120,
        _ => COMPUTE_80,
    }
}

/// The module of a file that has this name.
fn image(file: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut rest = file.strip_prefix(b"RTCUDA1\n")?;
    let word = |rest: &mut &[u8]| {
        let (word, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(u32::from_le_bytes(*word) as usize)
    };
    let modules = word(&mut rest)?;
    let (mut start, mut found) = (0, None);
    for _ in 0..modules {
        let len = word(&mut rest)?;
        let (its_name, after) = rest.split_at_checked(len)?;
        rest = after;
        let (bytes, packed) = (word(&mut rest)?, word(&mut rest)?);
        if its_name == name.as_bytes() {
            found = Some((start, bytes, packed));
        }
        start += packed;
    }
    let (start, bytes, packed) = found?;
    let mut image = Vec::with_capacity(bytes);
    ZlibDecoder::new(rest.get(start..start + packed)?).read_to_end(&mut image).ok()?;
    (image.len() == bytes).then_some(image)
}

/// The module of a card that has this name.
pub(crate) fn load(context: &Arc<Context>, capability: (u32, u32), name: &str) -> Result<Arc<Module>> {
    let image = image(file_for(capability), name)
        .ok_or_else(|| Error::Device(format!("CUDA: no kernels called {name} in this build")))?;
    Module::new(context, &image).map(Arc::new)
}

/// The module with the products of a format.
pub(crate) fn name_of(format: Format) -> &'static str {
    match format {
        Format::F32 => "f32",
        Format::F16 => "f16",
        Format::BF16 => "bf16",
        Format::Q4_0 => "q4_0",
        Format::Q4_1 => "q4_1",
        Format::Q5_0 => "q5_0",
        Format::Q5_1 => "q5_1",
        Format::Q8_0 => "q8_0",
        Format::Q2_K => "q2_k",
        Format::Q3_K => "q3_k",
        Format::Q4_K => "q4_k",
        Format::Q5_K => "q5_k",
        Format::Q6_K => "q6_k",
        Format::IQ4_NL => "iq4_nl",
        Format::IQ4_XS => "iq4_xs",
        Format::MXFP4 => "mxfp4",
        Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S => "iq2",
        Format::IQ3_XXS => "iq3_xxs",
        Format::IQ1_S | Format::IQ1_M | Format::IQ3_S => "odd_levels",
        Format::TQ1_0 | Format::TQ2_0 => "ternary",
    }
}

/// The modules beside those of formats.
const MODULES: [&str; 3] = ["rows", "attention", "group"];

/// Kernels of operations on rows, of attention and of gathers.
macro_rules! kernels {
    ($($(#[$meta:meta])* $module:literal $name:ident $threads:literal;)*) => {
        pub(crate) struct RowKernels {
            $($(#[$meta])* pub $name: Kernel,)*
        }

        impl RowKernels {
            pub fn load(context: &Arc<Context>, capability: (u32, u32)) -> Result<Self> {
                let mut modules = HashMap::new();
                for name in MODULES {
                    modules.insert(name, load(context, capability, name)?);
                }
                Ok(Self { $($name: modules[$module].kernel(c_name(concat!(stringify!($name), "\0")), $threads, 0)?,)* })
            }
        }
    };
}

fn c_name(name: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(name.as_bytes()).expect("a name and a zero byte")
}

kernels! {
    "rows" rms_norm 256;
    "rows" copy_to_half 256;
    "rows" add 256;
    "rows" scale 256;
    "rows" softcap 256;
    "rows" gated 256;
    "rows" gated_many 256;
    "rows" norm_heads 32;
    "rows" scale_queries 256;
    "rows" rope_store_kv 32;
    "rows" rope_store_kv_many 256;
    "rows" gather_rows 256;
    "rows" argmax 1024;
    "rows" draw 1024;
    "rows" route 256;
    "rows" sort_pairs 256;
    "rows" combine_experts 256;
    "attention" attention_f16 128;
    "attention" attention_f32 128;
    "attention" attention_merge 128;
    "attention" attention_scores 64;
    "attention" attention_softmax 32;
    "attention" attention_values 128;
    "group" gather_few 256;
    "group" gather_many 256;
}

/// Attention on tensor cores, over heads of up to so many columns.
pub(crate) struct TensorAttention {
    pub width: usize,
    /// Of runs of tokens.
    pub run: Kernel,
    /// Of single rows.
    pub row: Kernel,
}

impl TensorAttention {
    /// Those that fit a card whose blocks have so much shared memory, the narrowest first.
    pub fn load(context: &Arc<Context>, capability: (u32, u32), shared_limit: usize) -> Result<Vec<Self>> {
        let module = load(context, capability, "attention")?;
        let names = [
            (64, c"attention_run_64", c"attention_row_64"),
            (128, c"attention_run_128", c"attention_row_128"),
            (256, c"attention_run_256", c"attention_row_256"),
        ];
        let fits = |&(width, ..): &(usize, _, _)| most_shared_bytes(width) <= shared_limit;
        let load = |(width, run, row)| {
            let run = module.kernel(run, 128, run_shared_bytes(width) as u32)?;
            Ok(Self { width, run, row: module.kernel(row, 128, (shared_limit - ROW_STATIC_BYTES) as u32)? })
        };
        names.into_iter().filter(fits).map(load).collect()
    }
}

/// The kernels of a block format.
pub(crate) struct FormatKernels {
    pub embed: Kernel,
    pub products: Products,
}

/// Products with weights of a format.
pub(crate) enum Products {
    /// Sums of f32 multiply-adds.
    Floats(Kernel),
    /// On tensor cores: up to so many tokens in a block, and for many tokens; and the kernels that take the place of both beyond a
    /// few tokens, on cards that run them.
    Tensor { few: Vec<(usize, Kernel)>, many: Kernel, wide: Vec<(usize, Kernel)> },
}

/// Dynamic memory of a block of the kernel for many tokens: two stages of 128 tokens of 160 halves.
const MANY_BYTES: u32 = 2 * 128 * 160 * 2;

/// Whether the kernels of a card wait for the one before them themselves (`await_previous`): those compiled for 9.0 and later do.
pub(crate) fn kernels_wait(capability: (u32, u32)) -> bool {
    [SM_90A, SM_120].iter().any(|file| std::ptr::eq(*file, file_for(capability)))
}

/// Whether the file of a card has the kernels of `wide.cuh`.
pub(crate) fn has_wide_kernels(capability: (u32, u32)) -> bool {
    capability == (9, 0)
}

/// Dynamic memory of a block of a kernel of `wide.cuh`: stages of 128 halves a token, from a multiple of 1024 on, and 128 sums a
/// token where they are not in registers.
const fn wide_bytes(tokens: u32, stages: u32, are_sums_shared: bool) -> u32 {
    1024 + tokens * (stages * 128 * 2 + if are_sums_shared { 128 * 4 } else { 0 })
}

/// Of a kernel of `wide_quantized.cuh` and `wide_floats.cuh` (`WIDE_BYTES`): a multiprocessor's, but for what the kernel declares.
const MOST_WIDE_BYTES: u32 = 226 * 1024;

/// The kernels of `wide.cuh`, then that of `wide_quantized.cuh` or `wide_floats.cuh`: tokens, name, threads and dynamic memory of a
/// block.
const WIDE_KERNELS: [(usize, &CStr, u32, u32); 3] = [
    (32, c"product_wide_32", 256, wide_bytes(32, 8, false)),
    (64, c"product_wide_64", 256, wide_bytes(64, 4, true)),
    (128, c"product_wide_128", 512, MOST_WIDE_BYTES),
];

impl FormatKernels {
    pub fn load(context: &Arc<Context>, capability: (u32, u32), format: Format) -> Result<Self> {
        let module = load(context, capability, name_of(format))?;
        let products = if format == Format::F32 {
            Products::Floats(module.kernel(c"float_product", 256, 0)?)
        } else {
            let few = vec![
                (8, module.kernel(c"product_8", 256, 0)?),
                (16, module.kernel(c"product_16", 256, 0)?),
                (32, module.kernel(c"product_32", 256, 0)?),
                (64, module.kernel(c"product_64", 256, 0)?),
            ];
            let many = module.kernel(c"product_many", 256, MANY_BYTES)?;
            let wide = |(tokens, name, threads, bytes)| Ok((tokens, module.kernel(name, threads, bytes)?));
            let wide = if has_wide_kernels(capability) {
                WIDE_KERNELS.into_iter().map(wide).collect::<Result<_>>()?
            } else {
                Vec::new()
            };
            Products::Tensor { few, many, wide }
        };
        Ok(Self { embed: module.kernel(c"embed", 64, 0)?, products })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use pack::{Role, Size, planes_of};

    use super::*;

    #[test]
    fn every_format_has_kernels_for_every_card() {
        for file in [SM_80, SM_89, SM_90A, SM_120, COMPUTE_80] {
            let names = MODULES.into_iter().chain(Format::ALL.map(name_of));
            for name in names {
                let image = image(file, name).unwrap_or_else(|| panic!("no {name}"));
                let is_elf = image.starts_with(b"\x7fELF");
                assert!(is_elf || image.ends_with(b"\0"), "{name}: neither machine code nor text");
            }
            assert_eq!(image(file, "q4"), None);
        }
    }

    /// Kernels copy whole blocks of a format from each of its planes: they must know the planes that `pack` makes.
    #[test]
    fn kernels_know_the_planes_of_each_format() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let of_lattices = fs::read_to_string(folder.join("lattice.cuh")).unwrap();
        for format in Format::ALL {
            let file = folder.join("formats").join(format!("{}.cuh", name_of(format)));
            let source = fs::read_to_string(&file).unwrap();
            if source.contains("#define FLOATS") {
                continue;
            }
            let source = if source.contains("lattice.cuh") { &of_lattices } else { &source };
            let found = source.lines().find_map(|line| line.strip_prefix("#define PLANES "));
            let bytes_of = |role: Role| {
                let plane = planes_of(format).iter().find(|plane| plane.role == role);
                plane.map_or(0, |plane| match plane.size {
                    Size::BytesPerBlock(bytes) => bytes,
                    Size::WordPerSuper => panic!("{format}: a plane of {role:?} has bytes of blocks"),
                })
            };
            let has_supers = planes_of(format).iter().any(|plane| plane.size == Size::WordPerSuper);
            let [quants, high, scales] = [Role::Quants, Role::High, Role::Scales].map(bytes_of);
            let expected = format!("{{{quants}, {high}, {scales}, {has_supers}}}");
            assert_eq!(found, Some(expected.as_str()), "{format}: {}", file.display());
        }
    }

    #[test]
    fn a_card_gets_what_it_runs() {
        let is = |capability, file: &[u8]| std::ptr::eq(file_for(capability), file);
        assert!(is((8, 0), SM_80) && is((8, 6), SM_80) && is((8, 9), SM_89));
        assert!(is((9, 0), SM_90A) && is((12, 0), SM_120) && is((12, 1), SM_120));
        assert!(is((10, 0), COMPUTE_80) && is((13, 0), COMPUTE_80));
        assert!(kernels_wait((9, 0)) && kernels_wait((12, 0)));
        assert!(
            !kernels_wait((8, 9)) && !kernels_wait((10, 0)),
            "machine code of 8.x, and of the driver's own from it"
        );
        assert!(has_wide_kernels((9, 0)) && !has_wide_kernels((12, 0)));
    }
}
