//! The types of the HTTP API: every request and answer, as both its server and its client see them.
//!
//! JSON over HTTP/1.1. Times end in `_at_ms` (milliseconds since the Unix epoch) or `_ms` (durations). Every answer has all
//! of its fields; what is not known is `null`. A request with an unknown field is refused; a client ignores fields it
//! does not know, so that fields may be added within [`VERSION`]. The reference is `docs/api.md`.
//!
//! # Invariants
//! - One request of an act is one atomic step of the broker: after a crash all of it or nothing of it happened. An act
//!   on more than one step takes says in [`Acted::next`] where to go on; what asked repeats it there.
//!
//! # Not here
//! Sockets: the server is in `runtime`, the client in `cli`.

mod body;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::Setting;

/// What every path but `/metrics` and `/health` begins with.
pub const VERSION: &str = "/v1";

/// The socket, in the data folder.
pub const SOCKET_FILE: &str = "api.sock";

/// A file in the data folder that holds the socket's path, where the folder's own path is too long for a socket.
pub const PATH_FILE: &str = "api.path";

/// Items of a listing, at most, whatever was asked for.
pub const PAGE_COUNT_MAX: u64 = 1_000;

/// Items of a listing when nothing was asked for.
pub const PAGE_COUNT: u64 = 100;

/// Bytes of a body in a preview.
pub const PREVIEW_BYTES: usize = 256;

/// Bytes of one body, at most, where the whole is asked for.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of bodies in one answer after which a page ends early; one body may pass it.
pub const PAGE_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries that one request with a filter looks at, at most; then the answer says where to go on.
pub const SCAN_COUNT_MAX: u64 = 100_000;

/// Bytes of a request's body, at most.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that a backup reads in a second when nothing was asked for.
pub const BACKUP_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// How long rates may be measured.
pub const RATE_MS_MAX: u64 = 10_000;

/// Why a request was not done, with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Stable; `docs/api.md` lists them.
    pub code: String,
    /// For people: what was wrong, and what to do.
    pub message: String,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of its process.
    pub pid: u32,
    /// The store's identity; message ids and session ids begin with it.
    pub store: String,
    /// The term: grows by one at each start.
    pub epoch: u32,
    /// When the process started.
    pub started_at_ms: u64,
    /// For how long it has been running.
    pub uptime_ms: u64,
    /// Its data folder, absolute where that could be told.
    pub data_dir: String,
    /// Addresses that STOMP is accepted on.
    pub listen: Vec<String>,
    /// The dialect of each.
    #[serde(default)]
    pub dialects: Vec<String>,
    /// The address of `/metrics` and `/health`, if there is one beside this socket.
    pub metrics_listen: Option<String>,
    /// As `/health/ready` says.
    pub health: Health,
    /// Queues that have messages or subscriptions, are paused, keep the messages of a topic, or remember deduplication ids.
    pub queue_count: u64,
    /// Topics that have subscriptions.
    pub topic_count: u64,
    /// Messages in all queues.
    pub message_count: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Connections open now.
    pub connection_count: u64,
    /// Subscriptions of all of them.
    pub subscription_count: u64,
    /// Open transactions of all of them.
    pub transaction_count: u64,
    /// Messages in memory only (`persistent:false`).
    pub transient_count: u64,
    /// Their bytes.
    pub transient_bytes: u64,
    /// Bytes staged in open transactions.
    pub staged_bytes: u64,
    /// The bound of the last two together (`memory_bytes_max`).
    pub memory_bytes_max: u64,
    /// The last batch that is durable.
    pub durable_seq: u64,
    /// Since start.
    pub counters: Counters,
    /// Where `rate_ms` was asked for.
    pub rates: Option<Rates>,
}

/// Whether the broker is alive and ready: `GET /health/live`, `GET /health/ready` (200, or 503 where `ok` is false).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is.
    pub ok: bool,
    /// Why not; empty where it is.
    pub reasons: Vec<HealthReason>,
}

