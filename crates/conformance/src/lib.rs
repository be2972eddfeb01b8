//! Whether a back end computes what it should: every operation against plain code in float64, and batch invariance, bit for
//! bit.
//!
//! The checks are generic over [`Backend`]. The same ones serve as tests of each back end, as the self-test before a model is
//! loaded on a device, and for anyone who wants to know whether a device and its driver are sound
//! (`rustorch devices --check`). A back end says how it rounds by implementing [`Subject`]. This crate knows no device.
#![forbid(unsafe_code)]

mod attention;
mod cache;
mod draws;
mod experts;
mod extremes;
pub mod faulty;
mod gathers;
mod invariance;
mod products;
mod reads;
mod report;
mod rows;
mod stacks;
mod tally;

use std::sync::Arc;
use std::time::Instant;

use gguf::random::Rng;
use gguf::{Format, Gguf};
use model::{Activation, AttentionOp, Backend, KvDtype, Read, Result, RunError};

pub use attention::Case;
pub use invariance::Sequences;
use invariance::Variant;
pub use report::{Finding, Report};
use tally::Tally;

/// A back end under test.
pub trait Subject: Backend {
    /// The device, in a few words.
    fn name(&self) -> String;
    /// Largest error of an element that an operation on rows yields: a norm's relative to what is right, an activation's
    /// relative to the gate times the other factor (as they are clamped, where they are), a soft cap's relative to the cap.
    fn row_limit(&self) -> f64 {
        F32_LIMIT
    }
    /// Largest error of an embedding, relative to what is right; 0 if weights become exactly what the format says.
    fn embed_limit(&self) -> f64 {
        F32_LIMIT
    }
    /// Largest error of products with weights of a format: of [`Inputs::Any`], that of all elements together, relative to
    /// what is right, in Euclidean norms; of [`Inputs::Exact`], also that of each element, relative to the sum of its
    /// terms' magnitudes.
    fn product_limit(&self, format: Format, inputs: Inputs) -> f64;
    /// Largest error of fused attention and of the three-step reference: of all elements together, relative to what is
    /// right, in Euclidean norms; of each element, relative to twice the deviation of the values that are averaged.
    fn attention_limit(&self, op: AttentionOp, dtype: KvDtype) -> f64;
    /// Formats whose kernels may treat matrices of very many rows in another way.
    fn formats_of_tall_matrices(&self) -> Vec<Format>;
}

/// What is multiplied with weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// Normal values.
    Any,
    /// Multiples of 1/32 whose largest in every 32 is 127/32: exact in f16, and in signed bytes with a scale for each 32.
    Exact,
}

/// Error of f32 arithmetic: a rounding of 6e-8 in each of some hundred additions that mostly cancel.
pub const F32_LIMIT: f64 = 2e-6;
/// Error of products and of attention on matrix units, whose operands are rounded to 11 bits: 2.4e-4 on average for each of
/// the two.
pub const HALF_LIMIT: f64 = 1e-3;
/// Error of attention in f32, whose exponentials the devices' languages allow some units of the last place.
pub const ATTENTION_LIMIT: f64 = 2e-5;

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
            digest: tally.digest,
            seconds: started.elapsed().as_secs_f64(),
            failure: tally.failure,
        }
    }
}

/// Operations on rows, and what brings rows to the host.
pub fn row_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let limit = device.row_limit();
    let gated = |act| move |device: &S, tally: &mut Tally| rows::gated(device, tally, act);
    let mut checks = vec![
        Check::new("rms_norm", limit, rows::rms_norm),
        Check::new("add_rms_norm", limit, rows::add_rms_norm),
        Check::new("norm_heads", limit, rows::norm_heads),
        Check::new("add", 0.0, rows::add),
        Check::new("scale", 0.0, rows::scale),
        Check::new("scale_queries", 0.0, rows::scale_queries),
        Check::new("softcap", limit, rows::softcap),
        Check::new("swiglu", limit, gated(Activation::Silu)),
        Check::new("geglu", limit, gated(Activation::GeluTanh)),
        Check::new("clamped swiglu", limit, gated(Activation::ClampedSwiglu)),
        Check::new("operations on rows: alone as in a batch", 0.0, rows::invariant),
        Check::new("gather_rows", 0.0, reads::gather_rows),
        Check::new("argmax", 0.0, reads::argmax),
        Check::new("read_into", 0.0, reads::read_into),
    ];
    if device.draws() {
        checks.push(Check::new("draw", 0.0, draws::draw_tokens));
    }
    checks
}

/// Batch invariance of a whole model, of one with other constants, and of one with reference attention.
pub fn model_checks<S: Subject>(model: &Gguf) -> Vec<Check<'_, S>> {
    let check = |(name, variant): (&str, Variant)| Check {
        name: format!("whole model, {name}: alone as in a batch"),
        limit: 0.0,
        run: Box::new(move |device: &Arc<S>, tally: &mut Tally| {
            invariance::whole_model(device, tally, model, variant)
        }),
    };
    invariance::VARIANTS.map(check).into()
}

