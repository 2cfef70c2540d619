//! What is seen: the core's views, page by page, as the API's answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::api;
use crate::base::{
    Death, DestinationKind, MessageId, Policy, SETTINGS, SessionNo, Settings, TEMPORARY_QUEUE_PREFIX,
};
use crate::port::{
    AckMode, EntryView, PAGE_COUNT_MAX, QueueCounters, QueueView, Refusal, SessionView, SubscriptionView,
    TransactionView,
};
use crate::store;

use super::super::timings::HistogramView;
use super::Parts;
use super::problem::Problem;
use super::reader::{Filter, Groups, Seen, headers, read};

/// A queue whose name begins so gets what could not be delivered.
const DEAD_LETTER_PREFIX: &str = "DLQ.";

impl Parts {
    // ---- the broker ----

    pub(super) async fn status(&self, rate_ms: Option<u64>) -> api::Status {
        let before = self.shared.core.counters();
        let rates = match rate_ms {
            None => None,
            Some(ms) => {
                let seconds = self.pass(ms).await;
                let after = self.shared.core.counters();
                let rate = |after: u64, before: u64| per_second(after - before, seconds);
                Some(api::Rates {
                    in_per_second: rate(after.enqueued_count, before.enqueued_count),
                    out_per_second: rate(after.delivered_count, before.delivered_count),
                    accepted_per_second: rate(after.accepted_count, before.accepted_count),
                })
            }
        };
        let totals = self.totals(|_| {}).await;
        let holdings = self.shared.core.holdings();
        let now = self.shared.clock.now();
        let listen = self
            .listen
            .iter()
            .map(|listener| listener.address.to_string())
            .collect();
        let dialects = self
            .listen
            .iter()
            .map(|listener| listener.dialect.name().to_owned())
            .collect();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            store: self.shared.session.get().store.to_string(),
            epoch: self.shared.session.get().epoch.0,
            started_at_ms: now.wall_ms.saturating_sub(now.mono_ms),
            uptime_ms: now.mono_ms,
            data_dir: self.data_dir.display().to_string(),
            listen,
            dialects,
            metrics_listen: self.metrics_listen.map(|address| address.to_string()),
            health: self.health(),
            queue_count: holdings.queue_count,
            topic_count: holdings.topic_count,
            message_count: totals.message_count,
            message_bytes: totals.message_bytes,
            connection_count: self.shared.stats.connection_count.value(),
            subscription_count: totals.subscription_count,
            transaction_count: totals.transaction_count,
            transient_count: holdings.transient_count,
            transient_bytes: holdings.transient_bytes,
            staged_bytes: holdings.staged_bytes,
            memory_bytes_max: self.shared.session.get().limits.memory_bytes_max as u64,
            durable_seq: self.shared.core.durable().0,
            counters: self.counters(),
            rates,
        }
    }

    fn counters(&self) -> api::Counters {
        let core = self.shared.core.counters();
        let stats = self.shared.stats.view();
        api::Counters {
            enqueued_count: core.enqueued_count,
            delivered_count: core.delivered_count,
            accepted_count: core.accepted_count,
            failed_count: core.failed_count,
            released_count: core.released_count,
            dead_lettered_count: core.dead_lettered_count,
            topic_in_count: core.topic_in_count,
            topic_out_count: core.topic_out_count,
            topic_dropped_count: core.topic_dropped_count,
            occurrence_count: core.occurrence_count,
            expired_count: core.expired_count,
            dropped_count: core.dropped_count,
            duplicate_count: core.duplicate_count,
            dedup_forgotten_count: core.dedup_forgotten_count,
            late_reply_count: core.late_reply_count,
            committed_count: core.committed_count,
            aborted_count: core.aborted_count,
            refused_count: core.refused_count,
            purged_count: core.purged_count,
            moved_count: core.moved_count,
            copied_count: core.copied_count,
            connected_count: stats.accepted_count,
            turned_away_count: stats.turned_away_count,
            violation_count: stats.violation_count,
            in_bytes: stats.in_bytes,
            out_bytes: stats.out_bytes,
            commit_count: stats.commit_count,
        }
    }

    /// Sums over all queues and sessions, a page at a time; each queue is shown to `see`.
    pub(super) async fn totals(&self, mut see: impl FnMut(QueueView)) -> Totals {
        let mut totals = Totals::default();
        let mut from = Some(Arc::from(""));
        while let Some(name) = from {
            let page = self.shared.core.queues(&name, PAGE_COUNT_MAX);
            for queue in page.items {
                totals.message_count += queue.depth;
                totals.message_bytes += queue.bytes;
                totals.leased_count += queue.leased_count;
                totals.set_aside_count += queue.set_aside_count;
                totals.stuck_count += queue.stuck_count;
                totals.paused_count += u64::from(queue.paused);
                see(queue);
            }
            from = page.next;
            yield_now().await;
        }
        let now = self.shared.clock.now();
        let mut from = Some(SessionNo(0));
        while let Some(session) = from {
            let page = self.shared.core.sessions(session, PAGE_COUNT_MAX, now);
            for session in page.items {
                totals.subscription_count += session.subscription_count;
                totals.transaction_count += session.transaction_count;
            }
            from = page.next;
            yield_now().await;
        }
        totals
    }

    /// Lets time pass, and gives how much it was in seconds.
    async fn pass(&self, ms: u64) -> f64 {
        let began = self.shared.clock.elapsed();
        sleep(Duration::from_millis(ms)).await;
        (self.shared.clock.elapsed() - began).as_secs_f64()
    }

    pub(super) async fn store(&self) -> api::Store {
        let ledger = self.shared.core.ledger();
        let holdings = self.shared.core.holdings();
        let counters = self.shared.core.counters();
        let stats = self.shared.stats.view();
        let (store, data_dir) = (self.store.clone(), self.data_dir.clone());
        let looked =
            tokio::task::spawn_blocking(move || (store.stats().file_bytes, store::room(&data_dir).ok()));
        let (file_bytes, room) = looked.await.unwrap_or_default();
        let reserve = self.shared.session.get().limits.disk_free_bytes_min;
        api::Store {
            uuid: hex(&self.uuid),
            epoch: ledger.epoch.0,
            durable_seq: ledger.durable.0,
            file_bytes,
            live_bytes: ledger.held_bytes(),
            slot_count: u64::from(ledger.slot_count),
            free_slot_count: u64::from(ledger.free_slot_count),
            index_part_count: ledger.index_part_count,
            index_bytes: ledger.index_bytes,
            index_dead_bytes: ledger.index_dead_bytes,
            compacted_count: counters.compacted_count,
            purging_count: holdings.purging_count,
            unflushed_bytes: holdings.unflushed_bytes,
            disk_free_bytes: room.map(|room| room.free_bytes),
            disk_reserve_bytes: room.map(|room| room.reserve_bytes(reserve)),
            disk_room: holdings.room,
            body_hit_count: stats.body_hit_count,
            body_read_count: stats.body_read_count,
            commit: latency(&self.timings.commit.view()),
            flush: latency(&self.timings.flush.view()),
        }
    }

    // ---- queues ----

    pub(super) async fn queues(&self, query: QueuesPage) -> api::Queues {
        let first = self.queues_page(&query);
        let mut rates = HashMap::new();
        if let Some(ms) = query.rate_ms {
            let before: HashMap<_, _> = first
                .0
                .iter()
                .map(|queue| (queue.name.clone(), queue.counters))
                .collect();
            let seconds = self.pass(ms).await;
            for queue in self.queues_page(&query).0 {
                if let Some(before) = before.get(&queue.name) {
                    let rate = queue_rates(*before, queue.counters, seconds);
                    rates.insert(queue.name, rate);
                }
            }
        }
        let wall_ms = self.shared.clock.now().wall_ms;
        let queues = first
            .0
            .into_iter()
            .map(|view| {
                let rates = rates.get(&view.name).copied();
                queue(&view, wall_ms, rates)
            })
            .collect();
        api::Queues {
            queues,
            next: first.1,
        }
    }

    fn queues_page(&self, query: &QueuesPage) -> (Vec<QueueView>, Option<String>) {
        let from = query.from.as_str().max(query.prefix.as_str());
        let page = self.shared.core.queues(from, query.count);
        let within = |name: &str| name.starts_with(&query.prefix);
        let next = page.next.filter(|name| within(name)).map(|name| name.to_string());
        let mut items = page.items;
        items.retain(|queue| within(&queue.name));
        (items, next)
    }

    pub(super) async fn queue_detail(
        &self,
        name: &str,
        rate_ms: Option<u64>,
    ) -> Result<api::QueueDetail, Problem> {
        let core = &self.shared.core;
        let mut view = core.queue(name).ok_or(Refusal::QueueUnknown)?;
        let mut rates = None;
        if let Some(ms) = rate_ms {
            let before = view.counters;
            let seconds = self.pass(ms).await;
            view = core.queue(name).ok_or(Refusal::QueueUnknown)?;
            rates = Some(queue_rates(before, view.counters, seconds));
        }
        let now = self.shared.clock.now();
        let mut subscriptions = Vec::new();
        let mut from = Some(SessionNo(0));
        while let Some(session) = from
            && subscriptions.len() < PAGE_COUNT_MAX
        {
            let count_max = PAGE_COUNT_MAX - subscriptions.len();
            let page = core.queue_subscriptions(name, session, count_max, now);
            subscriptions.extend(page.items.iter().map(|view| self.subscription(view)));
            from = page.next;
            yield_now().await;
        }
        // The last session may have brought more than were asked for.
        subscriptions.truncate(PAGE_COUNT_MAX);
        Ok(api::QueueDetail {
            queue: queue(&view, now.wall_ms, rates),
            policy: policy(&view.policy),
            declared: settings(&view.declared),
            subscriptions,
        })
    }

    pub(super) fn policies(&self) -> api::Policies {
        let policies = self.shared.core.policies().into_iter();
        api::Policies {
            policies: policies
                .map(|view| api::Policy {
                    pattern: view.pattern.to_string(),
                    settings: settings(&view.settings),
                    stored: view.stored,
                })
                .collect(),
        }
    }

    pub(super) fn topics(&self, from: &str, count: usize) -> api::Topics {
        let page = self.shared.core.topics(from, count);
        let topics = page.items.into_iter().map(|topic| api::Topic {
            name: topic.name.to_string(),
            subscription_count: topic.subscription_count,
            queue_count: topic.queue_count,
        });
        api::Topics {
            topics: topics.collect(),
            next: page.next.map(|name| name.to_string()),
        }
    }

    // ---- messages ----

    pub(super) async fn messages(&self, name: &str, wanted: MessagesPage) -> Result<api::Messages, Problem> {
        self.shared.core.queue(name).ok_or(Refusal::QueueUnknown)?;
        let _turn = self.looks.acquire().await;
        let mut messages = Vec::new();
        let (mut from, mut scan_left, mut bytes_left) =
            (wanted.from, api::SCAN_COUNT_MAX, api::PAGE_BODY_BYTES_MAX);
        loop {
            let count_max = if wanted.filter.is_empty() {
                wanted.count - messages.len()
            } else {
                PAGE_COUNT_MAX
            };
            let page = self.shared.core.entries(name, from, count_max);
            let mut groups = Groups::of(page.items);
            loop {
                let group = groups.next(|entry| match wanted.filter.is_empty() {
                    true => shown_bytes(entry, wanted.body),
                    false => entry.header_len as usize,
                });
                if group.is_empty() {
                    break;
                }
                for seen in read(&self.shared, name, group).await {
                    let sequence = match &seen {
                        Seen::Gone => continue,
                        Seen::Read(entry, _) | Seen::Faulty(entry, _) => entry.sequence,
                    };
                    if messages.len() == wanted.count || scan_left == 0 || bytes_left == 0 {
                        let next = Some(sequence);
                        return Ok(api::Messages { messages, next });
                    }
                    scan_left -= 1;
                    let Some(message) = self.shown(name, seen, &wanted).await else {
                        continue;
                    };
                    bytes_left = bytes_left.saturating_sub(weight(&message));
                    messages.push(message);
                }
            }
            match page.next {
                Some(next) if messages.len() < wanted.count => from = next,
                next => return Ok(api::Messages { messages, next }),
            }
            yield_now().await;
        }
    }

    /// A message as it is shown, if the filter takes it.
    async fn shown(&self, queue: &str, seen: Seen, wanted: &MessagesPage) -> Option<api::Message> {
        let seen = match seen {
            Seen::Read(entry, bytes) if !wanted.filter.is_empty() => {
                if !wanted.filter.takes(&headers(&bytes)) {
                    return None;
                }
                match shown_bytes(&entry, wanted.body) {
                    // Nothing but the headers is wanted, and they were read.
                    count if count == bytes.len() => Seen::Read(entry, bytes),
                    count => read(&self.shared, queue, vec![(entry, count)]).await.pop()?,
                }
            }
            // What cannot be read has no headers to be chosen by.
            Seen::Faulty(..) if !wanted.filter.is_empty() => return None,
            seen => seen,
        };
        let (entry, bytes, fault) = match seen {
            Seen::Read(entry, bytes) => (entry, bytes, None),
            Seen::Faulty(entry, fault) => (entry, Vec::new(), Some(fault)),
            Seen::Gone => return None,
        };
        let header_len = entry.header_len as usize;
        let body_bytes = u64::from(entry.len - entry.header_len);
        let block = bytes.get(..header_len).unwrap_or_default();
        let body = match wanted.body {
            api::BodyPart::None => None,
            _ if fault.is_some() => None,
            _ => {
                let part = bytes.get(header_len..).unwrap_or_default();
                Some(api::Body::of(part, (part.len() as u64) < body_bytes))
            }
        };
        Some(api::Message {
            sequence: entry.sequence,
            message_id: self.message_id(entry.message),
            state: match (entry.leased, entry.set_aside) {
                (true, _) => "leased",
                (_, true) => "set-aside",
                _ if entry.due_at_ms.is_some() => "delayed",
                _ => "ready",
            }
            .to_owned(),
            accepted_at_ms: entry.accepted_at_ms,
            bytes: u64::from(entry.len),
            body_bytes,
            deliveries: entry.deliveries,
            failures: entry.failures,
            transient: entry.transient,
            headers: headers(block),
            body,
            fault,
            origin: entry.origin,
            due_at_ms: entry.due_at_ms,
            priority: entry.priority,
            group: entry
                .group
                .as_deref()
                .map(|group| String::from_utf8_lossy(group).into_owned()),
            schedule: entry.schedule.map(|schedule| api::Schedule {
                period_ms: schedule.period_ms,
                last_due_at_ms: schedule.last_due_at_ms,
                cron: schedule.cron,
            }),
            history: entry.deaths.iter().map(death).collect(),
        })
    }

    /// As in the header `message-id`.
    fn message_id(&self, message: MessageId) -> String {
        let (epoch, number) = message.parts();
        format!("{}-{epoch}-{number}", self.shared.session.get().store)
    }

    // ---- connections ----

    pub(super) fn connections(&self, from: u64, count: usize) -> api::Connections {
        let now = self.shared.clock.now();
        let page = self.shared.core.sessions(SessionNo(from), count, now);
        api::Connections {
            connections: page.items.iter().map(|view| self.connection(view)).collect(),
            next: page.next.map(|session| session.0),
        }
    }

    pub(super) fn connection_detail(&self, session: SessionNo) -> Result<api::ConnectionDetail, Problem> {
        let now = self.shared.clock.now();
        let detail = self
            .shared
            .core
            .session(session, now)
            .ok_or(Refusal::SessionUnknown)?;
        Ok(api::ConnectionDetail {
            connection: self.connection(&detail.session),
            subscriptions: detail
                .subscriptions
                .iter()
                .map(|view| self.subscription(view))
                .collect(),
            transactions: detail
                .transactions
                .iter()
                .map(|view| self.transaction(session, view))
                .collect(),
        })
    }

    pub(super) async fn transactions(&self, from: u64, count: usize) -> api::Transactions {
        let now = self.shared.clock.now();
        let mut transactions = Vec::new();
        let mut from = Some(SessionNo(from));
        while let Some(session) = from {
            let page = self.shared.core.sessions(session, PAGE_COUNT_MAX, now);
            for view in page.items.iter().filter(|view| view.transaction_count > 0) {
                if transactions.len() >= count {
                    let next = Some(view.session.0);
                    return api::Transactions { transactions, next };
                }
                let detail = self.shared.core.session(view.session, now);
                let of = detail.map(|detail| detail.transactions).unwrap_or_default();
                transactions.extend(of.iter().map(|of| self.transaction(view.session, of)));
            }
            from = page.next;
            yield_now().await;
        }
        api::Transactions {
            transactions,
            next: None,
        }
    }

    fn connection(&self, view: &SessionView) -> api::Connection {
        let present = self.shared.presence.find(view.session);
        let present = present.as_deref();
        let version = present.and_then(|present| present.version.get());
        let user = present.and_then(|present| present.user.get());
        api::Connection {
            session: view.session.0,
            peer: present.map(|present| present.peer.to_string()),
            connected_at_ms: present.map(|present| present.connected_at_ms),
            version: version.map(|version| version.as_str().to_owned()),
            user: user.map(|user| user.to_string()),
            in_bytes: present.map_or(0, |present| present.in_bytes.value()),
            out_bytes: present.map_or(0, |present| present.out_bytes.value()),
            subscription_count: view.subscription_count,
            held_count: view.held_count,
            transaction_count: view.transaction_count,
            staged_frame_count: view.staged_frame_count,
            staged_bytes: view.staged_bytes,
        }
    }

    fn subscription(&self, view: &SubscriptionView) -> api::Subscription {
        let kind = match view.kind {
            DestinationKind::Queue => "queue",
            DestinationKind::Topic => "topic",
            DestinationKind::Temporary => "reply-queue",
        };
        let name = view
            .name
            .strip_prefix(TEMPORARY_QUEUE_PREFIX)
            .filter(|_| kind == "reply-queue");
        let name = name.unwrap_or(&view.name);
        let ack = match view.ack_mode {
            AckMode::Auto => "auto",
            AckMode::Client => "client",
            AckMode::ClientIndividual => "client-individual",
        };
        api::Subscription {
            session: view.session.0,
            peer: self.peer(view.session),
            sub: view.sub.0,
            destination: format!("/{kind}/{name}"),
            ack: ack.to_owned(),
            selector: view.selector.as_deref().map(str::to_owned),
            prefetch_count: view.prefetch_count,
            prefetch_bytes: view.prefetch_bytes,
            credit: view.credit,
            held_count: u64::from(view.held_count),
            oldest_held_ms: view.oldest_held_ms,
            unsent_bytes: view.unsent_bytes,
            backlog_count: view.backlog_count,
            stuck: view.stuck,
            browser: view.browser,
            priority: view.priority,
            exclusive: view.exclusive,
            no_local: view.no_local,
            group_count: view.group_count,
        }
    }

    fn transaction(&self, session: SessionNo, view: &TransactionView) -> api::Transaction {
        api::Transaction {
            session: session.0,
            peer: self.peer(session),
            tx: view.tx.0,
            staged_frame_count: view.staged_frame_count,
            staged_bytes: view.staged_bytes,
            open_ms: view.open_ms,
        }
    }

    fn peer(&self, session: SessionNo) -> Option<String> {
        self.shared
            .presence
            .find(session)
            .map(|present| present.peer.to_string())
    }
}

