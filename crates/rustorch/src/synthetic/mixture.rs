//! Which format each matrix has in the files that llama.cpp's `llama-quantize` writes under a name.
//!
//! Source: `llama_tensor_get_type_impl` in `src/llama-quant.cpp` of <https://github.com/ggml-org/llama.cpp>, for the
//! architectures `llama`, `qwen3`, `qwen3moe` and `gemma3` without an importance matrix.

use std::fmt;

use gguf::Format;

use super::Shape;

/// A kind of file.
#[allow(non_camel_case_types, missing_docs)] // The names are those of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixture {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    /// Matrices of experts in it, all others in Q8_0.
    MXFP4,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    TQ1_0,
    TQ2_0,
}

/// A matrix of the model; with its layer where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrix {
    Embedding,
    Output,
    AttnQ,
    AttnK,
    AttnV(usize),
    AttnOutput,
    FfnGate,
    FfnUp,
    FfnDown(usize),
}

impl Mixture {
    /// Every mixture.
    pub const ALL: [Mixture; 29] = [
        Mixture::F32,
        Mixture::F16,
        Mixture::BF16,
        Mixture::Q4_0,
        Mixture::Q4_1,
        Mixture::Q5_0,
        Mixture::Q5_1,
        Mixture::Q8_0,
        Mixture::Q2_K,
        Mixture::Q3_K_S,
        Mixture::Q3_K_M,
        Mixture::Q3_K_L,
        Mixture::Q4_K_S,
        Mixture::Q4_K_M,
        Mixture::Q5_K_S,
        Mixture::Q5_K_M,
        Mixture::Q6_K,
        Mixture::IQ4_NL,
        Mixture::IQ4_XS,
        Mixture::MXFP4,
        Mixture::IQ1_S,
        Mixture::IQ1_M,
        Mixture::IQ2_XXS,
        Mixture::IQ2_XS,
        Mixture::IQ2_S,
        Mixture::IQ3_XXS,
        Mixture::IQ3_S,
        Mixture::TQ1_0,
        Mixture::TQ2_0,
    ];

    /// The mixture of that name, in either case. `q3_k`, `q4_k` and `q5_k` are the medium ones, as in `llama-quantize`.
    pub fn from_name(name: &str) -> Option<Mixture> {
        let upper = name.to_ascii_uppercase();
        let name = match upper.as_str() {
            "Q3_K" => "Q3_K_M",
            "Q4_K" => "Q4_K_M",
            "Q5_K" => "Q5_K_M",
            other => other,
        };
        Mixture::ALL.into_iter().find(|mixture| mixture.to_string() == name)
    }

    /// The number of the kind (`general.file_type`, llama.cpp's `enum llama_ftype`).
    pub fn file_type(self) -> u32 {
        match self {
            Mixture::F32 => 0,
            Mixture::F16 => 1,
            Mixture::Q4_0 => 2,
            Mixture::Q4_1 => 3,
            Mixture::Q8_0 => 7,
            Mixture::Q5_0 => 8,
            Mixture::Q5_1 => 9,
            Mixture::Q2_K => 10,
            Mixture::Q3_K_S => 11,
            Mixture::Q3_K_M => 12,
            Mixture::Q3_K_L => 13,
            Mixture::Q4_K_S => 14,
            Mixture::Q4_K_M => 15,
            Mixture::Q5_K_S => 16,
            Mixture::Q5_K_M => 17,
            Mixture::Q6_K => 18,
            Mixture::IQ4_NL => 25,
            Mixture::IQ4_XS => 30,
            Mixture::BF16 => 32,
            Mixture::MXFP4 => 38,
            Mixture::IQ1_S => 24,
            Mixture::IQ1_M => 31,
            Mixture::IQ2_XXS => 19,
            Mixture::IQ2_XS => 20,
            Mixture::IQ2_S => 28,
            Mixture::IQ3_XXS => 23,
            Mixture::IQ3_S => 26,
            Mixture::TQ1_0 => 36,
            Mixture::TQ2_0 => 37,
        }
    }

    /// The format of the matrices that no rule singles out.
    pub fn base(self) -> Format {
        match self {
            Mixture::F32 => Format::F32,
            Mixture::F16 => Format::F16,
            Mixture::BF16 => Format::BF16,
            Mixture::Q4_0 => Format::Q4_0,
            Mixture::Q4_1 => Format::Q4_1,
            Mixture::Q5_0 => Format::Q5_0,
            Mixture::Q5_1 => Format::Q5_1,
            Mixture::Q8_0 => Format::Q8_0,
            Mixture::Q2_K => Format::Q2_K,
            Mixture::Q3_K_S | Mixture::Q3_K_M | Mixture::Q3_K_L => Format::Q3_K,
            Mixture::Q4_K_S | Mixture::Q4_K_M => Format::Q4_K,
            Mixture::Q5_K_S | Mixture::Q5_K_M => Format::Q5_K,
            Mixture::Q6_K => Format::Q6_K,
            Mixture::IQ4_NL => Format::IQ4_NL,
            Mixture::IQ4_XS => Format::IQ4_XS,
            Mixture::MXFP4 => Format::MXFP4,
            Mixture::IQ1_S => Format::IQ1_S,
            Mixture::IQ1_M => Format::IQ1_M,
            Mixture::IQ2_XXS => Format::IQ2_XXS,
            Mixture::IQ2_XS => Format::IQ2_XS,
            Mixture::IQ2_S => Format::IQ2_S,
            Mixture::IQ3_XXS => Format::IQ3_XXS,
            Mixture::IQ3_S => Format::IQ3_S,
            Mixture::TQ1_0 => Format::TQ1_0,
            Mixture::TQ2_0 => Format::TQ2_0,
        }
    }

