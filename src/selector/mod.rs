//! Message selectors: a condition on the headers of a message, in the language of Jakarta Messaging 3.1, section 3.8.1.1.
//!
//! A [`Selector`] is parsed once and asked often. A header's value is text; where the language has a number or a truth, the
//! text is read as one, and where it cannot be, the answer is unknown, as it is for a header that is not there. Only what is
//! true is selected. `docs/concepts/selectors.md` is the language as its users see it.
//!
//! # Invariants
//! - What peers write has no bound but [`SelectorLimits`]: recursion, of parsing as of asking, is as deep as parentheses are.
//! - Asking allocates nothing and cannot fail. It takes at most the length of the selector times that of the values.
//! - A selector is equal to the one that its `Display` is parsed to.
//!
//! # Not here
//! Where a message's headers come from, and what those are that the broker adds when it delivers: the caller looks names up.

mod error;
mod like;
mod name;
mod number;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod token;
mod tree;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use error::{Expected, SelectorError};

use tree::{Condition, Names};

/// The bounds of a selector's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectorLimits {
    /// Bytes of the text.
    pub selector_bytes_max: usize,
    /// Parentheses within each other. Each takes stack, 20 KiB at most in a build without optimization: 64 are safe on a thread
    /// of 2 MiB.
    pub selector_depth_max: usize,
}

/// A condition on a message's headers.
///
/// Equal selectors select the same: spaces, the case of keywords, needless parentheses and the spelling of numbers make no
/// difference. So that many subscriptions with one selector can be asked once, it can be the key of a map.
#[derive(Debug, Clone)]
pub struct Selector {
    condition: Condition,
    names: Names,
    /// The text that all equal selectors share.
    normal: Box<str>,
}

impl Selector {
    /// Reads a selector. A blank one selects everything, like `TRUE`.
    ///
    /// # Errors
    /// What is wrong and at which character; a text over the limits.
    pub fn parse(text: &str, limits: SelectorLimits) -> Result<Self, SelectorError> {
        let (condition, names) = parse::parse(text, limits)?;
        let normal = print::Printed {
            condition: &condition,
            names: &names,
        };
        let normal = normal.to_string().into_boxed_str();
        Ok(Self {
            condition,
            names,
            normal,
        })
    }

    /// Whether a message is selected, whose header of a name has the value that is looked up: unescaped, and `None` where the
    /// message has no such header. Where a header stands more than once, STOMP 1.2 says that the first counts.
    pub fn matches<'m>(&self, value: impl Fn(&str) -> Option<&'m str>) -> bool {
        self.matches_at(|index| value(self.names.get(index)?))
    }

    /// The same, by the index of the header in [`Self::names`].
    pub fn matches_at<'m>(&self, value: impl Fn(usize) -> Option<&'m str>) -> bool {
        self.condition.truth(&value) == Some(true)
    }

    /// The headers that it reads, each once.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

/// In its normal form, which may be longer than what was parsed.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.normal)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal.hash(state);
    }
}
