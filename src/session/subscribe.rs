//! SUBSCRIBE and UNSUBSCRIBE, and the subscriptions of a session.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::declare::Declaration;
use super::dialect::{Meaning, On, Standing};
use super::durable::Family;
use super::error::{Cause, Violation};
use super::fields::{Fields, required};
use super::rules::{AckKey, Rules};
use super::{Session, browse, credit, dialect, durable, temporary};
use crate::base::{Destination, DestinationKind, Dialect, REPLY_PREFIX, Settings, SubNo, Wildcards};
use crate::port::{AckMode, Binding, Browse, Credit, Filter, Request, Subscribe};
use crate::selector::SelectorLimits;
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

/// What a subscription is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// A queue, that of a durable subscription by its own name among them.
    Queue,
    Topic,
    /// A topic whose messages this queue keeps.
    Durable(Box<str>),
    /// A temporary queue, by its own name; `automatic` where a SEND asked for its replies, and no SUBSCRIBE.
    Temporary {
        name: Box<str>,
        automatic: bool,
    },
}

/// One live subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) no: SubNo,
    key: Key,
    of: Of,
    ack_mode: AckMode,
    /// MESSAGE has `ack`.
    pub(super) ack_id: bool,
    /// What its MESSAGEs begin with, up to the epoch in `message-id`.
    pub(super) message_head: Box<[u8]>,
    /// What comes before the sequence in them, if they have it.
    pub(super) sequence_head: Option<Box<[u8]>>,
    /// It is a browser, which is told of its end.
    pub(super) browser: bool,
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

    /// The live one of a temporary queue: its number, and whether it is automatic.
    pub(super) fn of_temporary(&self, own: &str) -> Option<(SubNo, bool)> {
        self.live.iter().find_map(|live| match &live.of {
            Of::Temporary { name, automatic } if **name == *own => Some((live.no, *automatic)),
            _ => None,
        })
    }

    /// A live one by id or, in 1.0, by the destination that stands for it.
    pub(super) fn named(&self, text: &[u8], dialect: Dialect, rules: &Rules) -> Option<SubNo> {
        let by_destination = || {
            let text = std::str::from_utf8(text)
                .ok()
                .filter(|_| !rules.subscription_id)?;
            let (kind, name) = named(dialect, text, None).ok()?;
            let live = self
                .live
                .iter()
                .find(|live| matches!(&live.key, Key::Destination(of, own) if *of == kind && **own == *name));
            live.map(|live| live.no)
        };
        self.find(text).or_else(by_destination)
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
        let Wishes {
            credit,
            durable,
            routing,
            declared,
            standing,
            filter,
            look,
        } = self.wishes(frame, rules)?;
        let named = named(self.config.dialect, text, routing);
        let source = self.source(text, named, id.as_deref(), &durable, rules)?;
        let ack_timeout_ms = fields.ack_timeout_ms()?;
        let is_topic = source.kind == DestinationKind::Topic;
        look.check(matches!(source.of, Of::Queue | Of::Temporary { .. }))?;
        let browser = look.is_browser();
        let sequence_head = look.sequence_head(escapes, !is_topic)?;
        // Nobody else gets it, and settled at once it is anyway.
        if ack_timeout_ms.is_some() && (is_topic || browser || ack_mode == AckMode::Auto) {
            return Err(Violation::HeaderUnsupported {
                header: "ack-timeout",
            }
            .into());
        }
        if let Some(header) = standing.no_local
            && source.kind != DestinationKind::Topic
        {
            return Err(Violation::HeaderUnsupported { header }.into());
        }
        let key = match &id {
            Some(id) => Key::Id(id.as_ref().into()),
            None => Key::Destination(source.named.0, source.named.1.into()),
        };
        let of = match source.of {
            Of::Temporary { name, .. } if browser => {
                if !self.subscriptions.temporary.contains(&name) {
                    return Err(Violation::TemporaryUnknown.into());
                }
                Of::Queue
            }
            of => of,
        };
        // Of a temporary queue whose replies came under its own name until now, the client takes care itself from here on.
        if let Of::Temporary { name, .. } = &of
            && let Some((no, true)) = self.subscriptions.of_temporary(name)
        {
            self.subscriptions.live.retain(|live| live.no != no);
            self.requests.list.push(Request::Unsubscribe { sub: no });
        }
        if browser && filter.is_some() {
            return Err(Violation::HeaderUnsupported { header: "selector" }.into());
        }
        let binds_durably = matches!(of, Of::Durable(_));
        let sub = self.add_subscription(key, of, id.as_deref(), ack_mode, rules)?;
        if let Some(added) = self.subscriptions.live.last_mut() {
            (added.sequence_head, added.browser) = (sequence_head, browser);
        }
        let binding = match source.topic {
            Bound::No => Binding::None,
            // A look makes no durable subscription.
            Bound::To(_) if browser => Binding::None,
            Bound::Present => Binding::Present,
            Bound::To(topic) => Binding::To(self.requests.push_bytes(topic.as_bytes())),
        };
        let name = self.requests.push_bytes(source.name.as_bytes());
        if let Some(settings) = declared {
            if source.kind != DestinationKind::Queue {
                return Err(Violation::DeclarationMisplaced.into());
            }
            self.requests.list.push(Request::Declare { name, settings });
        }
        let browse = browser.then(|| {
            let (from, follow) = look.way();
            let end = browse::end(escapes, fields.destination.unwrap_or_default());
            let end = self.requests.push_bytes(&end);
            Browse { from, follow, end }
        });
        self.requests.list.push(Request::Subscribe(Subscribe {
            sub,
            kind: source.kind,
            name,
            binding,
            ack_mode,
            credit,
            ack_timeout_ms,
            binds_durably,
            filter,
            priority: standing.priority,
            exclusive: standing.exclusive,
            no_local: standing.no_local.is_some(),
            browse,
            by_message: rules.ack_key != AckKey::AckId,
        }));
        Ok(())
    }

    /// One more subscription, with what its MESSAGEs begin with.
    pub(super) fn add_subscription(
        &mut self,
        key: Key,
        of: Of,
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
        if let Of::Temporary { name, .. } = &of
            && !subs.temporary.contains(name)
        {
            if subs.temporary.len() >= self.config.limits.temporary_queue_count_max {
                return Err(Violation::TooManyTemporaryQueues);
            }
            subs.temporary.insert(name.clone());
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
            of,
            ack_mode,
            ack_id: rules.ack_key == AckKey::AckId && ack_mode != AckMode::Auto,
            message_head: head.into_boxed_slice(),
            sequence_head: None,
            browser: false,
        });
        Ok(no)
    }

    /// What a SUBSCRIBE's destination, with its headers, stands for.
    fn source<'a>(
        &self,
        text: &'a str,
        named: Result<(DestinationKind, &'a str), Violation>,
        id: Option<&[u8]>,
        wish: &durable::Wish<'_>,
        rules: &Rules,
    ) -> Result<Source<'a>, Cause> {
        if Destination::parts(text).nth(1).is_some() {
            return Err(Violation::BadDestination.into());
        }
        let named = named?;
        let (kind, name) = named;
        let plain = |of, topic| Source {
            named,
            of,
            kind,
            name: Cow::Borrowed(name),
            topic,
        };
        let source = match kind {
            // That of another session, or of this one by the name that others know.
            DestinationKind::Temporary if text.starts_with(REPLY_PREFIX) => {
                return Err(Violation::BadDestination.into());
            }
            DestinationKind::Temporary => Source {
                name: temporary::known(&self.id, text, name),
                ..plain(
                    Of::Temporary {
                        name: name.into(),
                        automatic: false,
                    },
                    Bound::No,
                )
            },
            DestinationKind::Queue => {
                wish.check_queue()?;
                dialect::check_queue(self.config.dialect, name)?;
                match (durable::present(text), durable::virtual_topic(name)) {
                    (Some(queue), _) => Source {
                        name: Cow::Owned(queue?),
                        ..plain(Of::Queue, Bound::Present)
                    },
                    (None, Some(topic)) => plain(Of::Queue, Bound::To(topic)),
                    (None, None) => plain(Of::Queue, Bound::No),
                }
            }
            DestinationKind::Topic => {
                match wish.queue(rules.escapes(), self.client_id.as_deref(), id, name)? {
                    Some(queue) => Source {
                        kind: DestinationKind::Queue,
                        name: Cow::Owned(queue.clone()),
                        ..plain(Of::Durable(queue.into()), Bound::To(name))
                    },
                    None => plain(Of::Topic, Bound::No),
                }
            }
        };
        let topics = match (&source.of, &source.topic) {
            (_, Bound::To(topics)) => Some(*topics),
            (Of::Topic, _) => Some(name),
            _ => None,
        };
        if topics.is_some_and(|topics| Wildcards::of(topics) == Wildcards::Misplaced) {
            return Err(Violation::BadWildcard.into());
        }
        Ok(source)
    }

    /// Looks through the headers for those of dialects: refuses what is not built, reads the credit, what is said of a
    /// durable subscription, and what a name without prefix is.
    fn wishes<'a>(&mut self, frame: &Frame<'a>, rules: &Rules) -> Result<Wishes<'a>, Cause> {
        let mut wanted = None;
        let (mut durable, mut routing) = (durable::Wish::default(), None);
        let mut declaration = Declaration::default();
        let mut standing = Standings::default();
        let mut filter = None;
        let mut look = browse::Wish::default();
        for header in frame.headers() {
            let Header { name, value } = header?;
            let Some((row, meaning)) = dialect::meaning(self.config.dialect, On::Subscribe, name) else {
                continue;
            };
            dialect::check(row, meaning, value)?;
            let header = dialect::name(row);
            match meaning {
                Meaning::Credit(form) => {
                    let credit = credit::read(form, header, value, &self.config.limits)?;
                    wanted.get_or_insert(credit);
                }
                Meaning::Durable(part) => durable.take(part, value),
                Meaning::Routing => _ = routing.get_or_insert(dialect::routing(header, value)?),
                Meaning::Selector if filter.is_none() => {
                    let text = unescape(rules.escapes(), value)?;
                    let text = std::str::from_utf8(&text).map_err(|_| DecodeError::NotUtf8)?;
                    filter = Some(self.filter(text)?);
                }
                Meaning::Standing(what) => standing.take(what, header, value)?,
                Meaning::Browses(what) => look.take(what, header, value)?,
                Meaning::NoEffect => self.note(row),
                Meaning::Declares(what) => declaration.take(what, header, value)?,
                _ => {}
            }
        }
        Ok(Wishes {
            credit: wanted.unwrap_or(Credit::count(self.config.limits.prefetch_count)),
            durable,
            routing,
            declared: declaration.end()?,
            standing,
            filter: filter.flatten(),
            look,
        })
    }

    /// What a selector lets through; `None`: everything.
    fn filter(&self, text: &str) -> Result<Option<Arc<Filter>>, Violation> {
        let limits = SelectorLimits {
            selector_bytes_max: self.config.limits.selector_bytes_max,
            selector_depth_max: self.config.limits.selector_depth_max,
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let filter =
            Filter::parse(text.into(), limits).map_err(|error| Violation::SelectorInvalid { error })?;
        let names = filter.selector.names();
        if names.iter().any(|name| ADDED_AT_DELIVERY.contains(&&**name)) {
            return Err(Violation::SelectorHeader);
        }
        Ok(Some(Arc::new(filter)))
    }

    /// What an UNSUBSCRIBE says of a durable subscription, and of a name without prefix.
    fn wishes_to_end<'a>(
        &self,
        frame: &Frame<'a>,
    ) -> Result<(durable::Wish<'a>, Option<DestinationKind>), Cause> {
        let (mut durable, mut routing) = (durable::Wish::default(), None);
        for header in frame.headers() {
            let Header { name, value } = header?;
            match dialect::meaning(self.config.dialect, On::Subscribe, name) {
                Some((_, Meaning::Durable(part))) => durable.take(part, value),
                Some((row, Meaning::Routing)) => {
                    routing.get_or_insert(dialect::routing(dialect::name(row), value)?);
                }
                _ => {}
            }
        }
        Ok((durable, routing))
    }

    /// Ends a subscription; with the headers of a durable one, that one for good, also where nobody is served from it.
    pub(super) fn unsubscribe(
        &mut self,
        frame: &Frame<'_>,
        fields: &Fields<'_>,
        rules: &Rules,
    ) -> Result<(), Cause> {
        let escapes = rules.escapes();
        let (wish, routing) = self.wishes_to_end(frame)?;
        let dialect = self.config.dialect;
        let id = fields.id.map(|id| unescape(escapes, id)).transpose()?;
        let text = fields
            .destination
            .map(|text| unescape(escapes, text))
            .transpose()?;
        let destination = || match &text {
            Some(text) => {
                let text = std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8)?;
                Ok::<_, Cause>(Some(named(dialect, text, routing)?))
            }
            None => Ok(None),
        };
        let find = |key: &Key| self.subscriptions.live.iter().position(|live| live.key == *key);
        let mut at = id.as_ref().and_then(|id| find(&Key::Id(id.as_ref().into())));
        if at.is_none()
            && !rules.subscription_id
            && let Some((kind, name)) = destination()?
        {
            at = find(&Key::Destination(kind, name.into()));
        }
        let ended = at.map(|at| self.subscriptions.live.remove(at));
        // Of a queue the headers ask for what is so anyway.
        let family = match ended.as_ref().map(|ended| &ended.of) {
            Some(Of::Queue | Of::Temporary { .. }) => None,
            Some(Of::Topic | Of::Durable(_)) | None => wish.family()?,
        };
        if ended.is_none() && family.is_none() {
            let named = id.is_some() || (!rules.subscription_id && text.is_some());
            return Err(match named {
                true => Violation::SubscriptionUnknown,
                false => Violation::HeaderMissing { header: "id" },
            }
            .into());
        }
        let queue = match (family, destination, ended.as_ref().map(|ended| &ended.of)) {
            (None, ..) => None,
            (Some(Family::Topic), destination, of) => match (destination()?, of) {
                (Some((_, topic)), _) => {
                    wish.queue(escapes, self.client_id.as_deref(), id.as_deref(), topic)?
                }
                (None, Some(Of::Durable(queue))) if durable::is_of_topic(queue) => Some(queue.to_string()),
                (None, _) => {
                    return Err(Violation::HeaderMissing {
                        header: "destination",
                    }
                    .into());
                }
            },
            (Some(Family::Named | Family::Id), ..) => {
                wish.queue(escapes, self.client_id.as_deref(), id.as_deref(), "")?
            }
        };
        if let Some(ended) = ended {
            self.requests.list.push(Request::Unsubscribe { sub: ended.no });
            let remembered =
                rules.ack_key == AckKey::MessageIdAndSubscription && ended.ack_mode != AckMode::Auto;
            if let (true, Key::Id(id)) = (remembered, ended.key) {
                if self.subscriptions.ended.len() == ENDED_COUNT_MAX {
                    self.subscriptions.ended.pop_front();
                }
                self.subscriptions.ended.push_back((id, ended.no));
            }
        }
        if let Some(queue) = queue {
            let name = self.requests.push_bytes(queue.as_bytes());
            self.requests.list.push(Request::Unbind { name });
        }
        Ok(())
    }
}

