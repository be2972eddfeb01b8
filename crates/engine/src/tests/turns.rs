//! Clients take turns, by their weights.

use model::{BatchLimits, RunnerSpec};
use proptest::prelude::*;

use crate::request::{Client, ClientId, Priority, Weight};
use crate::testing::spec;
use crate::tests::priorities::Bench;

/// Room for one sequence, so that a step begins one and ends it.
fn single() -> RunnerSpec {
    RunnerSpec { limits: BatchLimits { max_seqs: 1, max_logit_rows: 1, ..spec().limits }, ..spec() }
}

fn client(id: u64, weight: u16) -> Client {
    Client { id: ClientId(id), weight: Weight::new(weight).expect("a weight") }
}

/// Runs `arrivals` (the step and the index of the client that queues a sequence) until all have ended. For each step, which
/// clients had sequences waiting, and whose began.
fn run(clients: &[Client], arrivals: &[(usize, usize)]) -> Vec<(Vec<bool>, Option<usize>)> {
    let mut bench = Bench::new(single());
    let (mut owners, mut waiting) = (Vec::new(), vec![0; clients.len()]);
    let last = arrivals.iter().map(|&(at, _)| at).max().unwrap_or_default();
    let mut steps = Vec::new();
    while steps.len() <= last || waiting.iter().any(|&waiting| waiting > 0) {
        for &(_, owner) in arrivals.iter().filter(|&&(at, _)| at == steps.len()) {
            bench.add_of(clients[owner], Priority::Normal, 1, 1);
            owners.push(owner);
            waiting[owner] += 1;
        }
        let backlogged = waiting.iter().map(|&waiting| waiting > 0).collect();
        let began = bench.step().first().map(|&request| owners[request]);
        if let Some(owner) = began {
            waiting[owner] -= 1;
        }
        steps.push((backlogged, began));
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// While two clients have sequences waiting, what begins of each over its weight differs by a turn of each at most.
    #[test]
    fn shares_follow_the_weights(
        weights in prop::collection::vec(prop::sample::select(vec![1, 1, 2, 3, 5, 8, 1000]), 2..5),
        arrivals in prop::collection::vec((0..40usize, 0..5usize, 1..12usize), 1..30),
    ) {
        let clients: Vec<_> = (0..).zip(&weights).map(|(id, &weight)| client(id, weight)).collect();
        let arrivals: Vec<_> = arrivals
            .into_iter()
            .flat_map(|(at, owner, count)| vec![(at, owner % clients.len()); count])
            .collect();
        let steps = run(&clients, &arrivals);
        for (a, b) in (0..clients.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let turn = |owner: usize| 1.0 / f64::from(clients[owner].weight.get());
            let most = turn(a) + turn(b) + 0.01;
            // Of the difference since both have had some waiting, the least and the largest: those of any part differ no more.
            let (mut difference, mut least, mut largest) = (0.0, 0.0f64, 0.0f64);
            for (at, (backlogged, began)) in steps.iter().enumerate() {
                if !(backlogged[a] && backlogged[b]) {
                    (difference, least, largest) = (0.0, 0.0, 0.0);
                    continue;
                }
                match *began {
                    Some(owner) if owner == a => difference += turn(a),
                    Some(owner) if owner == b => difference -= turn(b),
                    _ => {}
                }
                (least, largest) = (least.min(difference), largest.max(difference));
                prop_assert!(largest - least <= most, "step {at}: {least} to {largest} of {a} and {b}, {clients:?}");
            }
        }
    }
}

#[test]
fn a_client_of_weight_3_begins_three_for_one() {
    let clients = [client(1, 1), client(2, 3)];
    let arrivals: Vec<_> = (0..16).map(|i| (0, i / 8)).collect();
    let began: Vec<_> = run(&clients, &arrivals).into_iter().filter_map(|(_, began)| began).collect();
    assert_eq!(began, [0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_client_that_queues_one_at_a_time_gets_no_more_than_its_share() {
    // The first queues its next whenever one has begun.
    let clients = [client(1, 1), client(2, 3)];
    let arrivals: Vec<_> = (0..12).map(|_| (0, 1)).chain((0..12).map(|at| (at, 0))).collect();
    let began: Vec<_> = run(&clients, &arrivals).into_iter().filter_map(|(_, began)| began).collect();
    let of_first = began[..12].iter().filter(|&&owner| owner == 0).count();
    assert!((3..=4).contains(&of_first), "{began:?}");
}

#[test]
fn what_was_cancelled_costs_no_turn() {
    let mut bench = Bench::new(single());
    let (first, second) = (client(1, 1), client(2, 1));
    for owner in [first, first, first, first, second, second, second] {
        bench.add_of(owner, Priority::Normal, 1, 1);
    }
    assert_eq!(bench.step(), [0]);
    // The first client's others go, and another comes in their place.
    let streams: Vec<_> = bench.requests.drain(1..4).collect();
    drop(streams);
    assert_eq!(bench.step(), [1], "the second client's first");
    bench.add_of(first, Priority::Normal, 1, 1);
    let expect: [&[usize]; 3] = [&[2], &[4], &[3]];
    assert_eq!([(); 3].map(|()| bench.step()), expect);
}
