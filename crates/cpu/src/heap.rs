//! The heap of the process, as far as the system lends it.

/// Gives freed memory back to the system. glibc keeps what lies below memory that is still in use, whatever its size, so a process
/// stays as large as it once was. Does nothing with other allocators, which give memory back by themselves.
///
/// It takes milliseconds, and no other thread can allocate from a part of the heap while that is looked at: call it after much was
/// freed.
pub fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        // SAFETY: this is its declaration in glibc's malloc.h.
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: it takes no pointer, may be called by any thread, and touches no memory that is in use. Whether there was any to
        // give back does not matter.
        let _ = unsafe { malloc_trim(0) };
    }
}
