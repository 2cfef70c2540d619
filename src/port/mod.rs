//! The contract between a session and the core: what a session asks, and what the core tells it. And that between an
//! operator and the core (`admin`).
//!
//! A session hands over all requests of one socket read in one call ([`Requests`]); the core answers with one
//! [`Applied`]. Deliveries come back as [`Event`]s, drained by the connection driver.
//!
//! # Not here
//! RECEIPT. The core says which Seq a call's effect waits for; the session keeps the receipts and their order.

mod admin;

use bytes::Bytes;

pub use admin::{
    Act, Acted, EntryView, HoldingsView, PAGE_COUNT_MAX, Page, PolicyView, QueueCounters, QueueView,
    ScheduleView, Selection, SessionDetail, SessionView, SubscriptionView, TopicView, TransactionView,
};

use crate::base::{
    Action, ChunkRef, Death, DestinationKind, MessageId, Principal, Seq, Settings, SubNo, Tag, TxNo,
};
use crate::selector::{Selector, SelectorError, SelectorLimits};

/// A range of bytes in [`Requests::arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

/// The requests of one socket read, in the order of their frames, with the bytes they name. Reused between reads.
#[derive(Debug, Default)]
pub struct Requests {
    /// Destination names and message bytes.
    pub arena: Vec<u8>,
    /// The requests.
    pub list: Vec<Request>,
}

impl Requests {
    /// The bytes a span names. Panics on a span of another arena: that is a bug of the session.
    pub fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.arena
            .get(start..start + span.len as usize)
            .expect("a span lies in its own arena")
    }

    /// The text a span names; spans of names are made from text only.
    pub fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).expect("a name is UTF-8")
    }

    /// Appends bytes and names them.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = u32::try_from(self.arena.len()).expect("an arena stays under 4 GiB");
        self.arena.extend_from_slice(bytes);
        Span {
            start,
            len: u32::try_from(bytes.len()).expect("a frame stays under 4 GiB"),
        }
    }

    /// Empties both, keeping up to 256 KiB of room for the next read.
    pub fn clear(&mut self) {
        self.list.clear();
        self.arena.clear();
        self.arena.shrink_to(256 * 1024);
    }
}

/// Message bytes: the header block as it will stand in a MESSAGE of version 1.2 (escaped lines, each ended by LF,
/// `destination` and `content-length` among them), then the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// In the arena: the common case.
    Arena(Span),
    /// On its own: large messages, so that the core need not copy them.
    Shared(Bytes),
}

/// What a session asks of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The login was judged: before anything else that its session asks for. Without, it acts for nobody. Refused where the
    /// session has a subscription already that this one may not have.
    ActFor {
        /// For whom.
        principal: std::sync::Arc<Principal>,
    },
    /// BEGIN.
    Begin {
        /// New in this session.
        tx: TxNo,
    },
    /// COMMIT: all of the transaction, or a refusal and nothing of it.
    Commit {
        /// Open in this session.
        tx: TxNo,
    },
    /// ABORT.
    Abort {
        /// Open in this session.
        tx: TxNo,
    },
    /// SEND.
    Send(Send),
    /// ACK or NACK.
    Settle(Settle),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// Live in this session.
        sub: SubNo,
    },
    /// What a queue declares of itself; before the SEND or SUBSCRIBE that says so. It is no part of a transaction.
    Declare {
        /// The queue's name.
        name: Span,
        /// What.
        settings: Box<Settings>,
    },
    /// A pull subscription asks for more deliveries.
    Credit {
        /// Live in this session.
        sub: SubNo,
        /// How many more.
        count: u32,
    },
    /// The holder of a delivery asks for more time.
    Renew {
        /// Which delivery.
        delivery: DeliveryKey,
        /// How long it may be unsettled from now on, in milliseconds; `None`: as long as it might before.
        ack_timeout_ms: Option<u64>,
    },
    /// UNSUBSCRIBE of a durable subscription for good: its queue is bound no more, and gone with all it holds.
    Unbind {
        /// The queue's name.
        name: Span,
    },
    /// DISCONNECT: aborts what is open, releases what is held. Nothing follows.
    Disconnect,
}

