//! SUBSCRIBE and UNSUBSCRIBE, and the subscriptions of a session.

use std::collections::{BTreeSet, VecDeque};

use super::error::{Cause, Violation};
use super::fields::{Fields, number, required};
use super::rules::{AckKey, Rules};
use super::{Session, durable, temporary, unsupported};
use crate::base::{Destination, DestinationKind, REPLY_PREFIX, SubNo, Wildcards};
use crate::port::{AckMode, Binding, Request, Subscribe};
use crate::wire::{DecodeError, Frame, Header, Part, escape, unescape};

/// So many ended subscriptions are remembered for ACKs that were on their way.
const ENDED_COUNT_MAX: usize = 1_000;

/// What a client calls a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
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
    /// What its destination names.
    kind: DestinationKind,
    /// The queue of a durable subscription.
    queue: Option<Box<str>>,
    /// The own name of a temporary queue.
    temporary: Option<Box<str>>,
    /// It was made for the replies to a SEND.
    automatic: bool,
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
    /// The own names of temporary queues, which live as long as the session.
    temporary: BTreeSet<Box<str>>,
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

    /// The live one of a temporary queue.
    pub(super) fn of_temporary(&self, name: &str) -> Option<&Subscription> {
        self.live
            .iter()
            .find(|live| live.temporary.as_deref() == Some(name))
    }

    /// Says of a live one that it is of a temporary queue, which is made if there is room for one more.
    pub(super) fn mark_temporary(
        &mut self,
        no: SubNo,
        name: &str,
        automatic: bool,
        count_max: usize,
    ) -> Result<(), Violation> {
        if !self.temporary.contains(name) {
            if self.temporary.len() >= count_max {
                return Err(Violation::TooManyTemporaryQueues);
            }
            self.temporary.insert(name.into());
        }
        if let Some(live) = self.live.iter_mut().find(|live| live.no == no) {
            (live.temporary, live.automatic) = (Some(name.into()), automatic);
        }
        Ok(())
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
        let text = std::str::from_utf8(&text).map_err(|_| DecodeError::NotUtf8)?;
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
        let (prefetch_count, wish) = self.wishes(frame)?;
        let Source {
            kind,
            name,
            queue,
            topic,
        } = self.source(text, id.as_deref(), &wish, rules)?;
        let key = match &id {
            Some(id) => Key::Id(id.as_ref().into()),
            None => Key::Destination(kind, name.into()),
        };
        // Of a temporary queue whose replies came under its own name until now, the client takes care itself from here on.
        let own = (kind == DestinationKind::Temporary).then_some(name);
        if let Some(automatic) = own
            .and_then(|name| self.subscriptions.of_temporary(name))
            .filter(|live| live.automatic)
        {
            let no = automatic.no;
            self.subscriptions.live.retain(|live| live.no != no);
            self.requests.list.push(Request::Unsubscribe { sub: no });
        }
        let no = self.add_subscription(key, kind, id.as_deref(), ack_mode, rules)?;
        if let Some(name) = own {
            let count_max = self.config.limits.temporary_queue_count_max;
            self.subscriptions.mark_temporary(no, name, false, count_max)?;
        }
        if let (Some(queue), Some(live)) = (&queue, self.subscriptions.live.last_mut()) {
            live.queue = Some(queue.as_str().into());
        }
        let binding = match (&queue, topic) {
            (_, Some(topic)) => Binding::To(self.requests.push_bytes(topic.as_bytes())),
            (Some(_), None) => Binding::Present,
            (None, None) => Binding::None,
        };
        let kind = if queue.is_some() {
            DestinationKind::Queue
        } else {
            kind
        };
        let name = temporary::known(&self.id, text, name);
        let name = self
            .requests
            .push_bytes(queue.as_deref().unwrap_or(&name).as_bytes());
        self.requests.list.push(Request::Subscribe(Subscribe {
            sub: no,
            kind,
            name,
            binding,
            ack_mode,
            prefetch_count,
            by_message: rules.ack_key != AckKey::AckId,
        }));
        Ok(())
    }

    /// One more subscription, with what its MESSAGEs begin with.
    pub(super) fn add_subscription(
        &mut self,
        key: Key,
        kind: DestinationKind,
        id: Option<&[u8]>,
        ack_mode: AckMode,
        rules: &Rules,
    ) -> Result<SubNo, Violation> {
        let subs = &mut self.subscriptions;
        if subs.live.iter().any(|live| live.key == key) {
            return Err(Violation::SubscriptionExists);
        }
        if subs.live.len() >= self.config.limits.subscription_count_max || subs.last == u32::MAX {
            return Err(Violation::TooManySubscriptions);
        }
        subs.last += 1;
        let no = SubNo(subs.last);
        let mut head = b"MESSAGE\n".to_vec();
        if let Some(id) = id {
            head.extend_from_slice(b"subscription:");
            escape(rules.escapes(), Part::Value, id, &mut head);
            head.push(b'\n');
        }
        head.extend_from_slice(b"message-id:");
        head.extend_from_slice(self.config.store.as_bytes());
        head.push(b'-');
        subs.live.push(Subscription {
            no,
            key,
            ack_mode,
            kind,
            queue: None,
            temporary: None,
            automatic: false,
            ack_id: rules.ack_key == AckKey::AckId && ack_mode != AckMode::Auto,
            message_head: head.into_boxed_slice(),
        });
        Ok(no)
    }

    /// What a SUBSCRIBE's destination, with its headers, stands for.
    fn source<'a>(
        &self,
        text: &'a str,
        id: Option<&[u8]>,
        wish: &durable::Wish<'_>,
        rules: &Rules,
    ) -> Result<Source<'a>, Cause> {
        if let Some(queue) = durable::present(text) {
            wish.check_queue()?;
            return Ok(Source {
                kind: DestinationKind::Queue,
                name: text,
                queue: Some(queue?),
                topic: None,
            });
        }
        if Destination::parts(text).nth(1).is_some() {
            return Err(Violation::BadDestination.into());
        }
        let (kind, name) = named(text)?;
        let (queue, topic) = match kind {
            // That of another session, or of this one by the name that others know.
            DestinationKind::Temporary if text.starts_with(REPLY_PREFIX) => {
                return Err(Violation::BadDestination.into());
            }
            DestinationKind::Temporary => (None, None),
            DestinationKind::Queue => {
                wish.check_queue()?;
                (None, durable::virtual_topic(name))
            }
            DestinationKind::Topic => {
                let queue = wish.queue(rules.escapes(), self.client_id.as_deref(), id, name)?;
                let topic = queue.is_some().then_some(name);
                (queue, topic)
            }
        };
        let topics = topic.or((kind == DestinationKind::Topic).then_some(name));
        if topics.is_some_and(|topics| Wildcards::of(topics) == Wildcards::Misplaced) {
            return Err(Violation::BadWildcard.into());
        }
        Ok(Source {
            kind,
            name,
            queue,
            topic,
        })
    }

    /// Looks through the headers for those of dialects: refuses what is not built, reads the prefetch, and what is said of
    /// a durable subscription.
    fn wishes<'a>(&self, frame: &Frame<'a>) -> Result<(u32, durable::Wish<'a>), Cause> {
        let limits = &self.config.limits;
        let mut prefetch = None;
        let mut wish = durable::Wish::default();
        for header in frame.headers() {
            let Header { name, value } = header?;
            let header = match name {
                b"prefetch-count" => "prefetch-count",
                b"prefetch" => "prefetch",
                b"activemq.prefetchSize" => "activemq.prefetchSize",
                name if wish.take(name, value) => continue,
                _ => {
                    unsupported::check(name, value)?;
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
        Ok((prefetch.unwrap_or(limits.prefetch_count), wish))
    }

    /// Ends a subscription; with the headers of a durable one, that one for good, also where nobody is served from it.
    pub(super) fn unsubscribe(
        &mut self,
        frame: &Frame<'_>,
        fields: &Fields<'_>,
        rules: &Rules,
    ) -> Result<(), Cause> {
        let wish = durable::Wish::of(frame)?;
        let durable = wish.is_durable()?;
        let escapes = rules.escapes();
        let by_destination = !rules.subscription_id;
        let live = &self.subscriptions.live;
        let mut at = None;
        if fields.id.is_some() || !by_destination && !durable || fields.destination.is_none() && !durable {
            let id = unescape(escapes, required(fields.id, "id")?)?;
            at = live.iter().position(|live| live.key.is_id(&id));
        }
        let topic = match fields.destination {
            Some(raw) => Some(unescape(escapes, raw)?),
            None => None,
        };
        let topic = match &topic {
            Some(text) => Some(named(
                std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8)?,
            )?),
            None => None,
        };
        if let (None, true, Some((kind, name))) = (at, by_destination, topic) {
            let key = Key::Destination(kind, name.into());
            at = live.iter().position(|live| live.key == key);
        }
        let ended = at.map(|at| self.subscriptions.live.remove(at));
        // On a queue these headers ask for what is so anyway.
        let durable = durable
            && ended
                .as_ref()
                .is_none_or(|ended| ended.kind == DestinationKind::Topic);
        let queue = match &ended {
            None if !durable => return Err(Violation::SubscriptionUnknown.into()),
            Some(ended)
                if durable
                    && topic.is_none()
                    && wish.needs_topic()?
                    && durable::is_of_topic(&ended.queue) =>
            {
                ended.queue.clone()
            }
            _ if durable => {
                let name = match topic {
                    Some((_, name)) => name,
                    None if wish.needs_topic()? => {
                        return Err(Violation::HeaderMissing {
                            header: "destination",
                        }
                        .into());
                    }
                    None => "",
                };
                let id = match fields.id {
                    Some(id) => Some(unescape(escapes, id)?),
                    None => None,
                };
                wish.queue(escapes, self.client_id.as_deref(), id.as_deref(), name)?
                    .map(Box::from)
            }
            _ => None,
        };
        if let Some(ended) = ended {
            let remembered =
                rules.ack_key == AckKey::MessageIdAndSubscription && ended.ack_mode != AckMode::Auto;
            if let (true, Key::Id(id)) = (remembered, ended.key) {
                if self.subscriptions.ended.len() == ENDED_COUNT_MAX {
                    self.subscriptions.ended.pop_front();
                }
                self.subscriptions.ended.push_back((id, ended.no));
            }
            self.requests.list.push(Request::Unsubscribe { sub: ended.no });
        }
        if let Some(queue) = queue {
            let name = self.requests.push_bytes(queue.as_bytes());
            self.requests.list.push(Request::Unbind { name });
        }
        Ok(())
    }
}

/// What a SUBSCRIBE's destination stands for.
struct Source<'a> {
    kind: DestinationKind,
    name: &'a str,
    /// The queue of a durable subscription.
    queue: Option<String>,
    /// The topic that the queue is bound to.
    topic: Option<&'a str>,
}

/// What a subscription's destination names, for UNSUBSCRIBE: that of `/dsub/` is the whole text.
fn named(text: &str) -> Result<(DestinationKind, &str), Violation> {
    match durable::present(text) {
        Some(queue) => queue.map(|_| (DestinationKind::Queue, text)),
        None => Destination::parse(text)
            .filter(|destination| !destination.is_reserved())
            .map(|destination| (destination.kind, destination.name))
            .ok_or(Violation::BadDestination),
    }
}
