//! The file `durable`: the last Seq that a flush has made durable, written after every flush and not synced.
//!
//! sled takes damage near the end of its log for the end, and opens with what stood there before: every later batch
//! would be lost without a word. This file, though it may be older than the truth after a power cut, never names a
//! batch that is not durable; so a store that ends before it is damaged.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::folder::{DURABLE, Folder};
use crate::base::Seq;
use crate::store::StoreError;
use crate::store::frame::{self, HEAD_BYTES, Kind};

const ID_BYTES: usize = 16;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Durable {
    file: File,
    uuid: [u8; ID_BYTES],
}

impl Durable {
    pub(super) fn open(folder: &Folder, uuid: [u8; ID_BYTES]) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.dir().join(DURABLE));
        let file = opened.map_err(folder.error("open", DURABLE))?;
        Ok(Self { file, uuid })
    }

    /// The last Seq written; none where a power cut left nothing of this store.
    pub(super) fn read(&self) -> Option<Seq> {
        let mut value = [0; HEAD_BYTES + ID_BYTES];
        self.file.read_exact_at(&mut value, 0).ok()?;
        let found = frame::open(&value, Kind::Durable).ok()?;
        (found.payload == self.uuid).then_some(Seq(found.number))
    }

    /// Writes it over the old. Nothing is promised by it, so a failure, which leaves the old, is no fault.
    pub(super) fn write(&self, seq: Seq) {
        let mut value = Vec::with_capacity(HEAD_BYTES + ID_BYTES);
        frame::seal(&mut value, Kind::Durable, 0, seq.0, &self.uuid);
        let _ = self.file.write_all_at(&value, 0);
    }
}
