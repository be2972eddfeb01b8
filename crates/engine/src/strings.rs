//! Finds strings in text at a cost of the text alone, however many or long the strings are.
//!
//! An automaton by Aho and Corasick ("Efficient string matching", 1975) whose states are made when a text first reaches them.

use std::ops::Range;

/// A set of strings to look for.
#[derive(Debug, Clone)]
pub(crate) struct Strings {
    /// In ascending order, each once.
    strings: Vec<String>,
    states: Vec<State>,
}

/// The beginning of some of the strings, as the longest end of a text that is one.
#[derive(Debug, Clone)]
struct State {
    len: usize,
    /// The strings that begin with it.
    strings: Range<usize>,
    /// The state of its longest proper end that is the beginning of a string.
    fallback: usize,
    /// Length of the longest string that it ends with.
    found: Option<usize>,
    /// The states, as far as they were reached, that are longer by this byte.
    longer: Vec<(u8, usize)>,
}

impl Strings {
    /// The state of an empty text.
    pub const START: usize = 0;

    /// Looks for `strings`, none of which may be empty.
    pub fn new(mut strings: Vec<String>) -> Self {
        debug_assert!(strings.iter().all(|string| !string.is_empty()));
        strings.sort_unstable();
        strings.dedup();
        let start = State { len: 0, strings: 0..strings.len(), fallback: 0, found: None, longer: Vec::new() };
        Self { strings, states: vec![start] }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// The state after another byte of the text.
    pub fn step(&mut self, from: usize, byte: u8) -> usize {
        // A state that is made needs a fallback, which may have to be made as well.
        let mut made = Vec::new();
        let mut state = from;
        let known = loop {
            if let Some(&(_, next)) = self.states[state].longer.iter().find(|(other, _)| *other == byte) {
                break next;
            }
            made.extend(self.make(state, byte));
            if state == Self::START {
                break Self::START;
            }
            state = self.states[state].fallback;
        };
        made.into_iter().rev().fold(known, |fallback, state| {
            let found = self.states[fallback].found;
            let state_mut = &mut self.states[state];
            state_mut.fallback = fallback;
            state_mut.found = state_mut.found.or(found);
            state
        })
    }

    /// Length of the longest string that ends where the text does.
    pub fn found(&self, state: usize) -> Option<usize> {
        self.states[state].found
    }

    /// Bytes of the longest end of the text that is the beginning of a string.
    pub fn len_of(&self, state: usize) -> usize {
        self.states[state].len
    }

    /// The state that is longer by a byte, if any string begins with that.
    fn make(&mut self, from: usize, byte: u8) -> Option<usize> {
        let State { len, strings: range, .. } = &self.states[from];
        let strings = &self.strings[range.clone()];
        let first = strings.partition_point(|string| string.as_bytes().get(*len) < Some(&byte));
        let after = strings.partition_point(|string| string.as_bytes().get(*len) <= Some(&byte));
        let (len, strings) = (len + 1, range.start + first..range.start + after);
        let is_whole = self.strings.get(strings.start).is_some_and(|string| string.len() == len);
        let found = is_whole.then_some(len);
        if strings.is_empty() {
            return None;
        }
        let state = self.states.len();
        self.states[from].longer.push((byte, state));
        self.states.push(State { len, strings, fallback: Self::START, found, longer: Vec::new() });
        Some(state)
    }

    #[cfg(test)]
    pub fn num_states(&self) -> usize {
        self.states.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definitions, at every end of the text.
        #[test]
        fn states_are_the_longest_beginnings(
            strings in prop::collection::vec("[abc]{1,6}", 0..6),
            text in "[abc]{0,40}",
        ) {
            let mut automaton = Strings::new(strings.clone());
            let mut state = Strings::START;
            for end in 1..=text.len() {
                state = automaton.step(state, text.as_bytes()[end - 1]);
                let ends = (0..end).map(|start| &text[start..end]);
                let longest = ends.clone().find(|end| strings.iter().any(|string| string.starts_with(*end)));
                prop_assert_eq!(automaton.len_of(state), longest.map_or(0, str::len));
                let found = ends.clone().find(|end| strings.iter().any(|string| string == end));
                prop_assert_eq!(automaton.found(state), found.map(str::len));
            }
        }
    }
}