/// One reason of being not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReason {
    /// `starting`, `stopping`, `commit-hangs` or `disk-full`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What the broker did since start; all only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Messages accepted into queues.
    pub enqueued_count: u64,
    /// Deliveries handed to sessions.
    pub delivered_count: u64,
    /// Deliveries settled as accepted.
    pub accepted_count: u64,
    /// Deliveries settled as failed.
    pub failed_count: u64,
    /// Deliveries given back without blame.
    pub released_count: u64,
    /// Messages moved to a dead-letter queue.
    pub dead_lettered_count: u64,
    /// Messages accepted for topics.
    pub topic_in_count: u64,
    /// Topic messages handed to sessions.
    pub topic_out_count: u64,
    /// Topic messages dropped for slow subscribers.
    pub topic_dropped_count: u64,
    /// Occurrences of messages that come again and again.
    pub occurrence_count: u64,
    /// Messages that expired.
    pub expired_count: u64,
    /// Messages that made room for newer ones in full queues.
    pub dropped_count: u64,
    /// Messages that were stored nowhere because they had been before.
    pub duplicate_count: u64,
    /// Deduplication ids forgotten before their window was over.
    pub dedup_forgotten_count: u64,
    /// Messages for temporary queues that were gone with their session.
    pub late_reply_count: u64,
    /// Transactions committed.
    pub committed_count: u64,
    /// Transactions aborted.
    pub aborted_count: u64,
    /// Requests refused.
    pub refused_count: u64,
    /// Messages purged by an operator.
    pub purged_count: u64,
    /// Messages moved or requeued by an operator.
    pub moved_count: u64,
    /// Messages copied by an operator.
    pub copied_count: u64,
    /// Connections accepted.
    pub connected_count: u64,
    /// Connections turned away at `connection_count_max` or `address_connection_count_max`.
    pub turned_away_count: u64,
    /// Connections ended for a violation of the protocol.
    pub violation_count: u64,
    /// Bytes read from sockets.
    pub in_bytes: u64,
    /// Bytes written to sockets.
    pub out_bytes: u64,
    /// Batches made durable.
    pub commit_count: u64,
}

/// Messages a second, measured over the `rate_ms` of the request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Accepted.
    pub in_per_second: f64,
    /// Handed to sessions.
    pub out_per_second: f64,
    /// Settled as accepted.
    pub accepted_per_second: f64,
}

/// The query of `GET /v1/queues`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueuesQuery {
    /// From this name on ([`Queues::next`]).
    pub from: Option<String>,
    /// How many; 1 to [`PAGE_COUNT_MAX`], [`PAGE_COUNT`] where nothing is said.
    pub count: Option<u64>,
    /// Only names that begin so.
    pub prefix: Option<String>,
    /// Measures rates over so many milliseconds, up to [`RATE_MS_MAX`]; the answer takes as long.
    pub rate_ms: Option<u64>,
}

/// The answer to `GET /v1/queues`: in the order of names, byte by byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queues {
    /// One page.
    pub queues: Vec<Queue>,
    /// The `from` of the next page; `null` at the end.
    pub next: Option<String>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Without `/queue/`.
    pub name: String,
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
    /// Subscriptions.
    pub subscription_count: u64,
    /// When the oldest entry was accepted.
    pub oldest_at_ms: Option<u64>,
    /// For how long it has waited.
    pub oldest_ms: Option<u64>,
    /// Deliveries are stopped.
    pub paused: bool,
    /// The session that a temporary queue belongs to, and is gone with.
    pub owner: Option<u64>,
    /// The topic, or pattern of topics, whose messages it keeps, without `/topic/`: it is a durable subscription.
    pub topic: Option<String>,
    /// Which of them it keeps.
    pub selector: Option<String>,
    /// It holds dead letters, or its name begins with `DLQ.`.
    pub dead_letter: bool,
    /// Subscriptions that hold their limit and settle nothing (`stuck_subscription_ms`).
    pub stuck_count: u64,
    /// The queue sequence that the next message gets: all that are in it now have lower ones.
    pub next_sequence: u64,
    /// Entries added since the queue exists in this run.
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
    /// Entries that made room for newer ones (`overflow = "drop-head"`).
    pub dropped_count: u64,
    /// Deduplication ids that it remembers.
    pub dedup_id_count: u64,
    /// Messages not stored because they had been before.
    pub duplicate_count: u64,
    /// Where `rate_ms` was asked for.
    pub rates: Option<Rates>,
}

