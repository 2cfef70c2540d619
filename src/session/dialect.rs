//! The one table of the headers of other brokers: what each asks for in each dialect, and what we do about it. And how a
//! dialect reads destinations and NACK.
//!
//! Most headers belong to one family of brokers and mean the same in every dialect. Where two families mean different things by
//! one header, the dialect of the listener decides. What would change which messages arrive, or what becomes of them, and is not
//! built, is refused by name, unless its value asks for what happens anyway; what changes nothing of the kind is told once
//! for each connection.
//!
//! # Not here
//! What no dialect changes: the scope of a cumulative ACK, closing after an ERROR, ACK inside a transaction.

use super::credit::Form;
use super::declare::Declares;
use super::durable::Part;
use super::error::Violation;
use crate::base::{Destination, DestinationKind, Dialect, Wildcards};

/// What a header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A credit.
    Credit(Form),
    /// A part of what makes a subscription durable.
    Durable(Part),
    /// Whether a name without prefix is a queue or a topic.
    Routing,
    /// Which messages a subscription takes.
    Selector,
    /// How a subscription stands to others of its queue, or to its own session.
    Standing(Standing),
    /// How a queue is looked at.
    Browses(Look),
    /// Done, as the text says, where the frame is read.
    Done(&'static str),
    /// Something that is not built, and would change what arrives: refused, but for these values, which ask for what
    /// happens anyway.
    Refused(&'static [&'static str]),
    /// What a queue declares of itself.
    Declares(Declares),
    /// Honoured, but for these values.
    Unless(&'static [&'static str], &'static str),
    /// Something that changes nothing of what arrives: told once for each connection.
    NoEffect,
    /// Nothing that this dialect knows of: the client's own.
    Own,
}

use Meaning::{
    Browses, Credit, Declares as Declared, Done, Durable, NoEffect, Own, Refused, Routing, Selector,
    Standing as Stands, Unless,
};

/// How a subscription stands to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It wants all messages of the queue while it is there.
    Exclusive,
    /// Which of them goes first.
    Priority,
    /// It does not want what its own session sends.
    NoLocal,
}

/// What a header says of looking at a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// That nothing is taken.
    Browse,
    /// Whether it ends.
    End,
    /// Where it begins.
    From,
    /// The header in which each message says its sequence.
    Sequence,
}

/// The frames that a header of the table stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Connect,
    Send,
    Subscribe,
}

/// One header.
struct Row {
    on: On,
    name: &'static str,
    /// In the order of [`Dialect::ALL`].
    means: [Meaning; 4],
    /// Why it is refused, or what it would do.
    reason: &'static str,
}

/// The same in every dialect.
const fn all(on: On, name: &'static str, meaning: Meaning, reason: &'static str) -> Row {
    Row {
        on,
        name,
        means: [meaning; 4],
        reason,
    }
}

/// Of each dialect its own.
const fn each(on: On, name: &'static str, means: [Meaning; 4], reason: &'static str) -> Row {
    Row {
        on,
        name,
        means,
        reason,
    }
}

const MESSAGES: Meaning = Credit(Form::Messages);
const BYTES: Meaning = Credit(Form::Bytes);
const NO: &[&str] = &["false"];
const STREAM: &str = "there are no streams";
const AT_DECLARATION: &str = "it is not built";
const ACTION: &str = "schedules are listed and cancelled by the API, as messages of their queue";
const BROWSER: &str = "it is for a browser (browser:true)";
const EXCLUSIVE: Meaning = Stands(Standing::Exclusive);
const PRIORITY: Meaning = Stands(Standing::Priority);
const NO_LOCAL: Meaning = Stands(Standing::NoLocal);
const GROUP: Meaning = Done("the messages of a group go to one consumer at a time, in order");
const LOCAL: &str = "queues give a connection what it sends itself";
const CONVERSION: &str = "bodies are not converted";

/// Stands for every other header that begins so.
const REFLECTED: &str = "activemq.*";

