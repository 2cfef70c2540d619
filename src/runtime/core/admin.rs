//! The core behind its lock, for an operator: looks that hold the lock for a page at most, and acts.
//!
//! An act is told as done only after [`Core::wait_durable`] of its gate.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::base::{ChunkRef, Now, Policies, Rules, Seq, SessionNo, SlotNo};
use crate::broker::{BackupPoint, LedgerView};
use crate::port::{
    Act, Acted, EntryView, HoldingsView, Page, PolicyView, QueueView, Refusal, SessionDetail, SessionView,
    SubscriptionView, TopicView,
};

use super::{Core, DurableWait};

impl Core {
    /// Does what an operator asks for, or refuses it. The work of a large act is done in one go: about 200 ns for each
    /// message moved or copied, next to nothing for a purge of a whole queue.
    pub(crate) fn act(&self, act: &Act) -> Result<Acted, Refusal> {
        let (mut state, now) = self.lock_now();
        let acted = state.broker.handle_act(act, now);
        self.finish(state, None, Vec::new());
        acted
    }

    /// What an act would be answered now. Does nothing.
    pub(crate) fn preview(&self, act: &Act) -> Result<Acted, Refusal> {
        self.lock().broker.preview(act)
    }

    /// Returns once a Seq is durable. If it never will be, the process ends: a flush has failed.
    pub(crate) async fn wait_durable(&self, seq: Seq) {
        poll_fn(|cx| {
            if self.durable() >= seq {
                return Poll::Ready(());
            }
            let mut state = self.lock();
            // Looked at again under the lock under which the committer wakes: no wake is lost.
            if self.durable() >= seq {
                return Poll::Ready(());
            }
            let waker = cx.waker();
            let mut known = state.durable_waits.iter();
            if !known.any(|wait| wait.seq == seq && wait.waker.will_wake(waker)) {
                let waker = waker.clone();
                state.durable_waits.push(DurableWait { seq, waker });
            }
            Poll::Pending
        })
        .await;
    }

    /// Begins a backup of everything up to now; `None` while there is another.
    pub(crate) fn begin_backup(&self) -> Option<BackupPoint> {
        let mut state = self.lock();
        let point = state.broker.begin_backup();
        self.finish(state, None, Vec::new());
        point
    }

    /// The backup has read the index.
    pub(crate) fn end_backup_index(&self) {
        self.lock().broker.end_backup_index();
    }

    /// Body chunks that the backup is to read, from a slot on; those before were read.
    pub(crate) fn backup_chunks(&self, from: SlotNo, count_max: usize) -> Page<ChunkRef, SlotNo> {
        self.lock().broker.backup_chunks(from, count_max)
    }

    /// The backup has ended, however.
    pub(crate) fn end_backup(&self) {
        self.lock().broker.end_backup();
    }

    /// Queues by name, from a name on.
    pub(crate) fn queues(&self, from: &str, count_max: usize) -> Page<QueueView, Arc<str>> {
        self.lock().broker.queues_page(from, count_max)
    }

    /// One queue.
    pub(crate) fn queue(&self, name: &str) -> Option<QueueView> {
        self.lock().broker.queue_view(name)
    }

    /// The subscriptions on a queue, from a session on.
    pub(crate) fn queue_subscriptions(
        &self,
        name: &str,
        from: SessionNo,
        count_max: usize,
        now: Now,
    ) -> Page<SubscriptionView, SessionNo> {
        self.lock().broker.subscriptions_page(name, from, count_max, now)
    }

    /// The entries of a queue, from a queue sequence on.
    pub(crate) fn entries(&self, name: &str, from: u64, count_max: usize) -> Page<EntryView, u64> {
        self.lock().broker.entries_page(name, from, count_max)
    }

    /// Sessions by number, from a number on.
    pub(crate) fn sessions(
        &self,
        from: SessionNo,
        count_max: usize,
        now: Now,
    ) -> Page<SessionView, SessionNo> {
        self.lock().broker.sessions_page(from, count_max, now)
    }

    /// One session with its subscriptions and transactions.
    pub(crate) fn session(&self, session: SessionNo, now: Now) -> Option<SessionDetail> {
        self.lock().broker.session_detail(session, now)
    }

    /// Topics by name, from a name on.
    pub(crate) fn topics(&self, from: &str, count_max: usize) -> Page<TopicView, Arc<str>> {
        self.lock().broker.topics_page(from, count_max)
    }

    /// Every policy in force, the most specific first.
    pub(crate) fn policies(&self) -> Vec<PolicyView> {
        self.lock().broker.policies()
    }

    /// What the configuration states from now on.
    pub(crate) fn handle_policies(&self, configured: Policies) {
        let (mut state, now) = self.lock_now();
        state.broker.handle_policies(configured, now);
        self.finish(state, None, Vec::new());
    }

    /// Who may do what from now on.
    pub(crate) fn handle_rules(&self, rules: Arc<Rules>) {
        let (mut state, now) = self.lock_now();
        state.broker.handle_rules(rules, now);
        self.finish(state, None, Vec::new());
    }

    /// What the core holds in all.
    pub(crate) fn holdings(&self) -> HoldingsView {
        self.lock().broker.holdings()
    }

    /// The journal as the core sees it.
    pub(crate) fn ledger(&self) -> LedgerView {
        self.lock().broker.ledger()
    }
}