/// Sums over queues and sessions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) message_count: u64,
    pub(super) message_bytes: u64,
    pub(super) leased_count: u64,
    pub(super) set_aside_count: u64,
    pub(super) stuck_count: u64,
    pub(super) paused_count: u64,
    pub(super) subscription_count: u64,
    pub(super) transaction_count: u64,
}

/// What was asked of the list of queues.
#[derive(Debug)]
pub(super) struct QueuesPage {
    pub(super) from: String,
    pub(super) count: usize,
    pub(super) prefix: String,
    pub(super) rate_ms: Option<u64>,
}

/// What was asked of the messages of a queue.
#[derive(Debug)]
pub(super) struct MessagesPage {
    pub(super) from: u64,
    pub(super) count: usize,
    pub(super) filter: Filter,
    pub(super) body: api::BodyPart,
}

fn death(death: &Death) -> api::Death {
    api::Death {
        queue: death.queue.to_string(),
        reason: death.reason.name().to_owned(),
        at_ms: death.at_ms,
        failures: death.failures,
        deliveries: death.deliveries,
        text: Some(death.words.to_string()).filter(|text| !text.is_empty()),
    }
}

fn settings(settings: &Settings) -> BTreeMap<String, Value> {
    let named = settings.iter();
    named
        .map(|(key, value)| (key.name.to_owned(), api::setting_json(value)))
        .collect()
}