    /// The format of one matrix in a file of this kind.
    pub(super) fn format(self, matrix: Matrix, shape: &Shape) -> Format {
        let of_experts = matches!(matrix, Matrix::FfnGate | Matrix::FfnUp | Matrix::FfnDown(_));
        if self == Mixture::MXFP4 && !(of_experts && shape.experts.is_some()) {
            return Format::Q8_0;
        }
        let special = match matrix {
            Matrix::Output => self.output(),
            Matrix::Embedding if shape.tied_embeddings => self.output(),
            // Of models with eight experts these are small beside the rest.
            Matrix::AttnK | Matrix::AttnV(_) if self.is_narrow() && has_eight_experts(shape) => {
                Some(Format::Q8_0)
            }
            Matrix::AttnOutput if self.is_narrow() && has_eight_experts(shape) => self.attn_output_of_eight(),
            Matrix::AttnV(layer) => self.attn_v(layer, shape),
            Matrix::AttnOutput => self.attn_output(),
            Matrix::FfnDown(layer) => self.ffn_down(layer, shape.num_layers),
            _ => None,
        };
        special.unwrap_or(self.base())
    }

    /// Whether matrices may have other formats than most.
    fn is_narrow(self) -> bool {
        !matches!(self, Mixture::F32 | Mixture::F16 | Mixture::BF16 | Mixture::Q8_0)
    }

    fn attn_output_of_eight(self) -> Option<Format> {
        match self {
            Mixture::Q2_K
            | Mixture::Q3_K_S
            | Mixture::Q3_K_M
            | Mixture::Q4_K_S
            | Mixture::Q4_K_M
            | Mixture::IQ4_NL
            | Mixture::IQ4_XS => Some(Format::Q5_K),
            _ => self.attn_output(),
        }
    }

    fn output(self) -> Option<Format> {
        self.is_narrow().then_some(Format::Q6_K)
    }

    fn attn_v(self, layer: usize, shape: &Shape) -> Option<Format> {
        let shares_widely = shape.heads_per_kv_head() >= 4;
        match self {
            Mixture::Q2_K if shares_widely => Some(Format::Q4_K),
            Mixture::Q2_K => Some(Format::Q3_K),
            Mixture::Q3_K_M if layer < 2 => Some(Format::Q5_K),
            Mixture::Q3_K_M => Some(Format::Q4_K),
            Mixture::Q3_K_L => Some(Format::Q5_K),
            Mixture::IQ4_NL | Mixture::IQ4_XS if shares_widely => Some(Format::Q5_K),
            Mixture::Q4_K_S if layer < 4 => Some(Format::Q5_K),
            Mixture::Q4_K_M | Mixture::Q5_K_M if gets_more_bits(layer, shape.num_layers) => {
                Some(Format::Q6_K)
            }
            _ => None,
        }
    }

    fn attn_output(self) -> Option<Format> {
        match self {
            Mixture::Q2_K => Some(Format::Q3_K),
            Mixture::Q3_K_M => Some(Format::Q4_K),
            Mixture::Q3_K_L => Some(Format::Q5_K),
            _ => None,
        }
    }

    fn ffn_down(self, layer: usize, num_layers: usize) -> Option<Format> {
        let is_early = layer < num_layers / 8;
        match self {
            Mixture::Q2_K => Some(Format::Q3_K),
            Mixture::Q3_K_M if layer < num_layers / 16 => Some(Format::Q5_K),
            Mixture::Q3_K_M => Some(Format::Q4_K),
            Mixture::Q3_K_L => Some(Format::Q5_K),
            Mixture::Q4_K_S | Mixture::IQ4_NL | Mixture::IQ4_XS if is_early => Some(Format::Q5_K),
            Mixture::Q4_K_M | Mixture::Q5_K_M if gets_more_bits(layer, num_layers) => Some(Format::Q6_K),
            _ => None,
        }
    }
}

fn has_eight_experts(shape: &Shape) -> bool {
    shape.experts.is_some_and(|experts| experts.count == 8)
}

/// The first and last eighth of the layers, and every third between.
fn gets_more_bits(layer: usize, num_layers: usize) -> bool {
    let eighth = num_layers / 8;
    layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2
}

/// The name that files have, such as `Q4_K_M`.
impl fmt::Display for Mixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
