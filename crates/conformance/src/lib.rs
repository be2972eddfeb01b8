//! Whether a back end computes what it should: every operation against plain code in float64, and batch invariance, bit for
//! bit.
//!
//! The checks are generic over [`Backend`]. The same ones serve as tests of each back end, as the self-test before a model is
//! loaded on a device, and for anyone who wants to know whether a device and its driver are sound
//! (`rustorch devices --check`). A back end says how it rounds by implementing [`Subject`]. This crate knows no device.
#![forbid(unsafe_code)]

mod attention;
mod invariance;
mod products;
mod report;
mod rows;

use std::sync::Arc;
use std::time::Instant;

use gguf::random::Rng;
use gguf::{Format, Gguf};
use model::{Activation, AttentionOp, Backend, KvDtype, Read, Result, RunError};

pub use attention::Case;
pub use invariance::Sequences;
pub use report::{Finding, Report};

/// A back end under test.
pub trait Subject: Backend {
    /// The device, in a few words.
    fn name(&self) -> String;
    /// Largest error of products with weights of a format, relative to what is right, in Euclidean norms.
    fn product_limit(&self, format: Format) -> f64;
    /// The same of fused attention, and of the three-step reference.
    fn attention_limit(&self, op: AttentionOp, dtype: KvDtype) -> f64;
    /// Formats whose kernels may treat matrices of very many rows in another way.
    fn formats_of_tall_matrices(&self) -> Vec<Format>;
}

/// Error of f32 arithmetic: a rounding of 6e-8 in each of some hundred additions that mostly cancel.
pub const F32_LIMIT: f64 = 2e-6;
/// Error of products and of attention on matrix units, whose operands are rounded to 11 bits: 2.4e-4 on average for each of
/// the two.
pub const HALF_LIMIT: f64 = 1e-3;
/// Error of attention in f32, whose exponentials the devices' languages allow some units of the last place.
pub const ATTENTION_LIMIT: f64 = 2e-5;

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
type Run<'a, S> = dyn Fn(&Arc<S>, &mut Tally) -> std::result::Result<(), RunError> + 'a;

/// A check under its name, and what its errors may be.
pub struct Check<'a, S> {
    name: String,
    limit: f64,
    run: Box<Run<'a, S>>,
}