/// The table.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // How many at a time.
    each(On::Subscribe, "prefetch-count", [MESSAGES, MESSAGES, MESSAGES, Credit(Form::MessagesOrAll)], ""),
    all(On::Subscribe, "prefetch", MESSAGES, ""),
    each(On::Subscribe, "activemq.prefetchSize", [MESSAGES, MESSAGES, BYTES, MESSAGES], ""),
    all(On::Subscribe, "credit", Credit(Form::Both), ""),
    all(On::Subscribe, "consumer-window-size", BYTES, ""),
    all(On::Subscribe, "consumerWindowSize", BYTES, ""),
    all(On::Subscribe, "ack-timeout", Done("how long a delivery may be unsettled, in seconds"), ""),
    // What is kept while the subscriber is away.
    all(On::Subscribe, "activemq.subscriptionName", Durable(Part::Name), ""),
    all(On::Subscribe, "activemq.subcriptionName", Durable(Part::Name), ""),
    all(On::Subscribe, "durable-subscription-name", Durable(Part::Name), ""),
    all(On::Subscribe, "durable-subscriber-name", Durable(Part::Name), ""),
    all(On::Subscribe, "durable", Durable(Part::Durable), ""),
    all(On::Subscribe, "auto-delete", Durable(Part::AutoDelete), "queues are not deleted with their subscribers"),
    each(On::Subscribe, "persistent", [Durable(Part::ById), NoEffect, NoEffect, Durable(Part::Durable)],
        "a subscription is not durable by it"),
    all(On::Subscribe, "x-queue-name", Refused(&[]), "the broker names the queues of durable subscriptions"),
    all(On::Subscribe, "x-queue-type", Refused(&["classic", "quorum"]), STREAM),
    // Which messages: a filter, a copy, a place in the past.
    all(On::Subscribe, "selector", Selector, "a browser shows everything"),
    all(On::Subscribe, "browser", Browses(Look::Browse), "only queues are browsed; a durable subscription by its own destination, /dsub/NAME"),
    all(On::Subscribe, "browser-end", Browses(Look::End), BROWSER),
    all(On::Subscribe, "from-seq", Browses(Look::From), BROWSER),
    all(On::Subscribe, "include-seq", Browses(Look::Sequence), "the messages of a topic have no sequence"),
    all(On::Subscribe, "x-stream-offset", Refused(&[]), STREAM),
    all(On::Subscribe, "x-stream-filter", Refused(&[]), STREAM),
    all(On::Subscribe, "x-stream-match-unfiltered", Refused(&[]), STREAM),
    all(On::Subscribe, "x-stream-filter-size-bytes", Refused(&[]), STREAM),
    all(On::Subscribe, "x-stream-max-segment-size-bytes", Refused(&[]), STREAM),
    all(On::Subscribe, "x-max-age", Refused(&[]), STREAM),
    all(On::Subscribe, "no-local", NO_LOCAL, LOCAL),
    all(On::Subscribe, "activemq.noLocal", NO_LOCAL, LOCAL),
    all(On::Subscribe, "activemq.retroactive", Refused(NO), "a topic keeps nothing for later subscribers"),
    all(On::Subscribe, "activemq.maximumPendingMessageLimit", Refused(&["0", "-1"]),
        "what waits for a slow subscriber is bounded by the broker's limits"),
    // Who else gets them.
    each(On::Subscribe, "exclusive", [EXCLUSIVE, Own, Own, Refused(NO)], "queues of one connection are not built"),
    all(On::Subscribe, "activemq.exclusive", EXCLUSIVE, ""),
    all(On::Subscribe, "x-single-active-consumer", EXCLUSIVE, ""),
    all(On::Subscribe, "x-priority", PRIORITY, ""),
    all(On::Subscribe, "activemq.priority", PRIORITY, ""),
    all(On::Subscribe, "subscription-type", Routing, ""),
    all(On::Subscribe, "destination-type", Routing, ""),
    // What becomes of the queue's messages.
    all(On::Subscribe, "x-expires", Refused(&[]), AT_DECLARATION),
    all(On::Subscribe, "x-message-ttl", Declared(Declares::Number("message_ttl_ms")), ""),
    all(On::Subscribe, "x-max-length", Declared(Declares::Number("message_count_max")), ""),
    all(On::Subscribe, "x-max-length-bytes", Declared(Declares::Number("message_bytes_max")), ""),
    all(On::Subscribe, "x-overflow", Declared(Declares::Overflow), "`reject-publish-dlx` is not built"),
    all(On::Subscribe, "x-max-priority", NoEffect, "every queue has the priorities 0 to 9"),
    all(On::Subscribe, "x-delivery-limit", Declared(Declares::DeliveryLimit), ""),
    all(On::Subscribe, "x-dead-letter-exchange", Declared(Declares::Exchange), "there is only the default exchange: leave it empty and name a queue in x-dead-letter-routing-key"),
    all(On::Subscribe, "x-dead-letter-routing-key", Declared(Declares::DeadLetterQueue), ""),
    // What changes nothing.
    all(On::Subscribe, "activemq.dispatchAsync", NoEffect, "each subscription is served as fast as it goes"),
    all(On::Subscribe, "transformation", NoEffect, CONVERSION),
    all(On::Subscribe, REFLECTED, NoEffect, "an option of ActiveMQ's own objects"),
    // SEND.
    all(On::Send, "persistent", Done("`false`: in memory only"), ""),
    all(On::Send, "expires", Done("milliseconds since 1970"), ""),
    each(On::Send, "expiration", [
        Done("milliseconds from now; `0`: never"), Done("milliseconds from now; `0`: never"),
        Done("milliseconds from now; `0`: never"), Unless(&["0"], "milliseconds from now"),
    ], "nothing is delivered now or never"),
    all(On::Send, "ttl", Done("milliseconds from now; `0`: never"), ""),
    all(On::Send, "destination-type", Routing, ""),
    all(On::Send, "reply-to", Done("rewritten where it names a temporary queue"), ""),
    all(On::Send, "message-id", Done("passed on as `sender-message-id`"), ""),
    all(On::Send, "priority", Done("from 0 to 9, 4 where nothing is said: the highest first"), ""),
    all(On::Send, "AMQ_SCHEDULED_DELAY", Done("not before so many milliseconds from now"), ""),
    all(On::Send, "AMQ_SCHEDULED_TIME", Done("not before this time, in milliseconds since 1970"), ""),
    all(On::Send, "AMQ_SCHEDULED_PERIOD", Done("how long from one occurrence to the next, in milliseconds"), ""),
    all(On::Send, "AMQ_SCHEDULED_REPEAT", Done("how often it comes again; below 0: for ever"), ""),
    all(On::Send, "AMQ_SCHEDULED_CRON", Done("at the times of this cron expression, in UTC"), ""),
    all(On::Send, "AMQ_SCHEDULER_ACTION", Refused(&[]), ACTION),
    all(On::Send, "x-delay", Done("not before so many milliseconds from now"), ""),
    all(On::Send, "deliver-after", Done("not before so many seconds from now"), ""),
    all(On::Send, "JMSXGroupID", GROUP, ""),
    all(On::Send, "message_group", GROUP, ""),
    all(On::Send, "JMSXGroupSeq", Done("`-1`: the group may go to another consumer behind this message"), ""),
    all(On::Send, "dedup-id", Done("not stored again under the same id"), ""),
    all(On::Send, "_AMQ_DUPL_ID", Done("not stored again under the same id"), ""),
    all(On::Send, "Nats-Msg-Id", Done("not stored again under the same id"), ""),
    all(On::Send, "ack-timeout", Done("how long a delivery of it may be unsettled, in seconds"), ""),
    all(On::Send, "_AMQ_LVQ_NAME", NoEffect, "a queue keeps every message"),
    all(On::Send, "retain", NoEffect, "a topic keeps nothing for later subscribers"),
    all(On::Send, "x-expires", Refused(&[]), AT_DECLARATION),
    all(On::Send, "x-message-ttl", Declared(Declares::Number("message_ttl_ms")), ""),
    all(On::Send, "x-max-length", Declared(Declares::Number("message_count_max")), ""),
    all(On::Send, "x-max-length-bytes", Declared(Declares::Number("message_bytes_max")), ""),
    all(On::Send, "x-overflow", Declared(Declares::Overflow), "`reject-publish-dlx` is not built"),
    all(On::Send, "x-max-priority", NoEffect, "every queue has the priorities 0 to 9"),
    all(On::Send, "x-delivery-limit", Declared(Declares::DeliveryLimit), ""),
    all(On::Send, "x-dead-letter-exchange", Declared(Declares::Exchange), "there is only the default exchange: leave it empty and name a queue in x-dead-letter-routing-key"),
    all(On::Send, "x-dead-letter-routing-key", Declared(Declares::DeadLetterQueue), ""),
    all(On::Send, "x-queue-type", Refused(&["classic", "quorum"]), STREAM),
    each(On::Send, "durable", [Own, Own, Own, Refused(&["true"])], "queues are durable"),
    each(On::Send, "auto-delete", [Own, Own, Own, Refused(NO)], "queues are not deleted with their subscribers"),
    each(On::Send, "exclusive", [Own, Own, Own, Refused(NO)], "queues of one connection are not built"),
    each(On::Send, "user-id", [Own, Own, Own, NoEffect], "it is not compared with the login"),
    all(On::Send, "transformation", NoEffect, CONVERSION),
    all(On::Send, "amq-msg-type", NoEffect, CONVERSION),
    // CONNECT.
    all(On::Connect, "client-id", Done("names durable subscriptions"), ""),
    all(On::Connect, "request-id", NoEffect, "CONNECTED has no response-id"),
    all(On::Connect, "host-id", NoEffect, "there is one host"),
    all(On::Connect, REFLECTED, NoEffect, "an option of ActiveMQ's own objects"),
];

