//! What goes wrong: the network, the disk, the broker.

use std::sync::Arc;
use std::time::Duration;

use super::World;
use crate::sim::disk::Fails;
use crate::sim::host::{Failed, Host};
use crate::sim::oracle::Conn;

/// The wall clock of a run begins here, milliseconds since the Unix epoch.
pub(super) const WALL_START_MS: u64 = 1_700_000_000_000;

/// Steps that a clean stop may take before connections are closed as they are.
const STOP_STEP_COUNT: usize = 200;

impl World {
    /// Starts the broker, over and over until it stays up.
    pub(super) fn start(&mut self) {
        loop {
            if self.profile.crash_of > 0 && self.rng.chance(1, 20) {
                self.disk.fail(self.rng.pick(&[Fails::Append, Fails::Flush]));
            }
            let wall = Duration::from_millis(WALL_START_MS + self.elapsed_ms);
            let started = Host::start(
                Arc::clone(&self.disk),
                &self.limits,
                wall,
                &mut self.rng,
                self.plant,
            );
            match started {
                Ok(host) => {
                    self.history.note("started".to_owned());
                    host.shared.core.handle_room(self.room);
                    self.host = Some(host);
                    // A crash right behind the recovery.
                    if self.profile.crash_of > 0 && self.rng.chance(1, 10) {
                        self.lose_power();
                        continue;
                    }
                    return;
                }
                Err(Failed) => self.lose_power(),
            }
        }
    }

    /// The broker is gone at once, with the power.
    fn lose_power(&mut self) {
        self.tally.crash_count += 1;
        let keep = self.rng.chance(1, 2);
        self.history.note(format!("crash, keep:{keep}"));
        self.end_life();
        self.disk.crash(keep);
        self.oracle.stopped(false);
    }

    fn end_life(&mut self) {
        self.count_life();
        self.lines.clear();
        self.clients.iter_mut().for_each(|client| *client = None);
        self.host = None;
    }

    pub(super) fn crash(&mut self) {
        self.lose_power();
        self.start();
    }

    pub(super) fn disturb_broker(&mut self) {
        if self.rng.chance(1, 4) {
            self.stop();
        } else {
            self.crash();
        }
    }

    /// A clean stop, as SIGTERM asks for it, and a new start.
    fn stop(&mut self) {
        self.history.note("stop".to_owned());
        self.tally.stop_count += 1;
        self.oracle.stopping();
        self.host().begin_stop();
        for _ in 0..STOP_STEP_COUNT {
            match self.rng.below(3) {
                0 => self.step_connection(),
                1 => self.step_network(),
                _ => match self.host().step_commit() {
                    Ok(_) => {}
                    Err(Failed) => return self.crash(),
                },
            }
        }
        self.host().close_all();
        while let Some(conn) = self.ready().first().copied() {
            self.turn(conn);
        }
        match self.host().finish_stop() {
            Ok(()) => {
                self.end_life();
                self.disk.crash(false);
                self.oracle.stopped(true);
                self.start();
            }
            Err(Failed) => self.crash(),
        }
    }

    pub(super) fn disturb_network(&mut self) {
        let conns: Vec<Conn> = self.lines.keys().copied().collect();
        if conns.is_empty() {
            return;
        }
        let conn = self.rng.pick(&conns);
        let slot = self.lines.get(&conn).and_then(|line| line.client);
        match self.rng.below(3) {
            0 => self.cut(conn),
            1 => {
                // It writes no more, and reads on.
                if let Some(line) = self.lines.get(&conn) {
                    line.wire.borrow_mut().up_ended = true;
                    self.tally.cut_count += 1;
                    self.history.note(format!("half-close {conn}"));
                    self.oracle.leaving(conn);
                }
            }
            _ => {
                if let Some(client) = slot
                    .and_then(|slot| self.clients.get_mut(slot))
                    .and_then(Option::as_mut)
                {
                    client.stalled = !client.stalled;
                    self.oracle.excuse(conn, "unread");
                }
            }
        }
    }

    /// Both ends of a connection are torn apart.
    pub(super) fn cut(&mut self, conn: Conn) {
        self.tally.cut_count += 1;
        let Some(line) = self.lines.get(&conn) else { return };
        line.wire.borrow_mut().cut();
        self.hang_up(conn);
    }

    pub(super) fn disturb_disk(&mut self) {
        match self.rng.below(4) {
            0 => self.disk.fail(self.rng.pick(&[Fails::Append, Fails::Flush])),
            1 => self.fail_bodies(!self.bodies_fail),
            _ => self.make_room(!self.room),
        }
    }

    /// Bodies cannot be read, or can again. What was set aside meanwhile comes in the next run, which begins at once.
    pub(super) fn fail_bodies(&mut self, fail: bool) {
        if self.bodies_fail != fail {
            self.bodies_fail = fail;
            self.history.note(format!("bodies fail: {fail}"));
            self.disk.fail_bodies(fail);
            self.oracle.excuse_all("unreadable", fail);
            if !fail {
                self.disturb_broker();
            }
        }
    }

    pub(super) fn make_room(&mut self, room: bool) {
        if self.room != room {
            self.room = room;
            self.history.note(format!("room: {room}"));
            self.oracle.excuse_all("disk-full", !room);
            self.host().shared.core.handle_room(room);
        }
    }
}
