//! Which frame needs which right, and what becomes of those who have lost one.
//!
//! | request | needs |
//! | --- | --- |
//! | SEND to a queue, a topic | `send` on it; of several, on each |
//! | SEND to a temporary queue of another session | `send` on it, by its own name |
//! | COMMIT | what its SENDs need, again |
//! | SUBSCRIBE to a queue; that only looks | `receive` on it; `browse` |
//! | SUBSCRIBE to a topic; to a pattern of topics | `receive` on it; on some topic of the pattern, and each message is judged by its own topic |
//! | SUBSCRIBE to a queue that keeps a topic | `receive` (`browse`) on the queue, and `receive` on all that it keeps |
//! | any of these that makes a queue, or binds it | `create` on it besides |
//! | a declaration | `create` on the queue, and `send` on the queue that it names for dead letters, which it may make |
//! | UNSUBSCRIBE of a durable subscription for good | `receive` and `create` on its queue |
//! | SUBSCRIBE to, or `reply-to` of, a temporary queue of one's own | `create` on it, by its own name, where it makes it |
//!
//! All others are about what the session has already: its deliveries, its subscriptions, its transactions.
//!
//! # Invariants
//! - A request is judged before anything is looked up for it: what is denied says nothing of what there is.
//! - What the broker does of its own (dead letters, expiry, what is due) needs nobody's right.
//! - A verdict is remembered until rules or principal change, and no longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{
    Action, Actions, Decision, DestinationKind, Now, Policy, Principal, Rules, SessionNo, Setting,
    SettingForm, Settings, SubNo, TxNo, Wildcards, written,
};
use crate::port::{Binding, MissingRight, Refusal, Request, Requests, Subscribe, Target};

use super::peer::{Source, Step, Sub};
use super::request::{targets, temporary};
use super::{Broker, Notice};

/// Names of one kind of which a session's verdicts are remembered; beyond it they are all forgotten. So what a session costs by
/// this is some 40 KiB at most.
const VERDICT_COUNT_MAX: usize = 64;
/// Longer ones are judged each time.
const VERDICT_NAME_BYTES_MAX: usize = 255;

/// What the rules said to a session.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    queues: BTreeMap<Box<str>, Verdict>,
    topics: BTreeMap<Box<str>, Verdict>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    asked: Actions,
    allowed: Actions,
}

impl Verdicts {
    /// The verdict of this name, made by the rules if it is not remembered. Those of temporary queues are not.
    fn ask(
        &mut self,
        action: Action,
        kind: DestinationKind,
        name: &str,
        decide: impl FnOnce() -> bool,
    ) -> bool {
        let of = match kind {
            DestinationKind::Queue => &mut self.queues,
            DestinationKind::Topic => &mut self.topics,
            DestinationKind::Temporary => return decide(),
        };
        if name.len() > VERDICT_NAME_BYTES_MAX {
            return decide();
        }
        if let Some(known) = of.get(name)
            && known.asked.contains(action)
        {
            return known.allowed.contains(action);
        }
        let allowed = decide();
        if of.len() >= VERDICT_COUNT_MAX && !of.contains_key(name) {
            of.clear();
        }
        let known = of.entry(name.into()).or_default();
        known.asked.insert(action);
        if allowed {
            known.allowed.insert(action);
        }
        allowed
    }

    #[cfg(test)]
    pub(super) fn name_count(&self) -> usize {
        self.queues.len()
    }
}

/// How much of what a name means must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It is one name.
    One,
    /// It is a pattern: some of it.
    Some,
    /// It is a pattern: all of it.
    All,
}

/// A right that something needs.
#[derive(Debug, Clone)]
struct Need {
    action: Action,
    kind: DestinationKind,
    name: Box<str>,
    extent: Extent,
}

impl Need {
    fn one(action: Action, kind: DestinationKind, name: &str) -> Self {
        Self {
            action,
            kind,
            name: name.into(),
            extent: Extent::One,
        }
    }

    fn queue(action: Action, name: &str) -> Self {
        Self::one(action, DestinationKind::Queue, name)
    }

