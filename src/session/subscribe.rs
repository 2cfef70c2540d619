//! SUBSCRIBE and UNSUBSCRIBE, and the subscriptions of a session.

use std::collections::VecDeque;

use super::error::{Cause, Violation};
use super::fields::{Fields, number, required};
use super::rules::{AckKey, Rules};
use super::send::destination;
use super::{Session, unsupported};
use crate::base::{Destination, DestinationKind, SubNo};
use crate::port::{AckMode, Request, Subscribe};
use crate::wire::{Frame, Header, Part, escape, unescape};

/// So many ended subscriptions are remembered for ACKs that were on their way.
const ENDED_COUNT_MAX: usize = 1_000;

/// What a client calls a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// Its id.
    Id(Box<[u8]>),
    /// Its destination: 1.0, where no id was given.
    Destination(DestinationKind, Box<str>),
}

impl Key {
    fn is_id(&self, id: &[u8]) -> bool {
        matches!(self, Self::Id(own) if **own == *id)
    }
}

/// One live subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) no: SubNo,
    key: Key,
    ack_mode: AckMode,
    /// MESSAGE has `ack`.
    pub(super) ack_id: bool,
    /// What its MESSAGEs begin with, up to the epoch in `message-id`.
    pub(super) message_head: Box<[u8]>,
}

/// The subscriptions of a session. Few, as a rule, so they are searched and not indexed.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// In ascending order of their numbers.
    live: Vec<Subscription>,
    /// Ids of 1.1 that were unsubscribed, the latest last: an ACK that names one may have been on its way.
    ended: VecDeque<(Box<[u8]>, SubNo)>,
    last: u32,
}

impl Subscriptions {
    /// A live one by number.
    pub(super) fn get(&self, no: SubNo) -> Option<&Subscription> {
        let at = self.live.binary_search_by_key(&no, |live| live.no).ok()?;
        self.live.get(at)
    }

    /// A live one by id.
    pub(super) fn find(&self, id: &[u8]) -> Option<SubNo> {
        self.live
            .iter()
            .find(|live| live.key.is_id(id))
            .map(|live| live.no)
    }

    /// One by id, live or ended.
    pub(super) fn find_or_ended(&self, id: &[u8]) -> Option<SubNo> {
        let ended = || self.ended.iter().rev().find(|(own, _)| **own == *id);
        self.find(id).or_else(|| ended().map(|(_, no)| *no))
    }
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        frame: &Frame<'_>,
        fields: &Fields<'_>,
        rules: &Rules,
    ) -> Result<(), Cause> {
        let escapes = rules.escapes();
        let text = unescape(escapes, required(fields.destination, "destination")?)?;
        let Destination { kind, name } = destination(&text)?;
        let id = match fields.id {
            Some(id) => Some(unescape(escapes, id)?),
            None if rules.subscription_id => return Err(Violation::HeaderMissing { header: "id" }.into()),
            None => None,
        };
        let ack_mode = match fields.ack {
            None | Some(b"auto") => AckMode::Auto,
            Some(b"client") => AckMode::Client,
            Some(b"client-individual") if rules.client_individual => AckMode::ClientIndividual,
            Some(_) => return Err(Violation::HeaderInvalid { header: "ack" }.into()),
        };
        let prefetch_count = self.prefetch(frame, kind)?;
        let key = match &id {
            Some(id) => Key::Id(id.as_ref().into()),
            None => Key::Destination(kind, name.into()),
        };
        let subs = &mut self.subscriptions;
        if subs.live.iter().any(|live| live.key == key) {
            return Err(Violation::SubscriptionExists.into());
        }
        if subs.live.len() >= self.config.limits.subscription_count_max || subs.last == u32::MAX {
            return Err(Violation::TooManySubscriptions.into());
        }
        subs.last += 1;
        let no = SubNo(subs.last);
        let mut head = b"MESSAGE\n".to_vec();
        if let Some(id) = &id {
            head.extend_from_slice(b"subscription:");
            escape(escapes, Part::Value, id, &mut head);
            head.push(b'\n');
        }
        head.extend_from_slice(b"message-id:");
        head.extend_from_slice(self.config.store.as_bytes());
        head.push(b'-');
        subs.live.push(Subscription {
            no,
            key,
            ack_mode,
            ack_id: rules.ack_key == AckKey::AckId && ack_mode != AckMode::Auto,
            message_head: head.into_boxed_slice(),
        });
        let name = self.requests.push_bytes(name.as_bytes());
        self.requests.list.push(Request::Subscribe(Subscribe {
            sub: no,
            kind,
            name,
            ack_mode,
            prefetch_count,
            by_message: rules.ack_key != AckKey::AckId,
        }));
        Ok(())
    }

    /// Looks through the headers for those of dialects: refuses what is not built, and reads the prefetch.
    fn prefetch(&self, frame: &Frame<'_>, kind: DestinationKind) -> Result<u32, Cause> {
        let limits = &self.config.limits;
        let mut prefetch = None;
        for header in frame.headers() {
            let Header { name, value } = header?;
            let header = match name {
                b"prefetch-count" => "prefetch-count",
                b"prefetch" => "prefetch",
                b"activemq.prefetchSize" => "activemq.prefetchSize",
                _ => {
                    unsupported::check(name, value, kind)?;
                    continue;
                }
            };
            let count = match number(value) {
                None => return Err(Violation::HeaderInvalid { header }.into()),
                // To other brokers it means "no bound" or "only when I ask".
                Some(0) => return Err(Violation::HeaderUnsupported { header }.into()),
                Some(count) => u32::try_from(count)
                    .ok()
                    .filter(|count| *count <= limits.prefetch_count_max),
            };
            prefetch.get_or_insert(count.ok_or(Violation::PrefetchTooHigh)?);
        }
        Ok(prefetch.unwrap_or(limits.prefetch_count))
    }

    pub(super) fn unsubscribe(&mut self, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let escapes = rules.escapes();
        let by_destination = !rules.subscription_id;
        let live = &self.subscriptions.live;
        let mut at = None;
        if fields.id.is_some() || !by_destination || fields.destination.is_none() {
            let id = unescape(escapes, required(fields.id, "id")?)?;
            at = live.iter().position(|live| live.key.is_id(&id));
        }
        if let (None, true, Some(raw)) = (at, by_destination, fields.destination) {
            let Destination { kind, name } = destination(raw)?;
            let key = Key::Destination(kind, name.into());
            at = live.iter().position(|live| live.key == key);
        }
        let ended = self
            .subscriptions
            .live
            .remove(at.ok_or(Violation::SubscriptionUnknown)?);
        let remembered = rules.ack_key == AckKey::MessageIdAndSubscription && ended.ack_mode != AckMode::Auto;
        if let (true, Key::Id(id)) = (remembered, ended.key) {
            if self.subscriptions.ended.len() == ENDED_COUNT_MAX {
                self.subscriptions.ended.pop_front();
            }
            self.subscriptions.ended.push_back((id, ended.no));
        }
        self.requests.list.push(Request::Unsubscribe { sub: ended.no });
        Ok(())
    }
}
