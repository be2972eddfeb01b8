//! `rustorch inspect`

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use anyhow::Result;
use rustorch_llama::{
    Activation, ExpertsSpec, FfnSpec, Format, Gguf, LayerSpec, LlamaConfig, ModelSpec, RopeScaling,
    Temperature,
};

use crate::model_args::ModelArgs;
use crate::output::{self, bytes, grouped};

/// Show what a model file holds and what running it takes
#[derive(clap::Args)]
pub struct Args {
    /// List every tensor, not one line for all layers
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let gguf = args.model.file.open()?;
    let mut text = String::new();
    describe_file(&gguf, &mut text)?;
    // A vocabulary or another architecture still has a file to describe.
    match args.model.config(&gguf) {
        Ok(config) => {
            describe_model(&gguf, &config, &mut text)?;
            describe_memory(&gguf, &config, args.model.kv_memory, &mut text)?;
        }
        Err(error) => writeln!(text, "\nnot runnable     {error:#}")?,
    }
    describe_formats(&gguf, args.tensors, &mut text)?;
    output::print(&output::visible(&text))
}

fn describe_file(gguf: &Gguf, out: &mut String) -> Result<()> {
    let metadata = gguf.metadata();
    let text = |key| output::visible_line(metadata.str(key).ok().flatten().unwrap_or("-")).into_owned();
    writeln!(out, "name             {}", text("general.name"))?;
    writeln!(out, "architecture     {}", text("general.architecture"))?;
    let parameters: u64 = gguf.tensors().map(|t| t.dims().iter().product::<u64>()).sum();
    writeln!(out, "parameters       {}", grouped(parameters))?;
    writeln!(out, "file             {}", bytes(gguf.file_bytes()))?;
    writeln!(out, "tokenizer        {} (pre {})", text("tokenizer.ggml.model"), text("tokenizer.ggml.pre"))?;
    Ok(())
}

fn describe_model(gguf: &Gguf, config: &LlamaConfig, out: &mut String) -> Result<()> {
    let trained = LlamaConfig::from_gguf(gguf)?.max_seq_len;
    let spec = &config.spec;
    if spec.layers.is_empty() {
        return Ok(());
    }
    // A figure that differs between layers is given as its least and its most.
    let range = |of_layer: &dyn Fn(&LayerSpec) -> usize| {
        let of_layers = || spec.layers.iter().map(of_layer);
        let (least, most) = (of_layers().min().unwrap_or(0), of_layers().max().unwrap_or(0));
        if least == most { most.to_string() } else { format!("{least} to {most}") }
    };
    writeln!(out, "layers           {}", config.num_layers())?;
    writeln!(out, "hidden size      {}", config.hidden_size())?;
    writeln!(out, "feed-forward     {}", range(&|layer| layer.ffn.inner()))?;
    writeln!(
        out,
        "attention        {} heads of {}, {} KV heads",
        range(&|layer| layer.attn.num_heads),
        range(&|layer| layer.attn.head_dim),
        range(&|layer| layer.attn.num_kv_heads)
    )?;
    describe_rotations(spec, out)?;
    describe_traits(spec, out)?;
    writeln!(out, "vocabulary       {}", grouped(config.vocab_size() as u64))?;
    writeln!(out, "context          {} tokens here, {trained} trained", config.max_seq_len)?;
    Ok(())
}

/// A line for each rotation, with the number of its layers where some have another.
fn describe_rotations(spec: &ModelSpec, out: &mut String) -> Result<()> {
    let rotations = spec.ropes.iter().map(Some).enumerate().map(|(idx, rope)| (Some(idx), rope));
    for (idx, rope) in rotations.chain([(None, None)]) {
        let layers = spec.layers.iter().filter(|layer| layer.attn.rope == idx).count();
        let Some(share) = share(layers, spec.layers.len()) else { continue };
        match rope {
            Some(rope) => {
                let scaling = scaling(rope.scaling);
                writeln!(
                    out,
                    "RoPE             base {}, {} dimensions, {scaling}{share}",
                    rope.base, rope.dim
                )?;
            }
            None => writeln!(out, "RoPE             none{share}")?,
        }
    }
    Ok(())
}

