//! Whether a device computes what it should: every kernel against plain code on the host in float64, and the law that the
//! batch does not show, bit for bit.
//!
//! The same checks serve as tests on a software rasteriser, as the self-test before a model is loaded, and for anyone who
//! wants to know whether a device and its driver are sound: [`run`] makes a report to read or to send.

mod attention;
pub(crate) mod law;
mod products;
mod report;
mod rows;

use std::time::Instant;

use gguf::random::Rng;
use gguf::{Format, Gguf};
use model::{Backend, Error, KvDtype, QkvShape, Result};

use crate::activations::GpuBuffer;
use crate::adapters::Adapter;
use crate::backend::GpuBackend;
use crate::device::{Capabilities, GpuOptions, MatrixUnits, Subgroups};

pub use report::{Finding, Report};

/// Error of f32 arithmetic: a rounding of 6e-8 in each of some hundred additions that mostly cancel.
const F32_LIMIT: f64 = 2e-6;
/// Error of products and of attention on matrix units, whose operands are rounded to 11 bits: 2.4e-4 on average for each of the two.
const HALF_LIMIT: f64 = 1e-3;
/// Error of attention in f32, whose exponentials the devices' languages allow some units of the last place.
const ATTENTION_LIMIT: f64 = 2e-5;

/// What a check comes to.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    /// The largest error, relative to what is right, in Euclidean norms.
    error: f64,
    /// What it may be; 0 where bits are compared.
    limit: f64,
    /// The first case that failed.
    failure: Option<String>,
}

impl Tally {
    fn within(limit: f64) -> Self {
        Self { limit, ..Self::default() }
    }

    fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
    }

    /// Compares values with what is right.
    fn near(&mut self, case: impl Fn() -> String, got: &[f32], want: &[f64]) {
        assert_eq!(got.len(), want.len(), "{}: values", case());
        self.cases += 1;
        let error: f64 = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).powi(2)).sum();
        let norm: f64 = want.iter().map(|want| want.powi(2)).sum();
        let error = (error / norm).sqrt();
        self.error = self.error.max(error);
        // An error that is no number is not within the limit either.
        if error.is_nan() || error > self.limit {
            self.fail(format!("{}: error {error:.2e}, expected at most {:.0e}", case(), self.limit));
        }
    }

    /// Compares whole numbers.
    fn equal(&mut self, case: impl Fn() -> String, got: &[u32], want: &[u32]) {
        self.cases += 1;
        if got != want {
            self.fail(format!("{}: {got:?}, expected {want:?}", case()));
        }
    }

    /// Compares bits.
    fn same(&mut self, case: impl Fn() -> String, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{}: values", case());
        self.cases += 1;
        let differs = |(got, want): (&f32, &f32)| got.to_bits() != want.to_bits();
        if let Some(i) = got.iter().zip(want).position(differs) {
            self.fail(format!("{}: value {i} is {:?}, expected {:?} bit for bit", case(), got[i], want[i]));
        }
    }
}

/// Runs a check's cases.
type Run<'a> = dyn Fn(&GpuBackend, &mut Tally) -> Result<()> + 'a;

/// A check under its name, and what its errors may be.
struct Check<'a> {
    name: String,
    limit: f64,
    run: Box<Run<'a>>,
}

impl<'a> Check<'a> {
    fn new(
        name: impl Into<String>,
        limit: f64,
        run: impl Fn(&GpuBackend, &mut Tally) -> Result<()> + 'a,
    ) -> Self {
        Self { name: name.into(), limit, run: Box::new(run) }
    }

    /// Runs it. A device that fails in it has failed it.
    fn finding(&self, backend: &GpuBackend, setting: &str) -> Finding {
        let started = Instant::now();
        let mut tally = Tally::within(self.limit);
        if let Err(error) = (self.run)(backend, &mut tally) {
            tally.fail(error.to_string());
        }
        if tally.cases == 0 {
            tally.fail("nothing was compared".to_owned());
        }
        Finding {
            setting: setting.to_owned(),
            check: self.name.clone(),
            cases: tally.cases,
            error: tally.error,
            limit: tally.limit,
            seconds: started.elapsed().as_secs_f64(),
            failure: tally.failure,
        }
    }
}

/// Limit of products with weights of a format on this backend.
fn product_limit(backend: &GpuBackend, format: Format) -> f64 {
    match backend.gpu().capabilities().matrix_tile {
        Some(_) if format != Format::F32 => HALF_LIMIT,
        _ => F32_LIMIT,
    }
}

fn attention_limit(backend: &GpuBackend, case: attention::Case) -> f64 {
    if case.is_on_matrix_units(backend) { HALF_LIMIT } else { ATTENTION_LIMIT }
}

