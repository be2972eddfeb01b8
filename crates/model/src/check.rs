//! Checks of values that come from files and callers.

use std::fmt::Display;

use crate::{Error, Result};

/// No count of a real model or machine comes near; products of two stay far from overflow.
pub(crate) const MAX_COUNT: usize = 1 << 24;

/// An error that names the value, unless it is as it should be.
pub(crate) fn check(ok: bool, what: &str, expected: impl Display, found: impl Display) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    })
}