/// Tensor parallel: gathers, and the bits of a whole model on ranks as one device gives, which is the one that the checks run on.
/// `ranks` says what `group` makes.
pub fn rank_checks<'a, S: Subject>(
    model: &'a Gguf,
    ranks: &str,
    group: impl Fn() -> Result<Vec<Arc<S>>> + Clone + 'a,
) -> Vec<Check<'a, S>> {
    let whole_model = |(name, variant): (&str, Variant)| {
        let group = group.clone();
        Check {
            name: format!("{ranks}, {name}: alone as in a batch"),
            limit: 0.0,
            run: Box::new(move |device: &Arc<S>, tally: &mut Tally| {
                invariance::over_ranks(device, &group()?, tally, model, variant)
            }),
        }
    };
    let mut checks = invariance::VARIANTS.map(whole_model).into_iter().collect::<Vec<_>>();
    checks.push(Check {
        name: format!("{ranks}: all_gather"),
        limit: 0.0,
        run: Box::new(move |_: &Arc<S>, tally: &mut Tally| Ok(gathers::all(&group()?, tally)?)),
    });
    checks
}

/// Embeddings and products of every block format, and of stacks of them.
pub fn product_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let mut checks = Vec::new();
    for format in Format::ALL {
        let limit = |inputs| device.product_limit(format, inputs);
        let embed = move |device: &S, tally: &mut _| products::embed(device, tally, format);
        let right = move |device: &S, tally: &mut _| products::right(device, tally, format);
        let exact = move |device: &S, tally: &mut _| products::exact(device, tally, format);
        let invariant = move |device: &S, tally: &mut _| products::invariant(device, tally, format);
        checks.push(Check::new(format!("embed {format}"), device.embed_limit(), embed));
        checks.push(Check::new(format!("matmul {format}"), limit(Inputs::Any), right));
        checks.push(Check::new(format!("matmul {format}, exact inputs"), limit(Inputs::Exact), exact));
        checks.push(Check::new(format!("matmul {format}: alone as in a batch"), 0.0, invariant));
    }
    let limits = stacks::FORMATS.map(|format| device.product_limit(format, Inputs::Exact));
    let limit = limits.into_iter().fold(0.0, f64::max);
    checks.push(Check::new("stacked matrices", limit, stacks::right));
    checks.push(Check::new("stacked matrices: alone as in a batch", 0.0, stacks::invariant));
    for format in device.formats_of_tall_matrices() {
        let tall = move |device: &S, tally: &mut _| products::tall(device, tally, format);
        checks.push(Check::new(format!("matmul {format}: many rows as few"), 0.0, tall));
    }
    checks
}

/// Layers with experts: routes, products of some block formats, and sums.
pub fn expert_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let mut checks = vec![
        Check::new("route and combine_experts", device.row_limit(), experts::routes_and_sums),
        Check::new("route and combine_experts: alone as in a batch", 0.0, experts::routes_invariant),
    ];
    for format in experts::FORMATS {
        let limit = device.product_limit(format, Inputs::Any);
        let right = move |device: &S, tally: &mut _| experts::right(device, tally, format);
        let invariant = move |device: &S, tally: &mut _| experts::invariant(device, tally, format);
        checks.push(Check::new(format!("matmul_experts {format}"), limit, right));
        checks.push(Check::new(format!("matmul_experts {format}: alone as in a batch"), 0.0, invariant));
    }
    checks
}

/// Rotation, the cache and attention in both modes.
pub fn attention_checks<'a, S: Subject>(device: &S) -> Vec<Check<'a, S>> {
    let mut checks = vec![
        Check::new("rope", cache::ROPE_LIMIT, cache::rope),
        Check::new("store_kv: values and places", 0.0, cache::stored),
        Check::new("attention, scores far apart", 0.0, extremes::far_apart),
    ];
    for case in attention::cases() {
        let right = move |device: &S, tally: &mut _| attention::right(device, tally, case);
        let invariant = move |device: &S, tally: &mut _| attention::invariant(device, tally, case);
        let limit = device.attention_limit(case.op(), case.dtype);
        checks.push(Check::new(format!("rope and attention, {case}"), limit, right));
        checks.push(Check::new(format!("attention, {case}: alone as in a batch"), 0.0, invariant));
    }
    for case in extremes::cases() {
        let limit = device.attention_limit(case.op(), case.dtype);
        let long = move |device: &S, tally: &mut _| extremes::long(device, tally, case);
        let pages = move |device: &S, tally: &mut _| extremes::pages(device, tally, case);
        checks.push(Check::new(format!("long attention, {case}"), limit, long));
        checks.push(Check::new(format!("attention, {case}, and pages of other sizes"), 0.0, pages));
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
        Check::new("rms_norm", device.row_limit(), rows::rms_norm),
        Check::new(
            format!("matmul {format}"),
            device.product_limit(format, Inputs::Any),
            move |device: &S, tally: &mut _| products::right(device, tally, format),
        ),
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