/// The query of `GET /v1/queues/{name}` and of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateQuery {
    /// Measures rates over so many milliseconds, up to [`RATE_MS_MAX`]; the answer takes as long.
    pub rate_ms: Option<u64>,
}

/// The answer to `GET /v1/queues/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueDetail {
    /// In short.
    pub queue: Queue,
    /// Its subscriptions; at most [`PAGE_COUNT_MAX`] (`queue.subscription_count` says how many there are that are no browsers).
    pub subscriptions: Vec<Subscription>,
    /// Every setting that holds for it (`docs/concepts/policies.md`).
    pub policy: BTreeMap<String, Value>,
    /// What of these the queue declares itself.
    pub declared: BTreeMap<String, Value>,
}

/// The answer to `GET /v1/policies`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// The most specific first.
    pub policies: Vec<Policy>,
}

/// What holds for the queues whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The names.
    pub pattern: String,
    /// What it states, by name.
    pub settings: BTreeMap<String, Value>,
    /// An operator stated it, and it is stored; if not, it is of the configuration.
    pub stored: bool,
}

/// A setting's value.
pub fn setting_json(value: &Setting) -> Value {
    match value {
        Setting::Number(number) => (*number).into(),
        Setting::Flag(flag) => (*flag).into(),
        Setting::Text(text) => text.as_ref().into(),
    }
}

/// The body of `POST /v1/policies/{pattern}/set`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatePolicy {
    /// All that it states, by name: what it stated before is gone.
    pub settings: BTreeMap<String, Value>,
    /// Only says for how many queues it would change what holds.
    pub dry_run: bool,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Whose: see [`Connection::session`].
    pub session: u64,
    /// Where it comes from.
    pub peer: Option<String>,
    /// Its number within the session.
    pub sub: u32,
    /// `/queue/NAME`, `/topic/NAME` or, of a temporary queue, `/temporary queue/NAME`.
    pub destination: String,
    /// `auto`, `client` or `client-individual`.
    pub ack: String,
    /// Which messages it takes.
    pub selector: Option<String>,
    /// Deliveries it may hold; 0 where only their bytes are bounded, and of a pull subscription.
    pub prefetch_count: u32,
    /// Of a window in bytes (`credit`, `consumer-window-size`): while it holds less, it may hold more deliveries too.
    pub prefetch_bytes: Option<u64>,
    /// Of a pull subscription, how many deliveries it may still be given.
    pub credit: Option<u32>,
    /// Deliveries it holds.
    pub held_count: u64,
    /// For how long it has held the oldest of them.
    pub oldest_held_ms: Option<u64>,
    /// Bytes on their way to its socket.
    pub unsent_bytes: u64,
    /// Topic messages that wait for it.
    pub backlog_count: u64,
    /// It holds its limit and has settled nothing for `stuck_subscription_ms`.
    pub stuck: bool,
    /// It only looks: what it is shown is neither held nor taken.
    pub browser: bool,
    /// Of those of its queue, a higher one goes first.
    pub priority: i32,
    /// It gets all of its queue, unless another does that asked for it, too.
    pub exclusive: bool,
    /// It is not given what its own connection sends.
    pub no_local: bool,
    /// Message groups of its queue that are its own.
    pub group_count: u64,
}