/// A row's place in the table.
pub(super) type RowNo = usize;

const _: () = assert!(ROWS.len() <= 128, "the headers told are a set of bits");

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler works it out, and would tell of a panic"
)]
/// Bits of the names that a SEND may have, by a sum of them: most of what a client sends of its own is told apart by one look.
const SEND_NAMES: [u64; 4] = {
    let mut bits = [0; 4];
    let mut at = 0;
    while at < ROWS.len() {
        if matches!(ROWS[at].on, On::Send) {
            let sum = sum_of(ROWS[at].name.as_bytes());
            bits[(sum >> 6) as usize] |= 1 << (sum & 63);
        }
        at += 1;
    }
    bits
};

const fn sum_of(name: &[u8]) -> u8 {
    match name {
        [] => 0,
        [one] => *one,
        [first, .., last] => (*first)
            .wrapping_mul(31)
            .wrapping_add((*last).wrapping_mul(7))
            .wrapping_add(name.len() as u8),
    }
}

/// Whether a header of SEND may be in the table.
pub(super) fn may_be_known(name: &[u8]) -> bool {
    let sum = sum_of(name);
    let bits = SEND_NAMES.get(usize::from(sum >> 6)).copied().unwrap_or(0);
    bits & (1 << (sum & 63)) != 0
}