/// ` in 5 of 6 layers`, of all nothing; `None` of none.
fn share(layers: usize, of: usize) -> Option<String> {
    match layers {
        0 => None,
        _ if layers == of => Some(String::new()),
        _ => Some(format!(" in {layers} of {of} layers")),
    }
}

fn scaling(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "no scaling".to_owned(),
        RopeScaling::Linear { factor } => format!("linear scaling by {factor}"),
        RopeScaling::LongRope { original_context, .. } => {
            format!("LongRoPE from {original_context} tokens")
        }
        RopeScaling::Yarn { factor, original_context, .. } => {
            format!("YaRN by {factor} from {original_context} tokens")
        }
    }
}

/// What the family adds: lines of windows, soft caps, norms, scales and the activation, where it has them.
fn describe_traits(spec: &ModelSpec, out: &mut String) -> Result<()> {
    let layers = spec.layers.len();
    let first = &spec.layers[0];
    let windows = spec.layers.iter().filter_map(|layer| layer.attn.window);
    if let Some(window) = windows.clone().max() {
        let share = share(windows.count(), layers).unwrap_or_default();
        writeln!(out, "window           {window} tokens{share}")?;
    }
    let with_sinks = spec.layers.iter().filter(|layer| layer.attn.sinks).count();
    if let Some(share) = share(with_sinks, layers) {
        writeln!(out, "sinks            one for each head{share}")?;
    }
    let caps = [("scores", first.attn.softcap), ("logits", spec.final_softcap)];
    list(out, "soft caps", caps.map(|(of, cap)| cap.map(|cap| format!("{cap} of {of}"))))?;
    let norms = [
        (first.attn.qk_norm.is_some(), "queries and keys"),
        (first.norms.post_attn, "attention's output"),
        (first.norms.post_ffn, "feed-forward output"),
    ];
    list(out, "further norms", norms.map(|(has, of)| has.then(|| of.to_owned())))?;
    let usual = 1.0 / (first.attn.head_dim as f32).sqrt();
    let scales = [
        ("embeddings", spec.embed_scale, 1.0),
        ("scores", first.attn.scale, usual),
        ("branches", first.residual_scale, 1.0),
        ("logits", spec.logit_scale, 1.0),
    ];
    let of_scale =
        |(of, scale, usual): (&str, f32, f32)| (scale != usual).then(|| format!("{of} by {scale}"));
    list(out, "scales", scales.map(of_scale))?;
    if let Some(Temperature { scale, length }) = first.attn.temperature {
        writeln!(out, "temperature      queries grow by {scale} ln after every {length} tokens")?;
    }
    describe_experts(spec, out)?;
    let (FfnSpec::Dense { act, .. } | FfnSpec::Experts(ExpertsSpec { act, .. })) = first.ffn else {
        return Ok(());
    };
    match act {
        Activation::Silu => {}
        Activation::GeluTanh => writeln!(out, "activation       GeGLU")?,
        Activation::ClampedSwiglu => writeln!(out, "activation       SwiGLU, clamped at 7")?,
    }
    Ok(())
}

/// How many experts there are and what becomes of their shares.
fn describe_experts(spec: &ModelSpec, out: &mut String) -> Result<()> {
    let Some(&ExpertsSpec { num_experts, routing, shared, .. }) = spec.experts() else { return Ok(()) };
    let shared = shared.map(|shared| {
        let gate = if shared.gated { " with a gate" } else { "" };
        format!("one of {} for all tokens{gate}", shared.inner)
    });
    let items = [
        Some(format!("{} of {num_experts} a token", routing.top_k)),
        routing.norm.then(|| "shares normed".to_owned()),
        (routing.scale != 1.0).then(|| format!("shares by {}", routing.scale)),
        shared,
    ];
    list(out, "experts", items)
}