/// A SEND.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub to: Target,
    /// Where else to: the other parts of a composite destination.
    pub also: Vec<Target>,
    /// Header block and body.
    pub payload: Payload,
    /// Bytes of the header block at the beginning of the payload.
    pub header_len: u32,
    /// False for `persistent:false`.
    pub persistent: bool,
    /// When and how it is to be delivered.
    pub terms: Terms,
    /// Its deduplication id: a queue that has seen it within its window does not store the message.
    pub dedup: Option<Span>,
    /// The transaction it is staged in.
    pub tx: Option<TxNo>,
}

impl Send {
    /// The header block.
    pub fn block<'a>(&'a self, requests: &'a Requests) -> &'a [u8] {
        let bytes = match &self.payload {
            Payload::Arena(span) => requests.bytes(*span),
            Payload::Shared(bytes) => bytes,
        };
        bytes.get(..self.header_len as usize).unwrap_or_default()
    }
}

/// When and how a message is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// How long a delivery of it may be unsettled, in milliseconds; 0: any time.
    pub ack_timeout_ms: Option<u64>,
    /// Not before this time, in milliseconds since the Unix epoch.
    pub due_at_ms: Option<u64>,
    /// From 0 to 9: those of a higher one go first.
    pub priority: u8,
    /// The group it is of: one consumer at a time gets the messages of a group.
    pub group: Option<Span>,
    /// Its group may go to another consumer behind it.
    pub ends_group: bool,
    /// It comes again and again, for the first time at `due_at_ms`.
    pub repeat: Option<Repeat>,
}

/// At which times a message comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// One every so often.
    Every {
        /// In milliseconds; not 0.
        period_ms: u64,
        /// The last time, in milliseconds since the Unix epoch; `None`: there is no last one.
        last_at_ms: Option<u64>,
    },
    /// Those of a cron expression, which can be read.
    Cron(Span),
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            expires_at_ms: None,
            ack_timeout_ms: None,
            due_at_ms: None,
            priority: PRIORITY_DEFAULT,
            group: None,
            ends_group: false,
            repeat: None,
        }
    }
}

/// The priority of a message that says nothing of it (Jakarta Messaging 3.1, section 3.4.10).
pub const PRIORITY_DEFAULT: u8 = 4;
/// The highest.
pub const PRIORITY_MAX: u8 = 9;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Queue, topic or temporary queue.
    pub kind: DestinationKind,
    /// The destination's name without prefix; of a temporary queue, as all know it.
    pub name: Span,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// New in this session.
    pub sub: SubNo,
    /// Queue, topic or temporary queue, which is made.
    pub kind: DestinationKind,
    /// The destination's name without prefix. For a topic it may have wildcards.
    pub name: Span,
    /// Of a queue: whether it is one that keeps the messages of a topic.
    pub binding: Binding,
    /// How its deliveries are settled.
    pub ack_mode: AckMode,
    /// How many deliveries it may be given.
    pub credit: Credit,
    /// How long its deliveries may be unsettled, in milliseconds; 0: any time; `None`: as the message or the queue says.
    pub ack_timeout_ms: Option<u64>,
    /// Which messages it takes; of a durable subscription: which are kept for it.
    pub filter: Option<std::sync::Arc<Filter>>,
    /// Its filter is of the binding: what does not pass is not kept.
    pub binds_durably: bool,
    /// Of those of one queue, a higher one goes first.
    pub priority: i32,
    /// It gets all that the queue has while it is there, unless one that came before does.
    pub exclusive: bool,
    /// It is not given what its own session sends to the topic.
    pub no_local: bool,
    /// It only looks at the queue; `None`: it takes messages.
    pub browse: Option<Browse>,
    /// Deliveries will be settled by message id (STOMP 1.0 and 1.1) instead of by tag.
    pub by_message: bool,
}

