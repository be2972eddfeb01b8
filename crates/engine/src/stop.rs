//! Finds stop strings in text that arrives in pieces.
//!
//! The text that comes out depends on the whole text only, never on where it was cut into pieces: the stop string that is
//! complete first ends it (of those complete at the same character, the longest), and what could still become the
//! beginning of one is withheld until that is decided.

use crate::strings::Strings;

/// The stop strings of one sequence and the text withheld because of them.
#[derive(Debug, Clone)]
pub(crate) struct StopMatcher {
    stops: Strings,
    /// The longest end of the text that is the beginning of a stop string.
    state: usize,
    /// Text not passed on yet: that end.
    withheld: String,
    /// The stop string that is complete.
    found: Option<String>,
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
        Self { stops: Strings::new(stops), state: Strings::START, withheld: String::new(), found: None }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, piece: &str) -> Matched {
        if self.stops.is_empty() {
            return Matched::Continue(piece.to_owned());
        }
        let num_before = self.withheld.len();
        self.withheld.push_str(piece);
        for (idx, byte) in piece.bytes().enumerate() {
            self.state = self.stops.step(self.state, byte);
            if let Some(len) = self.stops.found(self.state) {
                let (start, end) = (num_before + idx + 1 - len, num_before + idx + 1);
                self.found = Some(self.withheld[start..end].to_owned());
                self.withheld.truncate(start);
                return Matched::Stop(self.take_withheld());
            }
        }
        let certain = self.withheld.len() - self.stops.len_of(self.state);
        Matched::Continue(self.withheld.drain(..certain).collect())
    }

    /// The stop string that has ended the text.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// Ends the text: returns what was withheld.
    pub fn take_withheld(&mut self) -> String {
        self.state = Strings::START;
        std::mem::take(&mut self.withheld)
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
                Matched::Stop(text) => {
                    let found = matcher.found().unwrap();
                    assert!(
                        stops.contains(&found) && pieces.concat().contains(&(passed.clone() + &text + found))
                    );
                    return passed + &text + "!";
                }
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

    #[test]
    fn long_stop_strings_cost_what_the_text_reaches_of_them() {
        let long = |last: &str| "ab".repeat(1_000_000) + last;
        let mut matcher =
            StopMatcher::new(vec![long("c"), long("d"), "x".repeat(2_000_000), "abc".to_owned()]);
        for _ in 0..100 {
            assert_eq!(matcher.push("ab"), Matched::Continue(String::new()));
        }
        assert!(matcher.stops.num_states() <= 2 * 100 + 2, "{}", matcher.stops.num_states());
        assert_eq!(matcher.push("cd"), Matched::Stop("ab".repeat(99)));
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
