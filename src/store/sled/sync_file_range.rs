//! `sync_file_range` for the whole process, on Linux: nothing, but an `fdatasync` at the end of a segment.
//!
//! sled's flush writes its buffer and then waits in `sync_file_range`, which promises nothing: its manual page says that
//! it is unfit for data integrity, and power cuts lose what it has waited for. The committer's `fdatasync` follows at
//! once and waits for the same bytes, so the first wait only costs. Except where it fills a segment: then sled takes what
//! is in it for safe, and the segments from which pages were moved into it for free, to be overwritten or cut off the
//! file, perhaps before the committer syncs. The linker prefers this definition to that of the C library.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU64, Ordering};

static CALL_COUNT: AtomicU64 = AtomicU64::new(0);
static SYNC_COUNT: AtomicU64 = AtomicU64::new(0);

/// How often sled came here instead of the C library, and how often with a full segment.
#[cfg(test)]
pub(super) fn counts() -> (u64, u64) {
    (
        CALL_COUNT.load(Ordering::Relaxed),
        SYNC_COUNT.load(Ordering::Relaxed),
    )
}

/// The symbol that sled is linked to.
#[expect(
    unsafe_code,
    reason = "defines a symbol of the C library, and calls another on the same descriptor; touches no memory"
)]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, offset: i64, len: i64, _flags: c_uint) -> c_int {
    CALL_COUNT.fetch_add(1, Ordering::Relaxed);
    let ends_segment = offset.wrapping_add(len) % (super::SEGMENT_BYTES as i64) == 0;
    if !ends_segment {
        return 0;
    }
    SYNC_COUNT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a system call on a number; with one that is no open file it fails.
    unsafe { libc::fdatasync(fd) }
}
