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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What passes of `pieces`, and how it ended: `!` by a stop string, `.` by the end of the text.
    fn run(stops: &[&str], pieces: &[&str]) -> String {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut passed = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Matched::Continue(text) => passed += &text,
                Matched::Stop(text) => return passed + &text + "!",
            }
        }
        passed + &matcher.take_withheld() + "."
    }

    fn check(stops: &[&str], pieces: &[&str], expect: &str) {
        assert_eq!(run(stops, pieces), expect, "stops {stops:?}, pieces {pieces:?}");
    }

    #[test]
    fn text_ends_before_the_first_stop_string() {
        check(&[], &["as it ", "is"], "as it is.");
        check(&["STOP"], &["a STOP b"], "a !");
        check(&["STOP"], &["a S", "T", "OP b"], "a !");
        check(&["STOP"], &["a STO", "RE"], "a STORE.");
        check(&["STOP"], &["a STO"], "a STO.");
        check(&["STOP"], &["STOSTOP"], "STO!");
        check(&["aab"], &["aa", "ab"], "a!");
        check(&["é\n"], &["caf", "é", "\nx"], "caf!");
        check(&["\u{20ac}"], &["5 ", "\u{20ac}"], "5 !");
    }

    #[test]
    fn the_stop_string_that_is_complete_first_counts() {
        check(&["abcd", "bc"], &["xabcd"], "xa!");
        check(&["abcd", "bc"], &["x", "a", "b", "c", "d"], "xa!");
        check(&["bc", "abc"], &["xabc"], "x!");
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_withheld() {
        let mut matcher = StopMatcher::new(vec!["\n\nUser:".to_owned()]);
        let pieces =
            [("Hi.\n", "Hi."), ("\nUs", ""), ("e", ""), ("d to\n\n", "\n\nUsed to"), ("\nUser", "\n")];
        for (piece, expect) in pieces {
            assert_eq!(matcher.push(piece), Matched::Continue(expect.to_owned()), "{piece:?}");
        }
        assert_eq!(matcher.push(":"), Matched::Stop(String::new()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_show(
            stops in prop::collection::vec("[ab\u{e9}]{1,4}", 1..4),
            pieces in prop::collection::vec("[ab\u{e9}]{0,4}", 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let text = pieces.concat();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
            let stopped = ends.map(|end| &text[..end]).find_map(|head| {
                let rest = stops.iter().filter_map(|stop| head.strip_suffix(stop)).min_by_key(|rest| rest.len())?;
                Some(format!("{rest}!"))
            });
            prop_assert_eq!(run(&stops, &pieces), stopped.unwrap_or(text + "."));
        }
    }
}
