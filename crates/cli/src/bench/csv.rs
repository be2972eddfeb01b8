//! The results as CSV (RFC 4180): one line for each cell; the columns of the model and machine repeat on every line.

use super::report::Report;
use super::table::COLUMNS;

/// Columns of the model and machine, then those of the cell, in the units of the JSON.
pub fn of(report: &Report) -> String {
    let peaks = report.machine.peaks;
    let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    let shared = [
        ("rustorch", report.rustorch.to_owned()),
        ("model", report.model.name.clone()),
        ("parameters", report.model.parameters.to_string()),
        ("bits_per_weight", report.model.bits_per_weight.to_string()),
        ("step_weight_bytes", report.model.step_weight_bytes.to_string()),
        ("device", report.machine.device.clone()),
        ("cpu", report.machine.cpu.clone().unwrap_or_default()),
        ("peak_read_bytes_per_s", number(peaks.map(|peaks| peaks.read_bytes_per_s))),
        ("peak_quantized_macs_per_s", number(peaks.map(|peaks| peaks.quantized_macs_per_s))),
        ("peak_float_macs_per_s", number(peaks.map(|peaks| peaks.float_macs_per_s))),
        ("gen_steps", report.settings.gen_steps.to_string()),
        ("repeats", report.settings.repeats.to_string()),
    ];
    let titles = shared.iter().map(|(title, _)| *title).chain(COLUMNS.iter().map(|column| column.key));
    let mut out = line(titles.map(str::to_owned));
    for row in &report.cells {
        let values = COLUMNS.iter().map(|column| number((column.value)(row)));
        out += &line(shared.iter().map(|(_, value)| value.clone()).chain(values));
    }
    out
}

fn line(fields: impl Iterator<Item = String>) -> String {
    fields.map(|field| quoted(&field)).collect::<Vec<_>>().join(",") + "\n"
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (field, expect) in [
            ("CPU", "CPU"),
            ("CPU (avx2, 2 threads)", "\"CPU (avx2, 2 threads)\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
        ] {
            assert_eq!(quoted(field), expect);
        }
    }
}