/// What the headers of a SUBSCRIBE ask for.
struct Wishes<'a> {
    credit: Credit,
    durable: durable::Wish<'a>,
    /// What a name without prefix is.
    routing: Option<DestinationKind>,
    /// What it declares of its queue.
    declared: Option<Box<Settings>>,
    standing: Standings,
    filter: Option<Arc<Filter>>,
    /// How it looks at its queue.
    look: browse::Wish<'a>,
}

/// Headers of a MESSAGE that are no part of the message as it was sent (obligation 11 of the first version, and our own).
const ADDED_AT_DELIVERY: &[&str] = &[
    "message-id",
    "subscription",
    "ack",
    "redelivered",
    "delivery-count",
    "dead-letter-origin",
    "dead-letter-reason",
    "dead-letter-failures",
    "dead-letter-time",
    "dead-letter-text",
];

/// How a subscription stands to others.
#[derive(Debug, Default)]
struct Standings {
    exclusive: bool,
    priority: i32,
    /// The header that asks for it.
    no_local: Option<&'static str>,
}

impl Standings {
    fn take(&mut self, what: Standing, header: &'static str, value: &[u8]) -> Result<(), Violation> {
        let invalid = Violation::HeaderInvalid { header };
        let flag = match value {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        };
        match what {
            Standing::Exclusive => self.exclusive |= flag.ok_or(invalid)?,
            Standing::NoLocal if flag.ok_or(invalid)? => self.no_local = Some(header),
            Standing::NoLocal => {}
            Standing::Priority => {
                let text = std::str::from_utf8(value).ok();
                self.priority = text.and_then(|text| text.parse().ok()).ok_or(invalid)?;
            }
        }
        Ok(())
    }
}

/// What a SUBSCRIBE's destination stands for.
struct Source<'a> {
    /// What the destination names.
    named: (DestinationKind, &'a str),
    of: Of,
    /// What the core is asked for, by its name there.
    kind: DestinationKind,
    name: Cow<'a, str>,
    topic: Bound<'a>,
}

/// What is said of the topic that a queue keeps.
enum Bound<'a> {
    No,
    To(&'a str),
    Present,
}

/// What a subscription's destination names: that of `/dsub/` is the whole text.
fn named(
    dialect: Dialect,
    text: &str,
    routing: Option<DestinationKind>,
) -> Result<(DestinationKind, &str), Violation> {
    match durable::present(text) {
        Some(queue) => queue.map(|_| (DestinationKind::Queue, text)),
        None => dialect::destination(dialect, text, routing)
            .map(|destination| (destination.kind, destination.name)),
    }
}
