//! WGSL files composed of parts, with constants put in and loops written out.
//!
//! Four directives, each a line of its own, and one substitution. They are comments of WGSL, so that editors read the
//! files as they are:
//!
//! ```text
//! //@include NAME          the part of that name, at most once in a kernel
//! //@if NAME .. //@else .. //@end      lines for kernels that define NAME
//! //@for i in COUNT .. //@end          lines once for each i from 0 to COUNT - 1, `${i}` being its value
//! ${NAME}                  a defined value, or a loop's variable
//! ```

use std::borrow::Cow;
use std::collections::HashSet;

use crate::plan_layout;

macro_rules! parts {
    ($($name:literal),* $(,)?) => {
        /// Every file that kernels are composed of, by its name.
        const PARTS: &[(&str, &str)] = &[$(($name, include_str!(concat!("kernels/", $name, ".wgsl")))),*];
    };
}

parts![
    "add",
    "argmax",
    "attention_fused",
    "attention_head",
    "attention_matrix",
    "attention_merge",
    "attention_out",
    "attention_pages",
    "attention_partials",
    "attention_scores",
    "attention_softmax",
    "attention_tile",
    "attention_values",
    "attention_window",
    "combine_experts",
    "copy",
    "dequantize",
    "embed",
    "enables",
    "formats/bf16",
    "formats/f16",
    "formats/f32",
    "formats/iq2",
    "formats/iq3_xxs",
    "formats/iq4_nl",
    "formats/iq4_xs",
    "formats/mxfp4",
    "formats/odd_levels",
    "formats/parts/block",
    "formats/parts/five_bits",
    "formats/parts/iq4_levels",
    "formats/parts/level_quads",
    "formats/parts/level_table",
    "formats/parts/levels",
    "formats/parts/nibbles",
    "formats/parts/scale_d",
    "formats/parts/scale_d_m",
    "formats/parts/scale_k_min",
    "formats/parts/scale_k_pair",
    "formats/parts/sixteen_bits",
    "formats/q2_k",
    "formats/q3_k",
    "formats/q4_0",
    "formats/q4_1",
    "formats/q4_k",
    "formats/q5_0",
    "formats/q5_1",
    "formats/q5_k",
    "formats/q6_k",
    "formats/q8_0",
    "formats/ternary",
    "gated",
    "gather_rows",
    "half",
    "key",
    "matmul_experts",
    "matmul_float",
    "matmul_inputs",
    "matmul_matrix",
    "matmul_skinny",
    "matmul_tiled",
    "norm_heads",
    "peak",
    "reduce",
    "rms_norm",
    "rms_norm_vectors",
    "rope_store_kv",
    "route",
    "scale",
    "scale_queries",
    "softcap",
    "sort_pairs",
    "to_half",
    "values_f16",
    "values_f32",
];

/// The text of a part: of a file, or of the plan's constants, which are made from the host's table of them.
///
/// # Panics
/// When there is no such part.
fn text_of(name: &str) -> Cow<'static, str> {
    if name == "plan" {
        return Cow::Owned(plan_layout::wgsl());
    }
    let file = PARTS.iter().find(|(part, _)| *part == name);
    let (_, text) = file.unwrap_or_else(|| panic!("no part of a kernel is called '{name}'"));
    Cow::Borrowed(text)
}

/// Names and what they stand for in one kernel.
pub(crate) type Defines = Vec<(&'static str, String)>;

/// The WGSL of the file `name` under `defines`.
///
/// # Panics
/// When a file, a name or the end of a block is missing: the files are part of this crate.
pub(crate) fn compose(name: &str, defines: &Defines) -> String {
    let mut composer = Composer { defines, included: HashSet::new(), out: String::new() };
    composer.file(name, &mut Vec::new());
    composer.out
}

struct Composer<'a> {
    defines: &'a Defines,
    included: HashSet<String>,
    out: String,
}

/// Loop variables and their values.
type Variables = Vec<(String, usize)>;

