//! The one place that ends the process.

/// A store that cannot promise durability any more.
pub(crate) const STORE_FAILED: u8 = 3;
/// Any other failure at run time.
const FAILED: u8 = 1;

/// Ends the process at once, without running destructors: nothing more may be promised, written or read.
pub(crate) fn now(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

/// A panic under the core's lock left state that is not to be trusted. What is durable is safe; a restart recovers it.
pub(crate) fn after_bug() -> ! {
    tracing::error!("the core panicked (see above); the process ends, a restart recovers from the store");
    now(FAILED)
}

/// A second signal.
pub(crate) fn impatiently() -> ! {
    tracing::warn!("second signal: ending at once");
    now(FAILED)
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
