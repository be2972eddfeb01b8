//! How long a step may take.
//!
//! A long step keeps everyone waiting: those who generate for their next token, and who has just come for a first step of its
//! own. So what prompts may take of a step follows from a target for the time between tokens and from what steps cost.
//! That is learned from the steps themselves, as a sum of four parts: a step as such, its tokens, its rows that go through
//! the LM head and the sampler, and the positions that its tokens attend to.
//!
//! Time comes in through a [`Clock`], and decides how prompts are cut into chunks only. No result depends on that.

use std::fmt;
use std::time::{Duration, Instant};

use model::Batch;

/// Where time comes from.
pub(crate) trait Clock: fmt::Debug + Send {
    /// Time since some beginning; it never goes back.
    fn now(&mut self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&mut self) -> Duration {
        self.0.elapsed()
    }
}

/// What a step's cost depends on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Work {
    /// Rows of the step.
    pub tokens: f64,
    /// Rows that go through the LM head.
    pub head_rows: f64,
    /// Positions that all rows attend to.
    pub attended: f64,
}

impl Work {
    /// That of a step.
    pub fn of(batch: &Batch) -> Self {
        let size = batch.size();
        let positions: u64 = batch.positions().iter().map(|&position| u64::from(position) + 1).sum();
        Self { tokens: size.tokens as f64, head_rows: size.head_rows() as f64, attended: positions as f64 }
    }

    /// That of the token at `position`, which generates another.
    pub fn decode(position: usize) -> Self {
        Self { tokens: 1.0, head_rows: 1.0, attended: (position + 1) as f64 }
    }

    pub fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.head_rows += other.head_rows;
        self.attended += other.attended;
    }

    fn parts(self) -> [f64; NUM_PARTS] {
        [1.0, self.tokens, self.head_rows, self.attended]
    }
}

const NUM_PARTS: usize = 4;

/// How much a step counts beside the next one of its kind: the costs follow the last few dozen.
const KEPT: f64 = 0.98;

/// Added to the diagonal, as a share of it: what steps do not tell apart is divided evenly.
const RIDGE: f64 = 1e-4;

/// The cost of a step in seconds, as a sum over the parts of its work.
///
/// Fitted by least squares of the relative error, with costs of 0 at least. Steps of decodes alone and steps with prompts
/// fade separately: thousands of the one kind do not wash out what the other has taught.
#[derive(Debug, Clone, Default)]
pub(crate) struct CostModel {
    decodes: Sums,
    mixed: Sums,
    costs: [f64; NUM_PARTS],
    is_fitted: bool,
}

/// The normal equations of a least-squares fit.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    products: [[f64; NUM_PARTS]; NUM_PARTS],
    targets: [f64; NUM_PARTS],
}

impl Sums {
    fn add(&mut self, work: Work, seconds: f64) {
        let parts = work.parts().map(|part| part / seconds);
        for (i, row) in self.products.iter_mut().enumerate() {
            row.iter_mut().zip(parts).for_each(|(sum, part)| *sum = *sum * KEPT + parts[i] * part);
            self.targets[i] = self.targets[i] * KEPT + parts[i];
        }
    }
}

impl CostModel {
    /// Learns from a step that took so long.
    pub fn learn(&mut self, work: Work, time: Duration) {
        let seconds = time.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let sums = if work.tokens > work.head_rows { &mut self.mixed } else { &mut self.decodes };
        sums.add(work, seconds);
        self.fit();
    }

    /// Seconds that a step takes.
    pub fn seconds(&self, work: Work) -> f64 {
        self.costs.iter().zip(work.parts()).map(|(cost, part)| cost * part).sum()
    }

    fn fit(&mut self) {
        let mut is_used = [true; NUM_PARTS];
        // A part that would cost less than nothing costs nothing, and the others are fitted again without it.
        while let Some(costs) = solve(&[self.decodes, self.mixed], &is_used) {
            let least = (0..NUM_PARTS).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(0);
            if costs[least] >= 0.0 {
                (self.costs, self.is_fitted) = (costs, true);
                return;
            }
            is_used[least] = false;
        }
    }
}