/// What a header asks for, and its row; `None` for the client's own.
pub(super) fn meaning(dialect: Dialect, on: On, name: &[u8]) -> Option<(RowNo, Meaning)> {
    let find = |name: &[u8]| {
        ROWS.iter()
            .position(|row| row.on == on && row.name.as_bytes() == name)
    };
    let reflected = || name.starts_with(b"activemq.").then(|| find(REFLECTED.as_bytes()));
    let at = find(name).or_else(|| reflected().flatten())?;
    let meaning = *ROWS.get(at)?.means.get(dialect as usize)?;
    (meaning != Own).then_some((at, meaning))
}

/// The name in a row.
pub(super) fn name(row: RowNo) -> &'static str {
    ROWS.get(row).map_or("", |row| row.name)
}

/// Refuses what a header asks for, if it is refused.
pub(super) fn check(row: RowNo, meaning: Meaning, value: &[u8]) -> Result<(), Violation> {
    let among = |values: &[&str]| values.iter().any(|one| one.as_bytes() == value);
    let refused = match meaning {
        Refused(harmless) => !among(harmless),
        Unless(values, _) => among(values),
        _ => false,
    };
    match refused {
        true => Err(Violation::HeaderUnsupported { header: name(row) }),
        false => Ok(()),
    }
}

