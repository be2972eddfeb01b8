//! What the prefix cache finds, and that the tests which look for wrong finds would notice them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use model::{BatchLimits, RunnerSpec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::arrivals::{
    Arrival, Fault, Outcome, Setting, Work, any_arrival, any_setting, compare_with_alone, run,
};
use crate::prefix_index::PrefixCache;
use crate::request::{EmbeddingRequest, Event, Pooling, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{VOCAB_SIZE, spec, with_pages};

/// A prompt of pages of 4 tokens, each page named by a letter, and a rest.
fn prompt(pages: &str, rest: &[u32]) -> Vec<u32> {
    let page = |letter: char| (0..4).map(move |i| (letter as u32 * 7 + i * i) % VOCAB_SIZE as u32);
    pages.chars().flat_map(page).chain(rest.iter().copied()).collect()
}

fn generate(prompt_token_ids: Vec<u32>, max_tokens: usize) -> Work {
    let params =
        SamplingParams { max_tokens: Some(max_tokens), ignore_eos: true, ..SamplingParams::default() };
    Work::Generate(Box::new(Request { prompt_token_ids, params, ..Request::default() }))
}

fn embed(prompt_token_ids: Vec<u32>, pooling: Pooling) -> Work {
    Work::Embed(EmbeddingRequest { prompt_token_ids, pooling, ..EmbeddingRequest::default() })
}

/// Each long after the one before it has ended.
fn one_by_one(works: impl IntoIterator<Item = Work>) -> Vec<Arrival> {
    let arrival = |(i, work)| Arrival { arrives: 50 * i, ..Arrival::now(work) };
    works.into_iter().enumerate().map(arrival).collect()
}

fn cached_tokens(outcome: &Outcome) -> Vec<usize> {
    let cached = |events: &Vec<Event>| match events.last() {
        Some(Event::Finished { usage, .. } | Event::Embedding { usage, .. }) => usage.cached_tokens,
        other => panic!("{other:?}"),
    };
    outcome.events.iter().map(cached).collect()
}

/// The tokens that each of these finds when they come one by one.
fn check_found(spec: RunnerSpec, works: impl IntoIterator<Item = Work>, expect: &[usize]) -> Outcome {
    let (setting, arrivals) = (Setting::new(spec), one_by_one(works));
    let outcome = run(&setting, &arrivals);
    assert_eq!(cached_tokens(&outcome), expect, "{arrivals:?}");
    assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events.clone()), Ok(()));
    outcome
}

#[test]
fn the_longest_prefix_of_whole_pages_is_found() {
    let works = [
        generate(prompt("AB", &[1, 2, 3]), 1),
        generate(prompt("AB", &[1, 2, 3]), 1),
        generate(prompt("AC", &[1]), 1),
        generate(prompt("BA", &[1]), 1),
        generate(prompt("A", &[1, 2, 3]), 1),
        generate(prompt("ABC", &[]), 1),
        // One token must be run, so the last page is not looked for.
        generate(prompt("ABC", &[]), 1),
        generate(prompt("ABC", &[5]), 1),
    ];
    check_found(spec(), works, &[0, 8, 4, 0, 4, 8, 8, 12]);
}

#[test]
fn generated_tokens_are_found() {
    let first = Request {
        prompt_token_ids: prompt("A", &[1, 2, 3]),
        params: SamplingParams { max_tokens: Some(6), ignore_eos: true, ..SamplingParams::greedy() },
        ..Request::default()
    };
    let answer = crate::testing::generate_alone(spec(), None, first.clone()).token_ids;
    // 7 tokens of the prompt and 5 of the answer were run: three pages.
    let next = [&first.prompt_token_ids[..], &answer, &[1, 2]].concat();
    check_found(spec(), [Work::Generate(Box::new(first)), generate(next, 1)], &[0, 12]);
}

#[test]
fn embeddings_of_the_last_token_skip_what_is_found_and_means_do_not() {
    let works = [
        embed(prompt("AB", &[1]), Pooling::Mean),
        embed(prompt("AB", &[1]), Pooling::Last),
        embed(prompt("AB", &[1]), Pooling::Mean),
        generate(prompt("AB", &[2]), 1),
    ];
    let outcome = check_found(spec(), works, &[0, 8, 0, 8]);
    // Means look for nothing, but what they ran can be found.
    assert_eq!((outcome.stats.cached_prompt_tokens, outcome.stats.prompt_tokens), (16, 9 + 1 + 9 + 1));
}

#[test]
fn what_was_used_least_recently_is_reused_first() {
    // Eight pages. Each of these takes two and leaves them findable.
    let eight = with_pages(8);
    let short = |pages| generate(prompt(pages, &[]), 1);
    let works = ["AB", "CD", "EF", "GH"].map(short);
    // A is used again, beside a new page in place of B; then three pages are needed: those of D, C and F.
    let again = [generate(prompt("A", &[1, 2, 3, 4]), 1), short("IJK")];
    // The first of these takes the page of E, and each leaves it to the next.
    let looked_for = ["G", "GH", "A", "E", "IJK"].map(|pages| generate(prompt(pages, &[1]), 1));
    let works = works.into_iter().chain(again).chain(looked_for);
    check_found(eight, works, &[0, 0, 0, 0, 4, 0, 4, 8, 4, 0, 12]);
    // Of one sequence, the last page goes first.
    let three = with_pages(3);
    check_found(three, [short("AB"), short("CD"), generate(prompt("AB", &[1]), 1)], &[0, 0, 4]);
}

