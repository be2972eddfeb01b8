//! The GGUF reader on arbitrary bytes: it may refuse them; if it does not, everything it offers must work.
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run reader -- -max_total_time=120
//! ```
//!
//! `make_seeds.py` made the seeds in `corpus/reader`; the crate's own tests run over them too.

#![no_main]

use gguf::{Gguf, TensorView};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    match Gguf::from_vec(file.to_vec()) {
        Ok(gguf) => use_all(&gguf, file.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn use_all(gguf: &Gguf, file_len: usize) {
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert!(!value.to_string().is_empty());
        // Most of these do not fit the value; none may panic.
        let _ =
            (metadata.u32(key), metadata.u64(key), metadata.f32(key), metadata.bool(key), metadata.str(key));
        let _ = (metadata.strings(key), metadata.f32s(key), metadata.i32s(key), metadata.u32s(key));
    }
    let _ = metadata.architecture();

    let mut tensors: Vec<TensorView<'_>> = gguf.tensors().collect();
    for tensor in &tensors {
        assert_eq!(tensor.dequantize().len(), tensor.rows() * tensor.cols());
        let mut row = vec![0.0; tensor.cols()];
        tensor.dequantize_row(tensor.rows() - 1, &mut row);
        assert_eq!(gguf.tensor(tensor.name()).expect("it was listed").data(), tensor.data());
    }
    tensors.sort_by_key(|tensor| tensor.data().as_ptr());
    for pair in tensors.windows(2) {
        assert!(pair[0].data().as_ptr_range().end <= pair[1].data().as_ptr(), "{pair:?} overlap");
    }
    assert!(tensors.iter().map(|tensor| tensor.data().len()).sum::<usize>() < file_len);
}