/// A look at what is in a queue, in the order of queue sequences. What is shown is neither held nor taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Browse {
    /// From which queue sequence on; `None`: only what is added later.
    pub from: Option<u64>,
    /// It goes on with what is added later, instead of ending with a marker.
    pub follow: bool,
    /// The header block of that marker, as a message's.
    pub end: Span,
}

/// Which messages a subscription takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// As the client wrote it.
    pub text: std::sync::Arc<str>,
    /// What it means.
    pub selector: Selector,
}

impl Filter {
    /// Bounds that no selector that was accepted before is over.
    pub const ANY: SelectorLimits = SelectorLimits {
        selector_bytes_max: usize::MAX,
        selector_depth_max: 64,
    };

    /// Reads what a client wrote.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: std::sync::Arc<str>, limits: SelectorLimits) -> Result<Self, SelectorError> {
        let selector = Selector::parse(&text, limits)?;
        Ok(Self { text, selector })
    }
}

/// How many deliveries a subscription may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// Those that it may hold unsettled: one more while it holds fewer than `count`, or less than `bytes`. One of them is not 0.
    Window {
        /// Deliveries.
        count: u32,
        /// Bytes of their messages.
        bytes: u64,
    },
    /// Those that it asks for by [`Request::Credit`]. Settling gives nothing back.
    Pull,
}

impl Credit {
    /// A window of deliveries.
    pub fn count(count: u32) -> Self {
        Self::Window { count, bytes: 0 }
    }
}

/// What a SUBSCRIBE of a queue says of the topic that the queue is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// Nothing.
    #[default]
    None,
    /// It is bound to this topic, or pattern of topics, from now on, as it was before if it was.
    To(Span),
    /// It must be bound to one already.
    Present,
}

/// How the deliveries of a subscription are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// By being written to the socket.
    Auto,
    /// By ACK or NACK of itself or of a later one of the same subscription.
    Client,
    /// By its own ACK or NACK.
    ClientIndividual,
}

/// An ACK or NACK. Whether it is cumulative follows from the subscription's ack mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Which delivery.
    pub delivery: DeliveryKey,
    /// How.
    pub outcome: Outcome,
    /// What a NACK says beyond that.
    pub why: Option<Box<Why>>,
    /// The transaction it is staged in.
    pub tx: Option<TxNo>,
}

/// What a NACK says of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Why {
    /// How long the message rests, in milliseconds; `None`: as the queue's policy says.
    pub delay_ms: Option<u64>,
    /// The consumer's words; empty for none.
    pub words: std::sync::Arc<str>,
}

/// How a client settles a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// ACK.
    Accepted,
    /// NACK: a failure, after which it is given again until there were too many.
    Failed,
    /// NACK with `requeue:false`: a failure after which it is not given again.
    Rejected,
}

/// How a client names a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryKey {
    /// By ack id (1.2).
    Tag(Tag),
    /// By message id, within one subscription (1.1) or, with `None`, within the session (1.0).
    Message(Option<SubNo>, MessageId),
}

/// The core's answer to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// How many requests took effect, counted from the first; all, unless there is a refusal.
    pub done: usize,
    /// The Seq that must be durable before their receipts may leave. At most the Seq of the batch being filled.
    pub gate: Seq,
    /// Why the request numbered `done` was refused; nothing behind it was looked at.
    pub refusal: Option<Refusal>,
    /// With [`Refusal::AccessDenied`]: what is not allowed.
    pub denied: Option<MissingRight>,
    /// Requests of which something was not stored, because it had been before; in their order.
    pub duplicates: Vec<Duplicate>,
}

/// What the rules do not allow a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    /// What it would do.
    pub action: Action,
    /// With what, as rules write it; it follows from the session's own frame.
    pub destination: Box<str>,
}

/// A SEND that was stored before, or a COMMIT of such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// The request's number, counted from 0.
    pub request: usize,
    /// Nothing that the request sends was stored.
    pub whole: bool,
    /// Of a COMMIT: messages that were stored nowhere.
    pub count: Option<u32>,
}