#[test]
fn sequences_share_pages_while_they_run() {
    let long = |seed| {
        let params =
            SamplingParams { seed, max_tokens: Some(20), ignore_eos: true, ..SamplingParams::default() };
        Work::Generate(Box::new(Request {
            prompt_token_ids: prompt("ABC", &[1]),
            params,
            ..Request::default()
        }))
    };
    // 8 pages are not enough for two sequences of 33 tokens unless they share three.
    let spec = RunnerSpec { max_seq_len: 48, ..with_pages(13) };
    let setting = Setting::new(spec);
    let arrivals = [0, 1].map(|i| Arrival { arrives: i * 3, ..Arrival::now(long(i as u64)) });
    let outcome = run(&setting, &arrivals);
    assert_eq!((cached_tokens(&outcome), outcome.stats.preemptions), (vec![0, 12], 0));
    assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events), Ok(()));
}

#[test]
fn of_many_that_begin_alike_one_computes_what_they_share() {
    let limits = BatchLimits { max_tokens: 8, ..spec().limits };
    let setting = Setting::new(RunnerSpec { limits, ..spec() });
    let works = [1, 1, 2].map(|rest| generate(prompt("ABC", &[rest]), 2));
    // The last shares less than the others, and waits for less.
    let arrivals: Vec<Arrival> =
        works.into_iter().chain([generate(prompt("AD", &[1]), 2)]).map(Arrival::now).collect();
    let outcome = run(&setting, &arrivals);
    assert_eq!(cached_tokens(&outcome), [0, 12, 12, 4]);
    assert_eq!(outcome.stats.prompt_tokens, 13 + 1 + 1 + 5);
    assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events), Ok(()));
}

#[test]
fn a_preempted_sequence_finds_its_own_pages() {
    let spec = RunnerSpec { max_seq_len: 32, ..with_pages(8) };
    let mut setting = Setting::new(spec);
    let arrivals: Vec<Arrival> =
        [0, 1].map(|seed| Arrival::now(generate(prompt("", &[seed, 3, 4]), 24))).into();
    let warm = run(&setting, &arrivals);
    assert_eq!(compare_with_alone(&setting, &arrivals, warm.events.clone()), Ok(()));
    setting.options.prefix_cache = PrefixCache::Off;
    let cold = run(&setting, &arrivals);
    assert_eq!(warm.events, cold.events);
    let preemptions = (warm.stats.preemptions, cold.stats.preemptions);
    assert_eq!(preemptions, (1, 1));
    let hit = warm.stats.prefix_hit_tokens;
    assert!(hit > 0, "{:?}", warm.stats);
    assert_eq!(warm.stats.tokens + hit, cold.stats.tokens);
    // It was no prompt that was found, so the caller is told of nothing.
    assert_eq!(warm.stats.cached_prompt_tokens, 0);
}

#[test]
fn a_failed_step_leaves_nothing_findable() {
    let mut setting = Setting::new(spec());
    let works = ["AB", "AB", "AB"].map(|pages| generate(prompt(pages, &[1]), 3));
    let arrivals: Vec<Arrival> =
        (0..).zip(works).map(|(i, w)| Arrival { arrives: i * 50, ..Arrival::now(w) }).collect();
    setting.failures = vec![50];
    let outcome = run(&setting, &arrivals);
    assert_eq!(outcome.stats.failed, 1);
    // The second found both pages before the step failed.
    assert_eq!((outcome.stats.prefix_hit_tokens, outcome.stats.cached_prompt_tokens), (8, 8));
    assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events), Ok(()));
}

/// Works that tell each fault, and the setting in which they do.
fn telling(fault: Fault) -> (Setting, Vec<Arrival>) {
    let limits = BatchLimits { max_tokens: 8, ..spec().limits };
    let mut setting = Setting::new(RunnerSpec { limits, ..spec() });
    let arrivals = match fault {
        Fault::IgnoresThePast => one_by_one(["AB", "BC"].map(|pages| generate(prompt(pages, &[1]), 4))),
        Fault::FindableTooEarly => {
            setting.options.max_chunk = Some(3);
            [1, 2].map(|rest| Arrival::now(generate(prompt("AB", &[rest]), 4))).into()
        }
        Fault::SurvivesFailure => {
            setting.failures = vec![0];
            one_by_one([1, 2].map(|rest| generate(prompt("AB", &[rest]), 4)))
        }
    };
    (setting, arrivals)
}

const FAULTS: [Fault; 3] = [Fault::IgnoresThePast, Fault::FindableTooEarly, Fault::SurvivesFailure];

#[test]
fn a_wrong_find_shows() {
    for fault in FAULTS {
        let (mut setting, arrivals) = telling(fault);
        let sound = run(&setting, &arrivals);
        assert_eq!(compare_with_alone(&setting, &arrivals, sound.events), Ok(()));
        setting.fault = Some(fault);
        let broken = run(&setting, &arrivals);
        let difference = compare_with_alone(&setting, &arrivals, broken.events);
        assert!(difference.is_err(), "{fault:?} was not noticed");
    }
}

/// The negative control of [`scheduling`](super::scheduling): its random arrivals notice each fault.
#[test]
fn random_arrivals_notice_a_wrong_find() {
    for fault in FAULTS {
        let mut runner = TestRunner::deterministic();
        let values = (any_setting(), prop::collection::vec(any_arrival(), 1..13));
        let is_noticed = (0..200).any(|_| {
            let (setting, arrivals) = values.new_tree(&mut runner).expect("a value").current();
            let setting = Setting { fault: Some(fault), ..setting };
            // A panic is the engine's own check: a page found twice, for one, is two entries of a block table.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&setting, &arrivals)));
            outcome.map_or(true, |outcome| compare_with_alone(&setting, &arrivals, outcome.events).is_err())
        });
        assert!(is_noticed, "{fault:?}");
    }
}
