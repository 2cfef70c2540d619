//! What holds for which queue: the policies of the configuration, those that an operator stated, and what queues declare of
//! themselves.
//!
//! # Invariants
//! - What an operator stated for a pattern is stored, and counts instead of what the configuration states for the same one.
//! - What a queue declares of itself counts before every policy.

use std::sync::Arc;

use crate::base::{Limits, Now, Policies, Seq, Settings};
use crate::journal::Fact;
use crate::port::{PolicyView, Refusal};

use super::Broker;
use super::ledger::Mark;
use super::queue::{Queue, QueueNo};

/// The place of a stored policy in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PolicyNo(usize);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct PolicyBook {
    configured: Policies,
    stored: Vec<Option<Stored>>,
    in_force: Policies,
}

#[derive(Debug)]
struct Stored {
    pattern: Arc<str>,
    settings: Settings,
    /// The last batch that states it.
    stated_at: Seq,
}

impl PolicyBook {
    pub(super) fn new(configured: Policies) -> Self {
        let mut book = Self {
            configured,
            ..Self::default()
        };
        book.renew();
        book
    }

    fn renew(&mut self) {
        self.in_force = self.configured.clone();
        for stored in self.stored.iter().flatten() {
            self.in_force.insert(&stored.pattern, stored.settings.clone());
        }
    }

    /// What holds for a queue of this name.
    pub(super) fn of(&self, name: &str, declared: &Settings) -> Arc<crate::base::Policy> {
        self.in_force.of(name, declared)
    }

    fn find(&self, pattern: &str) -> Option<PolicyNo> {
        let is_it = |stored: &Option<Stored>| {
            let stored = stored.as_ref();
            stored.is_some_and(|stored| Policies::is_same(&stored.pattern, pattern))
        };
        self.stored.iter().position(is_it).map(PolicyNo)
    }

    /// Stores what a pattern states from a batch on, or that it states nothing. Gives its place, if it has one.
    fn put(&mut self, pattern: &Arc<str>, settings: Option<Settings>, stated_at: Seq) -> Option<PolicyNo> {
        let there = self.find(pattern);
        let Some(settings) = settings else {
            if let Some(place) = there.and_then(|no| self.stored.get_mut(no.0)) {
                *place = None;
            }
            return None;
        };
        let no = there.unwrap_or_else(|| {
            let free = self.stored.iter().position(Option::is_none);
            PolicyNo(free.unwrap_or_else(|| {
                self.stored.push(None);
                self.stored.len() - 1
            }))
        });
        let place = self.stored.get_mut(no.0).expect("it was just made or found");
        *place = Some(Stored {
            pattern: Arc::clone(pattern),
            settings,
            stated_at,
        });
        Some(no)
    }

    /// Takes a fact of the journal.
    pub(super) fn recover(
        &mut self,
        pattern: &Arc<str>,
        settings: Option<Settings>,
        seq: Seq,
    ) -> Option<Mark> {
        let mark = self.put(pattern, settings, seq).map(Mark::Policy);
        self.renew();
        mark
    }

    /// Whether the policy in this place stands in this batch and in no later one.
    pub(super) fn is_live(&self, no: PolicyNo, seq: Seq) -> bool {
        let stored = self.stored.get(no.0).and_then(Option::as_ref);
        stored.is_some_and(|stored| stored.stated_at == seq)
    }

    /// The fact of a policy, stated again in a batch.
    pub(super) fn restate(&mut self, no: PolicyNo, seq: Seq) -> Fact {
        let stored = self.stored.get_mut(no.0).and_then(Option::as_mut);
        let stored = stored.expect("the policy was just seen");
        stored.stated_at = seq;
        Fact::Policy {
            pattern: Arc::clone(&stored.pattern),
            settings: Some(stored.settings.clone()),
        }
    }

    fn stored_count(&self) -> usize {
        self.stored.iter().flatten().count()
    }
}

impl Broker {
    /// What the configuration states from now on, also for queues that are.
    pub fn handle_policies(&mut self, configured: Policies, now: Now) {
        self.now = now;
        self.policies.configured = configured;
        self.renew_policies(now);
    }