/// A line of those items that there are, if there are any.
fn list(out: &mut String, name: &str, items: impl IntoIterator<Item = Option<String>>) -> Result<()> {
    let items: Vec<String> = items.into_iter().flatten().collect();
    if !items.is_empty() {
        writeln!(out, "{name:<16} {}", items.join(", "))?;
    }
    Ok(())
}

/// What weights and KV cache take. `kv_limit` bounds the pages of all sequences together.
fn describe_memory(gguf: &Gguf, config: &LlamaConfig, kv_limit: Option<u64>, out: &mut String) -> Result<()> {
    let per_token = config.kv_bytes_per_token();
    let per_seq = per_token.saturating_mul((config.pages_per_seq() * config.page_size) as u64);
    let weights: u64 = gguf.tensors().map(|t| t.data().len() as u64).sum();
    let unbounded = per_seq.saturating_mul(config.batch_size as u64);
    let all = kv_limit.map_or(unbounded, |limit| limit.min(unbounded));
    writeln!(out, "\nmemory")?;
    writeln!(out, "  weights        {}", bytes(weights))?;
    writeln!(out, "  KV per token   {}", bytes(per_token))?;
    writeln!(out, "  KV per seq.    {} ({} tokens)", bytes(per_seq), config.max_seq_len)?;
    writeln!(out, "  KV in all      {} ({} sequences)", bytes(all), config.batch_size)?;
    writeln!(out, "  total          {}", bytes(weights.saturating_add(all)))?;
    Ok(())
}

fn describe_formats(gguf: &Gguf, list: bool, out: &mut String) -> Result<()> {
    let mut by_format: BTreeMap<Format, (usize, u64, u64)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let entry = by_format.entry(tensor.format()).or_default();
        entry.0 += 1;
        entry.1 += tensor.dims().iter().product::<u64>();
        entry.2 += tensor.data().len() as u64;
    }
    writeln!(out, "\nformat     tensors      weights        bytes")?;
    for (format, (tensors, weights, size)) in by_format {
        writeln!(
            out,
            "{:<10} {tensors:>7} {:>12} {:>12}",
            format.to_string(),
            grouped(weights),
            bytes(size)
        )?;
    }
    describe_tensors(gguf, list, out)
}

/// A line for each tensor, or one for those that differ in their layer alone.
fn describe_tensors(gguf: &Gguf, list_all: bool, out: &mut String) -> Result<()> {
    let mut lines: Vec<(String, String, BTreeMap<Format, usize>)> = Vec::new();
    let mut line_of = HashMap::new();
    for tensor in gguf.tensors() {
        let shape: Vec<String> = tensor.dims().iter().map(u64::to_string).collect();
        let (name, shape) =
            (if list_all { tensor.name().to_owned() } else { any_layer(tensor.name()) }, shape.join(" x "));
        let name = output::visible_line(&name).into_owned();
        let at = *line_of.entry((name.clone(), shape.clone())).or_insert_with(|| {
            lines.push((name, shape, BTreeMap::new()));
            lines.len() - 1
        });
        *lines[at].2.entry(tensor.format()).or_default() += 1;
    }
    if !lines.is_empty() {
        writeln!(out, "\n{:<28} {:<16} formats", "tensor", "shape")?;
    }
    for (name, shape, formats) in lines {
        let formats = formats.iter().map(|(format, count)| match count {
            1 => format.to_string(),
            _ => format!("{count} {format}"),
        });
        writeln!(out, "{name:<28} {shape:<16} {}", formats.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// `blk.7.attn_q.weight` as `blk.*.attn_q.weight`.
fn any_layer(name: &str) -> String {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match layer {
        Some((index, rest)) if index.bytes().all(|b| b.is_ascii_digit()) => format!("blk.*.{rest}"),
        _ => name.to_owned(),
    }
}