    /// To receive a topic, or what a pattern of topics means, as far as `extent` says.
    fn topics(name: &str, extent: Extent) -> Self {
        let extent = match Wildcards::of(name) {
            Wildcards::None => Extent::One,
            Wildcards::Valid | Wildcards::Misplaced => extent,
        };
        Self {
            extent,
            ..Self::one(Action::Receive, DestinationKind::Topic, name)
        }
    }
}

impl Broker {
    /// What holds from now on, also for sessions that are. Those with a subscription whose right is gone are ended; one to a
    /// pattern of topics keeps of what waits for it what may still be received.
    pub fn handle_rules(&mut self, rules: Arc<Rules>, now: Now) {
        self.now = now;
        self.rules = rules;
        for peer in self.peers.values_mut() {
            peer.verdicts = Verdicts::default();
        }
        if self.rules.is_empty() {
            return;
        }
        let sessions: Vec<SessionNo> = self.peers.keys().copied().collect();
        for session in sessions {
            if let Some((need, decision)) = self.lost(session) {
                self.note_denied(session, &need, decision);
                self.evict(session, Refusal::AccessDenied);
            }
            self.withdraw(session);
        }
        self.dispatch(now);
    }

    /// Takes back what waits for a session's subscriptions and may be received no longer.
    fn withdraw(&mut self, session: SessionNo) {
        let Self {
            peers,
            rules,
            backlog_bytes: all_bytes,
            ..
        } = self;
        let Some(peer) = peers.get_mut(&session) else {
            return;
        };
        let (action, kind) = (Action::Receive, DestinationKind::Topic);
        for sub in peer.subs.values_mut() {
            let Source::Topic {
                backlog,
                backlog_bytes,
                ..
            } = &mut sub.source
            else {
                continue;
            };
            backlog.retain(|(topic, message)| {
                let stays = peer.verdicts.ask(action, kind, topic, || {
                    rules.decide(&peer.principal, action, kind, topic).allowed
                });
                if !stays {
                    *backlog_bytes -= message.bytes.len();
                    *all_bytes -= message.bytes.len();
                }
                stays
            });
        }
    }

    /// A session acts for somebody from now on; what it has must be allowed to that one, too.
    pub(super) fn act_for(&mut self, session: SessionNo, principal: &Arc<Principal>) -> Result<(), Refusal> {
        let peer = self.peer(session);
        peer.principal = Arc::clone(principal);
        peer.verdicts = Verdicts::default();
        match self.lost(session) {
            Some((need, decision)) => Err(self.deny(session, &need, decision)),
            None => {
                self.withdraw(session);
                Ok(())
            }
        }
    }

    /// A right to one of its subscriptions that a session has no longer.
    fn lost(&self, session: SessionNo) -> Option<(Need, Decision)> {
        let peer = self.peers.get(&session)?;
        let mut subs = peer.subs.values();
        subs.find_map(|sub| self.lost_of(&peer.principal, sub))
    }

    fn lost_of(&self, principal: &Principal, sub: &Sub) -> Option<(Need, Decision)> {
        let needs = match &sub.source {
            Source::Topic { name, .. } => vec![Need::topics(name, Extent::Some)],
            Source::Queue(no) | Source::Browse(super::browse::Browser { queue: no, .. }) => {
                let queue = self.queue(*no)?;
                if queue.owner.is_some() {
                    return None;
                }
                let action = match sub.is_browser() {
                    true => Action::Browse,
                    false => Action::Receive,
                };
                let kept = queue.binding.iter().map(|topic| Need::topics(topic, Extent::All));
                [Need::queue(action, &queue.name)]
                    .into_iter()
                    .chain(kept)
                    .collect()
            }
        };
        needs.into_iter().find_map(|need| {
            let decision = self.decide(principal, &need);
            (!decision.allowed).then_some((need, decision))
        })
    }

    fn decide(&self, principal: &Principal, need: &Need) -> Decision {
        let Need {
            action, kind, name, ..
        } = need;
        match need.extent {
            Extent::One => self.rules.decide(principal, *action, *kind, name),
            Extent::Some => self.rules.decide_some(principal, *action, *kind, name),
            Extent::All => self.rules.decide_all(principal, *action, *kind, name),
        }
    }

