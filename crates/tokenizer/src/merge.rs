//! Pairwise merging, the heart of both kinds of vocabulary: of all neighbouring symbols the pair of highest
//! priority is merged (of equals the leftmost), until no pair can be merged.
//!
//! A heap of candidates and a linked list of symbols make it O(n log n), so a megabyte without a space is no
//! trouble. A candidate is never removed from the heap: symbols only grow, so one whose two symbols no longer
//! have the length they had together is stale, and is skipped when it comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A stretch of the text, `start..end` in bytes, and the id of what it spells, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) id: Option<u32>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The symbol that two neighbours become, and the priority of the merge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    pub(crate) priority: u32,
    pub(crate) id: u32,
}

/// A possible merge of two symbols that were `len` bytes together. Ordered by priority, then leftmost first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: Reverse<usize>,
    right: usize,
    len: usize,
    id: u32,
}

/// The neighbours of a symbol that has not been swallowed.
struct Link {
    previous: usize,
    next: usize,
}

/// No neighbour: the text begins or ends here.
const END: usize = usize::MAX;

/// Merges `symbols`, which follow one another without gaps, by `rule`, which says what a pair becomes.
pub(crate) fn merge(
    mut symbols: Vec<Symbol>,
    rule: impl Fn(&Symbol, &Symbol) -> Option<Merge>,
) -> Vec<Symbol> {
    let n = symbols.len();
    let mut links: Vec<Link> = (0..n)
        .map(|i| Link {
            previous: if i == 0 { END } else { i - 1 },
            next: if i + 1 == n { END } else { i + 1 },
        })
        .collect();
    let candidate = |symbols: &[Symbol], left: usize, right: usize| {
        if left == END || right == END {
            return None;
        }
        let Merge { priority, id } = rule(&symbols[left], &symbols[right])?;
        let len = symbols[right].end - symbols[left].start;
        Some(Candidate { priority, left: Reverse(left), right, len, id })
    };

    let mut heap: BinaryHeap<Candidate> = (1..n).filter_map(|i| candidate(&symbols, i - 1, i)).collect();
    while let Some(Candidate { left: Reverse(left), right, len, id, .. }) = heap.pop() {
        let (l, r) = (symbols[left], symbols[right]);
        if l.is_swallowed() || r.is_swallowed() || (l.end - l.start) + (r.end - r.start) != len {
            continue;
        }
        symbols[left] = Symbol { id: Some(id), start: l.start, end: r.end };
        symbols[right].end = r.start;
        let next = links[right].next;
        links[left].next = next;
        if next != END {
            links[next].previous = left;
        }
        heap.extend(candidate(&symbols, links[left].previous, left));
        heap.extend(candidate(&symbols, left, next));
    }
    symbols.retain(|symbol| !symbol.is_swallowed());
    symbols
}

impl Symbol {
    /// Whether the left neighbour has taken this symbol's text.
    fn is_swallowed(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Merge, Symbol, merge};

    /// The definition: look at all pairs and merge the best, until no pair can be merged.
    fn merge_slowly(
        mut symbols: Vec<Symbol>,
        rule: impl Fn(&Symbol, &Symbol) -> Option<Merge>,
    ) -> Vec<Symbol> {
        loop {
            let pairs = symbols.windows(2).enumerate();
            let possible = pairs.filter_map(|(i, pair)| Some((i, rule(&pair[0], &pair[1])?)));
            // `max_by_key` takes the last of equals, so the other way round it takes the leftmost.
            let Some((left, merge)) = possible.rev().max_by_key(|(_, merge)| merge.priority) else {
                return symbols;
            };
            let right = symbols.remove(left + 1);
            symbols[left] = Symbol { id: Some(merge.id), start: symbols[left].start, end: right.end };
        }
    }

    proptest! {
        /// Few letters and few priorities, so that there are many ties and chains of merges.
        #[test]
        fn agrees_with_the_definition(
            text in "[abc]{0,40}",
            priorities in prop::collection::vec(prop::option::of(0_u32..5), 64),
        ) {
            let rule = |left: &Symbol, right: &Symbol| {
                let bytes = text[left.start..right.end].bytes();
                let hash = bytes.fold(7, |hash: usize, byte| (hash * 31 + usize::from(byte)) % 1009);
                let priority = priorities[hash % 64].filter(|_| right.end - left.start <= 9)?;
                Some(Merge { priority, id: hash as u32 })
            };
            let letter = |start| Symbol { id: None, start, end: start + 1 };
            let letters: Vec<Symbol> = (0..text.len()).map(letter).collect();
            prop_assert_eq!(merge(letters.clone(), rule), merge_slowly(letters, rule));
        }
    }
}
