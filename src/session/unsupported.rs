//! Headers of SUBSCRIBE, in the dialects of other brokers, that change which messages arrive or what becomes of them,
//! and that are not built. Accepting one without honouring it would lose or misdeliver messages, so they are refused by
//! name, unless their value asks for what happens anyway.

use super::error::Violation;

/// Names, and the values that ask for nothing.
const REFUSED: &[(&str, &[&str])] = &[
    // Which messages: a filter, a copy, a place in the past.
    ("selector", &[]),
    ("browser", &["false"]),
    ("browser-end", &[]),
    ("from-seq", &[]),
    ("include-seq", &[]),
    ("x-stream-offset", &[]),
    ("x-stream-filter", &[]),
    ("x-stream-match-unfiltered", &[]),
    ("no-local", &["false"]),
    ("activemq.noLocal", &["false"]),
    ("activemq.retroactive", &["false"]),
    // Who else gets them.
    ("exclusive", &["false"]),
    ("activemq.exclusive", &["false"]),
    ("x-single-active-consumer", &["false"]),
    ("x-priority", &["0"]),
    ("activemq.priority", &["0"]),
    ("subscription-type", &[]),
    ("destination-type", &[]),
    // What is kept while the subscriber is away.
    ("x-queue-name", &[]),
    ("x-queue-type", &["classic", "quorum"]),
    // What becomes of the queue's messages.
    ("x-expires", &[]),
    ("x-message-ttl", &[]),
    ("x-max-length", &[]),
    ("x-max-length-bytes", &[]),
    ("x-overflow", &[]),
    ("x-max-priority", &[]),
    ("x-delivery-limit", &[]),
    ("x-dead-letter-exchange", &[]),
    ("x-dead-letter-routing-key", &[]),
    // For how long.
];

/// Refuses a header of SUBSCRIBE that is not built.
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<(), Violation> {
    let refused = REFUSED.iter().find(|(refused, _)| refused.as_bytes() == name);
    match refused {
        Some((header, harmless)) if !harmless.iter().any(|harmless| harmless.as_bytes() == value) => {
            Err(Violation::HeaderUnsupported { header })
        }
        _ => Ok(()),
    }
}

/// Every header of the table, for the documentation.
pub fn headers() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(name, _)| *name)
}
