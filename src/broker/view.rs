//! What people see of the core.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::{Action, DestinationKind, MessageId, Now, Principal, SessionNo, SubNo};
use crate::journal::Enqueued;
use crate::port::{
    EntryView, HoldingsView, PAGE_COUNT_MAX, Page, QueueView, SessionDetail, SessionView, SubscriptionView,
    TopicView, TransactionView,
};

use super::Broker;
use super::ledger::LedgerView;
use super::peer::{HeldState, Peer, Source, Sub};
use super::queue::Queue;

/// Sessions, subscriptions and deliveries looked at for one page of subscriptions.
const LOOK_COUNT_MAX: usize = 100_000;

/// A line for the log: something that must not pass silently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A message went to its dead-letter queue.
    DeadLettered {
        /// From.
        queue: Arc<str>,
        /// To.
        target: Arc<str>,
        /// Which.
        message: MessageId,
        /// After how many failures.
        failures: u32,
    },
    /// A subscription has held its limit for `stuck_subscription_ms` with nothing settled. Told once.
    Stuck {
        /// Whose.
        session: SessionNo,
        /// Which.
        sub: SubNo,
        /// On which queue.
        queue: Arc<str>,
    },
    /// `dedup_bytes_max` is reached: ids are forgotten before their window is over. Told once.
    DedupFull {
        /// Ids remembered.
        id_count: u64,
    },
    /// An occurrence of a schedule waits for room: of its queue, on the disk or in memory. Told once, until one comes again.
    OccurrenceWaits {
        /// On which queue.
        queue: Arc<str>,
    },
    /// Somebody asked for what the rules do not allow, or has lost the right to what it had. It ends the session, so this is
    /// told once of each.
    Denied {
        /// Whose.
        session: SessionNo,
        /// Whom it acts for.
        principal: Arc<Principal>,
        /// What was to be done.
        action: Action,
        /// With what, as rules write it.
        destination: Box<str>,
        /// The line of the rule that says so; `None`: no rule allows it.
        line: Option<usize>,
    },
    /// A topic subscription over its bound lost messages or was disconnected.
    SlowSubscriber {
        /// Whose.
        session: SessionNo,
        /// Which.
        sub: SubNo,
        /// On which topic.
        topic: Arc<str>,
        /// Messages dropped for it by this.
        dropped_count: u64,
    },
}

/// Counters since start; all only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Entries set aside because their bytes could not be read.
    pub set_aside_count: u64,
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
    /// Entries that made room for newer ones in a queue that was full.
    pub dropped_count: u64,
    /// Deliveries that were unsettled when their leases ran out; each is a failure too.
    pub lapsed_count: u64,
    /// Messages that were stored nowhere because they had been before.
    pub duplicate_count: u64,
    /// Deduplication ids forgotten before their window was over.
    pub dedup_forgotten_count: u64,
    /// Messages for temporary queues that were gone.
    pub late_reply_count: u64,
    /// Transactions committed.
    pub committed_count: u64,
    /// Transactions aborted, by ABORT or with their session.
    pub aborted_count: u64,
    /// Requests refused.
    pub refused_count: u64,
    /// What the rules did not allow, the ends of sessions that lost a right among them.
    pub denied_count: u64,
    /// Entries purged by an operator.
    pub purged_count: u64,
    /// Entries moved or requeued by an operator.
    pub moved_count: u64,
    /// Entries copied by an operator.
    pub copied_count: u64,
    /// Index chunks compacted (their live facts moved forward).
    pub compacted_count: u64,
}

impl Broker {
    /// Counters since start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The journal as the core sees it.
    pub fn ledger(&self) -> LedgerView {
        self.ledger.figures()
    }

