//! Every bound that a peer can meet, with its default and its unit in its name (DESIGN section 6).
//! `config` maps each to a key of the same name; nothing else holds a bound.

use super::Policy;

/// All limits. One copy is made at start and handed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One header line (name, colon, value), without its line end.
    pub header_line_bytes_max: usize,
    /// Command line and all header lines of one frame.
    pub header_block_bytes_max: usize,
    /// Header lines in one frame.
    pub header_count_max: usize,
    /// Body of one frame.
    pub body_bytes_max: usize,
    /// All bytes a connection may send before it has logged in; no body is allowed among them.
    pub login_bytes_max: usize,
    /// Time from accept to CONNECT, and to the judgement of its login.
    pub login_ms_max: u64,
    /// Passwords that are verified at a time; each takes 19 MiB and some tens of milliseconds of a processor.
    pub login_check_count_max: usize,
    /// Denied logins of one address, within the window, after which its next ones wait.
    pub login_failure_count_max: u32,
    /// An address is forgotten so long after its last denied login.
    pub login_failure_window_ms: u64,
    /// How long the first login waits that does; it doubles with each denial.
    pub login_delay_ms: u64,
    /// The longest such wait.
    pub login_delay_ms_max: u64,
    /// Addresses that are remembered for their denied logins; beyond it the one that failed first is forgotten.
    pub login_address_count_max: usize,
    /// A begun frame must progress by this many bytes a second, averaged over `frame_progress_window_ms`.
    pub frame_bytes_per_second_min: u64,
    /// The window of the rule above.
    pub frame_progress_window_ms: u64,
    /// Subscriptions of one connection.
    pub subscription_count_max: usize,
    /// Durable subscriptions of the whole broker.
    pub durable_subscription_count_max: usize,
    /// Entries that one SEND, or one COMMIT, makes in queues that keep topics.
    pub fan_out_count_max: usize,
    /// The selector of one SUBSCRIBE.
    pub selector_bytes_max: usize,
    /// Parentheses within each other in it.
    pub selector_depth_max: usize,
    /// Different selectors of the subscriptions of one queue.
    pub selector_count_max: usize,
    /// The name of a message's group.
    pub group_id_bytes_max: usize,
    /// Groups of one queue whose consumer is remembered although it has no messages of theirs.
    pub group_count_max: usize,
    /// Messages that come again and again, of all queues.
    pub schedule_count_max: usize,
    /// From one occurrence of such a message to the next, where it names a period.
    pub schedule_period_ms_min: u64,
    /// The deduplication id of one SEND.
    pub dedup_id_bytes_max: usize,
    /// About what the deduplication ids that all queues remember take in memory, with the queues that remember any; beyond it
    /// the oldest are forgotten first.
    pub dedup_bytes_max: usize,
    /// Temporary queues that one connection makes, by name, for as long as it lives.
    pub temporary_queue_count_max: usize,
    /// Open transactions of one connection.
    pub transaction_count_max: usize,
    /// Frames staged in all open transactions of one connection.
    pub staged_frame_count_max: usize,
    /// Bytes staged in all open transactions of one connection.
    pub staged_bytes_max: usize,
    /// Bytes of receipts and errors that a connection has not read; beyond it we stop reading from it.
    pub unread_output_bytes_max: usize,
    /// With unread output and no progress for this long, the connection is closed.
    pub unread_output_ms_max: u64,
    /// How long a connection lingers after its last frame (ERROR, or the RECEIPT of DISCONNECT) for the peer to close.
    pub linger_ms_max: u64,
    /// Deliveries a subscription may hold unsettled, unless SUBSCRIBE says otherwise in `prefetch-count`.
    pub prefetch_count: u32,
    /// The largest `prefetch-count` that is accepted.
    pub prefetch_count_max: u32,
    /// Message bytes on their way to one subscription, not yet in its socket; always at least one message.
    pub prefetch_bytes_max: usize,
    /// Topic messages waiting for one subscription; beyond it the slow-subscriber rule applies.
    pub topic_backlog_count_max: usize,
    /// Topic message bytes waiting for one subscription; the same rule.
    pub topic_backlog_bytes_max: usize,
    /// Whether a topic subscription over its bound loses its oldest messages (true) or is disconnected (false).
    pub topic_drop_oldest: bool,
    /// Bytes of a NACK's `reason` that are kept.
    pub reason_bytes_max: usize,
    /// The failure of this number moves a message to its dead-letter queue.
    pub deliveries_failed_max: u32,
    /// After this long at its limit with nothing settled, a subscription is logged once and shown.
    pub stuck_subscription_ms: u64,
    /// Entries that one admin act moves, copies, requeues or is given by number; a purge of a whole queue has no bound.
    pub admin_act_count_max: usize,
    /// Policies that operators have stated, beside those of the configuration.
    pub policy_count_max: usize,
    /// Queues that declare something of themselves.
    pub declared_queue_count_max: usize,
    /// Queues that have series of their own in `/metrics`: the deepest.
    pub metrics_queue_count_max: usize,
    /// Connections at a time (also bounded by descriptors minus 64).
    pub connection_count_max: usize,
    /// Connections at a time from one address of the network; 0 = any number.
    pub address_connection_count_max: usize,
    /// A TCP peer that was silent for half of this is asked by the system whether it is there, and given up when it has not
    /// answered by then. 0 = never asked.
    pub silence_ms_max: u64,
    /// Bodies being received by all connections together.
    pub receiving_bytes_max: usize,
    /// Transient and staged bytes of all connections together (the memory watermark); and, apart from these, bytes that
    /// wait for topic subscriptions.
    pub memory_bytes_max: usize,
    /// SENDs are refused when the file system's free bytes fall under the smaller of this and a quarter of its size.
    pub disk_free_bytes_min: u64,
    /// A commit is capped at about this many bytes, so that latency stays; one message or transaction may exceed it.
    pub commit_bytes_max: usize,
    /// Unflushed bytes beyond which we stop reading sockets until a flush is done.
    pub unflushed_bytes_max: usize,
    /// Index chunks are compacted when more bytes of them are dead than live, and at least this many.
    pub compaction_garbage_bytes_min: u64,
    /// Index chunks are compacted when there are more of them than twice what is needed, and this many.
    pub compaction_chunk_count_slack: u64,
    /// Live bodies are moved out of sparse slots when more bytes of the slots are waste than live, and at least this many.
    pub compaction_waste_bytes_min: u64,
    /// Chunks of recently written or read bodies kept in memory, in all.
    pub body_cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Self {
            header_line_bytes_max: 10 * KIB,
            header_block_bytes_max: 64 * KIB,
            header_count_max: 1_000,
            body_bytes_max: 64 * MIB,
            login_bytes_max: 64 * KIB,
            login_ms_max: 10_000,
            login_check_count_max: 2,
            login_failure_count_max: 5,
            login_failure_window_ms: 60_000,
            login_delay_ms: 500,
            login_delay_ms_max: 5_000,
            login_address_count_max: 10_000,
            frame_bytes_per_second_min: 1_024,
            frame_progress_window_ms: 30_000,
            subscription_count_max: 1_000,
            temporary_queue_count_max: 1_000,
            durable_subscription_count_max: 20_000,
            fan_out_count_max: 200_000,
            dedup_id_bytes_max: 255,
            selector_bytes_max: 2_048,
            selector_depth_max: 32,
            selector_count_max: 1_000,
            group_id_bytes_max: 255,
            group_count_max: 10_000,
            dedup_bytes_max: 128 * MIB,
            schedule_count_max: 10_000,
            schedule_period_ms_min: 1_000,
            transaction_count_max: 256,
            staged_frame_count_max: 100_000,
            staged_bytes_max: 64 * MIB,
            unread_output_bytes_max: 8 * MIB,
            unread_output_ms_max: 60_000,
            linger_ms_max: 2_000,
            prefetch_count: 1_000,
            prefetch_count_max: 1_000_000,
            prefetch_bytes_max: 8 * MIB,
            topic_backlog_count_max: 10_000,
            topic_backlog_bytes_max: 8 * MIB,
            topic_drop_oldest: false,
            reason_bytes_max: 1_024,
            deliveries_failed_max: 10,
            stuck_subscription_ms: 30_000,
            admin_act_count_max: 100_000,
            policy_count_max: 1_000,
            declared_queue_count_max: 100_000,
            metrics_queue_count_max: 1_000,
            connection_count_max: 20_000,
            address_connection_count_max: 0,
            silence_ms_max: 120_000,
            receiving_bytes_max: 128 * MIB,
            memory_bytes_max: 256 * MIB,
            disk_free_bytes_min: 256 * MIB as u64,
            commit_bytes_max: 2 * MIB,
            unflushed_bytes_max: 8 * MIB,
            compaction_garbage_bytes_min: 16 * KIB as u64,
            compaction_chunk_count_slack: 65_536,
            compaction_waste_bytes_min: 64 * MIB as u64,
            body_cache_bytes_max: 64 * MIB,
        }
    }
}

impl Limits {
    /// What holds for a queue of which no policy says otherwise.
    pub fn policy(&self) -> Policy {
        Policy {
            deliveries_failed_max: u64::from(self.deliveries_failed_max),
            ..Policy::default()
        }
    }
}
