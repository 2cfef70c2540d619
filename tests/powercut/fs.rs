//! [`Disk`] as a mounted file system, by FUSE, with the hooks of a fault: stop at a sync, fail a sync, lie about syncs.
//!
//! Needs root and `/dev/fuse`; no helper program. `sync_file_range` never reaches a FUSE file system, so it makes
//! nothing durable here, as on a real disk.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Disk, Op};

/// Only this mount changes the disk, so the kernel may believe what it was told.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK: u32 = 4096;
/// What the disk says of its size.
const DISK_BYTES: u64 = 8 << 30;

struct State {
    disk: Disk,
    syncs: u64,
    stop_at: Option<u64>,
    stopped: bool,
    /// The program was killed: what it still asks fails at once.
    released: bool,
    fail_at: Option<u64>,
    lies: bool,
    /// Syncs that the stopped disk will never answer while the program lives.
    unanswered: Vec<ReplyEmpty>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A mounted disk. Dropping it unmounts.
pub struct Mounted {
    dir: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts a disk at a directory.
    pub fn new(disk: Disk, dir: &Path) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                disk,
                syncs: 0,
                stop_at: None,
                stopped: false,
                released: false,
                fail_at: None,
                lies: false,
                unanswered: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".into())];
        let session = fuser::spawn_mount(PowerFs(shared.clone()), dir, &config).unwrap_or_else(|error| {
            panic!(
                "cannot mount a FUSE file system at {}: {error} (the power-cut tests need root and /dev/fuse)",
                dir.display()
            )
        });
        Self {
            dir: dir.to_owned(),
            shared,
            session: Some(session),
        }
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many syncs of files and directories it has been asked for.
    pub fn syncs(&self) -> u64 {
        self.shared.state().syncs
    }

    /// From the sync of this number on (1 is the first after the mount), no sync is answered and nothing becomes durable.
    pub fn stop_at_sync(&self, n: u64) {
        self.shared.state().stop_at = Some(n);
    }

    /// Waits until the disk has stopped; false when it did not in time, or `over` says that it never will.
    pub fn wait_stopped(&self, timeout: Duration, mut over: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut state = self.shared.state();
        while !state.stopped && Instant::now() < end && !over() {
            let (back, _) = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(10))
                .unwrap();
            state = back;
        }
        state.stopped
    }

    /// The sync of this number fails with EIO, once, and what it should have made durable never will be: the pages are
    /// clean after it, as Linux leaves them.
    pub fn fail_sync(&self, n: u64) {
        self.shared.state().fail_at = Some(n);
    }

    /// From now on a sync says yes and does nothing: a disk, or a program, without fdatasync.
    pub fn lie(&self) {
        self.shared.state().lies = true;
    }

    /// Answers what a stopped disk left open, so that a killed program can end. Call it after the kill.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.released = state.stopped;
        for reply in state.unanswered.drain(..) {
            reply.error(Errno::EIO);
        }
    }

    /// Unmounts, and gives the disk as it was at that moment.
    pub fn unmount(mut self) -> Disk {
        self.close();
        self.shared.state().disk.clone()
    }

    fn close(&mut self) {
        self.release();
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            // A mount that stays is worth a word and no panic in a drop.
            eprintln!("unmount of {} failed: {error}", self.dir.display());
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.close();
    }
}

struct PowerFs(Arc<Shared>);