    /// Every queue that has entries or subscriptions, by name.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        self.names
            .values()
            .filter_map(|no| self.queue(*no))
            .map(Queue::view)
    }

    /// The entries of a queue in order, from a queue sequence on. Empty for an unknown queue.
    pub fn entries(&self, queue: &str, from: u64) -> impl Iterator<Item = EntryView> {
        self.find_queue(queue)
            .into_iter()
            .flat_map(move |queue| queue.entries.range_from(from))
            .map(|(sequence, entry)| EntryView {
                sequence,
                message: entry.message,
                accepted_at_ms: entry.accepted_at_ms,
                body: entry.bytes.body(|slot| self.ledger.chunk_in(slot)),
                header_len: entry.header_len,
                len: entry.len,
                deliveries: entry.deliveries,
                failures: entry.failures,
                leased: entry.leased,
                set_aside: entry.set_aside,
                transient: entry.is_transient(),
                gate: entry.home,
                origin: entry.origin().map(str::to_owned),
                due_at_ms: entry.due_at_ms().filter(|_| entry.delayed),
                priority: entry.priority(),
                group: entry.group().cloned(),
                schedule: entry.schedule_view(),
                deaths: entry.deaths(),
            })
    }

    /// The facts that state the stored entries of a queue as they are, in order and each by its own: for a store that is
    /// written anew.
    pub fn statements(&self, queue: &str) -> impl Iterator<Item = (EntryView, Enqueued)> {
        let found = self.find_queue(queue);
        self.entries(queue, 0).filter_map(move |view| {
            let queue = found?;
            let entry = queue.entries.get(view.sequence)?;
            let place = entry.bytes.place(|slot| self.ledger.chunk_in(slot))?;
            let fact = Enqueued {
                queue: Arc::clone(&queue.name),
                first_sequence: view.sequence,
                first_message: entry.message,
                accepted_at_ms: entry.accepted_at_ms,
                place,
                items: vec![entry.item()],
                deliveries: entry.deliveries,
                failures: entry.failures,
                fields: entry.stated_fields().into_owned(),
            };
            Some((view, fact))
        })
    }

    /// A page of them. Costs a bounded time, as do all pages; what is held is looked at for each session as a whole.
    pub fn entries_page(&self, queue: &str, from: u64, count_max: usize) -> Page<EntryView, u64> {
        page(self.entries(queue, from), count_max, |entry| entry.sequence)
    }

    /// Queues by name, from a name on.
    pub fn queues_page(&self, from: &str, count_max: usize) -> Page<QueueView, Arc<str>> {
        let queues = self
            .names
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .filter_map(|(_, no)| self.queue(*no))
            .map(Queue::view);
        page(queues, count_max, |queue| Arc::clone(&queue.name))
    }

    /// One queue.
    pub fn queue_view(&self, name: &str) -> Option<QueueView> {
        self.find_queue(name).map(Queue::view)
    }

    /// The subscriptions on a queue, from a session on. A page ends with the session that fills it, and may end early:
    /// only so many sessions, and so many of their deliveries, are looked at.
    pub fn subscriptions_page(
        &self,
        queue: &str,
        from: SessionNo,
        count_max: usize,
        now: Now,
    ) -> Page<SubscriptionView, SessionNo> {
        let count_max = count_max.min(PAGE_COUNT_MAX);
        let mut items = Vec::new();
        let mut budget = LOOK_COUNT_MAX;
        let Some(&of) = self.names.get(queue) else {
            return Page { items, next: None };
        };
        for (session, peer) in self.peers.range(from..) {
            if budget == 0 || items.len() >= count_max {
                let next = Some(*session);
                return Page { items, next };
            }
            budget = budget.saturating_sub(1 + peer.subs.len());
            if peer.subs.values().any(|sub| sub.queue() == Some(of)) {
                budget = budget.saturating_sub(peer.held.len());
                let all = self.subscriptions_of(*session, peer, now);
                items.extend(all.filter_map(|(sub, view)| (sub.queue() == Some(of)).then_some(view)));
            }
        }
        Page { items, next: None }
    }

    /// Sessions by number, from a number on.
    pub fn sessions_page(&self, from: SessionNo, count_max: usize, now: Now) -> Page<SessionView, SessionNo> {
        let sessions = self
            .peers
            .range(from..)
            .map(|(session, peer)| peer.view(*session, now));
        page(sessions, count_max, |view| view.session)
    }

    /// One session with its subscriptions and transactions.
    pub fn session_detail(&self, session: SessionNo, now: Now) -> Option<SessionDetail> {
        let peer = self.peers.get(&session)?;
        let subscriptions = self
            .subscriptions_of(session, peer, now)
            .map(|(_, view)| view)
            .take(PAGE_COUNT_MAX)
            .collect();
        let transactions = peer
            .transactions
            .iter()
            .take(PAGE_COUNT_MAX)
            .map(|(tx, transaction)| TransactionView {
                tx: *tx,
                staged_frame_count: transaction.steps.len() as u64,
                staged_bytes: transaction.bytes as u64,
                open_ms: now.mono_ms.saturating_sub(transaction.since_ms),
            })
            .collect();
        Some(SessionDetail {
            session: peer.view(session, now),
            subscriptions,
            transactions,
        })
    }

    /// Topics by name, from a name on.
    pub fn topics_page(&self, from: &str, count_max: usize) -> Page<TopicView, Arc<str>> {
        let topics = self.routes.range_from(from).map(|(name, route)| TopicView {
            name: Arc::clone(name),
            subscription_count: route.subs.len() as u64,
            queue_count: route.queues.len() as u64,
        });
        page(topics, count_max, |topic| Arc::clone(&topic.name))
    }

    /// What the core holds in all.
    pub fn holdings(&self) -> HoldingsView {
        HoldingsView {
            queue_count: self.names.len() as u64,
            topic_count: self.routes.len() as u64,
            session_count: self.peers.len() as u64,
            transient_count: self.transient_count,
            transient_bytes: self.transient_bytes as u64,
            staged_bytes: self.staged_bytes as u64,
            schedule_count: self.schedule_count as u64,
            dedup_id_count: self.dedup.id_count,
            dedup_bytes: self.dedup.bytes as u64,
            unflushed_bytes: self.unflushed_bytes() as u64,
            purging_count: self.purged.iter().map(|entries| entries.len() as u64).sum(),
            room: self.room,
        }
    }

    /// The subscriptions of a session, with what each holds.
    fn subscriptions_of<'a>(
        &'a self,
        session: SessionNo,
        peer: &'a Peer,
        now: Now,
    ) -> impl Iterator<Item = (&'a Sub, SubscriptionView)> {
        let mut oldest: BTreeMap<SubNo, u64> = BTreeMap::new();
        for (_, held) in peer.held.iter().filter(|(_, held)| held.state == HeldState::Held) {
            oldest.entry(held.sub).or_insert(held.since_ms);
        }
        peer.subs.iter().map(move |(no, sub)| {
            let queue = sub.queue().and_then(|no| self.queue(no));
            let sub_ref = (session, *no);
            let (kind, name, backlog_count) = match &sub.source {
                Source::Queue(_) | Source::Browse(_) => {
                    let queue = queue.expect("it has a subscription");
                    let kind = match queue.owner {
                        Some(_) => DestinationKind::Temporary,
                        None => DestinationKind::Queue,
                    };
                    (kind, &queue.name, 0)
                }
                Source::Topic { name, backlog, .. } => (DestinationKind::Topic, name, backlog.len()),
            };
            let view = SubscriptionView {
                session,
                sub: *no,
                kind,
                name: Arc::clone(name),
                ack_mode: sub.ack_mode,
                selector: sub.filter.as_ref().map(|filter| Arc::clone(&filter.text)),
                prefetch_count: sub.prefetch_count,
                prefetch_bytes: sub.beyond.bytes_max(),
                credit: sub.beyond.asked(),
                held_count: sub.held_count,
                oldest_held_ms: oldest
                    .get(no)
                    .map(|since_ms| now.mono_ms.saturating_sub(*since_ms)),
                unsent_bytes: sub.unsent_bytes as u64,
                backlog_count: backlog_count as u64,
                stuck: sub.stuck_told,
                browser: sub.is_browser(),
                priority: sub.class.priority,
                exclusive: queue.is_some_and(|queue| queue.wants_all(sub_ref)),
                no_local: sub.no_local,
                group_count: queue.map_or(0, |queue| queue.group_count(sub_ref)),
            };
            (sub, view)
        })
    }

    /// Subscriptions on a destination.
    pub fn subscription_count(&self, kind: DestinationKind, name: &str) -> usize {
        match kind {
            DestinationKind::Queue | DestinationKind::Temporary => {
                self.find_queue(name).map_or(0, |queue| queue.sub_count)
            }
            DestinationKind::Topic => self.routes.get(name).map_or(0, |route| route.subs.len()),
        }
    }
}

