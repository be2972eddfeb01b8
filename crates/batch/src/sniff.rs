//! Whether an input is JSON lines at all: one error for a file of another kind, instead of one for each of its lines.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What an input is instead of JSON lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Other {
    pub found: &'static str,
    pub hint: &'static str,
}

/// Formats that are known by their first bytes.
const MAGIC: [(&[u8], Other); 7] = [
    (b"\x1f\x8b", Other { found: "gzip data", hint: "`gzip -dc FILE | rustorch batch -i -` reads it" }),
    (
        b"\x28\xb5\x2f\xfd",
        Other { found: "zstd data", hint: "`zstd -dc FILE | rustorch batch -i -` reads it" },
    ),
    (b"BZh", Other { found: "bzip2 data", hint: "`bzip2 -dc FILE | rustorch batch -i -` reads it" }),
    (b"PK\x03\x04", Other { found: "a zip file", hint: "unpack it first" }),
    (b"PAR1", Other { found: "a Parquet file", hint: "write it as JSON lines first" }),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
];
const UTF_16: Other =
    Other { found: "UTF-16 text", hint: "`iconv -f UTF-16 -t UTF-8 FILE | rustorch batch -i -` reads it" };
const ARRAY: Other =
    Other { found: "a JSON array", hint: "`jq -c '.[]' FILE | rustorch batch -i -` reads its elements" };
const PRETTY: Other = Other {
    found: "JSON that is spread over several lines",
    hint: "`jq -c . FILE | rustorch batch -i -` reads it",
};
const TEXT: Other =
    Other { found: "other text", hint: "a line is an object such as {\"prompt\": \"Once upon a time\"}" };
/// Lines without any object that are enough to refuse a file.
const MAX_LINES: usize = 10;

/// Looks at the beginning of an input. `is_all` says that nothing follows.
pub(crate) fn refuse(beginning: &[u8], is_all: bool) -> Option<Other> {
    if let Some((_, other)) = MAGIC.iter().find(|(magic, _)| beginning.starts_with(magic)) {
        return Some(*other);
    }
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    // A line that is cut off says nothing.
    let whole = match text.iter().rposition(|&byte| byte == b'\n') {
        _ if is_all => text,
        Some(end) => &text[..end],
        None => return None,
    };
    let lines = whole.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut first = None;
    for line in lines.take(MAX_LINES) {
        if is_object(line) {
            return None;
        }
        first = first.or(Some(line));
    }
    first.map(|line| match line[0] {
        b'[' if is_all || is_incomplete(line) => ARRAY,
        b'[' => TEXT,
        b'{' if is_incomplete(line) => PRETTY,
        _ => TEXT,
    })
}

fn is_object(line: &[u8]) -> bool {
    line[0] == b'{' && serde_json::from_slice::<Map<String, Value>>(line).is_ok()
}

/// Whether a line is the beginning of JSON that goes on.
fn is_incomplete(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_kind_are_named() {
        let check = |text: &[u8], is_all: bool, expect: Option<&str>| {
            let found = refuse(text, is_all).map(|other| other.found);
            assert_eq!(found, expect, "{}", String::from_utf8_lossy(text));
        };
        check(b"", true, None);
        check(b" \n\n", true, None);
        check(b"{}", true, None);
        check(b"\xef\xbb\xbf{\"prompt\": \"a\"}\n", true, None);
        // One line that is an object is enough, and so is one that is not whole yet.
        check(b"id,text\n1,a\n{\"prompt\": \"a\"}\n", true, None);
        check(b"id,te", false, None);
        check(b"id,text\n1,a\n2,b", false, Some("other text"));
        check(b"id,text\n1,a\n2,b", true, Some("other text"));
        check(b"Once upon a time", true, Some("other text"));
        check(b"[\n  {\"prompt\": \"a\"},\n", false, Some("a JSON array"));
        check(b"[{\"prompt\": \"a\"}]", true, Some("a JSON array"));
        check(b"{\n  \"prompt\": \"a\"\n}\n", true, Some("JSON that is spread over several lines"));
        check(b"\x1f\x8b\x08", false, Some("gzip data"));
        check(b"\x28\xb5\x2f\xfd\x04", false, Some("zstd data"));
        check(b"\xff\xfe{\0", false, Some("UTF-16 text"));
        let few = "x\n".repeat(MAX_LINES - 1) + "{}\n";
        check(few.as_bytes(), true, None);
        check(("x\n".repeat(MAX_LINES) + "{}\n").as_bytes(), true, Some("other text"));
    }
}
