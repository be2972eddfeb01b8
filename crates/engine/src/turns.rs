//! Whose turn it is among the clients whose sequences wait: start-time fair queueing, where a sequence costs one turn.
//!
//! A turn is a time that only the beginnings of sequences move: it is that of the sequence that began last. A client's sequences
//! are a turn apart, or the part of a turn that its weight makes of it. Its first is due at once, but not before the turn that
//! follows its last sequence that began. So while two clients have sequences waiting, the numbers of those that begin, each over
//! its client's weight, differ by at most one turn of each, however many others there are.
//!
//! Source: Goyal, Vin, Cheng, Start-time Fair Queueing, SIGCOMM 1996.

use std::collections::HashMap;

use crate::request::{Client, ClientId, Weight};
use crate::sequence::Sequence;

/// One turn of a client of weight 1: divisible by 1 to 16, so that their shares are exact. Sums do not overflow in 2^44 turns.
const TURN: u64 = 720_720;

/// Clients whose past is known. Beyond that it is forgotten, which gives each of them a turn more at most.
const MAX_CLIENTS: usize = 1 << 16;

impl Weight {
    /// What a sequence costs.
    fn turn(self) -> u64 {
        TURN / u64::from(self.get())
    }
}

/// The turns of one priority.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// That of the sequence that began last. It never falls.
    now: u64,
    /// What follows the last sequence of a client that began, where that is later than now.
    next: HashMap<ClientId, u64>,
}

impl Turns {
    /// The turn of a client's new sequence, behind `last`, the last of its sequences that wait.
    pub fn of_new(&self, client: Client, last: Option<&Sequence>) -> u64 {
        let next = self.next.get(&client.id).copied().unwrap_or_default();
        let after_last = last.map_or(0, |last| last.turn + last.client.weight.turn());
        self.now.max(next).max(after_last)
    }

    /// A sequence begins, and others wait or none does.
    pub fn begin(&mut self, seq: &Sequence, others_wait: bool) {
        if seq.turn > self.now {
            self.now = seq.turn;
            self.next.retain(|_, next| *next > seq.turn);
        }
        if !others_wait || self.next.len() >= MAX_CLIENTS {
            self.next.clear();
        }
        if others_wait {
            let next = self.next.entry(seq.client.id).or_default();
            *next = (*next).max(seq.turn + seq.client.weight.turn());
        }
    }
}