    /// What bounds requests from now on. Those that size something when a broker is made (`commit_bytes_max`,
    /// `group_count_max`) must be as they were.
    pub fn handle_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn renew_policies(&mut self, now: Now) {
        self.policies.renew();
        for queue in self.queues.iter_mut().flatten() {
            queue.policy = self.policies.of(&queue.name, &queue.declared);
        }
        let all: Vec<QueueNo> = self.names.values().copied().collect();
        for no in all {
            self.watch_bound(no);
            self.mark_dirty(no);
        }
        self.dispatch(now);
    }

    /// How many queues there are for which an act would change what holds; or why it is refused.
    pub(super) fn plan_policy(&self, pattern: &str, settings: Option<&Settings>) -> Result<u64, Refusal> {
        match (self.policies.find(pattern), settings) {
            (None, None) => return Err(Refusal::PolicyUnknown),
            (None, Some(_)) if self.policies.stored_count() >= self.limits.policy_count_max => {
                return Err(Refusal::TooManyPolicies);
            }
            (_, Some(_)) if !self.room => return Err(Refusal::DiskFull),
            _ => {}
        }
        let mut after = self.policies.in_force.clone();
        match settings {
            Some(settings) => after.insert(pattern, settings.clone()),
            None => {
                after.remove(pattern);
                let same = |(of, _): &(&Arc<str>, &Settings)| Policies::is_same(of, pattern);
                if let Some((of, settings)) = self.policies.configured.iter().find(same) {
                    after.insert(of, settings.clone());
                }
            }
        }
        let changes = |queue: &&Queue| *after.of(&queue.name, &queue.declared) != *queue.policy;
        Ok(self.queues.iter().flatten().filter(changes).count() as u64)
    }

    /// States what holds for queues of a pattern; `None`: what the configuration says.
    pub(super) fn state_policy(&mut self, pattern: &Arc<str>, settings: Option<&Settings>, now: Now) {
        let seq = self.ledger.seq();
        let stored = self.policies.put(pattern, settings.cloned(), seq);
        self.ledger.state_policy(
            stored,
            Fact::Policy {
                pattern: Arc::clone(pattern),
                settings: settings.cloned(),
            },
        );
        self.renew_policies(now);
    }

    /// Every policy in force, the most specific first.
    pub fn policies(&self) -> Vec<PolicyView> {
        let in_force = self.policies.in_force.iter();
        in_force
            .map(|(pattern, settings)| PolicyView {
                pattern: Arc::clone(pattern),
                settings: settings.clone(),
                stored: self.policies.find(pattern).is_some(),
            })
            .collect()
    }

    /// What a queue declares of itself. Gives the Seq that states it; or refuses what differs from what it declared before.
    pub(super) fn declare(&mut self, name: &str, settings: &Settings) -> Result<Seq, Refusal> {
        if let Some(queue) = self.find_queue(name) {
            if queue.owner.is_some() {
                return Err(Refusal::QueuePrivate);
            }
            if queue.declared == *settings {
                return Ok(queue.declared_at);
            }
            if !queue.declared.is_empty() {
                return Err(Refusal::DeclarationDiffers);
            }
        }
        if !self.room {
            return Err(Refusal::DiskFull);
        }
        if self.declared_count >= self.limits.declared_queue_count_max {
            return Err(Refusal::TooManyDeclared);
        }
        let no = self.open_queue(name);
        self.set_declared(no, settings.clone());
        self.state_mark(Mark::Declared(no));
        self.mark_dirty(no);
        Ok(self.ledger.gate())
    }

    /// What a queue declares of itself from now on, in memory.
    pub(super) fn set_declared(&mut self, no: QueueNo, settings: Settings) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("the queue was just opened");
        self.declared_count += usize::from(!settings.is_empty());
        self.declared_count -= usize::from(!queue.declared.is_empty());
        queue.policy = self.policies.of(&queue.name, &settings);
        queue.declared = settings;
    }
}
