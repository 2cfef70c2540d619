//! What an operator asks for, against both.

use std::collections::BTreeMap;

use steadfast::base::{SessionNo, Tag};
use steadfast::port::{Act, Acted, EntryView, Event, Refusal, Selection};

use super::{Deed, Which, World};
use crate::state::{HeldState, Message, Number, Pauses};

/// What the model expects an act to take, to pass over, and where it is to end.
struct Choice {
    taken: Vec<(Number, EntryView)>,
    acted: Acted,
}

impl World {
    pub(crate) fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Purge(queue, which) => self.purge(queue, which),
            Deed::Move(from, to, which) => self.move_or_copy(from, to, which, false),
            Deed::Copy(from, to, which) => self.move_or_copy(from, to, which, true),
            Deed::Requeue(queue, which) => self.requeue(queue, which),
            Deed::Delete(queue, force) => self.delete(queue, force),
            Deed::Disconnect(slot) => self.disconnect(slot),
            Deed::Pause(queue) => self.pause(queue, true),
            Deed::Resume(queue) => self.pause(queue, false),
        }
    }

    /// Asks the broker, and compares the answer with what is expected of it and with what it announced.
    fn ask(&mut self, act: &Act, expected: Result<Acted, Refusal>) -> Option<Acted> {
        let before = (self.broker.has_batch(), self.broker.holdings());
        let preview = self.broker.preview(act);
        let acted = self.broker.handle_act(act, self.now);
        let without_gate = |acted: Acted| Acted {
            gate: Default::default(),
            ..acted
        };
        assert_eq!(acted.map(without_gate), expected, "{act:?}");
        assert_eq!(preview, expected, "a preview of {act:?}");
        if acted.is_err() {
            let after = (self.broker.has_batch(), self.broker.holdings());
            assert_eq!(before, after, "what was refused left no trace");
        }
        let acted = acted.ok()?;
        self.gate_max = self.gate_max.max(acted.gate);
        Some(acted)
    }

    fn is_known(&self, queue: &str) -> bool {
        self.broker.queue_view(queue).is_some()
    }

    /// The entries of a queue as the model knows them, beside what the broker shows: which are held the model follows.
    fn entries(&self, queue: &str) -> Vec<(Number, EntryView)> {
        let numbers = self
            .queues
            .get(queue)
            .into_iter()
            .flatten()
            .map(|entry| entry.number);
        let views = self.broker.entries(queue, 0);
        numbers.zip(views).collect()
    }

    fn selection(&self, queue: &str, which: Which) -> Selection {
        let sequences: Vec<u64> = self
            .entries(queue)
            .iter()
            .map(|(_, view)| view.sequence)
            .collect();
        match which {
            Which::All => Selection::From(0),
            Which::From(at) => {
                let at = usize::from(at) % sequences.len().max(1);
                Selection::From(sequences.get(at).copied().unwrap_or(1))
            }
            Which::Some(pattern) => {
                let picked = |(at, _): &(usize, u64)| pattern >> (at % 8) & 1 == 1;
                let picked = sequences.into_iter().enumerate().filter(picked);
                // In no order, with one that never was and one twice.
                let mut picked: Vec<u64> = picked.map(|(_, sequence)| sequence).rev().collect();
                picked.push(3);
                picked.extend(picked.first().copied());
                Selection::Sequences(picked)
            }
        }
    }

    fn choose(
        &self,
        queue: &str,
        selection: &Selection,
        bounded: bool,
        fits: impl Fn(&EntryView) -> bool,
        held_too: bool,
    ) -> Choice {
        let selected = self
            .entries(queue)
            .into_iter()
            .filter(|(_, view)| match selection {
                Selection::From(first) => view.sequence >= *first,
                Selection::Sequences(sequences) => sequences.contains(&view.sequence),
            });
        let mut acted = Acted::default();
        let mut taken = Vec::new();
        for (at, (number, view)) in selected.enumerate() {
            if bounded && at == self.limits.admin_act_count_max {
                acted.next = Some(view.sequence);
                break;
            }
            if !fits(&view) {
                acted.skipped_count += 1;
                continue;
            }
            acted.held_count += u64::from(view.leased);
            if held_too || !view.leased {
                acted.count += 1;
                acted.bytes += u64::from(view.len);
                taken.push((number, view));
            }
        }
        Choice { taken, acted }
    }

    fn purge(&mut self, queue: &str, which: Which) {
        let selection = self.selection(queue, which);
        let bounded = selection != Selection::From(0);
        let Choice { taken, acted } = self.choose(queue, &selection, bounded, |_| true, true);
        let expected = if self.is_known(queue) {
            Ok(acted)
        } else {
            Err(Refusal::QueueUnknown)
        };
        let act = Act::Purge {
            queue: queue.to_owned(),
            selection,
        };
        if let Some(acted) = self.ask(&act, expected) {
            self.purged(queue, &taken, acted);
        }
    }

    fn purged(&mut self, queue: &str, taken: &[(Number, EntryView)], acted: Acted) {
        let unit = self.unit();
        for (number, view) in taken {
            let entry = self.remove(queue, *number);
            assert!(
                view.transient || acted.gate.0 > 0,
                "what is stored is not gone without a batch"
            );
            if !entry.transient {
                self.effect(*number, None, Some(acted.gate), unit);
            }
            // Whoever holds it may answer, without effect.
            for held in self
                .sessions
                .values_mut()
                .flat_map(|session| session.held.values_mut())
            {
                let going_on = matches!(held.state, HeldState::Held | HeldState::Staged);
                if going_on && held.number == *number && held.queue.as_deref() == Some(queue) {
                    held.queue = None;
                }
            }
            if view.leased && entry.lease.is_none() {
                self.late.insert((queue.to_owned(), *number));
            }
        }
    }

    fn move_or_copy(&mut self, from: &str, to: &str, which: Which, copy: bool) {
        let selection = self.selection(from, which);
        let Choice { taken, acted } = self.choose(from, &selection, true, |_| true, false);
        let expected = if from == to {
            Err(Refusal::SameQueue)
        } else if !self.room {
            Err(Refusal::DiskFull)
        } else if !self.is_known(from) {
            Err(Refusal::QueueUnknown)
        } else {
            Ok(acted)
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        let act = if copy {
            Act::Copy {
                from: from.clone(),
                to: to.clone(),
                selection,
            }
        } else {
            Act::Move {
                from: from.clone(),
                to: to.clone(),
                selection,
            }
        };
        let Some(acted) = self.ask(&act, expected) else {
            return;
        };
        let unit = self.unit();
        for (number, view) in &taken {
            let (number, origin) = if copy {
                let message = &self.messages[*number];
                let twin = Message {
                    bytes: message.bytes.clone(),
                    header_len: message.header_len,
                    ..Message::default()
                };
                self.messages.push(twin);
                (self.messages.len() - 1, self.entry(&from, *number).origin.clone())
            } else {
                self.messages[*number].places.remove(&from);
                (*number, self.remove(&from, *number).origin)
            };
            self.enqueue(&to, number, view.transient, origin, Some(acted.gate), unit);
        }
        // The copies stand at the end, in the order of what they were made from.
        if copy {
            let new: Vec<_> = self.entries(&to).into_iter().rev().take(taken.len()).collect();
            for (number, view) in new {
                assert!(
                    !self.ids.contains_key(&view.message),
                    "a copy has an id of its own"
                );
                self.know_id(number, view.message);
            }
        }
    }

    fn requeue(&mut self, queue: &str, which: Which) {
        let selection = self.selection(queue, which);
        let origins: BTreeMap<u64, String> = self
            .entries(queue)
            .into_iter()
            .filter_map(|(number, view)| {
                let origin = self.queues[queue].iter().find(|entry| entry.number == number);
                Some((view.sequence, origin?.origin.clone()?))
            })
            .filter(|(_, origin)| origin != queue)
            .collect();
        let fits = |view: &EntryView| origins.contains_key(&view.sequence);
        let Choice { taken, acted } = self.choose(queue, &selection, true, fits, false);
        let expected = if !self.room {
            Err(Refusal::DiskFull)
        } else if !self.is_known(queue) {
            Err(Refusal::QueueUnknown)
        } else {
            Ok(acted)
        };
        let act = Act::Requeue {
            queue: queue.to_owned(),
            selection,
        };
        let Some(acted) = self.ask(&act, expected) else {
            return;
        };
        let unit = self.unit();
        for (number, view) in taken {
            self.messages[number].places.remove(queue);
            self.remove(queue, number);
            let to = &origins[&view.sequence];
            self.enqueue(to, number, view.transient, None, Some(acted.gate), unit);
        }
    }

    fn delete(&mut self, queue: &str, force: bool) {
        let subscribers: Vec<u8> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.subs.values().any(|sub| sub.is_of(queue)))
            .map(|(slot, _)| *slot)
            .collect();
        let Choice { taken, acted } = self.choose(queue, &Selection::From(0), false, |_| true, true);
        let expected = if taken.is_empty() && subscribers.is_empty() && !self.is_paused(queue) {
            Err(Refusal::QueueUnknown)
        } else if !subscribers.is_empty() && !force {
            Err(Refusal::QueueInUse)
        } else {
            Ok(acted)
        };
        let act = Act::Delete {
            queue: queue.to_owned(),
            force,
        };
        let Some(acted) = self.ask(&act, expected) else {
            return;
        };
        for slot in subscribers {
            self.evicted(slot, Refusal::QueueDeleted);
        }
        if self.is_paused(queue) {
            self.set_paused(queue, false, acted);
        }
        self.purged(queue, &taken, acted);
        assert!(!self.is_known(queue), "nothing is left of {queue}");
        self.late.retain(|(of, _)| of != queue);
    }

    fn disconnect(&mut self, slot: u8) {
        let Some(session) = self.sessions.get(&slot) else {
            let session = SessionNo(9_999);
            self.ask(&Act::Disconnect { session }, Err(Refusal::SessionUnknown));
            return;
        };
        let no = SessionNo(session.no);
        let detail = self.broker.session_detail(no, self.now).expect("it is open");
        assert_eq!(detail.session.subscription_count, session.subs.len() as u64);
        assert_eq!(
            detail.session.transaction_count,
            session.transactions.len() as u64
        );
        let held = |tag: &Tag| session.held[tag].state == HeldState::Held;
        if !session.stalled {
            let of_subs = |tag: &Tag| session.subs.contains_key(&session.held[tag].sub);
            let unsettled = session
                .held
                .keys()
                .filter(|tag| held(tag) && of_subs(tag))
                .count();
            let slow = session.written < session.last_tag;
            assert!(
                slow || detail.session.held_count == unsettled as u64,
                "{detail:?}"
            );
        }
        let expected = Acted {
            count: 1,
            held_count: detail.session.held_count,
            ..Acted::default()
        };
        self.ask(&Act::Disconnect { session: no }, Ok(expected));
        self.evicted(slot, Refusal::DisconnectedByOperator);
    }

    pub(super) fn is_paused(&self, queue: &str) -> bool {
        self.paused.get(queue).is_some_and(Pauses::now)
    }

    fn pause(&mut self, queue: &str, paused: bool) {
        let changes = self.is_paused(queue) != paused;
        let acted = Acted {
            count: u64::from(changes),
            ..Acted::default()
        };
        let expected = if self.is_known(queue) {
            Ok(acted)
        } else {
            Err(Refusal::QueueUnknown)
        };
        let queue_name = queue.to_owned();
        let act = if paused {
            Act::Pause { queue: queue_name }
        } else {
            Act::Resume { queue: queue_name }
        };
        if let Some(acted) = self.ask(&act, expected)
            && changes
        {
            self.set_paused(queue, paused, acted);
        }
    }

    fn set_paused(&mut self, queue: &str, paused: bool, acted: Acted) {
        assert!(acted.gate.0 > 0, "a pause waits for a batch");
        let steps = &mut self.paused.entry(queue.to_owned()).or_default().steps;
        steps.push((acted.gate, paused));
    }

    /// A pause that is durable is there after a crash; of later ones some may be, in their order.
    pub(super) fn check_pauses(&mut self) {
        let durable = self.disk.durable_seq();
        for (queue, pauses) in &mut self.paused {
            pauses.settle(durable);
            let found = self.broker.queue_view(queue).is_some_and(|view| view.paused);
            let mut legal =
                std::iter::once(pauses.base).chain(pauses.steps.iter().map(|(_, paused)| *paused));
            assert!(
                legal.any(|paused| paused == found),
                "{queue} is paused: {found}; {pauses:?}"
            );
            *pauses = Pauses {
                base: found,
                steps: Vec::new(),
            };
        }
    }

    /// The broker has ended a session.
    fn evicted(&mut self, slot: u8, refusal: Refusal) {
        let no = SessionNo(self.sessions[&slot].no);
        assert!(self.broker.is_evicted(no));
        let mut events = Vec::new();
        self.broker.poll_events(no, usize::MAX, &mut events);
        assert_eq!(events, [Event::Evicted(refusal)], "the last it is told is why");
        self.close(slot);
    }
}
