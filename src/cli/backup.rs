//! `steadfast backup`: a running broker, or a stopped one, as a file.
//!
//! # Invariants
//! - The file has its name only when it is whole and synced; until then, and for ever if the command is killed, it is
//!   called `NAME.partial`. Nothing that was there is overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::api_client::{ApiClient, Route};
use super::clock::unix_ns;
use super::progress::Progress;
use super::show::{bytes_for_people, counted, utc};
use super::{Failure, StoreArgs, check_outside, print};
use crate::api;
use crate::base::{Limits, Now, Seq, SlotNo};
use crate::broker::Recovery;
use crate::store::{BackupError, BackupHead, BackupReader, BackupWriter, SledStore, Store};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where to: a file that is not there yet, or a folder, in which the file is named by the time
    #[arg(long, value_name = "FILE|DIR")]
    to: PathBuf,
    /// Read at most so much of a running broker in a second, so that it has time for its clients; 0 for no bound
    #[arg(long, value_name = "MIB", default_value_t = api::BACKUP_BYTES_PER_SECOND >> 20)]
    mib_per_second_max: u64,
}

const EXAMPLES: &str = "\
A running broker goes on meanwhile. The backup is what was stored at one moment just after the command began: every \
message confirmed before is in it, and every transaction whole or not at all. Messages sent with persistent:false are \
not. While it is read, the slots of messages that are settled meanwhile are not used again, so that the store may grow \
by as much as it held. A broker that does not run is backed up all the same.

The file is FILE.partial until it is whole and synced. `steadfast restore FILE --check` reads all of it.

Examples:
  steadfast backup --data-dir /var/lib/steadfast --to /backup
  steadfast backup --to orders.backup --mib-per-second-max 0

Exit codes: 0 well, 1 a fault, 2 wrong usage or no store there, 4 the store is damaged, 5 something else is using the \
folder.";

const VERB: &str = "backed up";

/// Bytes that gather before they are written.
const GATHERED_BYTES: usize = 1 << 20;

/// Chunks read in one go.
const CHUNK_COUNT: usize = 64;

pub(super) fn run(args: BackupArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    check_outside(api.data_dir(), &args.to)?;
    let target = Target::new(&args.to)?;
    let wanted = api::Backup {
        bytes_per_second_max: Some(args.mib_per_second_max.saturating_mul(1 << 20)),
    };
    let taken = match api.post_for_bytes(Route::new(&["backup"]), &wanted) {
        Ok(stream) => target.take_stream(stream),
        Err(Failure::NoBroker(_)) => target.take_store(api.data_dir()),
        Err(failure) => Err(failure),
    };
    let taken = taken.and_then(|taken| target.finish().map(|()| taken));
    match taken {
        Ok(Taken { head, bytes }) => print(format!(
            "{} as of batch {} in {} ({})\n",
            counted(head.message_count, "message"),
            head.seq,
            target.path.display(),
            bytes_for_people(bytes)
        )),
        Err(failure) => {
            // What stays is called partial, and refused.
            let _ = fs::remove_file(&target.partial);
            Err(failure)
        }
    }
}

/// What was written.
struct Taken {
    head: BackupHead,
    bytes: u64,
}

