//! Dates for chat templates: C's `strftime` for the few formats they use, in UTC.

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

/// Formats `seconds` since 1970; the error is the specifier that is not supported.
pub(crate) fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[(days % 7) as usize]);
    let (hour, minute) = (second / 3600, second / 60 % 60);

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let specifier = chars.next();
        out.push_str(&match specifier {
            Some('Y') => format!("{year}"),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => month_name.into(),
            Some('b') => month_name[..3].into(),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", second % 60),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".into(),
            Some('%') => "%".into(),
            _ => return Err(specifier.map_or("%".into(), |c| format!("%{c}"))),
        });
    }
    Ok(out)
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
    use super::strftime;

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
        assert_eq!(strftime("%d %Q", 0), Err("%Q".into()));
        assert_eq!(strftime("%", 0), Err("%".into()));
    }
}
