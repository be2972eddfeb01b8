//! A disk that cannot be written: what is known of it, and when to try again.

use std::io;
use std::time::Duration;

use crate::clock;

/// Batches pause, since their folder cannot be read or written.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// Seconds since 1970 when it began.
    pub since: u64,
    /// The last failure, without paths of the machine.
    pub reason: String,
    /// Failures since it began.
    pub failures: u32,
}

/// The first pause; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

impl Trouble {
    /// One failure more, of this trouble or of a new one.
    pub fn after(before: Option<&Self>, error: &io::Error) -> Self {
        Self {
            since: before.map_or_else(clock::unix_seconds, |trouble| trouble.since),
            reason: match error.raw_os_error() {
                Some(_) => error.to_string(),
                None => error.kind().to_string(),
            },
            failures: before.map_or(0, |trouble| trouble.failures).saturating_add(1),
        }
    }

    /// How long to wait before the next try.
    pub fn pause(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_minutes() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let mut trouble = Trouble::after(None, &error);
        let since = trouble.since;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(trouble.pause().as_secs());
            trouble = Trouble::after(Some(&trouble), &error);
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[10..].iter().all(|&pause| pause == 300));
        assert_eq!(
            (trouble.since, trouble.failures, trouble.reason.as_str()),
            (since, 41, "no storage space")
        );
    }
}