fn attr(disk: &Disk, node: u64) -> Option<FileAttr> {
    if !disk.exists(node) {
        return None;
    }
    let size = disk.content(node).map(|content| content.len());
    Some(FileAttr {
        ino: INodeNo(node),
        size: size.unwrap_or(0),
        blocks: size.unwrap_or(0).div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if size.is_some() {
            FileType::RegularFile
        } else {
            FileType::Directory
        },
        perm: if size.is_some() { 0o600 } else { 0o700 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

impl PowerFs {
    fn entry(disk: &Disk, node: Option<u64>, reply: ReplyEntry) {
        match node.and_then(|node| attr(disk, node)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn sync(&self, node: u64, reply: ReplyEmpty, make_durable: impl FnOnce(&mut Disk)) {
        let mut state = self.0.state();
        state.syncs += 1;
        let n = state.syncs;
        if state.released {
            reply.error(Errno::EIO);
        } else if state.stop_at.is_some_and(|at| n >= at) {
            state.stopped = true;
            state.unanswered.push(reply);
            self.0.changed.notify_all();
        } else if state.fail_at == Some(n) {
            state.disk.lose(node);
            reply.error(Errno::EIO);
        } else {
            if !state.lies {
                make_durable(&mut state.disk);
            }
            reply.ok();
        }
    }

    fn remove(&self, dir: u64, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.0.state();
        match state.disk.lookup(dir, name) {
            None => reply.error(Errno::ENOENT),
            Some(node) if state.disk.entries(node).is_some_and(|names| !names.is_empty()) => {
                reply.error(Errno::ENOTEMPTY);
            }
            Some(_) => {
                state.disk.unlink(dir, name);
                reply.ok();
            }
        }
    }
}

impl Filesystem for PowerFs {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.0.state();
        Self::entry(&state.disk, state.disk.lookup(parent.0, name), reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match attr(&self.0.state().disk, ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.state();
        if let Some(size) = size {
            state.disk.change(ino.0, Op::Len(size));
        }
        match attr(&state.disk, ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut state = self.0.state();
        let node = state.disk.mkdir(parent.0, name);
        Self::entry(&state.disk, Some(node), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent.0, name, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent.0, name, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            reply.error(Errno::EINVAL);
        } else if self.0.state().disk.rename(parent.0, name, newparent.0, newname) {
            reply.ok();
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.0.state();
        let node = state.disk.create(parent.0, name);
        let attr = attr(&state.disk, node).expect("the file was just made");
        reply.created(
            &TTL,
            &attr,
            Generation(0),
            FileHandle(0),
            FopenFlags::FOPEN_KEEP_CACHE,
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.state().disk.content(ino.0) {
            Some(content) => reply.data(&content.read(offset, size as usize)),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = Op::Write {
            at: offset,
            data: data.to_vec(),
        };
        if self.0.state().disk.change(ino.0, op) {
            reply.written(u32::try_from(data.len()).expect("the kernel writes at most 16 MiB at a time"));
        } else {
            reply.error(Errno::EISDIR);
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.state();
        let Some(len) = state.disk.content(ino.0).map(|content| content.len()) else {
            return reply.error(Errno::EISDIR);
        };
        if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
            state.disk.change(
                ino.0,
                Op::Zero {
                    at: offset,
                    len: length,
                },
            );
        } else if mode == 0 && offset + length > len {
            state.disk.change(ino.0, Op::Len(offset + length));
        } else if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        reply.ok();
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino.0, reply, |disk| disk.sync_file(ino.0));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino.0, reply, |disk| disk.sync_dir(ino.0));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.0.state();
        let Some(names) = state.disk.entries(ino.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        let dots = [
            (ino.0, FileType::Directory, OsStr::new(".")),
            (state.disk.parent(ino.0), FileType::Directory, OsStr::new("..")),
        ];
        let all = dots.into_iter().chain(names.iter().map(|(name, node)| {
            let kind = match state.disk.content(*node) {
                Some(_) => FileType::RegularFile,
                None => FileType::Directory,
            };
            (*node, kind, name.as_os_str())
        }));
        for (next, (node, kind, name)) in (1..).zip(all).skip(offset as usize) {
            if reply.add(INodeNo(node), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let free = DISK_BYTES.saturating_sub(self.0.state().disk.used()) / u64::from(BLOCK);
        reply.statfs(
            DISK_BYTES / u64::from(BLOCK),
            free,
            free,
            1 << 20,
            1 << 20,
            BLOCK,
            255,
            BLOCK,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc;

    use super::super::{Naming, Policy};
    use super::*;

    fn read(path: &Path) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_real_mount_keeps_what_was_synced_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Mounted::new(Disk::new(Naming::Strict), dir.path());
        fs::create_dir(dir.path().join("d")).unwrap();
        let mut file = File::create(dir.path().join("d/a")).unwrap();
        file.write_all(&[1; 3_000_000]).unwrap();
        file.sync_data().unwrap();
        File::open(dir.path().join("d")).unwrap().sync_all().unwrap();
        File::open(dir.path()).unwrap().sync_all().unwrap();
        file.write_all_at(&[2; 5000], 100).unwrap();
        fs::write(dir.path().join("d/b"), "never synced").unwrap();
        assert_eq!(read(&dir.path().join("d/a")).unwrap()[100..5100], [2; 5000]);
        assert_eq!(mounted.syncs(), 3);
        drop(file);

        let after = mounted.unmount().cut(Policy::DropAll, 0);
        let mounted = Mounted::new(after, dir.path());
        assert_eq!(read(&dir.path().join("d/a")).unwrap(), vec![1; 3_000_000]);
        assert_eq!(read(&dir.path().join("d/b")), None);
        let names: Vec<_> = fs::read_dir(dir.path().join("d"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["a"]);
        drop(mounted);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "unmounted");
    }

    #[test]
    fn a_sync_can_fail_lie_and_never_return() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mounted = Mounted::new(Disk::new(Naming::Ext4), dir.path());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"durable ").unwrap();
        file.sync_all().unwrap();
        mounted.fail_sync(2);
        file.write_all(b"failed ").unwrap();
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
        mounted.lie();
        file.write_all(b"lied ").unwrap();
        file.sync_all().unwrap();
        mounted.stop_at_sync(4);
        let (done, result) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            file.write_all(b"stopped").unwrap();
            done.send(file.sync_data().is_ok()).unwrap();
        });
        assert!(mounted.wait_stopped(Duration::from_secs(10), || false));
        assert_eq!(result.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(read(&path).unwrap(), b"durable failed lied stopped");
        mounted.release();
        assert!(!result.recv().unwrap());
        thread.join().unwrap();
        let mounted = Mounted::new(mounted.unmount().cut(Policy::DropAll, 0), dir.path());
        assert_eq!(read(&path).unwrap(), b"durable ");
        drop(mounted);
    }
}