impl Composer<'_> {
    fn file(&mut self, name: &str, variables: &mut Variables) {
        if !self.included.insert(name.to_owned()) {
            return;
        }
        let text = text_of(name);
        let lines: Vec<&str> = text.lines().collect();
        self.lines(&lines, variables);
    }

    fn lines(&mut self, mut lines: &[&str], variables: &mut Variables) {
        while let Some((&line, rest)) = lines.split_first() {
            let Some(directive) = line.trim_start().strip_prefix("//@") else {
                let line = self.substitute(line, variables);
                self.out.push_str(&line);
                self.out.push('\n');
                lines = rest;
                continue;
            };
            let words: Vec<String> =
                self.substitute(directive, variables).split_whitespace().map(str::to_owned).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words[..] {
                ["include", part] => {
                    self.file(part, variables);
                    lines = rest;
                }
                ["if", name] => {
                    let (then, otherwise, after) = block(rest);
                    let is_defined = self.defines.iter().any(|(defined, _)| *defined == name);
                    self.lines(if is_defined { then } else { otherwise }, variables);
                    lines = after;
                }
                ["for", variable, "in", count] => {
                    let (body, _, after) = block(rest);
                    let count: usize = count.parse().unwrap_or_else(|_| panic!("'{count}' is no count"));
                    for value in 0..count {
                        variables.push((variable.to_owned(), value));
                        self.lines(body, variables);
                        variables.pop();
                    }
                    lines = after;
                }
                _ => panic!("'{line}' is no directive"),
            }
        }
    }

    fn substitute(&self, line: &str, variables: &Variables) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').unwrap_or_else(|| panic!("'{line}' lacks a brace"));
            out.push_str(before);
            let variable = variables.iter().rev().find(|(variable, _)| variable == name);
            let defined = || self.defines.iter().find(|(defined, _)| *defined == name);
            match (variable, defined()) {
                (Some((_, value)), _) => out.push_str(&value.to_string()),
                (None, Some((_, value))) => out.push_str(value),
                (None, None) => panic!("'{name}' is not defined in '{line}'"),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// The lines of a block, those after its `else`, and those after its `end`.
fn block<'a, 'b>(lines: &'b [&'a str]) -> (&'b [&'a str], &'b [&'a str], &'b [&'a str]) {
    let mut depth = 0;
    let mut otherwise = None;
    for (idx, line) in lines.iter().enumerate() {
        match line.trim_start().strip_prefix("//@").and_then(|d| d.split_whitespace().next()) {
            Some("if" | "for") => depth += 1,
            Some("else") if depth == 0 => otherwise = Some(idx),
            Some("end") if depth == 0 => {
                let middle = otherwise.unwrap_or(idx);
                return (&lines[..middle], &lines[(middle + 1).min(idx)..idx], &lines[idx + 1..]);
            }
            Some("end") => depth -= 1,
            _ => {}
        }
    }
    panic!("a block has no end: {lines:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(text: &str, defines: &[(&'static str, &str)]) -> String {
        let defines = defines.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        let mut composer = Composer { defines: &defines, included: HashSet::new(), out: String::new() };
        composer.lines(&text.lines().collect::<Vec<_>>(), &mut Vec::new());
        composer.out
    }

    #[test]
    fn blocks_nest_and_names_are_replaced() {
        let text = "//@for i in ${N}\n//@if A\na${i}${A};\n//@else\nb${i};\n//@end\n//@end\nlast";
        assert_eq!(composed(text, &[("N", "2"), ("A", "x")]), "a0x;\na1x;\nlast\n");
        assert_eq!(composed(text, &[("N", "1")]), "b0;\nlast\n");
        assert_eq!(composed("//@if A\nx\n//@end\ny", &[]), "y\n");
        assert_eq!(composed("//@if A\nx\n//@end\ny", &[("A", "")]), "x\ny\n");
    }

    #[test]
    #[should_panic(expected = "no end")]
    fn a_block_needs_its_end() {
        composed("//@if A\nx", &[]);
    }
}