fn policy(policy: &Policy) -> BTreeMap<String, Value> {
    let named = SETTINGS.iter();
    named
        .map(|key| (key.name.to_owned(), api::setting_json(&key.of(policy))))
        .collect()
}

fn queue(view: &QueueView, wall_ms: u64, rates: Option<api::Rates>) -> api::Queue {
    api::Queue {
        name: view.name.to_string(),
        depth: view.depth,
        bytes: view.bytes,
        ready_count: view.ready_count,
        leased_count: view.leased_count,
        set_aside_count: view.set_aside_count,
        delayed_count: view.delayed_count,
        subscription_count: view.subscription_count,
        oldest_at_ms: view.oldest_at_ms,
        oldest_ms: view.oldest_at_ms.map(|at_ms| wall_ms.saturating_sub(at_ms)),
        paused: view.paused,
        owner: view.owner.map(|session| session.0),
        topic: view.topic.as_deref().map(str::to_owned),
        selector: view.selector.as_deref().map(str::to_owned),
        dead_letter: view.dead_letter_count > 0 || view.name.starts_with(DEAD_LETTER_PREFIX),
        stuck_count: view.stuck_count,
        next_sequence: view.next_sequence,
        in_count: view.counters.in_count,
        out_count: view.counters.out_count,
        accepted_count: view.counters.accepted_count,
        failed_count: view.counters.failed_count,
        dead_lettered_count: view.counters.dead_lettered_count,
        expired_count: view.counters.expired_count,
        dropped_count: view.counters.dropped_count,
        dedup_id_count: view.dedup_id_count,
        duplicate_count: view.counters.duplicate_count,
        rates,
    }
}

