//! Admin requests: what an operator sees of the core and asks of it.
//!
//! A look is a view, bounded by a count; a listing goes on where the last page ended ([`Page::next`]). An act changes the
//! state in one batch and is done when [`Acted::gate`] is durable; before, nobody may be told that it is. What is
//! refused left no trace. `Broker::preview` gives the answer that an act would get, and does nothing.
//!
//! # What happens to held deliveries
//!
//! | act | the entry of a delivery that a client holds |
//! | --- | --- |
//! | purge, delete | is gone with the others; the client's ACK or NACK is accepted and has no effect |
//! | delete by force | the same, and the sessions that subscribe are ended with `queue-deleted` |
//! | pause, resume | is settled as ever; released, it waits for the queue to be resumed |
//! | move, copy, requeue | stays as it is, and is counted in [`Acted::held_count`] |
//! | disconnect | is released, as at any end of a session |
//!
//! # Not here
//! Who asked, and the log line of it: the API knows. Message bytes: [`EntryView::body`] says where they are. A choice by
//! header: the caller reads header blocks and names sequences.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Death, DestinationKind, MessageId, Policy, Seq, SessionNo, Settings, SubNo, TxNo};

use super::{AckMode, Body};

/// The most that a page of a listing holds, whatever was asked for, so that no look holds the core for long.
pub const PAGE_COUNT_MAX: usize = 1_000;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Drops entries, ready or held. A whole queue at once, however many are in it.
    Purge {
        /// Of this queue.
        queue: String,
        /// Which.
        selection: Selection,
    },
    /// Purges a queue, paused or not, so that nothing is left of it.
    Delete {
        /// Which.
        queue: String,
        /// Ends the sessions that subscribe to it; without, a queue with subscriptions is refused (`queue-in-use`).
        force: bool,
    },
    /// Stops deliveries; SENDs go on, and what is held may be settled. Outlives restarts. No effect on a paused queue.
    Pause {
        /// Which.
        queue: String,
    },
    /// Lets deliveries go on. No effect on a queue that is not paused.
    Resume {
        /// Which.
        queue: String,
    },
    /// Moves ready entries to the end of another queue, in their order, keeping message ids and bytes. Deliveries and
    /// failures begin at 0, as in a dead letter. Those in memory only stay so.
    Move {
        /// Out of this queue.
        from: String,
        /// Into this one, made if there is none.
        to: String,
        /// Which.
        selection: Selection,
    },
    /// The same, but the entries stay; the copies have message ids of their own and share the bytes.
    Copy {
        /// Of this queue.
        from: String,
        /// Into this one, made if there is none.
        to: String,
        /// Which.
        selection: Selection,
    },
    /// Moves ready dead letters back to the queue that each came from. Those that say no origin stay.
    Requeue {
        /// Out of this queue.
        queue: String,
        /// Which.
        selection: Selection,
    },
    /// Ends a session: ERROR with `disconnected-by-operator`.
    Disconnect {
        /// Which.
        session: SessionNo,
    },
    /// States what holds for queues whose names match a pattern, instead of what was stated for it before. Outlives restarts.
    StatePolicy {
        /// The pattern.
        pattern: Arc<str>,
        /// What it states; `None`: from now on what the configuration says of it.
        settings: Option<Settings>,
    },
}

/// Entries of one queue. One act looks at no more than `admin_act_count_max` of them, oldest first, and says where the
/// next one goes on; only a purge from 0 takes all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What is in the queue now, from this queue sequence on; from 0, all of it.
    From(u64),
    /// Those with these queue sequences, in any order; what is gone is passed over and counted nowhere.
    Sequences(Vec<u64>),
}

/// The answer to an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acted {
    /// Entries purged, moved or copied; sessions ended by a disconnect; 1 for a pause or resume that had an effect; queues
    /// there are for which a policy changes what holds.
    pub count: u64,
    /// Message bytes of these entries.
    pub bytes: u64,
    /// Entries that clients hold: among those purged, or passed over by move, copy and requeue.
    pub held_count: u64,
    /// Entries passed over by requeue because they do not say where they came from.
    pub skipped_count: u64,
    /// `admin_act_count_max` was reached: the first sequence of the selection that was not looked at. Go on with
    /// `Selection::From` of it, or with what is listed from there on.
    pub next: Option<u64>,
    /// The Seq that must be durable before anybody may be told; `Seq(0)` where nothing is to be waited for.
    pub gate: Seq,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// In the order of the listing.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end. What came or went meanwhile is seen or not.
    pub next: Option<C>,
}

