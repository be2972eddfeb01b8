//! Memory goes back to the system. The only test of its process, since others would allocate meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

/// Resident bytes of the process.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn memory_below_what_is_in_use_goes_back() {
    const BYTES: usize = 64 << 20;
    // Small pieces come from the heap, not from mappings of their own.
    let mut pieces: Vec<Box<[u8]>> = (0..BYTES / 4096).map(|_| vec![1; 4096].into()).collect();
    let last = pieces.pop();
    drop(pieces);
    let before = resident();
    cpu::release_freed_memory();
    let after = resident();
    assert!(after + BYTES / 2 < before, "{before} bytes before, {after} after");
    drop(last);
}