/// The costs of the parts that are used, by Gaussian elimination of the summed normal equations. `None` if there are none.
fn solve(sums: &[Sums; 2], is_used: &[bool; NUM_PARTS]) -> Option<[f64; NUM_PARTS]> {
    let mut rows = [[0.0; NUM_PARTS + 1]; NUM_PARTS];
    for (i, row) in rows.iter_mut().enumerate() {
        if !is_used[i] {
            row[i] = 1.0;
            continue;
        }
        for sums in sums {
            let products = sums.products[i].iter().zip(is_used);
            row.iter_mut()
                .zip(products)
                .for_each(|(sum, (product, used))| *sum += if *used { *product } else { 0.0 });
            row[NUM_PARTS] += sums.targets[i];
        }
        row[i] *= 1.0 + RIDGE;
        if row[i] <= 0.0 {
            row[i] = 1.0;
        }
    }
    // The matrix is positive definite: no pivots are needed.
    for i in 0..NUM_PARTS {
        let pivot = rows[i];
        for row in rows.iter_mut().skip(i + 1) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut costs = [0.0; NUM_PARTS];
    for i in (0..NUM_PARTS).rev() {
        let known: f64 = (i + 1..NUM_PARTS).map(|j| rows[i][j] * costs[j]).sum();
        costs[i] = (rows[i][NUM_PARTS] - known) / rows[i][i];
    }
    (is_used.contains(&true) && costs.iter().all(|cost| cost.is_finite())).then_some(costs)
}

/// Says what prompts may take of a step, and learns from it.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Time between two tokens of a sequence; without it, steps are as large as they can be.
    target: Option<Duration>,
    clock: Box<dyn Clock>,
    model: CostModel,
}

/// Prompts may at least double the time of the decodes alone, whatever the target: on a machine that misses it anyway, prompts
/// would otherwise crawl for nothing.
const MOST_STRETCH: f64 = 2.0;

/// While nobody generates, a step may take so many times the target.
const STRETCH_WITHOUT_DECODES: f64 = 4.0;

/// Prompt tokens of a step before anything is known about costs.
const FIRST_TOKENS: f64 = 64.0;

impl Pacer {
    pub fn new(target: Option<Duration>, clock: Box<dyn Clock>) -> Self {
        Self { target, clock, model: CostModel::default() }
    }

    pub fn now(&mut self) -> Duration {
        self.clock.now()
    }

    /// Learns from a step that began at `began` and ends now.
    pub fn learn(&mut self, work: Work, began: Duration) {
        let now = self.clock.now();
        if self.target.is_some() {
            self.model.learn(work, now.saturating_sub(began));
        }
    }

    /// What prompts may take of a step that has these decodes.
    pub fn allowance(&self, decodes: Work) -> Allowance {
        let Some(target) = self.target.map(|target| target.as_secs_f64()) else {
            return Allowance { seconds: f64::INFINITY, ..Allowance::default() };
        };
        if !self.model.is_fitted {
            return Allowance { seconds: FIRST_TOKENS, per_token: 1.0, ..Allowance::default() };
        }
        let taken = self.model.seconds(decodes);
        let most = match decodes.tokens > 0.0 {
            true => target.max(MOST_STRETCH * taken),
            false => target * STRETCH_WITHOUT_DECODES,
        };
        let [_, per_token, per_head_row, per_attended] = self.model.costs;
        Allowance { seconds: most - taken, per_token, per_head_row, per_attended }
    }
}

/// Time of a step, to be divided among prompts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance {
    seconds: f64,
    per_token: f64,
    per_head_row: f64,
    per_attended: f64,
}

/// Which rows of a chunk go through the LM head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadRows {
    /// The last one at most.
    Last,
    All,
}

impl Allowance {
    /// The most tokens, the first at position `start`, that a `share` of the time suffices for.
    pub fn tokens(&self, share: f64, start: usize, rows: HeadRows) -> usize {
        let seconds = (self.seconds * share).max(0.0);
        // n tokens take n * linear + n^2 * square.
        let linear = self.linear(start, rows);
        let square = self.per_attended / 2.0;
        let root = (linear * linear + 4.0 * square * seconds).sqrt();
        // The usual formula divides by `square`, which may be 0.
        let tokens = 2.0 * seconds / (linear + root);
        // Everything, if nothing costs anything.
        if tokens.is_nan() { usize::MAX } else { tokens as usize }
    }

    /// Takes the time of so many tokens.
    pub fn take(&mut self, num_tokens: usize, start: usize, rows: HeadRows) {
        let n = num_tokens as f64;
        self.seconds -= n * (self.linear(start, rows) + n * self.per_attended / 2.0);
    }

