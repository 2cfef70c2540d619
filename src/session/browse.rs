//! The headers of SUBSCRIBE by which a queue is looked at, and the marker that tells of the end.
//!
//! `browser:true` and the marker `browser:end` are those of ActiveMQ and Apollo; `browser-end`, `from-seq` and `include-seq` are
//! Apollo's.

use super::dialect::Look;
use super::error::{Cause, Violation};
use super::fields::number;
use crate::wire::{Escapes, Part, escape, store, unescape};

/// What a header may not be called that says a sequence: the broker's own, which come before.
const OWN: &[&[u8]] = &[
    b"",
    b"subscription",
    b"message-id",
    b"ack",
    b"redelivered",
    b"delivery-count",
    b"destination",
    b"content-length",
    b"content-type",
    b"browser",
];

/// What a SUBSCRIBE says of looking at its queue; of repeated headers the first counts.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    browser: Option<bool>,
    end: Option<bool>,
    from: Option<Option<u64>>,
    sequence: Option<&'a [u8]>,
}

impl<'a> Wish<'a> {
    /// Takes one header.
    pub(super) fn take(
        &mut self,
        what: Look,
        header: &'static str,
        value: &'a [u8],
    ) -> Result<(), Violation> {
        let invalid = Violation::HeaderInvalid { header };
        let flag = || match value {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(invalid),
        };
        match what {
            Look::Browse => _ = self.browser.get_or_insert(flag()?),
            Look::End => _ = self.end.get_or_insert(flag()?),
            Look::From => {
                let from = match value {
                    b"-1" => None,
                    value => Some(number(value).ok_or(invalid)?),
                };
                self.from.get_or_insert(from);
            }
            Look::Sequence => _ = self.sequence.get_or_insert(value),
        }
        Ok(())
    }

    /// Nothing is to be taken.
    pub(super) fn is_browser(&self) -> bool {
        self.browser == Some(true)
    }

    /// Refuses what the subscription cannot do; `is_queue`: it is of a queue, and named as one.
    pub(super) fn check(&self, is_queue: bool) -> Result<(), Violation> {
        let browser = self.is_browser();
        let header = match self {
            _ if browser && !is_queue => "browser",
            Self { end: Some(false), .. } if !browser => "browser-end",
            Self { from: Some(_), .. } if !browser => "from-seq",
            _ => return Ok(()),
        };
        Err(Violation::HeaderUnsupported { header })
    }

    /// From which sequence on, and whether it goes on behind the end.
    pub(super) fn way(&self) -> (Option<u64>, bool) {
        (self.from.unwrap_or(Some(0)), self.end == Some(false))
    }

    /// What comes before the sequence in a MESSAGE, if it is asked for: the end of the line before, name and colon. `has_one`:
    /// messages of this subscription have a sequence.
    pub(super) fn sequence_head(&self, escapes: Escapes, has_one: bool) -> Result<Option<Box<[u8]>>, Cause> {
        let header = "include-seq";
        let Some(value) = self.sequence else {
            return Ok(None);
        };
        let name = unescape(escapes, value)?;
        if OWN.contains(&name.as_ref()) || name.starts_with(b"dead-letter-") {
            return Err(Violation::HeaderInvalid { header }.into());
        }
        if !has_one {
            return Err(Violation::HeaderUnsupported { header }.into());
        }
        let mut head = b"\n".to_vec();
        escape(escapes, Part::Name, &name, &mut head);
        head.push(b':');
        Ok(Some(head.into_boxed_slice()))
    }
}

/// The header block of the marker, as a message's is stored; `destination` is the raw one of the SUBSCRIBE.
pub(super) fn end(escapes: Escapes, destination: &[u8]) -> Vec<u8> {
    let mut block = b"destination:".to_vec();
    store(escapes, destination, &mut block);
    block.extend_from_slice(b"\nbrowser:end\ncontent-length:0\n");
    block
}
