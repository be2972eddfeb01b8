//! Ids and seeds.

/// 32 hexadecimal digits that nobody can guess.
pub(crate) fn id() -> String {
    format!("{:032x}", u128::from(u64()) << 64 | u128::from(u64()))
}

/// Whether a text may be an [`id`].
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The seed of a request without one.
pub(crate) fn u64() -> u64 {
    getrandom::u64().expect("every supported system has a source of random bytes")
}
