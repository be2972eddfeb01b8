//! Long prompts stop nobody: bounds in steps and in simulated time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Batch, BatchLimits, RunError, Runner, RunnerSpec, StepOutput};
use proptest::prelude::*;

use crate::engine::Engine;
use crate::events::RequestStream;
use crate::options::EngineOptions;
use crate::pacing::{Clock, Work};
use crate::policies::Policies;
use crate::prompts::LEAST_CHUNK;
use crate::request::{Event, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, VOCAB_SIZE, sequence, spec};

/// What steps cost, in seconds.
#[derive(Debug, Clone, Copy)]
struct Costs {
    step: f64,
    token: f64,
    head_row: f64,
    attended: f64,
}

impl Costs {
    fn seconds(self, work: Work) -> f64 {
        self.step + self.token * work.tokens + self.head_row * work.head_rows + self.attended * work.attended
    }
}

/// Shows the time that steps have taken so far.
#[derive(Debug, Clone, Default)]
struct Simulated(Arc<Mutex<f64>>);

impl Clock for Simulated {
    fn now(&mut self) -> Duration {
        Duration::from_secs_f64(*self.0.lock().expect("one thread"))
    }
}

/// Takes time, and writes down what each step was.
struct TimedRunner {
    inner: FakeRunner,
    costs: Costs,
    clock: Simulated,
    steps: Arc<Mutex<Vec<Step>>>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    work: Work,
    num_seqs: usize,
}

impl Runner for TimedRunner {
    fn spec(&self) -> RunnerSpec {
        self.inner.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        let work = Work::of(batch);
        *self.clock.0.lock().expect("one thread") += self.costs.seconds(work);
        self.steps.lock().expect("one thread").push(Step { work, num_seqs: batch.num_seqs() });
        self.inner.run(batch)
    }
}

struct Simulation {
    engine: Engine<TimedRunner>,
    steps: Arc<Mutex<Vec<Step>>>,
    costs: Costs,
    target: f64,
    num_added: u32,
}

/// Tokens of a step beside those of the floors and the decodes.
const BUDGET: usize = 256;

fn wide() -> RunnerSpec {
    let limits = BatchLimits {
        max_tokens: BUDGET,
        max_seqs: 24,
        max_logit_rows: 24,
        max_blocks: 64,
        num_pages: 24 * 64,
    };
    RunnerSpec { limits, page_size: 16, max_seq_len: 1024, ..spec() }
}

impl Simulation {
    fn new(costs: Costs, target: f64) -> Self {
        let (clock, steps) = (Simulated::default(), Arc::new(Mutex::new(Vec::new())));
        let inner = FakeRunner::new(wide());
        let runner = TimedRunner { inner, costs, clock: clock.clone(), steps: Arc::clone(&steps) };
        let options =
            EngineOptions { itl_target: Some(Duration::from_secs_f64(target)), ..EngineOptions::default() };
        let policies = Policies { clock: Box::new(clock), ..Policies::default() };
        let engine = Engine::new(runner, options, policies).expect("sizes that agree");
        Self { engine, steps, costs, target, num_added: 0 }
    }

    /// Adds a prompt that begins like no other.
    fn add(&mut self, prompt: usize, max_tokens: usize) -> RequestStream {
        let seed = self.num_added;
        self.num_added += 1;
        let token = |i: u32| (seed.wrapping_mul(7) + i * (seed % 5 + 1) + i * i) % VOCAB_SIZE as u32;
        let request = Request {
            prompt_token_ids: (0..prompt as u32).map(token).collect(),
            params: SamplingParams {
                max_tokens: Some(max_tokens),
                ignore_eos: true,
                ..SamplingParams::default()
            },
            ..Request::default()
        };
        let (seq, stream) = sequence(wide(), None, request).expect("a request that fits");
        self.engine.add(seq);
        stream
    }

    /// Runs a step; the oldest prompt advances by it.
    fn step(&mut self) -> Step {
        let oldest = self.engine.pending_prompts().first().copied();
        self.engine.step();
        assert_eq!(self.engine.check_integrity(), Ok(()));
        if let Some((id, num_pending)) = oldest {
            let now = self.engine.pending_prompts().into_iter().find(|&(other, _)| other == id);
            assert!(now.is_none_or(|(_, now)| now < num_pending), "the oldest prompt, {id}, stands still");
        }
        *self.steps.lock().expect("one thread").last().expect("a step")
    }

    /// Seconds that a step may take: the target, or twice the decodes if they miss it, or the least chunks.
    fn most_seconds(&self, Step { work, .. }: Step) -> f64 {
        let decodes = Work { tokens: work.head_rows, ..work };
        // A head row of a prompt's last token counts as a decode here, which it is from the next step on.
        let decodes = self.costs.seconds(Work { attended: work.head_rows * 1024.0, ..decodes });
        let least = 2.0 * LEAST_CHUNK as f64 * (self.costs.token + 1024.0 * self.costs.attended);
        (decodes + least).max(2.0 * decodes).max(self.target)
    }
}

fn num_tokens(stream: &mut RequestStream) -> usize {
    std::iter::from_fn(|| stream.try_recv()).filter(|event| matches!(event, Event::Token(_))).count()
}