/// One queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its name without prefix.
    pub name: Arc<str>,
    /// Entries in all.
    pub depth: u64,
    /// Their message bytes.
    pub bytes: u64,
    /// Waiting.
    pub ready_count: u64,
    /// Out for delivery.
    pub leased_count: u64,
    /// Not delivered in this run, because their bytes could not be read.
    pub set_aside_count: u64,
    /// Resting until a time.
    pub delayed_count: u64,
    /// Entries that another queue gave up.
    pub dead_letter_count: u64,
    /// Subscriptions.
    pub subscription_count: u64,
    /// When the oldest entry was accepted, milliseconds since the Unix epoch.
    pub oldest_at_ms: Option<u64>,
    /// The queue sequence that the next entry gets: every entry there is now has a lower one.
    pub next_sequence: u64,
    /// Deliveries are stopped.
    pub paused: bool,
    /// The session that it belongs to and is gone with.
    pub owner: Option<SessionNo>,
    /// The topic, or pattern of topics, whose messages it keeps: a durable subscription.
    pub topic: Option<Arc<str>>,
    /// Which of them, as the client wrote it.
    pub selector: Option<Arc<str>>,
    /// What holds for it.
    pub policy: Arc<Policy>,
    /// What of that it declares itself.
    pub declared: Settings,
    /// Deduplication ids that it remembers.
    pub dedup_id_count: u64,
    /// Subscriptions that hold their limit and have settled nothing for `stuck_subscription_ms`.
    pub stuck_count: u64,
    /// What passed through it.
    pub counters: QueueCounters,
}

/// What passed through a queue since it exists in this run: they only grow, and begin at 0 again when a queue that had
/// nothing left comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounters {
    /// Entries added, by whatever: SENDs, dead letters, acts. Not those found at the start.
    pub in_count: u64,
    /// Deliveries handed to sessions.
    pub out_count: u64,
    /// Entries settled as accepted.
    pub accepted_count: u64,
    /// Deliveries settled as failed.
    pub failed_count: u64,
    /// Entries moved to its dead-letter queue.
    pub dead_lettered_count: u64,
    /// Entries that expired.
    pub expired_count: u64,
    /// Entries that made room for newer ones.
    pub dropped_count: u64,
    /// Messages not stored because they had been before.
    pub duplicate_count: u64,
}

/// One policy, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// The queues that it is for.
    pub pattern: Arc<str>,
    /// What it states.
    pub settings: Settings,
    /// An operator stated it; if not, it is of the configuration.
    pub stored: bool,
}

/// One entry, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// Its place in the queue.
    pub sequence: u64,
    /// The message's identity.
    pub message: MessageId,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub accepted_at_ms: u64,
    /// Where its bytes are. They can be read once `gate` is durable, and until the entry is settled or moved: a reader
    /// that finds another chunk looks at the entry again.
    pub body: Body,
    /// The batch that says so; `Seq(0)` for one in memory.
    pub gate: Seq,
    /// Bytes of the header block.
    pub header_len: u32,
    /// Bytes in all.
    pub len: u32,
    /// Earlier deliveries known.
    pub deliveries: u32,
    /// NACKs and run-out leases.
    pub failures: u32,
    /// Out for delivery now.
    pub leased: bool,
    /// Not delivered in this run, because its bytes could not be read.
    pub set_aside: bool,
    /// In memory only (`persistent:false`).
    pub transient: bool,
    /// The queue that a dead letter came from, if it says so.
    pub origin: Option<String>,
    /// Until when it rests, milliseconds since the Unix epoch.
    pub due_at_ms: Option<u64>,
    /// From 0 to 9.
    pub priority: u8,
    /// The group it is of.
    pub group: Option<Bytes>,
    /// When it comes again, of one that does.
    pub schedule: Option<ScheduleView>,
    /// The queues that it was taken out of for good, the newest first.
    pub deaths: Vec<Death>,
}

