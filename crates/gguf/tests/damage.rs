//! Damaged files: cut short, overwritten, hostile. An error or a file that can be used; never a panic, and
//! never memory out of proportion to the file.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use common::{Random, Raw, small_file, use_all};
use gguf::Gguf;

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counts are the process's, so one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Memory the reader may take: strings and records are larger in memory than in a file, and vectors grow by
/// doubling.
const BYTES_PER_FILE_BYTE: usize = 16;
/// For error messages, first allocations and what the test harness does meanwhile.
const SPARE_BYTES: usize = 16 << 10;

/// Opens the file, with its memory measured; uses it if it opens.
fn open(file: &[u8]) -> Result<(), String> {
    let copy = file.to_vec();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = Gguf::from_vec(copy);
    let taken = PEAK.load(Ordering::Relaxed) - before;
    let allowed = file.len() * BYTES_PER_FILE_BYTE + SPARE_BYTES;
    assert!(taken <= allowed, "{taken} bytes taken for a file of {}", file.len());
    result.map(|gguf| use_all(&gguf)).map_err(|error| error.to_string())
}

fn lock() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let _guard = lock();
    let file = small_file();
    open(&file).unwrap();
    for len in 0..file.len() {
        assert!(open(&file[..len]).is_err(), "opened with {len} of {} bytes", file.len());
    }
}

#[test]
fn extreme_numbers_anywhere_in_the_header_do_no_harm() {
    let _guard = lock();
    let file = small_file();
    let header_len =
        file.len() - Gguf::from_vec(file.clone()).unwrap().tensors().map(|t| t.data().len()).sum::<usize>();
    for at in 0..header_len - 8 {
        for extreme in
            [0, 1, 1 << 20, 1 << 31, u64::from(u32::MAX), 1 << 60, 1 << 63, u64::MAX - 31, u64::MAX]
        {
            let mut damaged = file.clone();
            damaged[at..at + 8].copy_from_slice(&extreme.to_le_bytes());
            let _ = open(&damaged);
        }
    }
}

#[test]
fn random_damage_to_the_fuzzing_seeds_does_no_harm() {
    let _guard = lock();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/reader");
    let mut n_seeds = 0;
    for entry in std::fs::read_dir(&seeds).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        n_seeds += 1;
        let file = std::fs::read(&path).unwrap();
        let _ = open(&file);
        let mut random = Random(file.len() as u64);
        for _ in 0..3000 {
            let mut damaged = file.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(damaged.len());
                damaged[at] ^= 1 << random.below(8);
            }
            let _ = open(&damaged);
        }
    }
    assert!(n_seeds >= 5, "{n_seeds} seeds in {}", seeds.display());
}

/// Small files that state large counts: memory stays in proportion to the file.
#[test]
fn forty_hostile_bytes_allocate_nothing_large() {
    let _guard = lock();
    for count in [1 << 20, 1 << 32, 1 << 40, u64::MAX / 64, u64::MAX] {
        let key = |value_type: u32| Raw::header(3, 0, 1).key("k", value_type);
        let files = [
            Raw::header(3, count, 0).bytes(&[0; 16]),
            Raw::header(3, 0, count).bytes(&[0; 16]),
            Raw::header(3, count, count).bytes(&[0; 16]),
            Raw::header(3, 0, 1).u64(count).bytes(&[0; 16]),
            Raw::header(3, 1, 0).u64(count).bytes(&[0; 24]),
            key(8).u64(count),
            key(9).u32(0).u64(count),
            key(9).u32(8).u64(count),
            key(9).u32(12).u64(count),
            Raw::header(3, 1, 0).tensor("t", &[count & !255], 12, 0),
            Raw::header(3, 1, 0).tensor("t", &[256, count], 12, 0),
        ];
        for (i, file) in files.iter().enumerate() {
            assert!(open(&file.0).is_err(), "file {i}, count {count}");
        }
    }
}

/// The worst a file can do per byte: the shortest keys, strings and tensors, many times over.
#[test]
fn memory_stays_in_proportion_to_the_file() {
    let _guard = lock();
    let n = 20_000;
    let keys = (0..n).fold(Raw::header(3, 0, n), |raw, i| raw.key(&format!("{i:x}"), 0).u8(0));
    open(&keys.0).unwrap();
    let strings = Raw::header(3, 0, 1).key("k", 9).u32(8).u64(n).bytes(&vec![0; 8 * n as usize]);
    open(&strings.0).unwrap();
    let records = (0..n).fold(Raw::header(3, n, 1).key("general.alignment", 4).u32(2), |raw, i| {
        raw.tensor(&format!("{i:x}"), &[1], 1, 2 * i)
    });
    open(&records.data(2 * n as usize).0).unwrap();
}
