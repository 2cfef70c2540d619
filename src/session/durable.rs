//! Durable subscriptions: by which headers each family of clients asks for one, and the queue that keeps its messages.
//!
//! | family | SUBSCRIBE, and UNSUBSCRIBE to end it for good | queue |
//! | --- | --- | --- |
//! | ActiveMQ, Artemis, HornetQ, OpenMQ | `client-id` of CONNECT, a name header | `DSUB.CLIENT/NAME` |
//! | RabbitMQ | `durable:true`, `auto-delete:false`, `id` | `DSUB./ID/TOPIC` |
//! | Apollo | `persistent:true`, `id` | `DSUB.ID` |
//! | ActiveMQ's virtual topics | destination `/queue/Consumer.N.VirtualTopic.T` | of that name |
//!
//! In the parts of a name `/` is written `%2F` and `%` is `%25`, so that no two subscriptions share a queue.
//!
//! # Not here
//! The names of the headers, and what they are in which dialect: `dialect`.

use super::error::{Cause, Violation};
use crate::wire::{DecodeError, Escapes, unescape};

/// What the queues of durable subscriptions begin with.
const PREFIX: &str = "DSUB.";

/// Destinations of durable subscriptions that are there.
const DESTINATION_PREFIX: &str = "/dsub/";

/// What a frame says of a durable subscription; raw values, of repeated headers the first.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    name: Option<&'a [u8]>,
    durable: Option<&'a [u8]>,
    auto_delete: Option<&'a [u8]>,
    persistent: Option<&'a [u8]>,
}

/// What a header says of a durable subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its name, of a client id.
    Name,
    /// That it is durable: RabbitMQ's way.
    Durable,
    /// That it ends with its subscriber.
    AutoDelete,
    /// That it is durable, by its id alone: Apollo's way.
    ById,
}

/// Who a durable subscription belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Client id and name.
    Named,
    /// Id and topic.
    Topic,
    /// Id alone.
    Id,
}

impl<'a> Wish<'a> {
    /// Takes one header.
    pub(super) fn take(&mut self, part: Part, value: &'a [u8]) {
        let field = match part {
            Part::Name => &mut self.name,
            Part::Durable => &mut self.durable,
            Part::AutoDelete => &mut self.auto_delete,
            Part::ById => &mut self.persistent,
        };
        field.get_or_insert(value);
    }

    /// Refuses what a queue, which is durable by itself and never deleted with its subscriber, cannot be.
    pub(super) fn check_queue(&self) -> Result<(), Violation> {
        truth("durable", self.durable)?;
        match truth("auto-delete", self.auto_delete)? {
            Some(true) => Err(Violation::HeaderUnsupported {
                header: "auto-delete",
            }),
            _ => Ok(()),
        }
    }

    /// The name of the queue that is asked for; `None` where the subscription is not to be durable.
    pub(super) fn queue(
        &self,
        escapes: Escapes,
        client_id: Option<&[u8]>,
        id: Option<&[u8]>,
        topic: &str,
    ) -> Result<Option<String>, Cause> {
        let Some(family) = self.family()? else {
            return Ok(None);
        };
        let mut queue = PREFIX.to_owned();
        let id = || id.ok_or(Violation::HeaderMissing { header: "id" });
        match (family, self.name) {
            (Family::Named, Some(name)) => {
                push_part(&mut queue, client_id.ok_or(Violation::ClientIdMissing)?)?;
                queue.push('/');
                push_part(&mut queue, &unescape(escapes, name)?)?;
            }
            (Family::Topic, _) => {
                queue.push('/');
                push_part(&mut queue, id()?)?;
                queue.push('/');
                push_part(&mut queue, topic.as_bytes())?;
            }
            (Family::Named | Family::Id, _) => push_part(&mut queue, id()?)?,
        }
        Ok(Some(queue))
    }

    /// Which kind of durable subscription is asked for, if one is.
    pub(super) fn family(&self) -> Result<Option<Family>, Violation> {
        let durable = truth("durable", self.durable)?;
        let auto_delete = truth("auto-delete", self.auto_delete)?;
        let persistent = truth("persistent", self.persistent)?;
        match (durable, auto_delete) {
            _ if self.name.is_some() => Ok(Some(Family::Named)),
            (Some(true), Some(false)) => Ok(Some(Family::Topic)),
            // It would be gone with its subscriber: not durable after all.
            (Some(true), Some(true)) => Err(Violation::HeaderUnsupported {
                header: "auto-delete",
            }),
            (Some(true), None) => Err(Violation::HeaderMissing {
                header: "auto-delete",
            }),
            // Kept while the broker runs, and not over a restart: there is no such thing here.
            (_, Some(false)) => Err(Violation::HeaderUnsupported {
                header: "auto-delete",
            }),
            _ if persistent == Some(true) => Ok(Some(Family::Id)),
            _ => Ok(None),
        }
    }
}

