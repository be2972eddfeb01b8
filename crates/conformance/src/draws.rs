//! Tokens that a device draws.

use model::{Batch, BatchLimits, BufferRole, Draw, QkvShape, Result, Rows, Want, draw};

use crate::{Subject, Tally, random, read};

/// Columns: one, less than a warp's, odd ones, and those of real vocabularies.
const COLS: [usize; 6] = [1, 5, 100, 2048, 32_003, 128_256];

/// Rows that yield tokens.
const ROWS: usize = 24;

/// Of every temperature, rule and end of the range of points; all different ones are among the rows of some columns.
fn draws(cols: usize) -> Vec<Draw> {
    const POINTS: [u64; 6] =
        [0, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0, 0xf000_0000_0000_0001, 0x4321 << 46];
    let nth = |i: usize| Draw {
        temperature: [0.8, 0.0, 1.0, 0.05, 2.5, 1e-9, 0.7][i % 7],
        top_k: [0, 40, 0, 1, 3, cols as u32 + 1, 500][i / 2 % 7],
        top_p: [1.0, 0.95, 1.0, 0.5, 0.0, 0.999_999][i / 3 % 6],
        min_p: [0.0, 0.0, 0.05, 0.0, 1.0][i / 5 % 5],
        point: POINTS[i % 6],
    };
    (cols..cols + ROWS).map(nth).collect()
}

/// Logits of a row: flat, steep or with many ties, and among them values that are none.
fn logits(row: usize, cols: usize) -> Vec<f32> {
    let values = random(row + cols, cols);
    let mut x: Vec<f32> = match row % 4 {
        0 => values.iter().map(|x| 8.0 * x).collect(),
        1 => values.iter().map(|x| (4.0 * x).round() / 2.0).collect(),
        2 => values.iter().map(|x| 25.0 * x * x * x - 7.0).collect(),
        _ => values,
    };
    for (i, special) in [f32::NAN, f32::NEG_INFINITY, -0.0, f32::INFINITY].into_iter().enumerate() {
        if cols > 50 && row > i {
            x[(i * 7919 + row) % cols] = special;
        }
    }
    if row == 9 {
        x.fill(f32::NEG_INFINITY);
    }
    x
}

/// Every draw beside others, beside rows that yield the highest logit, and before rows that yield logits.
pub(crate) fn draw_tokens<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    let num_seqs = ROWS + 2;
    let limits = BatchLimits {
        max_tokens: num_seqs,
        max_seqs: num_seqs,
        max_logit_rows: num_seqs,
        max_blocks: 1,
        num_pages: num_seqs,
    };
    let mut batch = Batch::new(limits, 16);
    let mut plan = backend.alloc_plan(limits, &[QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 }])?;
    for cols in COLS {
        batch.clear();
        for (seq, of) in draws(cols).into_iter().enumerate() {
            let want = if seq % 8 == 3 { Want::Argmax(Rows::Last) } else { Want::Draw(of) };
            batch.push(&[0], 0, &[seq as u32], want);
        }
        for seq in ROWS..num_seqs {
            batch.push(&[0], 0, &[seq as u32], Want::Logits(Rows::Last));
        }
        backend.plan(&batch, &mut plan)?;
        let x: Vec<Vec<f32>> = (0..num_seqs).map(|row| logits(row, cols)).collect();
        let on_device = backend.upload(num_seqs, cols, &x.concat())?;
        let mut out = backend.alloc(num_seqs, 1, BufferRole::Values)?;
        backend.draw(&plan, &on_device, &mut out);
        let got: Vec<u32> = read(backend, &out, num_seqs)?.iter().map(|bits| bits.to_bits()).collect();
        for (row, of) in batch.draws().iter().enumerate() {
            tally.equal(|| format!("row {row} of {cols}, {of:?}"), &got[row..=row], &[draw(&x[row], of)]);
        }
        tally.equal(|| format!("rows of logits, of {cols}"), &got[ROWS..], &[0; 2]);
    }
    Ok(())
}
