//! Time as an argument.

/// One reading of both clocks, taken in `runtime` and handed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds since the Unix epoch; may jump. Only for what is stored or shown.
    pub wall_ms: u64,
    /// Milliseconds since some fixed moment of this run; never runs backwards. For every deadline.
    pub mono_ms: u64,
}
