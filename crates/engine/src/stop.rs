//! Finds stop strings in text that arrives in pieces.
//!
//! The text that comes out depends on the whole text only, never on where it was cut into pieces: the stop string that is
//! complete first ends it (of those complete at the same character, the longest), and what could still become the
//! beginning of one is withheld until that is decided.

/// The stop strings of one sequence and the text withheld because of them.
#[derive(Debug, Clone)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text not passed on yet: a proper prefix of a stop string, or nothing.
    withheld: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Matched {
    /// No stop string is complete; this text is certain to be in none.
    Continue(String),
    /// A stop string is complete; this is the rest of the text before it.
    Stop(String),
}

impl StopMatcher {
    /// Looks for `stops`, none of which may be empty.
    pub fn new(stops: Vec<String>) -> Self {
        debug_assert!(stops.iter().all(|stop| !stop.is_empty()));
        Self { stops, withheld: String::new() }
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, piece: &str) -> Matched {
        if self.stops.is_empty() {
            return Matched::Continue(piece.to_owned());
        }
        self.withheld.push_str(piece);
        if let Some(start) = self.first_match() {
            self.withheld.truncate(start);
            return Matched::Stop(self.take_withheld());
        }
        let certain = self.withheld.len() - self.longest_beginning();
        Matched::Continue(self.withheld.drain(..certain).collect())
    }

    /// Ends the text: returns what was withheld.
    pub fn take_withheld(&mut self) -> String {
        std::mem::take(&mut self.withheld)
    }

    /// Where the match begins that ends first, of several the longest.
    fn first_match(&self) -> Option<usize> {
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.withheld.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        matches.min().map(|(_end, start)| start)
    }

    /// Bytes of the longest end of the withheld text that is the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let ends = self.withheld.char_indices().map(|(start, _)| &self.withheld[start..]);
        let begins = |end: &&str| self.stops.iter().any(|stop| stop.starts_with(end));
        ends.into_iter().find(begins).map_or(0, str::len)
    }
}
