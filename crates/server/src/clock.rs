//! Wall time in the API's unit.

use std::time::SystemTime;

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    batch::unix_seconds(SystemTime::now())
}
