//! Room on the disk: whether there is enough for new messages, and when the ballast is given up and taken again.
//!
//! ```text
//!      free:   0 ......... reserve/8 ......... reserve ......... reserve + 1/8 ... reserve + 1/2
//!                 ballast     |     settlements    |    as before      |   messages   |  ballast is
//!                 released    |     only           |                   |              |  taken again
//! ```
//! Messages are taken only while the ballast is held: it is what settlements live on when the disk runs full.
//!
//! The store's file does not shrink with its content, so what was drained is room too: from a quarter of the reserve on,
//! the file's reusable bytes count with the free ones.

use std::path::Path;
use std::time::Duration;

use crate::store::{self, Ballast, StoreError};

use super::exit;

/// A fast disk takes about this much in a millisecond.
const BYTES_PER_MS: u64 = 1_000_000;
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 1_000;

/// Watches the file system of one data folder.
#[derive(Debug)]
pub(crate) struct RoomKeeper {
    ballast: Option<Ballast>,
    dir: std::path::PathBuf,
    free_bytes_min: u64,
    room: bool,
    /// The last look failed; told once.
    blind: bool,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether new messages may be stored.
    pub(crate) room: bool,
    /// When to look again, so that a fast writer cannot fill the disk in between.
    pub(crate) pause: Duration,
}

/// What to do at so much free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Release,
    Refuse,
    AsBefore,
    Accept,
    Hold,
}

fn judge(free_bytes: u64, reusable_bytes: u64, reserve_bytes: u64) -> Verdict {
    let room = match free_bytes {
        free if free < reserve_bytes / 4 => free,
        free => free.saturating_add(reusable_bytes),
    };
    match room {
        _ if reserve_bytes == 0 => Verdict::Accept,
        _ if free_bytes < reserve_bytes / 8 => Verdict::Release,
        room if room < reserve_bytes => Verdict::Refuse,
        room if room < reserve_bytes + reserve_bytes / 8 => Verdict::AsBefore,
        room if room < reserve_bytes + reserve_bytes / 2 => Verdict::Accept,
        // Taken again, it leaves a quarter of the reserve free.
        _ if free_bytes < reserve_bytes / 4 * 3 => Verdict::Accept,
        _ => Verdict::Hold,
    }
}

/// Bytes of the store's file that new messages can take without its growing. sled needs up to three times what it holds:
/// it writes a page anew for each few changes and leaves the old one behind.
pub(crate) fn reusable_bytes(file_bytes: u64, held_bytes: u64) -> u64 {
    file_bytes.saturating_sub(held_bytes.saturating_mul(3))
}

impl RoomKeeper {
    /// Touches nothing yet.
    pub(crate) fn new(dir: &Path, free_bytes_min: u64) -> Self {
        Self {
            ballast: None,
            dir: dir.to_owned(),
            free_bytes_min,
            room: true,
            blind: false,
        }
    }

    /// On a disk that is all but full, gives the ballast up, so that the store can be opened. Does nothing else: until
    /// the store is open, the folder may be another broker's.
    pub(crate) fn make_room_to_open(&self) {
        let made = store::room(&self.dir).and_then(|room| {
            let reserve = room.reserve_bytes(self.free_bytes_min);
            match judge(room.free_bytes, 0, reserve) {
                Verdict::Release => Ballast::new(&self.dir, reserve / 2).release(),
                _ => Ok(0),
            }
        });
        match made {
            Ok(0) => {}
            Ok(released_bytes) => {
                tracing::warn!(released_bytes, "the disk is all but full: ballast released")
            }
            Err(error) => tracing::error!(
                code = error.code(),
                "no room made on the disk: {}",
                exit::chain(&error)
            ),
        }
    }

    /// Looks, and does what is to be done; the store's file has so many reusable bytes. Blocks on the file system.
    pub(crate) fn look(&mut self, reusable_bytes: u64) -> Look {
        let pause_ms = match self.try_look(reusable_bytes) {
            Ok(pause_ms) => {
                self.blind = false;
                pause_ms
            }
            Err(error) => {
                if !self.blind {
                    tracing::error!(
                        code = error.code(),
                        "room on the disk is not known: {}",
                        exit::chain(&error)
                    );
                }
                self.blind = true;
                PAUSE_MS_MAX
            }
        };
        Look {
            room: self.room,
            pause: Duration::from_millis(pause_ms),
        }
    }

    fn try_look(&mut self, reusable_bytes: u64) -> Result<u64, StoreError> {
        let room = store::room(&self.dir)?;
        let reserve = room.reserve_bytes(self.free_bytes_min);
        let ballast = self
            .ballast
            .get_or_insert_with(|| Ballast::new(&self.dir, reserve / 2));
        let before = self.room;
        match judge(room.free_bytes, reusable_bytes, reserve) {
            Verdict::Release => {
                self.room = false;
                let released_bytes = ballast.release()?;
                if released_bytes > 0 {
                    tracing::error!(
                        free_bytes = room.free_bytes,
                        released_bytes,
                        "the disk is all but full: ballast released"
                    );
                }
            }
            Verdict::Refuse => self.room = false,
            Verdict::AsBefore => self.room &= ballast.is_held(),
            Verdict::Accept => self.room = reserve == 0 || ballast.is_held(),
            Verdict::Hold => {
                ballast.hold()?;
                self.room = true;
            }
        }
        if before && !self.room {
            tracing::warn!(
                free_bytes = room.free_bytes,
                reserve_bytes = reserve,
                "the disk is nearly full: messages are refused"
            );
        } else if !before && self.room {
            tracing::info!(
                free_bytes = room.free_bytes,
                "the disk has room again: messages are accepted"
            );
        }
        let spare_ms = room.free_bytes.saturating_sub(reserve) / BYTES_PER_MS;
        Ok((spare_ms / 2).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX))
    }
}

#[cfg(test)]
mod tests;