/// Why a header is refused, for people.
pub(super) fn reason(header: &str) -> Option<&'static str> {
    let is_refused = |row: &&Row| {
        row.name == header
            && row.means.iter().any(|meaning| {
                matches!(
                    meaning,
                    Refused(_)
                        | Unless(..)
                        | Durable(Part::AutoDelete)
                        | Selector
                        | Stands(Standing::NoLocal)
                        | Browses(_)
                )
            })
    };
    ROWS.iter().find(is_refused).map(|row| row.reason)
}

/// What a header that has no effect would do: its name, and why it has none.
pub(super) fn without_effect(row: RowNo) -> (&'static str, &'static str) {
    ROWS.get(row).map_or(("", ""), |row| (row.name, row.reason))
}

/// What Artemis calls a queue or a topic.
pub(super) fn routing(header: &'static str, value: &[u8]) -> Result<DestinationKind, Violation> {
    match value {
        b"ANYCAST" => Ok(DestinationKind::Queue),
        b"MULTICAST" => Ok(DestinationKind::Topic),
        _ => Err(Violation::HeaderInvalid { header }),
    }
}

/// What a destination names in a dialect. Its name is always the end of the text. A routing says what a name without prefix is,
/// and must say the same as a prefix.
pub(super) fn destination(
    dialect: Dialect,
    text: &str,
    routing: Option<DestinationKind>,
) -> Result<Destination<'_>, Violation> {
    let of = |kind, name| Destination { kind, name };
    let special = match dialect {
        Dialect::Steadfast => None,
        Dialect::ActiveMq => {
            // To ActiveMQ this has options, or is several destinations; to nobody it is such a name.
            let has_options = text.split_once('?').is_some_and(|(_, rest)| rest.contains('='));
            if has_options || text.contains(',') {
                return Err(Violation::BadDestination);
            }
            None
        }
        Dialect::Artemis => {
            if text.contains("::") {
                return Err(Violation::BadDestination);
            }
            let queue = text.strip_prefix("jms.queue.");
            let topic = || text.strip_prefix("jms.topic.");
            queue
                .map(|name| of(DestinationKind::Queue, name))
                .or_else(|| topic().map(|name| of(DestinationKind::Topic, name)))
        }
        Dialect::RabbitMq => {
            if !text.starts_with('/') {
                return Err(Violation::BadDestination);
            }
            let queue = text.strip_prefix("/amq/queue/");
            let topic = || text.strip_prefix("/exchange/amq.topic/");
            queue
                .map(|name| of(DestinationKind::Queue, name))
                .or_else(|| topic().map(|name| of(DestinationKind::Topic, name)))
        }
    };
    let has_prefix = special.is_some() || text.starts_with('/');
    let mut found = match special {
        Some(found) if found.name.is_empty() => None,
        Some(found) => Some(found),
        None => Destination::parse(text),
    }
    .filter(|destination| !destination.is_reserved())
    .ok_or(Violation::BadDestination)?;
    match routing {
        Some(kind) if !has_prefix => found.kind = kind,
        Some(kind) if kind != found.kind => return Err(Violation::BadDestination),
        _ => {}
    }
    Ok(found)
}