    fn linear(&self, start: usize, rows: HeadRows) -> f64 {
        let head = if rows == HeadRows::All { self.per_head_row } else { 0.0 };
        self.per_token + head + self.per_attended * (start as f64 + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: [f64; NUM_PARTS] = [3e-3, 0.5e-3, 0.8e-3, 0.2e-6];

    fn seconds(work: Work) -> Duration {
        Duration::from_secs_f64(COSTS.iter().zip(work.parts()).map(|(cost, part)| cost * part).sum())
    }

    fn work(tokens: f64, head_rows: f64, attended: f64) -> Work {
        Work { tokens, head_rows, attended }
    }

    /// Decodes at several contexts, with and without chunks.
    fn steps() -> impl Iterator<Item = Work> {
        (0..60u32).map(|i| {
            let (decodes, prompt) = (f64::from(i % 7 + 1), f64::from(i % 3 * 20));
            work(decodes + prompt, decodes, (decodes + prompt) * f64::from(100 + i * 10))
        })
    }

    fn learned(steps: impl Iterator<Item = Work>) -> CostModel {
        let mut model = CostModel::default();
        steps.for_each(|work| model.learn(work, seconds(work)));
        model
    }

    fn check_close(model: &CostModel, work: Work, tolerance: f64) {
        let (found, expect) = (model.seconds(work), seconds(work).as_secs_f64());
        assert!(
            (found / expect - 1.0).abs() < tolerance,
            "{work:?}: {found}, not {expect}: {:?}",
            model.costs
        );
    }

    #[test]
    fn costs_are_found_again() {
        let model = learned(steps());
        for work in [work(8.0, 8.0, 4000.0), work(40.0, 8.0, 30_000.0), work(256.0, 0.0, 500_000.0)] {
            check_close(&model, work, 0.1);
        }
    }

    #[test]
    fn many_decodes_do_not_wash_out_what_prompts_cost() {
        let decodes = (0..5000).map(|i| work(8.0, 8.0, 8.0 * f64::from(i % 500)));
        check_close(&learned(steps().chain(decodes)), work(64.0, 0.0, 20_000.0), 0.1);
    }

    #[test]
    fn costs_follow_the_machine() {
        let mut model = learned(steps());
        // Everything takes twice as long from now on.
        (0..10).flat_map(|_| steps()).for_each(|work| model.learn(work, 2 * seconds(work)));
        let (found, expect) = (model.seconds(work(30.0, 8.0, 9000.0)), seconds(work(30.0, 8.0, 9000.0)));
        assert!((found / expect.as_secs_f64() - 2.0).abs() < 0.2, "{found}");
    }

    #[test]
    fn no_part_costs_less_than_nothing() {
        let mut model = CostModel::default();
        for (tokens, millis) in [(1.0, 9), (2.0, 8), (50.0, 7), (3.0, 9), (40.0, 6)] {
            model.learn(work(tokens, 1.0, tokens * 10.0), Duration::from_millis(millis));
            assert!(model.costs.iter().all(|&cost| cost >= 0.0), "{:?}", model.costs);
        }
    }

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&mut self) -> Duration {
            Duration::ZERO
        }
    }

    fn pacer(target_ms: Option<u64>) -> Pacer {
        let mut pacer = Pacer::new(target_ms.map(Duration::from_millis), Box::new(Stopped));
        pacer.model = learned(steps());
        pacer
    }

    #[test]
    fn chunks_fill_the_target_and_no_more() {
        for (start, rows) in [(0, HeadRows::Last), (3000, HeadRows::Last), (1000, HeadRows::All)] {
            let mut decodes = Work::default();
            (0..4).for_each(|_| decodes.add(Work::decode(500)));
            let pacer = pacer(Some(60));
            let mut left = pacer.allowance(decodes);
            let num_tokens = left.tokens(1.0, start, rows);
            let mut step = decodes;
            let attended = num_tokens * start + num_tokens * (num_tokens + 1) / 2;
            let head_rows = if rows == HeadRows::All { num_tokens } else { 0 };
            step.add(work(num_tokens as f64, head_rows as f64, attended as f64));
            check_close(&pacer.model, step, 0.1);
            assert!((0.055..=0.0605).contains(&pacer.model.seconds(step)), "{num_tokens} tokens: {step:?}");
            left.take(num_tokens, start, rows);
            assert_eq!(left.tokens(1.0, start, rows), 0);
        }
    }

    #[test]
    fn a_target_that_decodes_miss_leaves_prompts_as_much_time_as_they_take() {
        let mut decodes = Work::default();
        (0..16).for_each(|_| decodes.add(Work::decode(100)));
        let pacer = pacer(Some(1));
        let taken = pacer.model.seconds(decodes);
        assert!((pacer.allowance(decodes).seconds - taken).abs() < 1e-9);
    }

    #[test]
    fn without_a_target_or_before_the_first_step_the_allowance_is_fixed() {
        assert_eq!(pacer(None).allowance(Work::default()).tokens(0.5, 100, HeadRows::Last), usize::MAX);
        let new = Pacer::new(Some(Duration::from_millis(10)), Box::new(Stopped));
        assert_eq!(new.allowance(Work::decode(9)).tokens(0.5, 100, HeadRows::All), 32);
    }
}