    /// Whether a session may do what it asks for. If not, `denied` says what it may not.
    pub(super) fn authorise(
        &mut self,
        session: SessionNo,
        request: &Request,
        requests: &Requests,
    ) -> Result<(), Refusal> {
        if self.rules.is_empty() {
            return Ok(());
        }
        match request {
            Request::Send(send) => {
                for Target { kind, name } in targets(send) {
                    self.judge_send(session, *kind, requests.text(*name))?;
                }
                Ok(())
            }
            Request::Subscribe(subscribe) => self.judge_subscribe(session, subscribe, requests),
            Request::Declare { name, settings } => {
                self.judge_declare(session, requests.text(*name), settings)
            }
            Request::Unbind { name } => {
                let name = requests.text(*name);
                self.need_queue(session, Action::Receive, name)?;
                self.need_queue(session, Action::Create, name)
            }
            Request::Commit { tx } => self.judge_commit(session, *tx),
            Request::ActFor { .. }
            | Request::Settle(_)
            | Request::Unsubscribe { .. }
            | Request::Credit { .. }
            | Request::Renew { .. }
            | Request::Begin { .. }
            | Request::Abort { .. }
            | Request::Disconnect => Ok(()),
        }
    }

    fn judge_send(&mut self, session: SessionNo, kind: DestinationKind, name: &str) -> Result<(), Refusal> {
        match kind {
            DestinationKind::Queue => {
                self.need_queue(session, Action::Send, name)?;
                self.need_existing(session, name)
            }
            DestinationKind::Topic => self.need_one(session, Action::Send, kind, name),
            DestinationKind::Temporary => {
                let owner = self.find_queue(&temporary(name)).and_then(|queue| queue.owner);
                match owner == Some(session) {
                    true => Ok(()),
                    false => self.need_one(session, Action::Send, kind, own_name(name)),
                }
            }
        }
    }

    fn judge_subscribe(
        &mut self,
        session: SessionNo,
        subscribe: &Subscribe,
        requests: &Requests,
    ) -> Result<(), Refusal> {
        let name = requests.text(subscribe.name);
        let browses = subscribe.browse.is_some();
        match subscribe.kind {
            DestinationKind::Topic => self.need(session, &Need::topics(name, Extent::Some)),
            // Another's is refused whatever the rules say.
            DestinationKind::Temporary if browses => Ok(()),
            DestinationKind::Temporary => match self.find_queue(&temporary(name)) {
                Some(_) => Ok(()),
                None => self.need_one(session, Action::Create, subscribe.kind, own_name(name)),
            },
            DestinationKind::Queue => {
                let action = if browses { Action::Browse } else { Action::Receive };
                self.need_queue(session, action, name)?;
                if let Binding::To(topic) = subscribe.binding {
                    self.need(session, &Need::topics(requests.text(topic), Extent::All))?;
                }
                let queue = self.find_queue(name);
                let kept = queue.and_then(|queue| queue.binding.clone());
                if let Some(kept) = &kept {
                    // What the queue keeps may be news to who asks: the queue is what is denied.
                    let decision = self.decide_for(session, &Need::topics(kept, Extent::All));
                    if !decision.allowed {
                        return Err(self.deny(session, &Need::queue(action, name), decision));
                    }
                }
                match subscribe.binding {
                    Binding::Present => Ok(()),
                    Binding::None => self.need_existing(session, name),
                    Binding::To(topic) => {
                        let filter = queue.and_then(|queue| queue.binding_filter.as_ref());
                        let as_it_is = kept.as_deref() == Some(requests.text(topic))
                            && (!subscribe.binds_durably
                                || filter.map(|filter| &filter.text)
                                    == subscribe.filter.as_ref().map(|filter| &filter.text));
                        match as_it_is {
                            true => Ok(()),
                            false => self.need_queue(session, Action::Create, name),
                        }
                    }
                }
            }
        }
    }

    /// What a declaration says is done by the broker later on, which nobody judges.
    fn judge_declare(&mut self, session: SessionNo, name: &str, settings: &Settings) -> Result<(), Refusal> {
        self.need_queue(session, Action::Create, name)?;
        for (key, setting) in settings.iter() {
            if let (SettingForm::QueueName, Setting::Text(text)) = (key.form, setting)
                && let Some(target) = Policy::target(text, name)
            {
                self.need_queue(session, Action::Send, &target)?;
                self.need_existing(session, &target)?;
            }
        }
        Ok(())
    }

