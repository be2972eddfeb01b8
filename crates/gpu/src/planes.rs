//! What `kernels` call formats and the planes of their weights.

use gguf::Format;
use pack::Role;

/// The file that reads the format.
pub(crate) fn kernel_part(format: Format) -> &'static str {
    match format {
        Format::F32 => "formats/f32",
        Format::F16 => "formats/f16",
        Format::BF16 => "formats/bf16",
        Format::Q4_0 => "formats/q4_0",
        Format::Q4_1 => "formats/q4_1",
        Format::Q5_0 => "formats/q5_0",
        Format::Q5_1 => "formats/q5_1",
        Format::Q8_0 => "formats/q8_0",
        Format::Q2_K => "formats/q2_k",
        Format::Q3_K => "formats/q3_k",
        Format::Q4_K => "formats/q4_k",
        Format::Q5_K => "formats/q5_k",
        Format::Q6_K => "formats/q6_k",
        Format::IQ4_NL => "formats/iq4_nl",
        Format::IQ4_XS => "formats/iq4_xs",
        Format::MXFP4 => "formats/mxfp4",
        Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S => "formats/iq2",
        Format::IQ3_XXS => "formats/iq3_xxs",
        Format::IQ1_S | Format::IQ1_M | Format::IQ3_S => "formats/odd_levels",
        Format::TQ1_0 | Format::TQ2_0 => "formats/ternary",
    }
}

/// The define by which a format's file names a plane's binding.
pub(crate) fn define(role: Role) -> &'static str {
    match role {
        Role::Quants => "QUANTS",
        Role::High => "HIGH",
        Role::Scales => "SCALES",
        Role::Super => "SUPER",
    }
}
