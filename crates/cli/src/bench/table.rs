//! The table on a terminal: Markdown whose columns have fixed widths, so that each row can be printed when it is measured.

use std::fmt::Write as _;

use super::report::{Report, Row};
use crate::output::{bytes, grouped};

/// A column of the table and of the CSV.
pub struct Column {
    /// Its name in the table.
    pub title: &'static str,
    /// Its name in the CSV, in which values have the units of the JSON.
    pub key: &'static str,
    /// The divisor of its values in the table.
    unit: f64,
    /// Digits after the point in the table.
    decimals: usize,
    pub value: fn(&Row) -> Option<f64>,
}

const fn column(
    title: &'static str,
    key: &'static str,
    unit: f64,
    decimals: usize,
    value: fn(&Row) -> Option<f64>,
) -> Column {
    Column { title, key, unit, decimals, value }
}

const GIGA: f64 = 1e9;
const PERCENT: f64 = 0.01;
const MIB: f64 = 1024.0 * 1024.0;

pub const COLUMNS: [Column; 19] = [
    column("length", "length", 1.0, 0, |row| Some(row.length as f64)),
    column("batch", "batch", 1.0, 0, |row| Some(row.batch as f64)),
    column("prompt tok/s", "prompt_tokens_per_s", 1.0, 1, |row| Some(row.prompt.tokens_per_s)),
    column("decode tok/s", "decode_tokens_per_s", 1.0, 1, |row| Some(row.decode.tokens_per_s)),
    column("speed-up", "decode_speedup", 1.0, 2, |row| row.decode.speedup),
    column("ms/token", "decode_ms_mean", 1.0, 2, |row| Some(row.decode.ms_per_token.mean)),
    column("p50", "decode_ms_p50", 1.0, 2, |row| Some(row.decode.ms_per_token.p50)),
    column("p99", "decode_ms_p99", 1.0, 2, |row| Some(row.decode.ms_per_token.p99)),
    column("decode GB/s", "decode_bytes_per_s", GIGA, 1, |row| Some(row.decode.bytes_per_s)),
    column("of peak", "decode_bytes_share", PERCENT, 0, |row| row.decode.bytes_share),
    column("prompt Gmac/s", "prompt_macs_per_s", GIGA, 1, |row| Some(row.prompt.macs_per_s)),
    column("of peak", "prompt_macs_share", PERCENT, 0, |row| row.prompt.macs_share),
    column("decode Gmac/s", "decode_macs_per_s", GIGA, 1, |row| Some(row.decode.macs_per_s)),
    column("of peak", "decode_macs_share", PERCENT, 0, |row| row.decode.macs_share),
    column("prompt gathers", "prompt_gathers_share", PERCENT, 0, |row| row.prompt.gathers_share),
    column("decode gathers", "decode_gathers_share", PERCENT, 0, |row| row.decode.gathers_share),
    column("weights MiB", "weight_bytes", MIB, 0, |row| Some(row.memory.weight_bytes as f64)),
    column("KV MiB", "kv_bytes", MIB, 1, |row| Some(row.memory.kv_bytes as f64)),
    column("peak MiB", "peak_bytes", MIB, 0, |row| row.memory.peak_bytes.map(|bytes| bytes as f64)),
];

impl Column {
    fn width(&self) -> usize {
        self.title.len().max(7)
    }

    fn cell(&self, row: &Row) -> String {
        let sign = if self.unit == PERCENT { "%" } else { "" };
        (self.value)(row)
            .map_or(String::new(), |value| format!("{:.*}{sign}", self.decimals, value / self.unit))
    }
}

/// The model, the machine and the settings, and the table's head.
pub fn heading(report: &Report) -> String {
    let Report { model, machine, settings, .. } = report;
    let mut out = format!("# rustorch bench: {}\n\n", model.name);
    let mut line = |label: &str, text: String| {
        let _ = writeln!(out, "- {label}: {text}");
    };
    line(
        "model",
        format!(
            "{} layers, hidden {}, {} heads of {} ({} KV), feed-forward {}, vocabulary {}: {} parameters",
            model.num_layers,
            model.hidden_size,
            model.num_heads,
            model.head_dim,
            model.num_kv_heads,
            model.intermediate_size,
            grouped(model.vocab_size as u64),
            grouped(model.parameters)
        ),
    );
    let formats = model.format_bytes.iter().map(|(format, size)| format!("{format} {}", bytes(*size)));
    line(
        "weights",
        format!(
            "{} ({:.2} bits per weight); {} on the device, {} read by a step of one token",
            formats.collect::<Vec<_>>().join(", "),
            model.bits_per_weight,
            bytes(model.weight_bytes),
            bytes(model.step_weight_bytes)
        ),
    );
    line("device", machine.device.clone());
    line("processor", machine.cpu.clone().unwrap_or_else(|| "unknown".to_owned()));
    line(
        "peaks",
        match machine.peaks {
            Some(peaks) => format!(
                "read {:.1} GB/s, {:.0} Gmac/s with quantised weights, {:.0} Gmac/s in floats",
                peaks.read_bytes_per_s / GIGA,
                peaks.quantized_macs_per_s / GIGA,
                peaks.float_macs_per_s / GIGA
            ),
            None => "not known for this device".to_owned(),
        },
    );
    line("rustorch", report.rustorch.to_owned());
    let (steps, repeats) = (settings.gen_steps, settings.repeats);
    line("measured", format!("{steps} decode steps a row, repeated {repeats} times"));
    out.push('\n');
    let cells = |text: &dyn Fn(&Column) -> String| COLUMNS.iter().map(text).collect::<Vec<_>>();
    out += &markdown(&cells(&|column| format!("{:>1$}", column.title, column.width())));
    out += &markdown(&cells(&|column| "-".repeat(column.width() - 1) + ":"));
    out
}

/// The row that was measured last.
pub fn last_row(report: &Report) -> String {
    let row = report.cells.last().expect("a row was added");
    let cells = COLUMNS.iter().map(|column| format!("{:>1$}", column.cell(row), column.width()));
    markdown(&cells.collect::<Vec<_>>())
}

fn markdown(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
