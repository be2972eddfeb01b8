//! Dates for chat templates: C's `strftime` for the few formats they use, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The first of January 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// As [`strftime`], of a clock; one before 1970 shows 1970.
///
/// # Errors
/// The directive that is not supported.
pub fn strftime_at(format: &str, time: SystemTime) -> Result<String, String> {
    strftime(format, time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Formats `seconds` since 1970 as C's `strftime` does, in UTC.
///
/// # Errors
/// The directive that is not supported.
pub fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[(days % 7) as usize]);
    let (hour, minute) = (second / 3600, second / 60 % 60);

    let day_of_year = days - days_before(year);
    // From Sunday and from Monday.
    let (sunday, monday) = ((days + 4) % 7, (days + 3) % 7);
    let (iso_year, iso_week) = iso_week(year, day_of_year, monday);
    let date = |format: &str| strftime(format, seconds);

    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // As C libraries have it: without the zero or blank in front.
        let is_bare = chars.next_if_eq(&'-').is_some();
        let specifier = chars.next();
        let text = match specifier {
            Some('Y') => format!("{year}"),
            Some('C') => format!("{:02}", year / 100),
            Some('y') => format!("{:02}", year % 100),
            Some('G') => format!("{iso_year}"),
            Some('g') => format!("{:02}", iso_year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('j') => format!("{:03}", day_of_year + 1),
            Some('U') => format!("{:02}", (day_of_year + 7 - sunday) / 7),
            Some('W') => format!("{:02}", (day_of_year + 7 - monday) / 7),
            Some('V') => format!("{iso_week:02}"),
            Some('w') => format!("{sunday}"),
            Some('u') => format!("{}", monday + 1),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('H') => format!("{hour:02}"),
            Some('k') => format!("{hour:2}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('l') => format!("{:2}", (hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('P') => if hour < 12 { "am" } else { "pm" }.into(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", second % 60),
            Some('f') => "000000".into(),
            Some('s') => format!("{seconds}"),
            Some('F') => date("%Y-%m-%d")?,
            Some('T' | 'X') => date("%H:%M:%S")?,
            Some('D' | 'x') => date("%m/%d/%y")?,
            Some('R') => date("%H:%M")?,
            Some('r') => date("%I:%M:%S %p")?,
            Some('c') => date("%a %b %e %H:%M:%S %Y")?,
            Some('z') => "+0000".into(),
            Some('Z') => "UTC".into(),
            Some('n') => "\n".into(),
            Some('t') => "\t".into(),
            Some('%') => "%".into(),
            _ => return Err(specifier.map_or("%".into(), |c| format!("%{c}"))),
        };
        let bare = text.trim_start_matches(['0', ' ']);
        out.push_str(match is_bare && !bare.is_empty() {
            true => bare,
            false if is_bare => "0",
            false => &text,
        });
    }
    Ok(out)
}

/// Days from the first of January 1970 to that of a year.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

/// Year and week of ISO 8601, whose weeks belong to the year that has their Thursday. Days are counted from 0.
fn iso_week(year: u64, day_of_year: u64, monday: u64) -> (u64, u64) {
    let length = days_before(year + 1) - days_before(year);
    // The week's Thursday, counted from three days before the year.
    let thursday = day_of_year + 6 - monday;
    match thursday {
        0..3 => {
            let last_year = days_before(year) - days_before(year - 1);
            (year - 1, (last_year + thursday - 3) / 7 + 1)
        }
        _ if thursday - 3 >= length => (year + 1, 1),
        _ => (year, (thursday - 3) / 7 + 1),
    }
}

/// Year, month (from 1) and day (from 1) of the Gregorian calendar, `days` after the first of January 1970.
///
/// Years are counted from March, so that the leap day comes last in each year, each 4 years, each century and
/// each 400 years (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let since_era = days + 719_468; // from the first of March of year 0
    let (era, day_of_era) = (since_era / DAYS_PER_ERA, since_era % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{strftime, strftime_at};

    #[test]
    fn a_clock_before_1970_shows_1970() {
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(strftime_at("%F", UNIX_EPOCH - week).as_deref(), Ok("1970-01-01"));
        assert_eq!(strftime_at("%F", UNIX_EPOCH + week).as_deref(), Ok("1970-01-08"));
    }

    #[test]
    fn formats_dates() {
        let check = |seconds, format, expected: &str| {
            assert_eq!(strftime(format, seconds).as_deref(), Ok(expected), "{seconds} {format}");
        };
        check(0, "%Y-%m-%d %H:%M:%S %A", "1970-01-01 00:00:00 Thursday");
        check(951_782_400, "%d %b %Y, %a", "29 Feb 2000, Tue");
        check(951_868_800, "%F %B", "2000-03-01 March");
        check(1_735_689_599, "%d %B %y %I:%M %p %T %Z 100%%", "31 December 24 11:59 PM 23:59:59 UTC 100%");
        check(4_107_542_400, "%F", "2100-03-01");
        check(1_735_689_599, "%j %U %W %V %G %g %u %w", "366 52 53 01 2025 25 2 2");
        check(1_609_459_200, "%j %U %W %V %G %u %w", "001 00 00 53 2020 5 5");
        check(1_704_067_200, "%U %W %V %G", "00 01 01 2024");
        check(
            951_782_400,
            "%c|%x|%X|%D|%R|%r|%e|%k|%l",
            "Tue Feb 29 00:00:00 2000|02/29/00|00:00:00|02/29/00|00:00|12:00:00 AM|29| 0|12",
        );
        check(
            1_709_251_380,
            "%-d %-m %-H %-I %-M %-j %e %C %h %P %z %f %n%t%s",
            "1 3 0 12 3 61  1 20 Mar am +0000 000000 \n\t1709251380",
        );
        assert_eq!(strftime("%d %Q", 0), Err("%Q".into()));
        assert_eq!(strftime("%", 0), Err("%".into()));
    }
}
