//! Which header an identifier reads: the one table of JMS names.

/// How the text of a header is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As it is.
    Plain,
    /// As it is; where it is missing, this, by the defaults of JMS.
    Or(&'static str),
    /// The second word where the text is `false`, else the first: SEND is persistent unless it says otherwise.
    Durability(&'static str, &'static str),
}

impl Reading {
    pub(super) fn of(self, text: Option<&str>) -> Option<&str> {
        match self {
            Self::Plain => text,
            Self::Or(default) => Some(text.unwrap_or(default)),
            Self::Durability(_, transient) if text == Some("false") => Some(transient),
            Self::Durability(persistent, _) => Some(persistent),
        }
    }
}

use Reading::{Durability, Or, Plain};

/// Identifier, header, reading. Of several identifiers for one thing the first is the one that is printed.
pub(super) const NAMES: &[(&str, &str, Reading)] = &[
    ("JMSCorrelationID", "correlation-id", Plain),
    (
        "JMSDeliveryMode",
        "persistent",
        Durability("PERSISTENT", "NON_PERSISTENT"),
    ),
    ("JMSDestination", "destination", Plain),
    ("JMSExpiration", "expires", Or("0")),
    ("JMSMessageID", "message-id", Plain),
    ("JMSPriority", "priority", Or("4")),
    ("JMSReplyTo", "reply-to", Plain),
    ("JMSTimestamp", "timestamp", Plain),
    ("JMSType", "type", Plain),
    ("JMSXGroupID", "JMSXGroupID", Plain),
    ("JMSXGroupSeq", "JMSXGroupSeq", Plain),
    ("JMSXUserID", "JMSXUserID", Plain),
    ("AMQAddress", "destination", Plain),
    ("AMQDurable", "persistent", Durability("DURABLE", "NON_DURABLE")),
    ("AMQExpiration", "expires", Or("0")),
    ("AMQGroupID", "JMSXGroupID", Plain),
    ("AMQPriority", "priority", Or("4")),
    ("AMQTimestamp", "timestamp", Plain),
    ("AMQUserID", "message-id", Plain),
];

/// What no stored message has: it changes from delivery to delivery, or is another broker's measure.
const WITHOUT_HEADER: &[&str] = &["AMQSize", "JMSXDeliveryCount", "JMSXRcvTimestamp", "JMSXState"];

/// The header that an identifier without quotes reads, and how; `None` for a JMS name that no header stands for. Section
/// 3.8.1.1 keeps names that begin with JMS, but for JMSX and JMS_, to the standard itself.
pub(super) fn resolve(identifier: &str) -> Option<(&str, &'static Reading)> {
    if let Some((_, header, reading)) = NAMES.iter().find(|(name, ..)| *name == identifier) {
        return Some((header, reading));
    }
    let kept = identifier
        .strip_prefix("JMS")
        .is_some_and(|rest| !rest.starts_with(['X', '_']));
    if kept || WITHOUT_HEADER.contains(&identifier) {
        return None;
    }
    Some((identifier, &Plain))
}

/// The identifier of a reading that is not [`Reading::Plain`].
pub(super) fn identifier(header: &str, reading: &Reading) -> Option<&'static str> {
    let row = NAMES
        .iter()
        .find(|(_, of, how)| *of == header && how == reading)?;
    Some(row.0)
}