fn any_costs() -> impl Strategy<Value = Costs> {
    (1e-4..2e-2, 1e-5..2e-3, 0.0..1e-3, 0.0..1e-6).prop_map(|(step, token, head_row, attended)| Costs {
        step,
        token,
        head_row,
        attended,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A prompt waits for the shorter ones before it, as if a step had [`LEAST_CHUNK`] tokens, and for none that is longer.
    #[test]
    fn a_prompt_waits_for_shorter_ones_only(
        costs in any_costs(),
        target in 5e-3..0.1f64,
        num_streams in 0..9usize,
        long in prop::collection::vec(1..900usize, 0..8),
        running in 0..30usize,
        prompt in 1..300usize,
        later in prop::collection::vec((0..40usize, 1..900usize), 0..4),
    ) {
        let mut simulation = Simulation::new(costs, target);
        let mut streams: Vec<_> = (0..num_streams).map(|_| simulation.add(3, 1000)).collect();
        (0..5).for_each(|_| { simulation.engine.step(); });
        let mut others: Vec<_> = long.iter().map(|&long| simulation.add(long, 100)).collect();
        (0..running).for_each(|_| { simulation.engine.step(); });
        streams.iter_mut().for_each(|stream| { num_tokens(stream); });

        let mut pending = simulation.engine.pending_prompts();
        if running == 0 {
            // They still wait to begin.
            pending.extend((0..).zip(long));
        }
        let steps = |num_tokens: usize| num_tokens.min(prompt).div_ceil(LEAST_CHUNK);
        // What comes later may be shorter as well.
        let longest_wait: usize = pending.iter().map(|&(_, pending)| steps(pending)).sum::<usize>()
            + later.iter().map(|&(_, later)| steps(later)).sum::<usize>()
            + steps(prompt);
        let mut stream = simulation.add(prompt, 2);
        let mut num_steps = 0;
        while num_tokens(&mut stream) == 0 {
            others.extend(later.iter().filter(|&&(at, _)| at == num_steps).map(|&(_, later)| simulation.add(later, 100)));
            let decodes = streams.iter().chain(&others).count();
            let step = simulation.step();
            prop_assert!(step.num_seqs <= decodes + 1);
            for stream in &mut streams {
                prop_assert_eq!(num_tokens(stream), 1, "a stream without its token");
            }
            num_steps += 1;
            prop_assert!(num_steps <= longest_wait, "no first token after {num_steps} steps");
        }
    }

    /// Once costs are known, steps take as long as they may at most, and not much less while there are prompts. Known are those
    /// of steps with a number of head rows that was there before: what a step costs and what its head rows cost cannot be told
    /// apart while their number is the same.
    #[test]
    fn steps_keep_to_the_target(
        costs in any_costs(),
        target in 5e-3..0.1f64,
        num_streams in 1..9usize,
        num_prompts in 1..5usize,
    ) {
        const KNOWN_AFTER: usize = 12;
        let mut simulation = Simulation::new(costs, target);
        let _streams: Vec<_> = (0..num_streams).map(|_| simulation.add(5, 1000)).collect();
        (0..10).for_each(|_| { simulation.engine.step(); });
        let _prompts: Vec<_> = (0..num_prompts).map(|_| simulation.add(900, 3)).collect();
        let mut num_seen = HashMap::new();
        for i in 0.. {
            let step = simulation.step();
            let seen: &mut usize = num_seen.entry(step.work.head_rows as usize).or_default();
            *seen += 1;
            let pending = simulation.engine.pending_prompts();
            if pending.is_empty() {
                break;
            }
            let (seconds, most) = (costs.seconds(step.work), simulation.most_seconds(step));
            if i >= KNOWN_AFTER && *seen > KNOWN_AFTER {
                prop_assert!(seconds <= most * 1.15, "step {i} takes {seconds} s, more than {most}: {step:?}");
                let is_full = step.work.tokens >= BUDGET as f64 - 1.0;
                prop_assert!(is_full || seconds >= target * 0.8, "step {i} takes {seconds} s of {target}: {step:?}");
            }
        }
    }
}

/// Eight streams, three long prompts, and a short one behind them.
#[test]
fn a_short_prompt_begins_behind_three_long_ones() {
    let costs = Costs { step: 5e-3, token: 1e-3, head_row: 5e-4, attended: 1e-7 };
    let mut simulation = Simulation::new(costs, 0.05);
    let _streams: Vec<_> = (0..8).map(|_| simulation.add(3, 1000)).collect();
    (0..5).for_each(|_| simulation.engine.step());
    let mut long: Vec<_> = (0..3).map(|_| simulation.add(900, 3)).collect();
    (0..5).for_each(|_| simulation.engine.step());
    let mut short = simulation.add(32, 3);
    let steps = (1..100).find(|_| {
        simulation.step();
        num_tokens(&mut short) > 0
    });
    // The first step that takes it leaves it half.
    assert_eq!(steps, Some(2));
    assert!(long.iter_mut().all(|stream| num_tokens(stream) == 0));
}