/// Checks of kernels that may use subgroups, and of a whole `model`.
fn checks(model: &Gguf) -> Vec<Check<'_>> {
    let mut checks = vec![
        Check::new("rms_norm", F32_LIMIT, rows::rms_norm),
        Check::new("add_rms_norm", F32_LIMIT, rows::add_rms_norm),
        Check::new("add", F32_LIMIT, rows::add),
        Check::new("swiglu", F32_LIMIT, rows::swiglu),
        Check::new("gather_rows", 0.0, rows::gather_rows),
        Check::new("argmax", 0.0, rows::argmax),
    ];
    for (name, kv_dtype) in [("f16", KvDtype::F16), ("f32", KvDtype::F32)] {
        let lawful = move |backend: &_, tally: &mut _| law::whole_model(backend, tally, model, kv_dtype);
        checks.push(Check::new(format!("whole model, {name} cache: alone as in a batch"), 0.0, lawful));
    }
    checks
}

/// Checks of kernels that differ only with matrix units.
fn checks_of_products(backend: &GpuBackend) -> Vec<Check<'static>> {
    let mut checks = Vec::new();
    for format in Format::ALL {
        let limit = product_limit(backend, format);
        let embed = move |backend: &_, tally: &mut _| products::embed(backend, tally, format);
        let right = move |backend: &_, tally: &mut _| products::right(backend, tally, format);
        let lawful = move |backend: &_, tally: &mut _| products::lawful(backend, tally, format);
        checks.push(Check::new(format!("embed {format}"), F32_LIMIT, embed));
        checks.push(Check::new(format!("matmul {format}"), limit, right));
        checks.push(Check::new(format!("matmul {format}: alone as in a batch"), 0.0, lawful));
    }
    // The plain kernel takes a tile of rows whatever their number.
    let formats_of_tall: &[Format] = match backend.gpu().capabilities().matrix_tile {
        Some(_) => &[Format::Q8_0, Format::Q4_K, Format::F16],
        None => &[],
    };
    for &format in formats_of_tall {
        let tall = move |backend: &_, tally: &mut _| products::tall(backend, tally, format);
        checks.push(Check::new(format!("matmul {format}: many rows as few"), 0.0, tall));
    }
    for case in attention::CASES {
        let right = move |backend: &_, tally: &mut _| attention::right(backend, tally, case);
        let lawful = move |backend: &_, tally: &mut _| attention::lawful(backend, tally, case);
        let limit = attention_limit(backend, case);
        checks.push(Check::new(format!("rope and attention, {case}"), limit, right));
        checks.push(Check::new(format!("attention, {case}: alone as in a batch"), 0.0, lawful));
    }
    checks
}

/// Runs every check in every setting in which the device's kernels differ, starting from `options`. `found` is told each
/// finding as it comes.
///
/// # Errors
/// When the device cannot be opened.
pub fn run(
    adapter: &Adapter,
    options: GpuOptions,
    model: &Gguf,
    mut found: impl FnMut(&Finding),
) -> Result<Report> {
    let mut report = Report::new(adapter);
    let mut seen: Vec<Capabilities> = Vec::new();
    let plain = GpuOptions { matrix_units: MatrixUnits::Off, ..options };
    for options in [options, plain, GpuOptions { subgroups: Subgroups::Off, ..plain }] {
        let gpu = adapter.open(options)?;
        if seen.contains(&gpu.capabilities()) {
            continue;
        }
        let capabilities = gpu.capabilities();
        let are_products_new = seen.iter().all(|seen| seen.matrix_tile != capabilities.matrix_tile);
        seen.push(capabilities);
        let setting = report::setting(capabilities);
        let backend = GpuBackend::new(gpu);
        let mut checks = checks(model);
        if are_products_new {
            checks.extend(checks_of_products(&backend));
        }
        for check in checks {
            let finding = check.finding(&backend, &setting);
            found(&finding);
            report.findings.push(finding);
        }
    }
    Ok(report)
}

/// The start-up self-test: a norm, a product with weights of `format`, and attention of `shape` over a cache of
/// `dtype`.
///
/// # Errors
/// Names what is wrong.
pub fn self_test(backend: &GpuBackend, format: Format, shape: QkvShape, dtype: KvDtype) -> Result<()> {
    let case = attention::Case::of_model(shape, dtype);
    let checks = [
        Check::new("rms_norm", F32_LIMIT, rows::rms_norm),
        Check::new(format!("matmul {format}"), product_limit(backend, format), move |backend, tally| {
            products::right(backend, tally, format)
        }),
        Check::new("attention", attention_limit(backend, case), move |backend, tally| {
            attention::right_in_short(backend, tally, case)
        }),
    ];
    for check in checks {
        if let Some(failure) = check.finding(backend, "").failure {
            let name = &backend.gpu().info().name;
            return Err(Error::Device(format!(
                "{name}: self-test: {}: {failure}\nhint: `rustorch devices --check` tells more",
                check.name
            )));
        }
    }
    Ok(())
}

/// The first values of a buffer.
fn read(backend: &GpuBackend, buffer: &GpuBuffer, len: usize) -> Result<Vec<f32>> {
    let mut values = vec![0.0; len];
    backend.read_into(buffer, &mut values)?;
    Ok(values)
}

fn random(seed: usize, len: usize) -> Vec<f32> {
    Rng::new(seed as u64).normals(len, 1.0)
}