/// The queue of `/dsub/NAME`, which must be there.
pub(super) fn present(destination: &str) -> Option<Result<String, Violation>> {
    let name = destination.strip_prefix(DESTINATION_PREFIX)?;
    let mut queue = PREFIX.to_owned();
    let pushed = push_part(&mut queue, name.as_bytes());
    Some(pushed.map(|()| queue).map_err(|_| Violation::BadDestination))
}

/// Whether this is the queue of a subscription that is named by id and topic.
pub(super) fn is_of_topic(queue: &str) -> bool {
    queue
        .strip_prefix(PREFIX)
        .is_some_and(|name| name.starts_with('/'))
}

/// The topic of a queue `Consumer.N.VirtualTopic.T`: `VirtualTopic.T`.
pub(super) fn virtual_topic(queue: &str) -> Option<&str> {
    let (consumer, topic) = queue.strip_prefix("Consumer.")?.split_once('.')?;
    let rest = topic.strip_prefix("VirtualTopic.")?;
    (!consumer.is_empty() && !rest.is_empty()).then_some(topic)
}

/// `true` or `false`.
fn truth(header: &'static str, value: Option<&[u8]>) -> Result<Option<bool>, Violation> {
    match value {
        None => Ok(None),
        Some(b"true") => Ok(Some(true)),
        Some(b"false") => Ok(Some(false)),
        Some(_) => Err(Violation::HeaderInvalid { header }),
    }
}

/// One part of a queue's name.
fn push_part(queue: &mut String, part: &[u8]) -> Result<(), Cause> {
    let part = std::str::from_utf8(part).map_err(|_| DecodeError::NotUtf8)?;
    if part.is_empty() {
        return Err(Violation::BadDestination.into());
    }
    for character in part.chars() {
        match character {
            '%' => queue.push_str("%25"),
            '/' => queue.push_str("%2F"),
            character => queue.push(character),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_subscriptions_share_a_queue() {
        let part = |text: &str| {
            let mut queue = String::new();
            push_part(&mut queue, text.as_bytes()).unwrap();
            queue
        };
        assert_eq!(part("a/b%2Fc"), "a%2Fb%252Fc");
        let named = |client: &str, name: &str| {
            let wish = Wish {
                name: Some(name.as_bytes()),
                ..Wish::default()
            };
            let queue = wish.queue(Escapes::None, Some(client.as_bytes()), None, "t");
            queue.unwrap().unwrap()
        };
        assert_eq!(named("c", "n"), "DSUB.c/n");
        assert_ne!(named("a/b", "c"), named("a", "b/c"));
        let of_topic = |id: &str, topic: &str| {
            let wish = Wish {
                durable: Some(b"true"),
                auto_delete: Some(b"false"),
                ..Wish::default()
            };
            let queue = wish.queue(Escapes::None, None, Some(id.as_bytes()), topic);
            queue.unwrap().unwrap()
        };
        assert_eq!(of_topic("0", "a/b.c"), "DSUB./0/a%2Fb.c");
        assert_ne!(of_topic("0", "a"), of_topic("1", "a"));
        assert_ne!(of_topic("0", "a"), of_topic("0", "b"));
        assert_eq!(present("/dsub/x").unwrap().unwrap(), "DSUB.x");
        assert_ne!(present("/dsub/c/n").unwrap().unwrap(), named("c", "n"));
    }

    #[test]
    fn a_virtual_topic_is_named_by_its_consumer() {
        let cases = [
            ("Consumer.A.VirtualTopic.Orders", Some("VirtualTopic.Orders")),
            ("Consumer.A.VirtualTopic.a.b", Some("VirtualTopic.a.b")),
            ("Consumer.A.VirtualTopic.", None),
            ("Consumer..VirtualTopic.a", None),
            ("Consumer.A.B.VirtualTopic.a", None),
            ("Consumer.VirtualTopic.a", None),
            ("VirtualTopic.a", None),
        ];
        for (queue, topic) in cases {
            assert_eq!(virtual_topic(queue), topic, "{queue}");
        }
    }
}
