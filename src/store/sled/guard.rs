//! Panics of sled on a damaged store, turned into an error. At open and read only.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::store::StoreError;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Guarded calls running now, for the panics of sled's own threads that work for them.
static GUARDED_COUNT: AtomicUsize = AtomicUsize::new(0);

const ENGINE_THREAD: &str = "sled-io-";

/// Runs a call into sled; a panic in it is damage found while `doing` something, and prints nothing.
pub(super) fn catch<T>(doing: &str, run: impl FnOnce() -> T) -> Result<T, StoreError> {
    silence_guarded_panics();
    GUARDED_COUNT.fetch_add(1, Ordering::SeqCst);
    let outer = GUARDED.replace(true);
    // What sled leaves behind is not used again but to read, and the first damage stops the broker.
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(outer);
    GUARDED_COUNT.fetch_sub(1, Ordering::SeqCst);
    result.map_err(|payload| StoreError::Damaged {
        what: format!("the engine gave up {doing}: {}", message(payload.as_ref())),
    })
}

fn message(payload: &(dyn Any + std::marker::Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no reason given",
    }
}

fn silence_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            let of_engine = thread.name().is_some_and(|name| name.starts_with(ENGINE_THREAD));
            let guarded = GUARDED.get() || of_engine && GUARDED_COUNT.load(Ordering::SeqCst) > 0;
            if !guarded {
                print(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage() {
        assert_eq!(catch("counting", || 3).unwrap(), 3);
        let error = catch::<()>("counting", || panic!("page {} is gone", 7)).unwrap_err();
        assert_eq!(error.code(), "store-damaged");
        assert!(error.to_string().contains("counting: page 7 is gone"), "{error}");
        assert!(!GUARDED.get());
    }
}