/// The peer asked validly and is denied. The text told to the peer comes from the code alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// ACK or NACK of a delivery that this session never had, or has settled.
    #[error("no such delivery is held by this session: it was never delivered here, or is already settled")]
    DeliveryUnknown,
    /// The lease ran out and another has the entry.
    #[error("the lease of this delivery ran out and the message went to another subscription")]
    LeaseLost,
    /// COMMIT, ABORT, SEND, ACK or NACK names a transaction that is not open.
    #[error("no such transaction is open in this session")]
    TransactionUnknown,
    /// More than `staged_frame_count_max` or `staged_bytes_max`.
    #[error("the open transactions of this connection hold too much; commit or abort first")]
    StagedTooMuch,
    /// Over the memory watermark: transient and staged messages are refused.
    #[error("the broker's memory for transient and staged messages is full; try again later")]
    MemoryFull,
    /// The disk is nearly full: messages are refused, settlements are not.
    #[error("the broker's disk is nearly full; messages are refused until there is room")]
    DiskFull,
    /// The rules do not allow it.
    #[error("the rules of this broker do not allow this to who is logged in here")]
    AccessDenied,
    /// A topic subscription did not read its messages in time.
    #[error("a topic subscription of this connection was too slow and over its bound")]
    SlowSubscriber,
    /// The broker is stopping.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// An operator ended the session.
    #[error("an operator has disconnected this session")]
    DisconnectedByOperator,
    /// An operator deleted a queue by force.
    #[error("an operator has deleted a queue that this session subscribes to")]
    QueueDeleted,
    /// A durable subscription of this name is of another topic.
    #[error(
        "a durable subscription of this name is of another topic: end that one first, or choose another name"
    )]
    BindingDiffers,
    /// There is no durable subscription of this name.
    #[error("there is no durable subscription of this name")]
    BindingUnknown,
    /// A durable subscription that others are served from is not ended.
    #[error("other consumers are served from this durable subscription: they have to end theirs first")]
    BindingInUse,
    /// More selectors at one queue than `selector_count_max`.
    #[error(
        "the subscriptions of this queue have as many different selectors as they may have (selector_count_max)"
    )]
    TooManySelectors,
    /// More durable subscriptions than `durable_subscription_count_max`.
    #[error("the broker has as many durable subscriptions as it may have (durable_subscription_count_max)")]
    TooManyBindings,
    /// A message, or a transaction, for more durable subscriptions in all than `fan_out_count_max`.
    #[error(
        "too many durable subscriptions keep what this frame sends (fan_out_count_max): send less in one transaction"
    )]
    FanOutTooLarge,
    /// A SEND with a deduplication id names a queue whose policy has no window.
    #[error(
        "this queue remembers no deduplication ids (dedup_window_ms or dedup_count_max is 0): send without one"
    )]
    DedupOff,
    /// A temporary queue of another session, or an act that it cannot be the object of.
    #[error(
        "this is a temporary queue: only the session that made it takes from it, and nothing of it is kept"
    )]
    QueuePrivate,
    /// More deliveries asked for by a subscription whose credit comes by settling.
    #[error(
        "the subscription is not in pull mode: its credit comes back with each ACK; SUBSCRIBE with prefetch-count:0 to ask for messages"
    )]
    NotPull,
    /// A pull subscription asks for more than `prefetch_count_max`.
    #[error(
        "the subscription would hold and still be given more messages than this broker allows (prefetch_count_max)"
    )]
    CreditTooHigh,
    /// An act names a queue that does not exist.
    #[error(
        "there is no such queue: a queue exists while it has messages or subscriptions, is paused, keeps the messages of a topic, or remembers deduplication ids"
    )]
    QueueUnknown,
    /// A delete without force of a queue that has subscriptions.
    #[error("the queue has subscriptions: only by force are their sessions ended and the queue deleted")]
    QueueInUse,
    /// A move or copy of a queue to itself.
    #[error("the messages are in that queue already")]
    SameQueue,
    /// A disconnect of a session that has ended.
    #[error("there is no such session")]
    SessionUnknown,
    /// A pattern for which no operator has stated a policy.
    #[error("no operator has stated a policy for this pattern; those of the configuration are changed there")]
    PolicyUnknown,
    /// More policies than `policy_count_max`.
    #[error("as many policies are stated as there may be (policy_count_max)")]
    TooManyPolicies,
    /// A declaration of a queue that has declared something else.
    #[error("the queue was declared with other values: use the same, or delete the queue first")]
    DeclarationDiffers,
    /// More queues that declare something of themselves than `declared_queue_count_max`.
    #[error("the broker has as many declared queues as it may have (declared_queue_count_max)")]
    TooManyDeclared,
    /// More messages that come again and again than `schedule_count_max`.
    #[error("the broker has as many messages that come again and again as it may have (schedule_count_max)")]
    TooManySchedules,
    /// A queue holds as much as its policy, or its declaration, allows.
    #[error("the queue is full (message_count_max, message_bytes_max): nothing of this frame was stored")]
    QueueFull,
}