/// How much of a body is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyPart {
    /// Its first [`PREVIEW_BYTES`].
    #[default]
    Preview,
    /// Up to [`BODY_BYTES_MAX`] of it.
    Whole,
    /// Nothing: the cheapest.
    None,
}

/// The query of `GET /v1/queues/{name}/messages`. `header` may come more than once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MessagesQuery {
    /// From this queue sequence on.
    pub from: u64,
    /// How many; 1 to [`PAGE_COUNT_MAX`], [`PAGE_COUNT`] where nothing is said.
    pub count: Option<u64>,
    /// Only messages with all of these: `NAME:VALUE`, or `NAME` for any value.
    pub header: Vec<String>,
    /// How much of each body.
    pub body: BodyPart,
}

/// The answer to `GET /v1/queues/{name}/messages`: in queue order. Nothing is delivered or counted by looking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// One page; may be empty although more follows, where a filter looked at many.
    pub messages: Vec<Message>,
    /// The `from` of the next page; `null` at the end.
    pub next: Option<u64>,
}

/// One message in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place in the queue.
    pub sequence: u64,
    /// As in the MESSAGE header `message-id`.
    pub message_id: String,
    /// `ready`, `leased`, `delayed` or `set-aside`.
    pub state: String,
    /// When it was accepted.
    pub accepted_at_ms: u64,
    /// Of headers and body.
    pub bytes: u64,
    /// Of the body.
    pub body_bytes: u64,
    /// Earlier deliveries known.
    pub deliveries: u32,
    /// NACKs and run-out leases.
    pub failures: u32,
    /// In memory only (`persistent:false`).
    pub transient: bool,
    /// The queue that a dead letter came from.
    pub origin: Option<String>,
    /// Until when it rests.
    pub due_at_ms: Option<u64>,
    /// From 0 to 9: those of a higher one go first.
    pub priority: u8,
    /// Its message group.
    pub group: Option<String>,
    /// When it comes again, of one that does: it rests until its next time.
    pub schedule: Option<Schedule>,
    /// The last times that it was taken out of a queue for good, the newest first.
    pub history: Vec<Death>,
    /// In the order sent, unescaped.
    pub headers: Vec<(String, String)>,
    /// Where one was asked for and could be read.
    pub body: Option<Body>,
    /// Why headers and body could not be read: the message left the queue meanwhile, or its bytes are damaged.
    pub fault: Option<String>,
}

/// When a message comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// From one time to the next; `null` with a cron expression.
    pub period_ms: Option<u64>,
    /// The last time; `null`: it goes on.
    pub last_due_at_ms: Option<u64>,
    /// The cron expression, if it has one; in UTC.
    pub cron: Option<String>,
}

/// One time at which a message was taken out of a queue for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The queue.
    pub queue: String,
    /// `failures`, `rejected`, `expired` or `overflow`.
    pub reason: String,
    /// When.
    pub at_ms: u64,
    /// How often it had failed there.
    pub failures: u32,
    /// How often it had been delivered there.
    pub deliveries: u32,
    /// What the consumer said with its last NACK, if anything.
    pub text: Option<String>,
}

/// A body, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What `data` is.
    pub encoding: BodyEncoding,
    /// The bytes.
    pub data: String,
    /// More follows that is not shown.
    pub truncated: bool,
}

/// How a body is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyEncoding {
    /// It is UTF-8, and stands as it is.
    Text,
    /// It is not, and stands as base64 (RFC 4648, with padding).
    Base64,
}

