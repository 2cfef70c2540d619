//! `sync_file_range` as a no-op for the whole process, on Linux.
//!
//! sled's flush writes its buffer and then waits in `sync_file_range`, which promises nothing: its manual page says that
//! it is unfit for data integrity, and power cuts lose what it has waited for. The committer's `fdatasync` follows at
//! once and waits for the same bytes, so the first wait only costs. The linker prefers this definition to that of the
//! C library. Nothing depends on it: without it every commit is as durable, and slower.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU64, Ordering};

static CALL_COUNT: AtomicU64 = AtomicU64::new(0);

/// How often sled came here instead of the C library.
#[cfg(test)]
pub(super) fn call_count() -> u64 {
    CALL_COUNT.load(Ordering::Relaxed)
}

/// The symbol that sled is linked to.
#[expect(
    unsafe_code,
    reason = "defines a symbol of the C library; touches no memory, so any arguments are sound"
)]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(_fd: c_int, _offset: i64, _len: i64, _flags: c_uint) -> c_int {
    CALL_COUNT.fetch_add(1, Ordering::Relaxed);
    0
}
