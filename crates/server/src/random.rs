//! Ids and seeds.

/// 32 hexadecimal digits that nobody can guess.
pub(crate) fn id() -> String {
    format!("{:032x}", u128::from(u64()) << 64 | u128::from(u64()))
}

/// The seed of a request without one.
pub(crate) fn u64() -> u64 {
    getrandom::u64().expect("every supported system has a source of random bytes")
}