/// The body of `POST /v1/queues/{name}/purge`, `.../requeue`, and part of that of `move` and `copy`. All is optional:
/// `{}` means the whole queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Only messages with all of these: `NAME:VALUE`, or `NAME` for any value.
    pub header: Vec<String>,
    /// Only messages that are set aside.
    pub set_aside: bool,
    /// At most so many messages, the oldest first.
    pub limit: Option<u64>,
    /// From this queue sequence on.
    pub from: Option<u64>,
    /// Before this queue sequence. Without, what came after the request began is left alone.
    pub until: Option<u64>,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// The body of `POST /v1/queues/{name}/move` and `.../copy`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transfer {
    /// The queue that gets the messages, without `/queue/`; made if there is none. Needed.
    pub to: String,
    /// As in [`Selection`].
    pub header: Vec<String>,
    /// As in [`Selection`].
    pub set_aside: bool,
    /// As in [`Selection`].
    pub limit: Option<u64>,
    /// As in [`Selection`].
    pub from: Option<u64>,
    /// As in [`Selection`].
    pub until: Option<u64>,
    /// As in [`Selection`].
    pub dry_run: bool,
}

/// The body of `POST /v1/queues/{name}/delete`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delete {
    /// Ends the sessions that subscribe to the queue; without, one with subscriptions is refused (`queue-in-use`).
    pub force: bool,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// The body of `POST /v1/backup`; may be left out. The answer is no JSON but the backup (`docs/storage.md`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// The most that is read in a second; 0 for as much as can be, [`BACKUP_BYTES_PER_SECOND`] where nothing is said.
    pub bytes_per_second_max: Option<u64>,
}

/// The body of `POST /v1/reload`; may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {}

/// The answer to `POST /v1/reload`: what became of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose new values hold from now on, `policy` for policies and `rule` for rules.
    pub taken: Vec<String>,
    /// Keys whose new values hold from the next start on, and `listener` for listeners.
    pub restart: Vec<String>,
    /// Listeners whose certificates and keys were read again.
    pub certificates: Vec<String>,
    /// Listeners whose certificates could not be used, and `users and keys` where these could not, each with the reason; the old
    /// ones stay.
    pub failed: Vec<String>,
}

/// The body of `POST /v1/queues/{name}/pause`, `.../resume` and `POST /v1/connections/{session}/disconnect`; may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plain {
    /// Only says what would be done.
    pub dry_run: bool,
}

/// The answer to every act, given when it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acted {
    /// Messages purged, moved or copied; sessions ended by a disconnect; 1 for a pause or resume that had an effect.
    pub count: u64,
    /// Their message bytes.
    pub bytes: u64,
    /// Messages that clients hold: among those purged, or passed over by move, copy and requeue.
    pub held_count: u64,
    /// Messages passed over by requeue because they do not say where they came from.
    pub skipped_count: u64,
    /// Nothing was done: it was only asked what would be.
    pub dry_run: bool,
    /// One step was not enough: the same request with these goes on. `null` when all is done.
    pub next: Option<Next>,
}

/// Where an act goes on: fields of the next request. Its `limit` is less by [`Acted::count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// As in [`Selection`].
    pub from: u64,
    /// As in [`Selection`].
    pub until: u64,
}

/// The query of `GET /v1/topics`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsQuery {
    /// From this name on ([`Topics::next`]).
    pub from: Option<String>,
    /// How many; 1 to [`PAGE_COUNT_MAX`], [`PAGE_COUNT`] where nothing is said.
    pub count: Option<u64>,
}

/// The answer to `GET /v1/topics`: those, and patterns of them, that have subscriptions, durable ones too, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// One page.
    pub topics: Vec<Topic>,
    /// The `from` of the next page; `null` at the end.
    pub next: Option<String>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Without `/topic/`.
    pub name: String,
    /// Its subscriptions, but for durable ones.
    pub subscription_count: u64,
    /// Queues that keep its messages.
    pub queue_count: u64,
}

/// The query of `GET /v1/connections` and `GET /v1/transactions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsQuery {
    /// From this session on.
    pub from: u64,
    /// How many; 1 to [`PAGE_COUNT_MAX`], [`PAGE_COUNT`] where nothing is said.
    pub count: Option<u64>,
}

/// The answer to `GET /v1/connections`: in the order of their coming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// One page.
    pub connections: Vec<Connection>,
    /// The `from` of the next page; `null` at the end.
    pub next: Option<u64>,
}

