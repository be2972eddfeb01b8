//! Attention at its extremes: long contexts, pages of every size, and scores so far apart that one position is all.

use model::{KvDtype, Result};

use crate::attention::{Attended, Bench, Case, Step, TWICE_DEVIATION};
use crate::{Subject, Tally};

/// Narrow heads over either cache, with sinks, and with a window longer than that by which a device may cut a context.
pub(crate) fn cases() -> [Case; 3] {
    let [half, float] = [KvDtype::F16, KvDtype::F32].map(|dtype| Case::new([4, 2, 16], dtype, None, 32));
    [half, Case { sinks: true, ..float }, Case { window: Some(1050), ..half }]
}

/// Positions on both sides of the 1024 and 2048 by which a device may cut a context to share it out.
const LONG_ROWS: [usize; 6] = [1022, 1023, 1024, 2047, 2048, 2099];
const LONG: usize = 2100;

/// Decodes over a long context against float64, and against the same rows in a chunk, bit for bit.
pub(crate) fn long<S: Subject>(backend: &S, tally: &mut Tally, case: Case) -> Result<()> {
    let mut bench = Bench::new(backend, case, LONG)?;
    let first = LONG_ROWS[0];
    bench.alone(0, (0, first), LONG)?;
    let chunk = bench.alone(0, (first, LONG), LONG)?.fused;
    let q_cols = case.shape.q_cols();
    for row in LONG_ROWS {
        let step = [Some((row, row + 1)), None, None, None];
        let Attended { fused, .. } = bench.run(step)?;
        // Averages of so many values are small: an error is seen beside the values, not beside their average.
        tally.each(|| format!("position {row}"), &fused, &bench.want(step), |_| TWICE_DEVIATION);
        let case = || format!("position {row} in a chunk");
        tally.same(case, &chunk[(row - first) * q_cols..][..q_cols], &fused);
    }
    Ok(())
}

/// Chunks that end within pages, at their ends, and at those of the 64 positions that a softmax takes at a time.
const PAGED_STEPS: [Step; 3] = [
    [Some((0, 130)), Some((0, 3)), Some((0, 63)), None],
    [Some((130, 131)), Some((3, 23)), Some((63, 64)), Some((0, 1))],
    [Some((131, 150)), Some((23, 32)), Some((64, 65)), Some((1, 2))],
];
const PAGE_SIZES: [usize; 6] = [32, 1, 7, 16, 33, 64];

/// Pages of every size hold the same.
pub(crate) fn pages<S: Subject>(backend: &S, tally: &mut Tally, case: Case) -> Result<()> {
    let mut want: Vec<Attended> = Vec::new();
    for page_size in PAGE_SIZES {
        let mut bench = Bench::new(backend, Case { page_size, ..case }, 150)?;
        let got = PAGED_STEPS.into_iter().map(|step| bench.run(step)).collect::<Result<Vec<_>>>()?;
        for (number, (got, want)) in got.iter().zip(&want).enumerate() {
            let case = || format!("pages of {page_size}, step {number}");
            tally.same(case, &got.fused, &want.fused);
            if let (Some(got), Some(want)) = (&got.reference, &want.reference) {
                tally.same(case, got, want);
            }
        }
        if want.is_empty() {
            want = got;
        }
    }
    Ok(())
}

/// Every query points along one key, so far that all other weights vanish in f32, and early ones in a later block's
/// correction: what comes out is the value of the best position.
pub(crate) fn far_apart<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const CONTEXT: usize = 130;
    let case = Case::new([1, 1, 16], KvDtype::F32, None, 16);
    let mut bench = Bench::new(backend, case, CONTEXT)?;
    for row in &mut bench.qkv[0] {
        row[..16].fill(6e4);
    }
    let along = |row: &[f32]| row[16..32].iter().map(|&k| f64::from(k)).sum::<f64>();
    let mut want = Vec::new();
    let mut best = &bench.qkv[0][0];
    for row in &bench.qkv[0] {
        if along(row) > along(best) {
            best = row;
        }
        want.extend_from_slice(&best[32..]);
    }
    let Attended { fused, .. } = bench.alone(0, (0, CONTEXT), CONTEXT)?;
    tally.same(|| "fused".to_owned(), &fused, &want);
    let Attended { fused, reference } = bench.alone(0, (0, CONTEXT), 64)?;
    tally.same(|| "fused, in chunks".to_owned(), &fused, &want);
    tally.same(|| "by three steps".to_owned(), &reference.unwrap_or_default(), &want);
    Ok(())
}
