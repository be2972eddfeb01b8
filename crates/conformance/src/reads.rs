//! What brings rows to the host: gathers, the index of the highest value, and reads.

use model::{Batch, BatchLimits, BufferRole, NO_INDEX, QkvShape, Read, Result, Rows, Want};

use crate::{Subject, Tally, random, read};

/// Columns of gathered rows: one lane's work, odd ones, several rounds of a workgroup's.
const COLS: [usize; 6] = [1, 15, 64, 100, 257, 2049];

/// The wants of a step's sequences, and their tokens.
type Wants<'a> = &'a [(usize, Want)];

const WANTS: [Wants<'_>; 4] = [
    &[
        (5, Want::Logits(Rows::Last)),
        (17, Want::None),
        (8, Want::Hidden(Rows::All)),
        (6, Want::Argmax(Rows::LastN(3))),
    ],
    &[
        (3, Want::Hidden(Rows::LastN(2))),
        (1, Want::Argmax(Rows::Last)),
        (7, Want::Logits(Rows::All)),
        (1, Want::Argmax(Rows::All)),
    ],
    &[(1, Want::None), (2, Want::Logits(Rows::LastN(2))), (19, Want::Hidden(Rows::Last))],
    &[(18, Want::Hidden(Rows::All)), (20, Want::Hidden(Rows::All))],
];

/// The rows that sequences of every kind want, in the order of kinds; the rows beyond stay.
pub(crate) fn gather_rows<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    let limits = BatchLimits { max_tokens: 40, max_seqs: 4, max_logit_rows: 40, max_blocks: 2, num_pages: 8 };
    let mut batch = Batch::new(limits, 16);
    let mut plan = backend.alloc_plan(limits, &[QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 }])?;
    for wants in WANTS {
        batch.clear();
        for (seq, &(len, want)) in (0..).zip(wants) {
            batch.push(&vec![0; len], 0, &[2 * seq, 2 * seq + 1], want);
        }
        backend.plan(&batch, &mut plan)?;
        let rows = batch.size().wanted_rows();
        for cols in COLS {
            let x = random(9, batch.num_tokens() * cols);
            let on_device = backend.upload(batch.num_tokens(), cols, &x)?;
            let mut out = backend.alloc(rows + 1, cols, BufferRole::Values)?;
            backend.gather_rows(&plan, &on_device, &mut out);
            let wanted = batch.wanted_rows().iter();
            let mut want: Vec<f32> =
                wanted.flat_map(|&row| &x[row as usize * cols..][..cols]).copied().collect();
            want.resize((rows + 1) * cols, 0.0);
            tally.same(|| format!("{rows} x {cols}"), &read(backend, &out, want.len())?, &want);
        }
    }
    Ok(())
}

/// Several buffers in one call: whole rows, parts of rows and nothing, from any row on.
pub(crate) fn read_into<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    let shapes = [(5, 7), (4, 100), (3, 1)];
    let values = shapes.map(|(rows, cols)| random(rows + cols, rows * cols));
    let upload = |i: usize| backend.upload(shapes[i].0, shapes[i].1, &values[i]);
    let buffers = [upload(0)?, upload(1)?, upload(2)?];
    // Buffer, first row, values.
    let calls: [&[(usize, usize, usize)]; 4] = [
        &[(0, 2, 14), (1, 1, 150), (2, 0, 0), (1, 3, 100), (2, 2, 1), (0, 0, 3)],
        &[(2, 1, 0), (0, 4, 7)],
        &[(1, 0, 400), (0, 0, 35), (2, 0, 3)],
        &[],
    ];
    for call in calls {
        let mut outs: Vec<Vec<f32>> = call.iter().map(|&(.., len)| vec![f32::NAN; len]).collect();
        let reads = call.iter().zip(&mut outs);
        let mut reads: Vec<Read<'_, S>> =
            reads.map(|(&(i, first_row, _), out)| Read { buffer: &buffers[i], first_row, out }).collect();
        backend.read_into(&mut reads)?;
        for (&(i, first_row, len), got) in call.iter().zip(&outs) {
            let case = || format!("{len} values of buffer {i} from row {first_row} on");
            tally.same(case, got, &values[i][first_row * shapes[i].1..][..len]);
        }
    }
    Ok(())
}

/// Ties, values that are none, rows without any, and rows in the middle of a buffer.
pub(crate) fn argmax<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in [(1, 2048), (3, 100), (17, 171), (5, 32_003), (2, 1)] {
        let mut x: Vec<f32> = random(10, rows * cols).iter().map(|x| (4.0 * x).round()).collect();
        for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].into_iter().enumerate() {
            let at = (i * 7919 + 5) % x.len();
            x[at] = special;
        }
        if rows > 2 {
            x[cols..2 * cols].fill(f32::NEG_INFINITY);
            x[2 * cols + 3] = f32::MAX;
            x[2 * cols + 4] = f32::INFINITY;
        }
        let on_device = backend.upload(rows, cols, &x)?;
        let all: Vec<u32> = x.chunks_exact(cols).map(highest).collect();
        for range in [0..rows, rows / 2..rows, rows / 3..(rows / 3 + 2).min(rows), 0..1] {
            let mut out = backend.alloc(rows + 1, 1, BufferRole::Values)?;
            backend.argmax(range.clone(), &on_device, &mut out);
            let got: Vec<u32> = read(backend, &out, rows + 1)?.iter().map(|bits| bits.to_bits()).collect();
            let mut want = all[range.clone()].to_vec();
            want.resize(rows + 1, 0);
            tally.equal(|| format!("rows {range:?} of {cols}"), &got, &want);
        }
    }
    Ok(())
}

/// The index of the highest value, of equal ones the first.
pub(crate) fn highest(row: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, NO_INDEX);
    for (i, &value) in (0..).zip(row) {
        let value = if value == f32::INFINITY { f32::MAX } else { value };
        if value > best.0 {
            best = (value, i);
        }
    }
    best.1
}