/// When a message comes again, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleView {
    /// From one time to the next, in milliseconds, unless a cron expression says.
    pub period_ms: Option<u64>,
    /// The last time, milliseconds since the Unix epoch; `None`: it goes on.
    pub last_due_at_ms: Option<u64>,
    /// The cron expression.
    pub cron: Option<String>,
}

/// One subscription, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Whose.
    pub session: SessionNo,
    /// Which.
    pub sub: SubNo,
    /// Queue or topic.
    pub kind: DestinationKind,
    /// The destination's name without prefix.
    pub name: Arc<str>,
    /// How its deliveries are settled.
    pub ack_mode: AckMode,
    /// Which messages it takes, as the client wrote it.
    pub selector: Option<Arc<str>>,
    /// Deliveries it may hold; 0 where only their bytes are bounded, and of a pull subscription.
    pub prefetch_count: u32,
    /// Of a window in bytes: while it holds less than this, it may hold more deliveries too.
    pub prefetch_bytes: Option<u64>,
    /// Of a pull subscription, how many deliveries it may still be given.
    pub credit: Option<u32>,
    /// Deliveries it holds, neither settled nor staged.
    pub held_count: u32,
    /// For how long it has held the oldest of them.
    pub oldest_held_ms: Option<u64>,
    /// Bytes on their way to its socket.
    pub unsent_bytes: u64,
    /// Topic messages that wait for it.
    pub backlog_count: u64,
    /// It holds its limit and has settled nothing for `stuck_subscription_ms`.
    pub stuck: bool,
    /// It only looks.
    pub browser: bool,
    /// Of those of its queue, a higher one goes first.
    pub priority: i32,
    /// It gets all of its queue, unless another does that asked for it, too.
    pub exclusive: bool,
    /// It is not given what its own session sends.
    pub no_local: bool,
    /// Groups of its queue whose messages go to it.
    pub group_count: u64,
}

/// One session, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Which.
    pub session: SessionNo,
    /// Its subscriptions.
    pub subscription_count: u64,
    /// Deliveries they hold.
    pub held_count: u64,
    /// Transactions it has open.
    pub transaction_count: u64,
    /// Frames staged in them.
    pub staged_frame_count: u64,
    /// Their bytes.
    pub staged_bytes: u64,
    /// For how long the oldest of them has been open.
    pub oldest_transaction_ms: Option<u64>,
}

/// One session and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDetail {
    /// In short.
    pub session: SessionView,
    /// Its subscriptions, in the order of their numbers; at most [`PAGE_COUNT_MAX`].
    pub subscriptions: Vec<SubscriptionView>,
    /// Its open transactions, in the order of their numbers; at most [`PAGE_COUNT_MAX`].
    pub transactions: Vec<TransactionView>,
}

/// One open transaction, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionView {
    /// Which.
    pub tx: TxNo,
    /// Frames staged.
    pub staged_frame_count: u64,
    /// Their bytes.
    pub staged_bytes: u64,
    /// Since its BEGIN.
    pub open_ms: u64,
}

/// One topic that has subscriptions, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its name without prefix.
    pub name: Arc<str>,
    /// Its subscriptions.
    pub subscription_count: u64,
    /// Queues that keep its messages: durable subscriptions.
    pub queue_count: u64,
}

/// What the core holds in all, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldingsView {
    /// Queues that have entries or subscriptions, are paused, keep the messages of a topic, or remember deduplication ids.
    pub queue_count: u64,
    /// Topics that have subscriptions.
    pub topic_count: u64,
    /// Sessions, logged in or not.
    pub session_count: u64,
    /// Messages in memory only.
    pub transient_count: u64,
    /// Their bytes.
    pub transient_bytes: u64,
    /// Bytes staged in transactions.
    pub staged_bytes: u64,
    /// Messages that come again and again.
    pub schedule_count: u64,
    /// Deduplication ids that queues remember.
    pub dedup_id_count: u64,
    /// About what they take in memory.
    pub dedup_bytes: u64,
    /// Bytes in batches that are not yet durable, and of what waits for them.
    pub unflushed_bytes: u64,
    /// Purged entries whose room is not given back yet.
    pub purging_count: u64,
    /// Whether the disk has room for messages.
    pub room: bool,
}
