//! Wall time in the API's unit.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds from 1970 to `time`; 0 if a clock shows an earlier one.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_shows_1970() {
        let day = Duration::from_secs(86_400);
        assert_eq!(unix_seconds(UNIX_EPOCH + day + Duration::from_millis(900)), 86_400);
        assert_eq!(unix_seconds(UNIX_EPOCH), 0);
        assert_eq!(unix_seconds(UNIX_EPOCH - day), 0);
    }
}
