//! Time as an argument.

/// One reading of both clocks, taken in `runtime` and handed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds since the Unix epoch; may jump. Only for what is stored or shown.
    pub wall_ms: u64,
    /// Milliseconds since some fixed moment of this run; never runs backwards. For every deadline.
    pub mono_ms: u64,
}

impl Now {
    /// The wall clock's time once a span that begins now is over for certain: a reading says nothing of the part of its
    /// millisecond that has gone by.
    pub const fn wall_ms_after(self, span_ms: u64) -> u64 {
        self.wall_ms.saturating_add(span_ms).saturating_add(1)
    }

    /// The same for the monotonic clock.
    pub const fn mono_ms_after(self, span_ms: u64) -> u64 {
        self.mono_ms.saturating_add(span_ms).saturating_add(1)
    }
}
