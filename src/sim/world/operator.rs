//! What an operator does.

use std::collections::BTreeSet;

use super::World;
use crate::port::{Act, Acted, PAGE_COUNT_MAX, Selection};
use crate::sim::client::{QUEUES, queue};
use crate::sim::oracle::Conn;
use crate::sim::plant::Plant;

impl World {
    /// An act chosen by chance.
    pub(super) fn act(&mut self) {
        let name = self.rng.pick(&QUEUES);
        let dead = format!("DLQ.{name}");
        let any = if self.rng.chance(1, 4) {
            dead.clone()
        } else {
            name.to_owned()
        };
        let other = QUEUES
            .iter()
            .find(|other| **other != name)
            .copied()
            .unwrap_or_default();
        match self.rng.below(20) {
            0 | 1 => self.purge(any),
            2..6 => self.relocate(name, other.to_owned()),
            6..9 => self.copy(any),
            9..13 => {
                let act = Act::Requeue {
                    queue: dead.clone(),
                    selection: Selection::From(0),
                };
                if let Some(acted) = self.do_act(&act) {
                    self.oracle.moved(&dead, &queue(name), acted.gate.0);
                }
            }
            13 | 14 => self.pause(any, true),
            15 | 16 => self.pause(any, false),
            17 => self.delete(any),
            _ => self.disconnect(),
        }
        if self.plant == Some(Plant::DeadLetterTwice) {
            self.double(&dead);
        }
    }

    /// Asks, and makes sure that the core is as it says.
    fn do_act(&mut self, act: &Act) -> Option<Acted> {
        let host = self.host();
        let acted = host.shared.core.act(act).ok();
        self.tally.act_count += u64::from(acted.is_some());
        self.history.note(format!("act {act:?}: {acted:?}"));
        acted
    }

    /// Some of the entries of a queue, or all.
    fn selection(&mut self, of: &str) -> Selection {
        if self.rng.chance(2, 3) {
            return Selection::From(0);
        }
        let entries = self.host().shared.core.entries(of, 0, PAGE_COUNT_MAX);
        let some = entries.items.iter().map(|entry| entry.sequence);
        Selection::Sequences(some.filter(|_| self.rng.chance(1, 2)).collect())
    }

    fn purge(&mut self, name: String) {
        let selection = self.selection(&name);
        let whole = selection == Selection::From(0);
        let leased = self.leased(&name, &selection);
        let act = Act::Purge {
            queue: name.clone(),
            selection,
        };
        if let Some(acted) = self.do_act(&act) {
            self.oracle.purged(&name, whole, &leased, acted.gate.0);
        }
    }

    /// Messages that are out for delivery, of those selected.
    fn leased(&mut self, name: &str, of: &Selection) -> BTreeSet<u64> {
        let entries = self.host().shared.core.entries(name, 0, PAGE_COUNT_MAX).items;
        let chosen = |sequence: &u64| match of {
            Selection::From(first) => first <= sequence,
            Selection::Sequences(sequences) => sequences.contains(sequence),
        };
        let leased = entries
            .iter()
            .filter(|entry| entry.leased && chosen(&entry.sequence));
        leased.filter_map(|entry| self.uid_of(entry)).collect()
    }

    fn relocate(&mut self, from: &str, to: String) {
        let selection = self.selection(from);
        let act = Act::Move {
            from: from.to_owned(),
            to: to.clone(),
            selection,
        };
        if let Some(acted) = self.do_act(&act) {
            self.oracle.moved(from, &queue(&to), acted.gate.0);
        }
    }

    fn copy(&mut self, from: String) {
        let to = format!("copy-{}", self.next_copy);
        self.next_copy += 1;
        let selection = self.selection(&from);
        let act = Act::Copy {
            from: from.clone(),
            to: to.clone(),
            selection,
        };
        if let Some(acted) = self.do_act(&act) {
            self.oracle.copied(&from, &queue(&to), acted.count, acted.gate.0);
        }
    }

    fn pause(&mut self, name: String, paused: bool) {
        let act = if paused {
            Act::Pause { queue: name.clone() }
        } else {
            Act::Resume { queue: name.clone() }
        };
        if let Some(acted) = self.do_act(&act) {
            self.oracle.pause(&queue(&name), paused, acted.gate.0);
        }
    }

    fn delete(&mut self, name: String) {
        // A window that ends while the message is on its way again tells nobody anything.
        if self.oracle.may_come_again(&name) {
            return;
        }
        self.numbers.forget_recent(&name);
        let leased = self.leased(&name, &Selection::From(0));
        let act = Act::Delete {
            queue: name.clone(),
            force: self.rng.chance(1, 2),
        };
        if let Some(acted) = self.do_act(&act) {
            self.oracle.purged(&name, true, &leased, acted.gate.0);
            self.oracle.pause(&queue(&name), false, acted.gate.0);
            self.excuse_ended("queue-deleted");
        }
    }

    fn disconnect(&mut self) {
        let conns: Vec<Conn> = self.lines.keys().copied().collect();
        if conns.is_empty() {
            return;
        }
        let conn = self.rng.pick(&conns);
        if let Some(line) = self.lines.get(&conn) {
            let session = line.session;
            self.do_act(&Act::Disconnect { session });
            self.excuse_ended("disconnected-by-operator");
        }
    }

    /// Sessions that the act has ended may say so.
    fn excuse_ended(&mut self, why: &'static str) {
        let Some(host) = &self.host else { return };
        for (conn, line) in &self.lines {
            if !host.is_live(line.session) {
                self.oracle.excuse(*conn, why);
            }
        }
        self.look_at_sessions(None);
    }

    /// Copies have been looked at: away with them.
    pub(super) fn delete_copies(&mut self) {
        // More than once, since a crash may undo it.
        for _ in 0..10 {
            let names: Vec<String> = self
                .look()
                .iter()
                .map(|queue| queue.view.name.to_string())
                .collect();
            let copies: Vec<String> = names
                .into_iter()
                .filter(|name| name.starts_with("copy-"))
                .collect();
            if copies.is_empty() {
                return self.oracle.forget_copies();
            }
            for queue in copies {
                self.do_act(&Act::Delete { queue, force: true });
            }
            self.settle();
        }
        let text = "queues of copies are deleted, and are there".to_owned();
        self.oracle.accuse(crate::sim::Kind::SettledAgain, text);
    }

    /// Every queue goes on.
    pub(super) fn resume_all(&mut self) {
        for queue in self.look() {
            if queue.view.paused {
                self.pause(queue.view.name.to_string(), false);
            }
        }
    }

    /// A planted fault: every dead letter a second time, which the oracle is not told.
    fn double(&mut self, dead: &str) {
        let spare = "spare".to_owned();
        let host = self.host();
        let selection = Selection::From(0);
        let copy = Act::Copy {
            from: dead.to_owned(),
            to: spare.clone(),
            selection: selection.clone(),
        };
        let back = Act::Move {
            from: spare,
            to: dead.to_owned(),
            selection,
        };
        for act in [copy, back] {
            // Where there is no dead letter there is nothing to double.
            let _ = host.shared.core.act(&act);
        }
    }
}
