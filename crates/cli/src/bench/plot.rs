//! Decode speed over the batch as an SVG, a line for each length, and the machine's peak rates.
//!
//! Both axes are logarithmic, so that twice the batch is the same step everywhere and the memory peak, as long as a step
//! reads little but weights, is a straight line. Longer contexts read and compute more: each peak is a band from the
//! longest length to the shortest.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::{LogCoord, WithKeyPoints};
use plotters::prelude::*;

use super::machine::MachinePeaks;
use super::report::{Report, Row};

const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x38, 0x40);
const FAINT: RGBColor = RGBColor(0xe6, 0xe8, 0xec);
const MEMORY: RGBColor = RGBColor(0x7a, 0x82, 0x8e);
const ARITHMETIC: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
/// Colours of the lengths, the shortest first, from light to dark, so that they differ in grey as well.
const LINES: [RGBColor; 6] = [
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x2a, 0x9d, 0x8f),
    RGBColor(0x26, 0x7a, 0xc4),
    RGBColor(0x5b, 0x3f, 0x9e),
    RGBColor(0x8c, 0x2d, 0x6a),
    RGBColor(0x1d, 0x24, 0x3a),
];

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type LogAxis = WithKeyPoints<LogCoord<f64>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogAxis, LogAxis>>;

/// The ranges of the axes.
struct Axes {
    batch: Range<f64>,
    tokens_per_s: Range<f64>,
}

/// The picture.
pub fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let axes = Axes::of(report);
    root.draw(&title(&report.model.name, 24, 30, INK))?;
    let machine = format!(
        "decode throughput over batch size; {}, {}, rustorch {}",
        report.machine.device,
        report.machine.cpu.as_deref().unwrap_or("unknown processor"),
        report.rustorch
    );
    root.draw(&title(&machine, 52, 15, MEMORY))?;
    let (batch, rate) = (axes.batch.clone(), axes.tokens_per_s.clone());
    let mut chart = ChartBuilder::on(&root)
        .margin_top(84)
        .margin_right(28)
        .margin_bottom(14)
        .margin_left(14)
        .x_label_area_size(52)
        .y_label_area_size(72)
        .build_cartesian_2d(
            batch.log_scale().with_key_points(batches(report)),
            rate.clone().log_scale().with_key_points(round_values(rate)),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(MEMORY)
        .x_desc("batch (sequences decoded together)")
        .y_desc("decode tokens/s, all sequences together")
        .x_label_formatter(&|batch| format!("{batch}"))
        .y_label_formatter(&|rate| format!("{rate}"))
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .draw()?;
    if let Some(peaks) = report.machine.peaks {
        draw_peaks(&mut chart, report, &axes, &peaks)?;
    }
    draw_lines(&mut chart, report)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(16)
        .background_style(WHITE.mix(0.9))
        .border_style(FAINT)
        .label_font((FONT, 15).into_font().color(&INK))
        .draw()?;
    root.present()?;
    Ok(())
}

fn title(text: &str, y: i32, size: u32, color: RGBColor) -> Text<'static, (i32, i32), String> {
    Text::new(text.to_owned(), (28, y - size as i32 / 2 + 4), (FONT, size).into_font().color(&color))
}

/// Both peaks, each as a band from the longest length to the shortest.
fn draw_peaks(chart: &mut Chart<'_, '_>, report: &Report, axes: &Axes, peaks: &MachinePeaks) -> Drawn {
    let lengths = lengths(report);
    let (Some(&shortest), Some(&longest)) = (lengths.first(), lengths.last()) else { return Ok(()) };
    let label = |name: &str| match shortest == longest {
        true => name.to_owned(),
        false => format!("{name}, length {shortest} (line) to {longest}"),
    };
    let context = |length: usize| length as f64 + report.settings.gen_steps as f64 / 2.0;
    let [upper, lower] = [shortest, longest]
        .map(|length| axes.curve(|batch| memory_peak(report, peaks, batch, context(length))));
    draw_band(chart, label("memory peak"), MEMORY, upper, lower)?;
    let [upper, lower] =
        [shortest, longest].map(|length| axes.curve(|_| arithmetic_peak(report, peaks, context(length))));
    draw_band(chart, label("arithmetic peak"), ARITHMETIC, upper, lower)
}