impl Refusal {
    /// The stable code, listed in `docs/errors.md`; also the metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::DeliveryUnknown => "delivery-unknown",
            Self::LeaseLost => "lease-lost",
            Self::TransactionUnknown => "transaction-unknown",
            Self::StagedTooMuch => "staged-too-much",
            Self::MemoryFull => "memory-full",
            Self::DiskFull => "disk-full",
            Self::AccessDenied => "access-denied",
            Self::SlowSubscriber => "slow-subscriber",
            Self::ShuttingDown => "shutting-down",
            Self::DisconnectedByOperator => "disconnected-by-operator",
            Self::QueueDeleted => "queue-deleted",
            Self::BindingDiffers => "durable-subscription-differs",
            Self::BindingUnknown => "durable-subscription-unknown",
            Self::BindingInUse => "durable-subscription-in-use",
            Self::TooManySelectors => "too-many-selectors",
            Self::TooManyBindings => "too-many-durable-subscriptions",
            Self::FanOutTooLarge => "fan-out-too-large",
            Self::DedupOff => "dedup-off",
            Self::QueuePrivate => "queue-private",
            Self::NotPull => "not-pull",
            Self::CreditTooHigh => "credit-too-high",
            Self::QueueUnknown => "queue-unknown",
            Self::QueueInUse => "queue-in-use",
            Self::SameQueue => "same-queue",
            Self::SessionUnknown => "session-unknown",
            Self::PolicyUnknown => "policy-unknown",
            Self::TooManyPolicies => "too-many-policies",
            Self::DeclarationDiffers => "declaration-differs",
            Self::TooManyDeclared => "too-many-declared-queues",
            Self::TooManySchedules => "too-many-schedules",
            Self::QueueFull => "queue-full",
        }
    }
}

/// What the core tells a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message for a subscription.
    Delivery(Delivery),
    /// The core ended the session: tell the peer why and close.
    Evicted(Refusal),
}

/// One handing of one entry (or topic message) to one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Growing within the session, in the order of deliveries.
    pub tag: Tag,
    /// The subscription.
    pub sub: SubNo,
    /// The message's identity.
    pub message: MessageId,
    /// Where header block and body are.
    pub body: Body,
    /// Bytes of the header block at their beginning.
    pub header_len: u32,
    /// Bytes in all.
    pub len: u32,
    /// 1 on the first delivery, plus every earlier one known.
    pub delivery_count: u32,
    /// An earlier delivery cannot be excluded.
    pub redelivered: bool,
    /// Of a message that was taken out of a queue for good: the last time.
    pub death: Option<Box<Death>>,
    /// Its queue sequence, unless it is of a topic, or a browser's end marker.
    pub sequence: Option<u64>,
}

/// Where the bytes of a message are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In one body chunk of the store.
    Stored {
        /// Where.
        chunk: ChunkRef,
        /// From which byte of the chunk's payload.
        offset: u32,
    },
    /// In whole body chunks of their own, one after the other.
    Extent(std::sync::Arc<[ChunkRef]>),
    /// In memory: topic and transient messages.
    Memory(Bytes),
}