impl<'a, S: Subject> Check<'a, S> {
    fn new(name: impl Into<String>, limit: f64, run: impl Fn(&S, &mut Tally) -> Result<()> + 'a) -> Self {
        let run = move |device: &Arc<S>, tally: &mut Tally| Ok(run(device, tally)?);
        Self { name: name.into(), limit, run: Box::new(run) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it. A device that fails in it has failed it.
    pub fn finding(&self, device: &Arc<S>, setting: &str) -> Finding {
        let started = Instant::now();
        let mut tally = Tally::within(self.limit);
        if let Err(error) = (self.run)(device, &mut tally) {
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

/// Operations on rows.
pub fn row_checks<'a, S: Subject>() -> Vec<Check<'a, S>> {
    vec![
        Check::new("rms_norm", F32_LIMIT, rows::rms_norm),
        Check::new("add_rms_norm", F32_LIMIT, rows::add_rms_norm),
        Check::new("norm_heads", F32_LIMIT, rows::norm_heads),
        Check::new("add", F32_LIMIT, rows::add),
        Check::new("scale", F32_LIMIT, rows::scale),
        Check::new("softcap", F32_LIMIT, rows::softcap),
        Check::new("swiglu", F32_LIMIT, |device: &S, tally: &mut _| {
            rows::gated(device, tally, Activation::Silu)
        }),
        Check::new("geglu", F32_LIMIT, |device: &S, tally: &mut _| {
            rows::gated(device, tally, Activation::GeluTanh)
        }),
        Check::new("gather_rows", 0.0, rows::gather_rows),
        Check::new("argmax", 0.0, rows::argmax),
    ]
}

/// Batch invariance of a whole model.
pub fn model_checks<S: Subject>(model: &Gguf) -> Vec<Check<'_, S>> {
    let check = |(name, kv_dtype): (&str, KvDtype)| Check {
        name: format!("whole model, {name} cache: alone as in a batch"),
        limit: 0.0,
        run: Box::new(move |device: &Arc<S>, tally: &mut Tally| {
            invariance::whole_model(device, tally, model, kv_dtype)
        }),
    };
    [("f16", KvDtype::F16), ("f32", KvDtype::F32)].map(check).into()
}

/// Embeddings and products of every block format.
pub fn product_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let mut checks = Vec::new();
    for format in Format::ALL {
        let limit = device.product_limit(format);
        let embed = move |device: &S, tally: &mut _| products::embed(device, tally, format);
        let right = move |device: &S, tally: &mut _| products::right(device, tally, format);
        let invariant = move |device: &S, tally: &mut _| products::invariant(device, tally, format);
        checks.push(Check::new(format!("embed {format}"), F32_LIMIT, embed));
        checks.push(Check::new(format!("matmul {format}"), limit, right));
        checks.push(Check::new(format!("matmul {format}: alone as in a batch"), 0.0, invariant));
    }
    for format in device.formats_of_tall_matrices() {
        let tall = move |device: &S, tally: &mut _| products::tall(device, tally, format);
        checks.push(Check::new(format!("matmul {format}: many rows as few"), 0.0, tall));
    }
    checks
}

/// Rotation, the cache and attention in both modes.
pub fn attention_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let mut checks = Vec::new();
    for case in attention::cases() {
        let right = move |device: &S, tally: &mut _| attention::right(device, tally, case);
        let invariant = move |device: &S, tally: &mut _| attention::invariant(device, tally, case);
        let limit = device.attention_limit(case.op(), case.dtype);
        checks.push(Check::new(format!("rope and attention, {case}"), limit, right));
        checks.push(Check::new(format!("attention, {case}: alone as in a batch"), 0.0, invariant));
    }
    checks
}

/// Runs checks; `found` is told each finding as it comes.
pub fn run<S: Subject>(
    device: &Arc<S>,
    setting: &str,
    checks: Vec<Check<'_, S>>,
    found: &mut dyn FnMut(&Finding),
) -> Vec<Finding> {
    let finding = |check: Check<'_, S>| {
        let finding = check.finding(device, setting);
        found(&finding);
        finding
    };
    checks.into_iter().map(finding).collect()
}

/// The start-up self-test: a norm, a product with weights of `format`, and a model's attention over a cache of `dtype`.
///
/// # Errors
/// Names what is wrong.
pub fn self_test<S: Subject>(device: &Arc<S>, format: Format, op: AttentionOp, dtype: KvDtype) -> Result<()> {
    let case = Case::of_model(op, dtype);
    let checks: [Check<'_, S>; 3] = [
        Check::new("rms_norm", F32_LIMIT, rows::rms_norm),
        Check::new(format!("matmul {format}"), device.product_limit(format), move |device: &S, tally: &mut _| {
            products::right(device, tally, format)
        }),
        Check::new("attention", device.attention_limit(op, dtype), move |device: &S, tally: &mut _| {
            attention::right_in_short(device, tally, case)
        }),
    ];
    for check in checks {
        if let Some(failure) = check.finding(device, "").failure {
            return Err(model::Error::Device(format!(
                "{}: self-test: {}: {failure}\nhint: `rustorch devices --check` tells more",
                device.name(),
                check.name
            )));
        }
    }
    Ok(())
}

/// The first values of a buffer.
fn read<B: Backend>(backend: &B, buffer: &B::Buffer, len: usize) -> Result<Vec<f32>> {
    let mut values = vec![0.0; len];
    backend.read_into(&mut [Read { buffer, first_row: 0, out: &mut values }])?;
    Ok(values)
}

fn random(seed: usize, len: usize) -> Vec<f32> {
    Rng::new(seed as u64).normals(len, 1.0)
}