/// The file while it is written.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Target {
    fn new(to: &Path) -> Result<Self, Failure> {
        let path = match to.is_dir() {
            true => {
                let time = utc(unix_ns() / 1_000_000);
                to.join(format!("steadfast-{}.backup", time.replace([':', '-'], "")))
            }
            false => to.to_owned(),
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::Write { path, source }
        };
        if fs::symlink_metadata(&path).is_ok() {
            return Err(failed(&path)(io::ErrorKind::AlreadyExists.into()));
        }
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(failed(&partial))?;
        Ok(Self { path, partial, file })
    }

    fn failed(&self, source: io::Error) -> Failure {
        Failure::Write {
            path: self.partial.clone(),
            source,
        }
    }

    /// Writes what a running broker sends, verifying it on the way.
    fn take_stream(&self, stream: impl Read) -> Result<Taken, Failure> {
        let mut fault = None;
        let read = follow(Tee {
            from: stream,
            to: BufWriter::with_capacity(GATHERED_BYTES, &self.file),
            fault: &mut fault,
        });
        match (fault, read) {
            (Some(source), _) => Err(self.failed(source)),
            (None, Ok(taken)) => Ok(taken),
            (None, Err(BackupError::Read(source))) => Err(Failure::BackupBrokenOff {
                path: self.path.clone(),
                source,
            }),
            (None, Err(error)) => Err(Failure::Backup {
                error,
                path: self.partial.clone(),
            }),
        }
    }

    /// Writes the store of a stopped broker.
    fn take_store(&self, data_dir: &Path) -> Result<Taken, Failure> {
        let failed = |error| Failure::Store {
            error,
            data_dir: data_dir.to_owned(),
        };
        let store = SledStore::open_existing(data_dir).map_err(|error| Failure::store(error, data_dir))?;
        let mut recovery = Recovery::new(Limits::default());
        let recovered = store
            .recover(&mut |chunk| recovery.visit(chunk))
            .map_err(failed)?;
        let mut broker = recovery.finish(&recovered, Now::default());
        let point = broker.begin_backup().expect("nobody else has this broker");
        let head = BackupHead {
            seq: point.seq,
            uuid: recovered.uuid,
            epoch: point.meta.epoch,
            slot_count: point.slot_count,
            message_count: point.message_count,
            made_at_ms: unix_ns() / 1_000_000,
        };
        let mut progress = Progress::new(VERB);
        let mut total = 0;
        let mut writer = BackupWriter::default();
        let mut bytes = Vec::new();
        let mut put = |bytes: &mut Vec<u8>| {
            total += bytes.len() as u64;
            progress.tell(|| bytes_for_people(total));
            let written = (&self.file).write_all(bytes);
            bytes.clear();
            written.map_err(|source| self.failed(source))
        };
        writer.head(&head, &mut bytes);
        let mut from = Some(Seq(0));
        while let Some(first) = from {
            let chunks = store.index(first, head.seq, GATHERED_BYTES).map_err(failed)?;
            for chunk in &chunks {
                writer.facts(chunk.seq, &chunk.facts, &mut bytes);
            }
            put(&mut bytes)?;
            from = chunks.last().map(|last| Seq(last.seq.0 + 1));
        }
        let mut from = Some(SlotNo(0));
        while let Some(first) = from {
            let page = broker.backup_chunks(first, CHUNK_COUNT);
            for place in page.items {
                writer.chunk(place, &store.body(place).map_err(failed)?, &mut bytes);
            }
            put(&mut bytes)?;
            from = page.next;
        }
        writer.end(head.seq, &mut bytes);
        put(&mut bytes)?;
        Ok(Taken { head, bytes: total })
    }

    /// Gives the file its name, once it is on the disk.
    fn finish(&self) -> Result<(), Failure> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        self.file
            .sync_all()
            .and_then(|()| {
                let flags = RenameFlags::NOREPLACE;
                Ok(renameat_with(CWD, &self.partial, CWD, &self.path, flags)?)
            })
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|source| self.failed(source))
    }
}

/// Hands on what is read, and writes it.
struct Tee<'a, R, W> {
    from: R,
    to: W,
    /// Why it could not be written.
    fault: &'a mut Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let (came, _) = into.split_at(count);
        // At its end everything is handed over, so that no fault is met where nobody is told.
        let written = match came {
            [] => self.to.flush(),
            came => self.to.write_all(came),
        };
        written.map_err(|source| {
            *self.fault = Some(source);
            io::Error::from(io::ErrorKind::BrokenPipe)
        })?;
        Ok(count)
    }
}

/// Reads a backup to its end.
fn follow(from: impl Read) -> Result<Taken, BackupError> {
    let mut reader = BackupReader::new(from)?;
    let mut progress = Progress::new(VERB);
    while reader.next_item()?.is_some() {
        progress.tell(|| bytes_for_people(reader.read_bytes()));
    }
    Ok(Taken {
        head: *reader.head(),
        bytes: reader.read_bytes(),
    })
}