/// A queue that went and came back between two looks counts from 0 again.
fn queue_rates(before: QueueCounters, after: QueueCounters, seconds: f64) -> api::Rates {
    let rate = |after: u64, before: u64| per_second(after.checked_sub(before).unwrap_or(after), seconds);
    api::Rates {
        in_per_second: rate(after.in_count, before.in_count),
        out_per_second: rate(after.out_count, before.out_count),
        accepted_per_second: rate(after.accepted_count, before.accepted_count),
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// How many of its first bytes are shown.
fn shown_bytes(entry: &EntryView, part: api::BodyPart) -> usize {
    let body = match part {
        api::BodyPart::None => 0,
        api::BodyPart::Preview => api::PREVIEW_BYTES,
        api::BodyPart::Whole => api::BODY_BYTES_MAX,
    };
    (entry.header_len as usize)
        .saturating_add(body)
        .min(entry.len as usize)
}

/// Bytes of a message that are shown, about.
fn weight(message: &api::Message) -> usize {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    headers + message.body.as_ref().map_or(0, |body| body.data.len())
}

fn latency(view: &HistogramView) -> api::Latency {
    let count = view.count();
    let ms = |us: u64| us as f64 / 1_000.0;
    api::Latency {
        count,
        mean_ms: if count > 0 {
            ms(view.sum_us) / count as f64
        } else {
            0.0
        },
        p50_ms: ms(view.permille_us(500)),
        p99_ms: ms(view.permille_us(990)),
        max_ms: ms(view.max_us),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