    /// A transaction may be committed long after its SENDs were judged, and queues may be gone that were there.
    fn judge_commit(&mut self, session: SessionNo, tx: TxNo) -> Result<(), Refusal> {
        let transaction = self.peer(session).transactions.get(&tx);
        let sends = transaction.into_iter().flat_map(|transaction| &transaction.steps);
        let sends = sends.filter_map(|step| match step {
            Step::Send { to, .. } => Some(to.clone()),
            Step::Settle { .. } => None,
        });
        let to: Vec<(DestinationKind, Arc<str>)> = sends.flatten().collect();
        to.into_iter()
            .try_for_each(|(kind, name)| self.judge_send(session, kind, &name))
    }

    /// A queue that is not there is made by who may.
    fn need_existing(&mut self, session: SessionNo, name: &str) -> Result<(), Refusal> {
        let last = self.peers.get(&session).and_then(|peer| peer.last_queue);
        let is_it = |no| self.queue(no).is_some_and(|queue| &*queue.name == name);
        match last.is_some_and(is_it) || self.names.contains_key(name) {
            true => Ok(()),
            false => self.need_queue(session, Action::Create, name),
        }
    }

    fn need_queue(&mut self, session: SessionNo, action: Action, name: &str) -> Result<(), Refusal> {
        self.need_one(session, action, DestinationKind::Queue, name)
    }

    /// One right on one name, which is asked for again and again.
    fn need_one(
        &mut self,
        session: SessionNo,
        action: Action,
        kind: DestinationKind,
        name: &str,
    ) -> Result<(), Refusal> {
        let Self { peers, rules, .. } = self;
        let peer = peers
            .get_mut(&session)
            .expect("requests come from an open session");
        let decide = || rules.decide(&peer.principal, action, kind, name).allowed;
        match peer.verdicts.ask(action, kind, name, decide) {
            true => Ok(()),
            false => {
                let need = Need::one(action, kind, name);
                let decision = self.decide_for(session, &need);
                Err(self.deny(session, &need, decision))
            }
        }
    }

    fn need(&mut self, session: SessionNo, need: &Need) -> Result<(), Refusal> {
        let decision = self.decide_for(session, need);
        match decision.allowed {
            true => Ok(()),
            false => Err(self.deny(session, need, decision)),
        }
    }

    fn decide_for(&self, session: SessionNo, need: &Need) -> Decision {
        let peer = self.peers.get(&session);
        self.decide(&peer.expect("requests come from an open session").principal, need)
    }

    fn deny(&mut self, session: SessionNo, need: &Need, decision: Decision) -> Refusal {
        self.note_denied(session, need, decision);
        self.denied = Some(MissingRight {
            action: need.action,
            destination: written(need.kind, &need.name).into(),
        });
        Refusal::AccessDenied
    }

    fn note_denied(&mut self, session: SessionNo, need: &Need, decision: Decision) {
        self.counters.denied_count += 1;
        let principal = self.peers.get(&session).map(|peer| Arc::clone(&peer.principal));
        let rule = decision.rule.and_then(|no| self.rules.get(no));
        self.notices.push_back(Notice::Denied {
            session,
            principal: principal.unwrap_or_default(),
            action: need.action,
            destination: written(need.kind, &need.name).into(),
            line: rule.map(|rule| rule.line),
        });
    }

    /// Whether a subscription may be given a message of this topic: of one to a pattern only what its session may receive.
    pub(super) fn may_be_given(&mut self, session: SessionNo, no: SubNo, topic: &str) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let Self { peers, rules, .. } = self;
        let Some(peer) = peers.get_mut(&session) else {
            return false;
        };
        let (action, kind) = (Action::Receive, DestinationKind::Topic);
        match peer.subs.get(&no).map(|sub| &sub.source) {
            // It was judged when it was made, and when the rules changed.
            Some(Source::Topic { name, .. }) if **name == *topic => true,
            _ => peer.verdicts.ask(action, kind, topic, || {
                rules.decide(&peer.principal, action, kind, topic).allowed
            }),
        }
    }
}

/// The name that a temporary queue has from its own session, by which rules know it.
fn own_name(known: &str) -> &str {
    known.split_once('/').map_or(known, |(_, own)| own)
}