/// Refuses wildcards in the name of a queue where the dialect has such, for they would match nothing here.
pub(super) fn check_queue(dialect: Dialect, name: &str) -> Result<(), Violation> {
    let patterns = matches!(dialect, Dialect::ActiveMq | Dialect::Artemis);
    match patterns && Wildcards::of(name) != Wildcards::None {
        true => Err(Violation::BadWildcard),
        false => Ok(()),
    }
}

/// Whether a NACK that says nothing more ends the message: to ActiveMQ it is a dead letter, to Artemis it is gone.
pub(super) fn nack_rejects(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::ActiveMq | Dialect::Artemis)
}

/// Whether a `reply-to` that names a temporary queue subscribes to it, as RabbitMQ's clients expect. To the others a client
/// subscribes by itself, and replies wait until it does.
pub(super) fn replies_come_unasked(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Steadfast | Dialect::RabbitMq)
}

/// The table for people, a line for each header and a cell for each dialect.
pub fn dialect_table() -> impl Iterator<Item = [String; 6]> {
    ROWS.iter().map(|row| {
        let on = match row.on {
            On::Connect => "CONNECT",
            On::Send => "SEND",
            On::Subscribe => "SUBSCRIBE",
        };
        let [first, rest @ ..] = row.means.map(|meaning| meaning.text());
        let [second, third, fourth] = rest.map(|text| if text == first { String::new() } else { text });
        let header = format!("`{}`", row.name);
        [on.to_owned(), header, first, second, third, fourth]
    })
}

/// Every header of SUBSCRIBE that is refused in our own dialect.
pub fn refused_headers() -> impl Iterator<Item = &'static str> {
    let refused = |row: &&Row| row.on == On::Subscribe && matches!(row.means, [Refused(_), ..]);
    ROWS.iter().filter(refused).map(|row| row.name)
}

