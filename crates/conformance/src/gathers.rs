//! Gathering the parts of rows that the ranks of a group have.

use std::sync::Arc;
use std::thread;

use model::{Backend, BufferRole, Result, Shards};

use crate::{Subject, Tally, read};

/// Rows, and columns of all ranks together: of few and of many values, in vectors and not.
const SHAPES: [(usize, usize); 6] = [(1, 64), (3, 101), (16, 2048), (37, 8192), (41, 7001), (130, 4100)];
/// Gathers of a part.
const ROUNDS: usize = 3;

/// Every rank has what each has brought, time after time, in rows of several kinds by turns.
pub(crate) fn all<S: Subject>(ranks: &[Arc<S>], tally: &mut Tally) -> Result<()> {
    let kinds =
        (0..ranks.len()).map(|rank| SHAPES.map(|shape| Kind::new(&*ranks[rank], rank, ranks.len(), shape)));
    let mut kinds = kinds.map(|kinds| kinds.into_iter().collect()).collect::<Result<Vec<Vec<_>>>>()?;
    for round in 0..ROUNDS {
        let gather = |(device, kinds): (&Arc<S>, &mut Vec<Kind<S>>)| {
            for Kind { rows, shards, values, part, out } in kinds {
                device.add(*rows, part, values);
                device.all_gather(*rows, part, shards, out);
            }
            device.read_into(&mut [])
        };
        thread::scope(|scope| {
            let threads = ranks.iter().zip(&mut kinds).map(|work| scope.spawn(move || gather(work)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        for (rank, kinds) in kinds.iter().enumerate() {
            for Kind { rows, shards, out, .. } in kinds {
                let cols = shards.cols();
                let want: Vec<f32> = (0..rows * cols).map(|at| value(round, at / cols, at % cols)).collect();
                let got = read(&*ranks[rank], out, want.len())?;
                tally.same(|| format!("{rows} x {cols} on rank {rank}, round {round}"), &got, &want);
            }
        }
    }
    Ok(())
}

/// Rows that ranks gather.
struct Kind<B: Backend> {
    rows: usize,
    shards: Shards,
    /// What the part has more in each round.
    values: B::Buffer,
    part: B::Buffer,
    out: B::Buffer,
}

impl<B: Backend> Kind<B> {
    /// In shares that differ, the first the most.
    fn new(device: &B, rank: usize, count: usize, (rows, cols): (usize, usize)) -> Result<Self> {
        let share = cols / (count + 1);
        let shards =
            Shards::new((0..count).map(|rank| if rank == 0 { cols - (count - 1) * share } else { share }));
        let own = shards.of(rank);
        let values: Vec<f32> =
            (0..rows).flat_map(|row| own.clone().map(move |col| value(0, row, col))).collect();
        Ok(Self {
            rows,
            values: device.upload(rows, own.len(), &values)?,
            part: device.alloc(rows, own.len(), BufferRole::Part)?,
            out: device.alloc(rows, cols, BufferRole::MatmulInput)?,
            shards,
        })
    }
}

fn value(round: usize, row: usize, col: usize) -> f32 {
    ((round + 1) * (row * 31 + col)) as f32
}
