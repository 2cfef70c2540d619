//! Everything a peer is told when its session ends: the codes of this floor, and the ERROR frame.
//!
//! # Invariants
//! - The text of an ERROR comes from its code alone, plus names from tables of ours and the peer's own `receipt`:
//!   no login and no payload is ever echoed, and a destination only where it is denied.

use super::{EndReason, dialect};
use crate::port::{MissingRight, Refusal};
use crate::selector::SelectorError;
use crate::wire::{Class, Code, DecodeError, Encoder, Escapes, Version, codes};

codes! {
    /// A frame that can be read and must not be sent, or a silence that is too long.
    Violation {
        /// The first bytes are those of HTTP.
        Http, Violation, "http-not-stomp",
            "this port speaks STOMP, not HTTP: point a STOMP client at it";
        /// The first bytes are those of TLS.
        Tls, Violation, "tls-not-stomp",
            "this port speaks STOMP without TLS: connect without it";
        /// STOMP, or something unknown, where TLS is spoken.
        TlsNeeded, Violation, "tls-needed",
            "this port speaks TLS: connect with it";
        /// STOMP, or something unknown, where WebSocket is spoken.
        WebSocketNeeded, Violation, "websocket-needed",
            "this port speaks STOMP over WebSocket: connect by ws:// or wss://, or to a port for STOMP alone";
        /// The first frame is another than CONNECT.
        NotConnected, Violation, "not-connected",
            "the first frame must be CONNECT or STOMP";
        /// A second CONNECT.
        AlreadyConnected, Violation, "already-connected",
            "this connection is logged in already: send CONNECT once";
        /// No common version.
        VersionUnsupported, Violation, "version-unsupported",
            "no version in accept-version is spoken here: ask for 1.0, 1.1 or 1.2";
        /// `heart-beat` is not two numbers.
        BadHeartBeat, Violation, "bad-heart-beat",
            "heart-beat must be two non-negative integers, in milliseconds, separated by a comma";
        /// More bytes than a login needs.
        LoginTooLong, Refusal, "login-too-long",
            "too many bytes came before the end of CONNECT (login_bytes_max)";
        /// No CONNECT in time.
        LoginTimeout, Timeout, "login-timeout",
            "no CONNECT came in time, or it could not be judged in time (login_ms_max)";
        /// Who it is has not been proved. One code and one text for every reason, so that nobody learns from it which names exist.
        LoginFailed, Refusal, "login-failed",
            "this login is not accepted";
        /// The time of the token that was the passcode is over.
        LoginExpired, Refusal, "login-expired",
            "the token of this login has expired: connect again with a new one";
        /// The user is gone, or has changed, or the rules of the listener have.
        LoginRevoked, Refusal, "login-revoked",
            "this login no longer holds: its user, or what logins are judged by, was changed; connect again";
        /// Nothing came for longer than agreed.
        HeartBeatTimeout, Timeout, "heart-beat-timeout",
            "nothing came for longer than the agreed heart-beat interval and its margin";
        /// A begun frame stands still.
        FrameTooSlow, Timeout, "frame-too-slow",
            "a frame was begun and its bytes came too slowly (frame_bytes_per_second_min)";
        /// No such command.
        UnknownCommand, Violation, "unknown-command",
            "STOMP has no such client command; commands are in capitals, and CR LF line ends are legal in 1.2 only";
        /// NACK in 1.0.
        NackUnsupported, Violation, "nack-unsupported",
            "STOMP 1.0 has no NACK: connect with accept-version 1.1 or 1.2";
        /// A body behind another command than SEND.
        BodyNotAllowed, Violation, "body-not-allowed",
            "only SEND may have a body";
        /// A header that the command needs.
        HeaderMissing { header: &'static str }, Violation, "header-missing",
            "the frame lacks a header that its command needs in this version of STOMP";
        /// A header with a value that it cannot have.
        HeaderInvalid { header: &'static str }, Violation, "header-invalid",
            "a header of the frame has a value that it cannot have";
        /// A header that would change what arrives, and is not built.
        HeaderUnsupported { header: &'static str }, Refusal, "unsupported-header",
            "a header of the frame asks for something that this broker does not do yet; without the header it would work";
        /// A destination with a reserved prefix or without a name.
        BadDestination, Refusal, "bad-destination",
            "the destination is none for this frame: write /queue/NAME or /topic/NAME, or NAME for a queue; several, separated by commas, in SEND only";
        /// A wildcard where none may be.
        BadWildcard, Refusal, "bad-wildcard",
            "a wildcard stands where none may: a SEND names one topic, and >, # and ** are the last level of what they match";
        /// A declaration of something that is no queue.
        DeclarationMisplaced, Refusal, "declaration-misplaced",
            "headers that declare a queue (x-max-length and the like) stand on a frame whose destination is not one queue";
        /// A deduplication id that is too long.
        DedupIdTooLong, Refusal, "dedup-id-too-long",
            "the deduplication id of this SEND is longer than this broker allows (dedup_id_bytes_max)";
        /// A selector that cannot be read.
        SelectorInvalid { error: SelectorError }, Refusal, "selector-invalid",
            "the selector of this SUBSCRIBE cannot be read";
        /// A selector on something that is known only at delivery.
        SelectorHeader, Refusal, "selector-header",
            "the selector of this SUBSCRIBE reads a header that is no part of the message as it was sent: the broker adds it when it delivers";
        /// The name of a message group that is too long.
        GroupTooLong, Refusal, "group-too-long",
            "the name of this message's group is longer than this broker allows (group_id_bytes_max)";
        /// A message for a topic that is to come later.
        DelayMisplaced, Refusal, "delay-misplaced",
            "a message for a topic cannot wait for a time: who is present gets it at once; send it to a queue";
        /// Headers of a schedule that exclude or need each other.
        ScheduleConflict { header: &'static str }, Refusal, "schedule-conflict",
            "a header does not go with the others that say when this message comes: AMQ_SCHEDULED_CRON stands alone, AMQ_SCHEDULED_REPEAT needs AMQ_SCHEDULED_PERIOD";
        /// Occurrences that follow each other too fast.
        PeriodTooShort, Refusal, "period-too-short",
            "AMQ_SCHEDULED_PERIOD is shorter than this broker allows (schedule_period_ms_min)";
        /// A temporary queue that this connection has not made.
        TemporaryUnknown, Refusal, "temporary-queue-unknown",
            "this connection has no such temporary queue: SUBSCRIBE to it, or name it in reply-to, first";
        /// One temporary queue too many.
        TooManyTemporaryQueues, Refusal, "too-many-temporary-queues",
            "this connection has made as many temporary queues as this broker allows (temporary_queue_count_max)";
        /// A durable subscription without its client's name.
        ClientIdMissing, Violation, "client-id-missing",
            "a durable subscription by name belongs to a client: send client-id with CONNECT";
        /// `prefetch-count` is too large.
        PrefetchTooHigh, Refusal, "prefetch-too-high",
            "the prefetch asked for is larger than this broker allows (prefetch_count_max)";
        /// An id in use.
        SubscriptionExists, Violation, "subscription-exists",
            "a subscription of this connection has this id already; in 1.0 without an id, this destination";
        /// No such subscription.
        SubscriptionUnknown, Violation, "subscription-unknown",
            "no subscription of this connection has this id or destination";
        /// One subscription too many.
        TooManySubscriptions, Refusal, "too-many-subscriptions",
            "this connection has as many subscriptions as this broker allows (subscription_count_max)";
        /// A name in use.
        TransactionExists, Violation, "transaction-exists",
            "a transaction of this name is open on this connection";
        /// One transaction too many.
        TooManyTransactions, Refusal, "too-many-transactions",
            "this connection has as many open transactions as this broker allows (transaction_count_max)";
        /// The broker has no place for another connection.
        TooManyConnections, Refusal, "too-many-connections",
            "the broker has as many connections as it may have, in all or from this address (connection_count_max, address_connection_count_max, or its limit on open files)";
    }
}

/// Every code of `wire` and `session`, for `docs/errors.md`; those of the core are [`REFUSALS`].
pub const CODES: [&[Code]; 2] = [DecodeError::CODES, Violation::CODES];

/// Every refusal, for `docs/errors.md`: `code()` is its code, its `Display` the text.
pub const REFUSALS: [Refusal; 31] = [
    Refusal::DeliveryUnknown,
    Refusal::LeaseLost,
    Refusal::TransactionUnknown,
    Refusal::StagedTooMuch,
    Refusal::MemoryFull,
    Refusal::DiskFull,
    Refusal::SlowSubscriber,
    Refusal::ShuttingDown,
    Refusal::DisconnectedByOperator,
    Refusal::QueueDeleted,
    Refusal::BindingDiffers,
    Refusal::BindingUnknown,
    Refusal::BindingInUse,
    Refusal::TooManyBindings,
    Refusal::FanOutTooLarge,
    Refusal::DedupOff,
    Refusal::QueuePrivate,
    Refusal::NotPull,
    Refusal::CreditTooHigh,
    Refusal::QueueUnknown,
    Refusal::QueueInUse,
    Refusal::SameQueue,
    Refusal::SessionUnknown,
    Refusal::PolicyUnknown,
    Refusal::TooManyPolicies,
    Refusal::DeclarationDiffers,
    Refusal::TooManySelectors,
    Refusal::TooManyDeclared,
    Refusal::TooManySchedules,
    Refusal::QueueFull,
    Refusal::AccessDenied,
];

/// The ERROR for a connection that gets no session.
pub fn refusal(violation: Violation) -> Vec<u8> {
    let mut out = Vec::new();
    Cause::from(violation).write(Escapes::None, None, None, &mut out);
    out
}

/// Why a session ends with an ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cause {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

impl Cause {
    fn code(self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::Violation(violation) => violation.code(),
            Self::Refusal(refusal) => refusal.code(),
        }
    }

    /// What the session reports to its driver.
    pub(super) fn reason(self) -> EndReason {
        let class = match self {
            Self::Decode(error) => error.entry().class,
            Self::Violation(violation) => violation.entry().class,
            Self::Refusal(_) => Class::Refusal,
        };
        match class {
            Class::Violation => EndReason::Violation(self.code()),
            Class::Refusal => EndReason::Refused(self.code()),
            Class::Timeout => EndReason::TimedOut(self.code()),
        }
    }

    /// Writes the ERROR. `receipt_id` is escaped already.
    pub(super) fn write(
        self,
        escapes: Escapes,
        receipt_id: Option<&[u8]>,
        denied: Option<&MissingRight>,
        out: &mut Vec<u8>,
    ) {
        let code = self.code();
        let mut body = format!("{self}.\n\ncode: {code}\n");
        let mut frame = Encoder::new(out, escapes, "ERROR").header("message", code.replace('-', " "));
        frame = frame.header("code", code);
        if let Some(receipt_id) = receipt_id {
            frame = frame.escaped("receipt-id", receipt_id);
        }
        if let Some(MissingRight { action, destination }) = denied {
            let action = action.name();
            frame = frame.header("action", action);
            frame = frame.header("destination", destination.as_bytes());
            // A line end in it would let it say what it likes.
            let destination = destination.escape_debug();
            body = format!("{self}: {action} {destination}.\n\ncode: {code}\n");
        }
        match self {
            Self::Violation(Violation::VersionUnsupported) => {
                frame = frame.header("version", Version::ALL.map(Version::as_str).join(","));
            }
            Self::Violation(
                Violation::HeaderMissing { header }
                | Violation::HeaderInvalid { header }
                | Violation::HeaderUnsupported { header }
                | Violation::ScheduleConflict { header },
            ) => body.push_str(&format!("header: {header}\n")),
            _ => {}
        }
        if let Self::Violation(Violation::SelectorInvalid { error }) = self {
            body.push_str(&format!("selector: {error}\n"));
        }
        if let Self::Violation(Violation::HeaderUnsupported { header }) = self
            && let Some(reason) = dialect::reason(header)
        {
            body.push_str(&format!("reason: {reason}\n"));
        }
        body.push_str("\nThe connection is closed now. docs/errors.md of Steadfast explains each code.\n");
        frame.header("content-type", "text/plain").body(body.as_bytes());
    }
}