impl Meaning {
    fn text(self) -> String {
        let quoted = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            values.join(", ")
        };
        match self {
            Credit(Form::Messages) => "messages; `0`: pull".to_owned(),
            Credit(Form::MessagesOrAll) => "messages; `0`: as many as may be".to_owned(),
            Credit(Form::Bytes) => "bytes; `0`: one message, `-1`: as many as may be".to_owned(),
            Credit(Form::Both) => "messages, bytes; `0`: pull".to_owned(),
            Durable(Part::Name) => "a durable subscription, with `client-id`".to_owned(),
            Durable(Part::Durable) => "durable, with `auto-delete:false` and `id`".to_owned(),
            Durable(Part::AutoDelete) => "`false`: durable, with `durable:true` and `id`".to_owned(),
            Durable(Part::ById) => "`true`: durable, with `id`".to_owned(),
            Selector => "only messages for which it is true".to_owned(),
            Stands(Standing::Exclusive) => "`true`: all messages of the queue while it is there".to_owned(),
            Stands(Standing::Priority) => "the highest first, while it has credit".to_owned(),
            Stands(Standing::NoLocal) => {
                "`true`: nothing that the connection itself sends; topics only".to_owned()
            }
            Browses(Look::Browse) => "`true`: what is in the queue is shown and not taken".to_owned(),
            Browses(Look::End) => "`false`: a browser goes on with what is added later".to_owned(),
            Browses(Look::From) => "a browser begins at this sequence; `-1`: behind all".to_owned(),
            Browses(Look::Sequence) => "the header in which each MESSAGE has its queue sequence".to_owned(),
            Routing => "`ANYCAST`, `MULTICAST`: what a bare name is".to_owned(),
            Done(text) => text.to_owned(),
            Declared(Declares::Overflow) => "declares the queue: `drop-head`, `reject-publish`".to_owned(),
            Declared(Declares::Exchange) => "declares the queue: empty".to_owned(),
            Declared(_) => "declares the queue".to_owned(),
            Refused([]) => "refused".to_owned(),
            Refused(harmless) => format!("refused, but {}", quoted(harmless)),
            Unless(values, text) => format!("{text}; {} refused", quoted(values)),
            NoEffect => "no effect".to_owned(),
            Own => "the client's own".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_header_stands_once() {
        let names: BTreeSet<(u8, &str)> = ROWS.iter().map(|row| (row.on as u8, row.name)).collect();
        assert_eq!(names.len(), ROWS.len());
    }

    #[test]
    fn what_is_refused_or_without_effect_says_why() {
        for row in ROWS {
            let silent = |meaning: &Meaning| !matches!(meaning, Refused(_) | Unless(..) | NoEffect);
            assert!(
                row.means.iter().all(silent) || !row.reason.is_empty(),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn one_look_finds_every_header_of_send() {
        for row in ROWS.iter().filter(|row| row.on == On::Send) {
            assert!(may_be_known(row.name.as_bytes()), "{}", row.name);
        }
        let common = [
            "content-type",
            "content-length",
            "destination",
            "receipt",
            "x-n",
            "n",
        ];
        let passed = common.iter().filter(|name| may_be_known(name.as_bytes())).count();
        assert!(passed <= 2, "{passed} of the commonest headers are looked up");
    }

    #[test]
    fn a_destination_is_what_its_dialect_says() {
        use DestinationKind::{Queue, Topic};
        use Dialect::{ActiveMq, Artemis, RabbitMq, Steadfast};

        let check = |dialect, text: &str, routing, expect: Option<(DestinationKind, &str)>| {
            let found = destination(dialect, text, routing);
            let found = found.ok().map(|found| (found.kind, found.name));
            assert_eq!(found, expect, "{text} in {}", dialect.name());
            assert!(found.is_none_or(|(_, name)| text.ends_with(name)), "{text}");
        };
        for dialect in Dialect::ALL {
            check(dialect, "/queue/a.b", None, Some((Queue, "a.b")));
            check(dialect, "/topic/a", None, Some((Topic, "a")));
            check(dialect, "/topic/a", Some(Topic), Some((Topic, "a")));
            check(dialect, "/topic/a", Some(Queue), None);
            check(dialect, "/exchange/e/k", None, None);
            check(dialect, "/queue/", None, None);
            check(dialect, "", None, None);
        }
        check(Steadfast, "a", None, Some((Queue, "a")));
        check(Steadfast, "a", Some(Topic), Some((Topic, "a")));
        check(Steadfast, "jms.queue.a", None, Some((Queue, "jms.queue.a")));
        check(Steadfast, "/amq/queue/a", None, None);
        check(Steadfast, "/exchange/amq.topic/a", None, None);
        check(Steadfast, "/queue/a?b=c", None, Some((Queue, "a?b=c")));
        check(Steadfast, "/queue/a,b", None, Some((Queue, "a,b")));
        check(ActiveMq, "a", None, Some((Queue, "a")));
        check(ActiveMq, "/queue/a?consumer.exclusive=true", None, None);
        check(ActiveMq, "/queue/why?", None, Some((Queue, "why?")));
        check(ActiveMq, "/queue/a,b", None, None);
        check(Artemis, "a", None, Some((Queue, "a")));
        check(Artemis, "a", Some(Queue), Some((Queue, "a")));
        check(Artemis, "a", Some(Topic), Some((Topic, "a")));
        check(Artemis, "jms.queue.a", None, Some((Queue, "a")));
        check(Artemis, "jms.topic.a.b", None, Some((Topic, "a.b")));
        check(Artemis, "jms.topic.a", Some(Queue), None);
        check(Artemis, "jms.queue.", None, None);
        check(Artemis, "a::q", None, None);
        check(RabbitMq, "a", None, None);
        check(RabbitMq, "/amq/queue/a", None, Some((Queue, "a")));
        check(RabbitMq, "/exchange/amq.topic/a.b", None, Some((Topic, "a.b")));
        check(RabbitMq, "/exchange/amq.topic", None, None);
        check(RabbitMq, "/exchange/amq.topic/", None, None);
        check(RabbitMq, "/exchange/amq.direct/a", None, None);
    }
}
