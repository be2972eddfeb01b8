//! The formats of strings that are enforced, as regular expressions.
//!
//! Those that the library has but takes too wide (a 29th of February in every year, a leap second at any time, hosts of any
//! length) are here; they may be narrower than their standard, never wider.

/// How a format is enforced.
pub(crate) enum Format {
    /// By the library's own expression.
    Library,
    /// By this expression, and a length in characters.
    Pattern(String, Option<usize>),
}

/// The names of all formats that are enforced.
pub(crate) const NAMES: [&str; 10] =
    ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

const YEAR: &str = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
const LEAP_YEAR: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?\
                    (?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
/// At most 61 of 63 characters; without two hyphens in a row, which would begin an internationalised label.
const LABEL: &str = "[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,30}";
/// At most 63 of 64 characters.
const MAILBOX: &str = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-](?:\\.?[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]){0,31}";
/// Of a host's name.
const MAX_HOST: usize = 253;

/// How the format of this name is enforced; `None` if it is not.
pub(crate) fn lookup(name: &str) -> Option<Format> {
    let date = || {
        format!(
            "(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
             |02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP_YEAR}-02-29)"
        )
    };
    Some(match name {
        "duration" | "ipv4" | "ipv6" | "uuid" | "uri" => Format::Library,
        "date" => Format::Pattern(date(), None),
        "time" => Format::Pattern(TIME.to_owned(), None),
        "date-time" => Format::Pattern(format!("{}T{TIME}", date()), None),
        "hostname" => Format::Pattern(format!("{LABEL}(?:\\.{LABEL})*"), Some(MAX_HOST)),
        "email" => Format::Pattern(format!("{MAILBOX}@{LABEL}(?:\\.{LABEL})+"), Some(MAX_HOST)),
        _ => return None,
    })
}
