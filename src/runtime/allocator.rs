//! Set-up of glibc's allocator, one of the two places with `unsafe`.
//!
//! The store takes a fresh buffer of a segment's size for each log write. By default glibc maps and unmaps memory of
//! that size each time, and a quarter of all processor time goes into page faults. With the thresholds below such
//! buffers come from the heap and stay there. Few arenas keep the memory that stays from being spread over one for
//! each thread: 430 MiB instead of 570 after the same load, no slower.

/// Raises the thresholds. To be called before the process has a second thread. No effect where the C library is not
/// glibc: others have no such knobs and are slower, not wrong.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
pub(crate) fn set_up() {
    const MIB: libc::c_int = 1024 * 1024;
    // The first value is the largest that glibc accepts. One that is refused is not an error: the default stays.
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 32 * MIB),
        (libc::M_TRIM_THRESHOLD, 512 * MIB),
        (libc::M_TOP_PAD, 16 * MIB),
        (libc::M_ARENA_MAX, 4),
    ] {
        // SAFETY: `mallopt` takes two integers by value and touches the allocator's own settings only; no other
        // thread exists yet that could allocate meanwhile.
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}

/// Elsewhere there is nothing to set.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn set_up() {}