/// The space between two curves, the upper one drawn stronger.
fn draw_band(
    chart: &mut Chart<'_, '_>,
    label: String,
    color: RGBColor,
    upper: Vec<(f64, f64)>,
    lower: Vec<(f64, f64)>,
) -> Drawn {
    let outline: Vec<_> = upper.iter().chain(lower.iter().rev()).copied().collect();
    chart.draw_series([Polygon::new(outline, color.mix(0.15))])?;
    chart.draw_series(LineSeries::new(lower, color.mix(0.6).stroke_width(1)))?;
    let style = color.mix(0.9).stroke_width(2);
    chart
        .draw_series(LineSeries::new(upper, style))?
        .label(label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
    Ok(())
}

fn draw_lines(chart: &mut Chart<'_, '_>, report: &Report) -> Drawn {
    for (index, length) in lengths(report).into_iter().enumerate() {
        let color = LINES[index % LINES.len()];
        let of_length = report.cells.iter().filter(|row| row.length == length);
        let points: Vec<_> = of_length.map(|row| (row.batch as f64, row.decode.tokens_per_s)).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(3)))?
            .label(format!("length {length}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 6, WHITE.filled())))?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, color.filled())))?;
    }
    Ok(())
}

/// Tokens/s of a batch if its steps take no longer than reading memory at the peak rate.
fn memory_peak(report: &Report, peaks: &MachinePeaks, batch: f64, context: f64) -> f64 {
    batch * peaks.read_bytes_per_s / report.work.step_bytes(batch, context)
}

/// Tokens/s at the peak rate of multiply-adds, for any batch.
fn arithmetic_peak(report: &Report, peaks: &MachinePeaks, context: f64) -> f64 {
    1.0 / report.work.token_macs(context).seconds_at(peaks)
}

impl Axes {
    /// Ranges that hold all measured points and, if they are near, the peaks.
    fn of(report: &Report) -> Self {
        let measured = |of: fn(&Row) -> f64| report.cells.iter().map(of);
        let rates = || measured(|row| row.decode.tokens_per_s);
        let (low, high) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        let batches = || measured(|row| row.batch as f64);
        let (fewest, most) = (batches().fold(f64::INFINITY, f64::min), batches().fold(0.0, f64::max));
        let reach = report.machine.peaks.map_or(high, |peaks| {
            let peak = memory_peak(report, &peaks, most, 1.0).max(arithmetic_peak(report, &peaks, 1.0));
            peak.clamp(high, 20.0 * high)
        });
        Self { batch: fewest / 1.12..most * 1.12, tokens_per_s: low / 1.5..reach * 1.5 }
    }

    /// Points of a curve over all batches that lie within the picture.
    fn curve(&self, rate: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        // With more points, rounding to pixels becomes visible.
        const POINTS: u32 = 24;
        let growth = (self.batch.end / self.batch.start).powf(1.0 / f64::from(POINTS));
        let batches = (0..=POINTS).map(|i| self.batch.start * growth.powi(i as i32));
        batches
            .map(|batch| (batch, rate(batch)))
            .filter(|(_, rate)| self.tokens_per_s.contains(rate))
            .collect()
    }
}

fn lengths(report: &Report) -> Vec<usize> {
    let mut lengths: Vec<usize> = report.cells.iter().map(|row| row.length).collect();
    lengths.dedup();
    lengths
}

fn batches(report: &Report) -> Vec<f64> {
    let mut batches: Vec<usize> = report.cells.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    batches.into_iter().map(|batch| batch as f64).collect()
}

/// 1, 2 and 5 times the powers of ten within the range.
fn round_values(range: Range<f64>) -> Vec<f64> {
    let first = range.start.log10().floor() as i32;
    let last = range.end.log10().ceil() as i32;
    let values = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
    values.filter(|value| range.contains(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (range, expect) in [
            (0.8..12.0, vec![1.0, 2.0, 5.0, 10.0]),
            (30.0..190.0, vec![50.0, 100.0]),
            (150.0..250.0, vec![200.0]),
        ] {
            assert_eq!(round_values(range), expect);
        }
    }
}
