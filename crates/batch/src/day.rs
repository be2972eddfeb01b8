//! A day, which chat templates are told instead of today.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day as it was written: `YYYY-MM-DD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    text: String,
    begin: SystemTime,
}

impl Day {
    /// 00:00 UTC.
    pub fn begin(&self) -> SystemTime {
        self.begin
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u64>> = text.split('-').map(|number| number.parse().ok()).collect();
        let widths: Vec<usize> = text.split('-').map(str::len).collect();
        let day = match (numbers.as_deref(), widths.as_slice()) {
            (Some(&[year, month, day]), [4, 2, 2]) => days_since_1970(year, month, day),
            _ => None,
        };
        let days = day.ok_or_else(|| "expected a day from 1970-01-01 on, such as 2026-11-30".to_owned())?;
        Ok(Self { text: text.to_owned(), begin: UNIX_EPOCH + Duration::from_secs(days * 86_400) })
    }
}

/// Of a day of the Gregorian calendar, if there is one of this date.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *months.get(before)?;
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    Some(years + months[..before].iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = |text: &str| {
            let day: Day = text.parse().ok()?;
            Some(day.begin.duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400)
        };
        for (text, expect) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(11_016)),
            ("2000-03-01", Some(11_017)),
            ("2026-11-30", Some(20_787)),
            ("2100-02-29", None),
            ("1969-12-31", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-04-31", None),
            ("2026-4-1", None),
            ("2026-11-30-1", None),
            ("", None),
        ] {
            assert_eq!(days(text), expect, "{text}");
        }
    }
}