/// One connection and its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number: the log calls it `connection`, and the last part of the `session` header of CONNECTED is it.
    pub session: u64,
    /// Where it comes from: `ADDR:PORT`.
    pub peer: Option<String>,
    /// When it was accepted.
    pub connected_at_ms: Option<u64>,
    /// `1.0`, `1.1` or `1.2`; `null` before CONNECT.
    pub version: Option<String>,
    /// The user that it has logged in as; `null` before that, and for one who said no name where that is allowed.
    #[serde(default)]
    pub user: Option<String>,
    /// Bytes read from it.
    pub in_bytes: u64,
    /// Bytes written to it.
    pub out_bytes: u64,
    /// Its subscriptions.
    pub subscription_count: u64,
    /// Deliveries they hold.
    pub held_count: u64,
    /// Its open transactions.
    pub transaction_count: u64,
    /// Frames staged in them.
    pub staged_frame_count: u64,
    /// Their bytes.
    pub staged_bytes: u64,
}

/// The answer to `GET /v1/connections/{session}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionDetail {
    /// In short.
    pub connection: Connection,
    /// At most [`PAGE_COUNT_MAX`].
    pub subscriptions: Vec<Subscription>,
    /// At most [`PAGE_COUNT_MAX`].
    pub transactions: Vec<Transaction>,
}

/// The answer to `GET /v1/transactions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transactions {
    /// In the order of sessions.
    pub transactions: Vec<Transaction>,
    /// The `from` (a session) of the next page; `null` at the end.
    pub next: Option<u64>,
}

/// One open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Whose.
    pub session: u64,
    /// Where it comes from.
    pub peer: Option<String>,
    /// Its number within the session.
    pub tx: u32,
    /// Frames staged.
    pub staged_frame_count: u64,
    /// Their bytes.
    pub staged_bytes: u64,
    /// Since its BEGIN.
    pub open_ms: u64,
}

/// The answer to `GET /v1/store`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// The store's identity, whole.
    pub uuid: String,
    /// The term.
    pub epoch: u32,
    /// The last batch that is durable.
    pub durable_seq: u64,
    /// Bytes of the store's file.
    pub file_bytes: u64,
    /// Bytes of it in which something live is.
    pub live_bytes: u64,
    /// Body slots in the pool.
    pub slot_count: u64,
    /// Those of them that hold nothing live.
    pub free_slot_count: u64,
    /// Parts of index chunks, each a key of the store.
    pub index_part_count: u64,
    /// Their bytes.
    pub index_bytes: u64,
    /// Bytes among them that say nothing any more.
    pub index_dead_bytes: u64,
    /// Index chunks compacted since start.
    pub compacted_count: u64,
    /// Purged messages whose room is not given back yet.
    pub purging_count: u64,
    /// Bytes not yet durable.
    pub unflushed_bytes: u64,
    /// Free bytes of the file system, where they could be told.
    pub disk_free_bytes: Option<u64>,
    /// SENDs are refused with less.
    pub disk_reserve_bytes: Option<u64>,
    /// Whether messages are accepted.
    pub disk_room: bool,
    /// Body chunks found in memory.
    pub body_hit_count: u64,
    /// Body chunks read from the store.
    pub body_read_count: u64,
    /// Commits since start: append and flush.
    pub commit: Latency,
    /// Flushes among them.
    pub flush: Latency,
}

/// How long something took since start. Percentiles are the upper ends of buckets, 0 where nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How often.
    pub count: u64,
    /// On average.
    pub mean_ms: f64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// Text as one segment of a path, or as a value of a query: all but letters, digits, `-`, `.`, `_` and `~` as `%XX`.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    encoded
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16)
        .expect("half a byte is under 16")
        .to_ascii_uppercase()
}

/// The inverse of [`percent_encode`], of any bytes. `None` where a `%` is not followed by two hexadecimal digits, or the
/// result is not UTF-8, as no name is.
pub fn percent_decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
