//! `rustorch devices`: which GPUs there are, which one `auto` takes, and whether one computes what it should.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use rustorch_llama::{
    CpuOptions, Device, GpuDescription, LlamaConfig, LlamaModel, LoadOptions, Profile, check_device, devices,
    what_auto_takes,
};
use serde::Serialize;

use crate::model_args::{DeviceArgs, FileArgs};
use crate::output;

/// List the GPUs of this machine and what --device auto takes, or check a device
///
/// A GPU is listed once for each interface that reaches it; its number is that of --device gpu:N. With --model, auto's
/// choice is the one for that file with its default batch and context.
///
/// --check runs every operation against plain code in float64, and the demo model alone and in batches, which must give the
/// same bits, and on a CPU those that are recorded in the program. It prints a report in Markdown, to paste where a device is
/// discussed, and fails if a check does.
#[derive(clap::Args)]
pub struct Args {
    /// Check the device of --device; of auto, a GPU unless there is none but software
    #[arg(long, conflicts_with = "json")]
    check: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.check { check(args) } else { list(args) }
}

/// All of `--json`.
#[derive(Serialize)]
struct List {
    gpus: Vec<Gpu>,
    auto: Auto,
}

/// A GPU, as `--json` has it. Sizes are bytes.
#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    interface: &'static str,
    kind: &'static str,
    driver: String,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    f16: bool,
    subgroup_sizes: Option<(u32, u32)>,
    matrices: Vec<String>,
    timestamps: bool,
    max_binding_bytes: u64,
    max_workgroup_bytes: u32,
    max_workgroup_size: u32,
    lacks: Option<&'static str>,
}

impl Gpu {
    fn new(device: Device, gpu: GpuDescription) -> Self {
        Self {
            device: device.to_string(),
            name: gpu.name,
            interface: gpu.interface,
            kind: gpu.kind,
            driver: gpu.driver,
            memory_bytes: gpu.memory.map(|memory| memory.total),
            available_bytes: gpu.memory.map(|memory| memory.available),
            f16: gpu.f16,
            subgroup_sizes: gpu.subgroup_sizes,
            matrices: gpu.matrices,
            timestamps: gpu.timestamps,
            max_binding_bytes: gpu.max_binding_bytes,
            max_workgroup_bytes: gpu.max_workgroup_bytes,
            max_workgroup_size: gpu.max_workgroup_size,
            lacks: gpu.lacks,
        }
    }
}

/// What `auto` takes.
#[derive(Serialize)]
struct Auto {
    device: String,
    reason: String,
}

fn list(args: &Args) -> Result<()> {
    let name = || args.file.model.display().to_string();
    let gguf = args.file.open()?;
    let config = LlamaConfig::from_gguf(&gguf).with_context(name)?;
    let context = config.max_seq_len.min(LlamaModel::DEFAULT_MAX_SEQ_LEN);
    let options = LoadOptions {
        gpu: args.device.gpu_options(Profile::Off),
        cpu: CpuOptions::default(),
        ..LoadOptions::default()
    };
    let (device, reason) =
        what_auto_takes(&gguf, &config.with_max_seq_len(context), &options).with_context(name)?;
    let list = List {
        gpus: devices().into_iter().filter_map(|info| Some(Gpu::new(info.device, info.gpu?))).collect(),
        auto: Auto { device: device.to_string(), reason },
    };
    match args.json {
        true => output::print(&(serde_json::to_string_pretty(&list)? + "\n")),
        false => output::print(&text(&list)),
    }
}

fn text(list: &List) -> String {
    let mut text = String::new();
    for gpu in &list.gpus {
        let _ = writeln!(text, "{:<6} {} ({}, {})", gpu.device, gpu.name, gpu.interface, gpu.kind);
        let mut line = |what: &str, value: String| {
            let _ = writeln!(text, "       {what:<13} {value}");
        };
        line("driver", if gpu.driver.is_empty() { "unknown".to_owned() } else { gpu.driver.clone() });
        line("memory", memory(gpu));
        line("f16", yes(gpu.f16));
        line(
            "subgroups",
            match gpu.subgroup_sizes {
                None => "no".to_owned(),
                Some((least, most)) if least == most => format!("of {least}"),
                Some((least, most)) => format!("of {least} to {most}: not used, sizes must be one"),
            },
        );
        line("matrix units", if gpu.matrices.is_empty() { "no".to_owned() } else { gpu.matrices.join(", ") });
        line("timestamps", yes(gpu.timestamps));
        line("limits", limits(gpu));
        if let Some(lacks) = gpu.lacks {
            line("unusable", format!("it lacks {lacks}"));
        }
    }
    if list.gpus.is_empty() {
        text += "no GPU: no driver for CUDA, Vulkan, Metal or DX12 reports one\n";
    }
    let _ = writeln!(text, "auto   {}: {}", list.auto.device, list.auto.reason);
    text
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

fn memory(gpu: &Gpu) -> String {
    match (gpu.memory_bytes, gpu.available_bytes) {
        (Some(total), Some(available)) => {
            format!("{}, {} available", output::bytes(total), output::bytes(available))
        }
        _ => "not told by the driver".to_owned(),
    }
}

fn limits(gpu: &Gpu) -> String {
    format!(
        "bindings of {}, workgroups of {} with {}",
        output::bytes(gpu.max_binding_bytes),
        gpu.max_workgroup_size,
        output::bytes(u64::from(gpu.max_workgroup_bytes))
    )
}

fn check(args: &Args) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let report = check_device(args.device.one()?, args.device.gpu_options(Profile::Off), |finding| {
        bar.set_message(format!("{}: {}", finding.setting, finding.check));
        if let Some(failure) = &finding.failure {
            bar.suspend(|| output::note(&format!("{}: {}: {failure}", finding.setting, finding.check)));
        }
    });
    bar.finish_and_clear();
    let report = report?;
    output::print(&report.to_string())?;
    match report.num_failed() {
        0 => Ok(()),
        failed => bail!("{}: {failed} of {} checks failed", report.device, report.findings.len()),
    }
}