impl Queue {
    fn view(&self) -> QueueView {
        let depth = self.entries.len() as u64;
        QueueView {
            name: Arc::clone(&self.name),
            depth,
            bytes: self.bytes,
            ready_count: depth - self.leased_count - self.set_aside_count - self.delayed_count,
            delayed_count: self.delayed_count,
            leased_count: self.leased_count,
            dead_letter_count: self.dead_letter_count,
            set_aside_count: self.set_aside_count,
            subscription_count: self.sub_count as u64,
            oldest_at_ms: self
                .entries
                .iter()
                .find(|(_, entry)| !entry.is_schedule())
                .map(|(_, entry)| entry.accepted_at_ms),
            next_sequence: self.next_sequence,
            paused: self.paused,
            owner: self.owner,
            topic: self.binding.clone(),
            selector: self
                .binding_filter
                .as_ref()
                .map(|filter| Arc::clone(&filter.text)),
            policy: Arc::clone(&self.policy),
            declared: self.declared.clone(),
            dedup_id_count: self.seen.as_ref().map_or(0, |ids| ids.len()),
            stuck_count: self.stuck_count as u64,
            counters: self.counters,
        }
    }
}

impl Peer {
    fn view(&self, session: SessionNo, now: Now) -> SessionView {
        let oldest = self
            .transactions
            .values()
            .map(|transaction| transaction.since_ms)
            .min();
        SessionView {
            session,
            subscription_count: self.subs.len() as u64,
            held_count: self.held_count(),
            transaction_count: self.transactions.len() as u64,
            staged_frame_count: self.staged_frame_count as u64,
            staged_bytes: self.staged_bytes as u64,
            oldest_transaction_ms: oldest.map(|since_ms| now.mono_ms.saturating_sub(since_ms)),
        }
    }
}

/// The first of a listing, up to a number of them, and where it goes on.
fn page<T, C>(
    mut listing: impl Iterator<Item = T>,
    count_max: usize,
    cursor: impl Fn(&T) -> C,
) -> Page<T, C> {
    let items = listing.by_ref().take(count_max.min(PAGE_COUNT_MAX)).collect();
    let next = listing.next().map(|first| cursor(&first));
    Page { items, next }
}
