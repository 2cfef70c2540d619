//! A disk in memory that knows what a power cut takes: for every file the synced content beside the present one, and
//! the operations between them; for every directory the synced names beside the present ones.
//!
//! # Invariants
//! - What a sync made durable is in the image after any cut.
//! - Changes of one directory become durable in their order, but for a cut that keeps a random subset.
//! - Applying all operations of a file's log to its synced content gives its present content, unless a sync failed.
//!
//! # Not here
//! The kernel's side (`fs`). Hard links, modes and times: no store of ours needs them after a cut.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::rig::Rng;

/// The number of the root directory.
pub const ROOT: u64 = 1;

/// What becomes of the operations that no sync had made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All are lost.
    DropAll,
    /// The oldest ones, up to a random one, are kept; the last of them may be torn.
    Prefix,
    /// A random part is kept, writes torn at sectors.
    Subset,
}

/// Which names a sync of a file makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// As ext4 does: the file's own name and those of the directories above it.
    Ext4,
    /// As POSIX allows: none; only a sync of the directory does.
    Strict,
}

const SECTOR: usize = 512;
const CHUNK: usize = 64 * 1024;

/// A file's bytes; parts never written are not stored and read as zeros.
#[derive(Debug, Clone, Default)]
pub struct Content {
    len: u64,
    chunks: Vec<Option<Box<[u8]>>>,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn read(&self, at: u64, size: usize) -> Vec<u8> {
        let size = size.min(self.len.saturating_sub(at) as usize);
        let mut out = vec![0; size];
        let mut done = 0;
        while done < size {
            let (no, from) = place(at + done as u64);
            let n = (CHUNK - from).min(size - done);
            if let Some(Some(chunk)) = self.chunks.get(no) {
                out[done..done + n].copy_from_slice(&chunk[from..from + n]);
            }
            done += n;
        }
        out
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (no, from) = place(at + done as u64);
            let n = (CHUNK - from).min(data.len() - done);
            if self.chunks.len() <= no {
                self.chunks.resize(no + 1, None);
            }
            let chunk = self.chunks[no].get_or_insert_with(|| vec![0; CHUNK].into_boxed_slice());
            chunk[from..from + n].copy_from_slice(&data[done..done + n]);
            done += n;
        }
        self.len = self.len.max(at + data.len() as u64);
    }

    fn zero(&mut self, at: u64, len: u64) {
        let end = (at + len).min(self.len);
        let mut at = at;
        while at < end {
            let (no, from) = place(at);
            let n = ((CHUNK - from) as u64).min(end - at);
            if let Some(Some(chunk)) = self.chunks.get_mut(no) {
                chunk[from..from + n as usize].fill(0);
            }
            at += n;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
            self.chunks.truncate(len.div_ceil(CHUNK as u64) as usize);
        }
        self.len = len;
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { at, data } => self.write(*at, data),
            Op::Len(len) => self.set_len(*len),
            Op::Zero { at, len } => self.zero(*at, *len),
        }
    }
}

fn place(at: u64) -> (usize, usize) {
    ((at / CHUNK as u64) as usize, (at % CHUNK as u64) as usize)
}

/// A change of a file's bytes.
#[derive(Debug, Clone)]
pub enum Op {
    /// Bytes at a place.
    Write {
        /// Where.
        at: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A new length.
    Len(u64),
    /// Zeros over a range, within the length.
    Zero {
        /// Where.
        at: u64,
        /// How many.
        len: u64,
    },
}

/// A change of names that happens whole or not at all: (directory, name, what it names from now on).
type Renaming = Vec<(u64, OsString, Option<u64>)>;

#[derive(Debug, Clone)]
enum Node {
    File {
        now: Content,
        synced: Content,
        log: Vec<(u64, Op)>,
    },
    Dir {
        parent: u64,
        now: BTreeMap<OsString, u64>,
        synced: BTreeMap<OsString, u64>,
    },
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Disk {
    naming: Naming,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    next_op: u64,
    /// Unsynced changes of names, oldest first.
    renamings: Vec<(u64, Renaming)>,
}

impl Disk {
    /// An empty disk.
    pub fn new(naming: Naming) -> Self {
        let root = Node::Dir {
            parent: ROOT,
            now: BTreeMap::new(),
            synced: BTreeMap::new(),
        };
        Self {
            naming,
            nodes: BTreeMap::from([(ROOT, root)]),
            next_node: ROOT + 1,
            next_op: 0,
            renamings: Vec::new(),
        }
    }

    /// The node a name stands for.
    pub fn lookup(&self, dir: u64, name: &OsStr) -> Option<u64> {
        self.entries(dir)?.get(name).copied()
    }

    /// The names in a directory; `None` where the node is none.
    pub fn entries(&self, dir: u64) -> Option<&BTreeMap<OsString, u64>> {
        match self.nodes.get(&dir)? {
            Node::Dir { now, .. } => Some(now),
            Node::File { .. } => None,
        }
    }

    /// The directory above a directory.
    pub fn parent(&self, dir: u64) -> u64 {
        match self.nodes.get(&dir) {
            Some(Node::Dir { parent, .. }) => *parent,
            _ => ROOT,
        }
    }

    /// A file's present bytes; `None` where the node is none.
    pub fn content(&self, file: u64) -> Option<&Content> {
        match self.nodes.get(&file)? {
            Node::File { now, .. } => Some(now),
            Node::Dir { .. } => None,
        }
    }

    /// Whether there is such a node.
    pub fn exists(&self, node: u64) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Bytes of all files that have a name.
    pub fn used(&self) -> u64 {
        let mut sum = 0;
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for node in self.entries(dir).into_iter().flat_map(BTreeMap::values) {
                match self.content(*node) {
                    Some(content) => sum += content.len(),
                    None => dirs.push(*node),
                }
            }
        }
        sum
    }

    /// A new, empty file.
    pub fn create(&mut self, dir: u64, name: &OsStr) -> u64 {
        let file = Node::File {
            now: Content::default(),
            synced: Content::default(),
            log: Vec::new(),
        };
        self.add(dir, name, file)
    }

    /// A new, empty directory.
    pub fn mkdir(&mut self, dir: u64, name: &OsStr) -> u64 {
        let new = Node::Dir {
            parent: dir,
            now: BTreeMap::new(),
            synced: BTreeMap::new(),
        };
        self.add(dir, name, new)
    }

    fn add(&mut self, dir: u64, name: &OsStr, node: Node) -> u64 {
        let no = self.next_node;
        self.next_node += 1;
        self.nodes.insert(no, node);
        self.rename_all(vec![(dir, name.to_owned(), Some(no))]);
        no
    }

    /// Takes a name away. The file lives on for who has it open, not beyond a cut.
    pub fn unlink(&mut self, dir: u64, name: &OsStr) {
        self.rename_all(vec![(dir, name.to_owned(), None)]);
    }

    /// Moves a name, over another one if need be. False if there is no such name.
    pub fn rename(&mut self, from: u64, name: &OsStr, to: u64, new: &OsStr) -> bool {
        let Some(node) = self.lookup(from, name) else {
            return false;
        };
        if let Some(Node::Dir { parent, .. }) = self.nodes.get_mut(&node) {
            *parent = to;
        }
        self.rename_all(vec![
            (from, name.to_owned(), None),
            (to, new.to_owned(), Some(node)),
        ]);
        true
    }

    fn rename_all(&mut self, changes: Renaming) {
        for (dir, name, node) in &changes {
            if let Some(Node::Dir { now, .. }) = self.nodes.get_mut(dir) {
                set_name(now, name, *node);
            }
        }
        self.next_op += 1;
        self.renamings.push((self.next_op, changes));
    }

    /// Changes a file's bytes. False where the node is no file.
    pub fn change(&mut self, file: u64, op: Op) -> bool {
        let Some(Node::File { now, log, .. }) = self.nodes.get_mut(&file) else {
            return false;
        };
        now.apply(&op);
        self.next_op += 1;
        log.push((self.next_op, op));
        true
    }

    /// Makes a file's bytes durable, and what names its way of naming says.
    pub fn sync_file(&mut self, file: u64) {
        if let Some(Node::File { synced, log, .. }) = self.nodes.get_mut(&file) {
            for (_, op) in log.drain(..) {
                synced.apply(&op);
            }
        }
        if self.naming == Naming::Ext4 {
            let mut node = file;
            while let Some(dir) = self.dir_of(node) {
                let named =
                    |(_, changes): &&(u64, Renaming)| changes.iter().any(|(.., named)| *named == Some(node));
                if let Some((last, _)) = self.renamings.iter().rev().find(named) {
                    self.sync_names(dir, *last);
                }
                node = dir;
            }
        }
    }

    /// A sync failed: the file's unsynced changes can be read on and will never be durable, as Linux leaves them.
    pub fn lose(&mut self, file: u64) {
        if let Some(Node::File { log, .. }) = self.nodes.get_mut(&file) {
            log.clear();
        }
    }

    /// Makes the names in a directory durable.
    pub fn sync_dir(&mut self, dir: u64) {
        self.sync_names(dir, u64::MAX);
    }

    /// Makes all changes of a directory up to one of them durable, in their order. A move between directories becomes
    /// durable in both; so then does all that was done before in the other.
    fn sync_names(&mut self, dir: u64, last: u64) {
        let mut dirs = vec![dir];
        let mut at = 0;
        while let Some(dir) = dirs.get(at).copied() {
            for (_, changes) in self.renamings.iter().filter(|(op, _)| *op <= last) {
                if changes.iter().any(|(d, ..)| *d == dir) {
                    for (d, ..) in changes {
                        if !dirs.contains(d) {
                            dirs.push(*d);
                        }
                    }
                }
            }
            at += 1;
        }
        let (durable, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.renamings)
            .into_iter()
            .partition(|(op, changes)| *op <= last && changes.iter().any(|(d, ..)| dirs.contains(d)));
        self.renamings = rest;
        for (dir, name, node) in durable.into_iter().flat_map(|(_, changes)| changes) {
            if let Some(Node::Dir { synced, .. }) = self.nodes.get_mut(&dir) {
                set_name(synced, &name, node);
            }
        }
    }

    /// The directory that holds a node's name; `None` for the root and for what has no name.
    fn dir_of(&self, node: u64) -> Option<u64> {
        self.nodes.iter().find_map(|(no, dir)| match dir {
            Node::Dir { now, .. } => now.values().any(|n| *n == node).then_some(*no),
            Node::File { .. } => None,
        })
    }

    /// The disk as it is found after a power cut at this moment.
    pub fn cut(&self, policy: Policy, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut ops: Vec<u64> = self.renamings.iter().map(|(op, _)| *op).collect();
        for node in self.nodes.values() {
            if let Node::File { log, .. } = node {
                ops.extend(log.iter().map(|(op, _)| *op));
            }
        }
        ops.sort_unstable();
        let percent = [10, 50, 90][rng.below(3)];
        let kept_count = rng.below(ops.len() + 1);
        let kept: BTreeMap<u64, bool> = match policy {
            Policy::DropAll => BTreeMap::new(),
            Policy::Prefix => (1..=kept_count)
                .zip(&ops)
                .map(|(n, op)| (*op, n == kept_count && rng.chance(50)))
                .collect(),
            Policy::Subset => {
                ops.retain(|_| rng.chance(percent));
                ops.iter().map(|op| (*op, rng.chance(50))).collect()
            }
        };

        let mut after = self.clone();
        after.renamings.clear();
        for node in after.nodes.values_mut() {
            match node {
                Node::Dir { now, synced, .. } => now.clone_from(synced),
                Node::File { now, synced, log } => {
                    for (no, op) in log.drain(..) {
                        match (kept.get(&no), &op) {
                            (None, _) => {}
                            (Some(true), Op::Write { at, data }) => {
                                for (at, part) in torn(*at, data, policy, &mut rng) {
                                    synced.write(at, part);
                                }
                            }
                            (Some(_), op) => synced.apply(op),
                        }
                    }
                    now.clone_from(synced);
                }
            }
        }
        for (no, changes) in &self.renamings {
            if kept.contains_key(no) {
                for (dir, name, node) in changes {
                    if let Some(Node::Dir { now, synced, .. }) = after.nodes.get_mut(dir) {
                        set_name(now, name, *node);
                        set_name(synced, name, *node);
                    }
                }
            }
        }
        after.drop_unnamed();
        after
    }

    /// Drops what cannot be reached from the root, and finds every directory's parent anew.
    fn drop_unnamed(&mut self) {
        let mut reached = BTreeMap::from([(ROOT, ROOT)]);
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for node in self.entries(dir).into_iter().flat_map(BTreeMap::values) {
                if reached.insert(*node, dir).is_none() {
                    dirs.push(*node);
                }
            }
        }
        self.nodes.retain(|no, _| reached.contains_key(no));
        for (no, node) in &mut self.nodes {
            if let Node::Dir { parent, .. } = node {
                *parent = reached[no];
            }
        }
    }
}

fn set_name(names: &mut BTreeMap<OsString, u64>, name: &OsStr, node: Option<u64>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}

/// The parts of a write that reached the disk: with `Prefix` the first sectors, else any of them.
fn torn<'a>(at: u64, data: &'a [u8], policy: Policy, rng: &mut Rng) -> Vec<(u64, &'a [u8])> {
    let mut sectors = Vec::new();
    let mut from = 0;
    while from < data.len() {
        let end = (SECTOR - (at as usize + from) % SECTOR + from).min(data.len());
        sectors.push((at + from as u64, &data[from..end]));
        from = end;
    }
    match policy {
        Policy::Subset => sectors.retain(|_| rng.chance(50)),
        Policy::Prefix | Policy::DropAll => sectors.truncate(rng.below(sectors.len() + 1)),
    }
    sectors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn write(disk: &mut Disk, file: u64, at: u64, data: &[u8]) {
        assert!(disk.change(
            file,
            Op::Write {
                at,
                data: data.to_vec(),
            }
        ));
    }

    fn bytes(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        let file = disk.lookup(ROOT, name(path))?;
        disk.content(file).map(|c| c.read(0, c.len() as usize))
    }

    #[test]
    fn what_is_synced_survives_every_cut() {
        for policy in [Policy::DropAll, Policy::Prefix, Policy::Subset] {
            for seed in 0..50 {
                let mut disk = Disk::new(Naming::Strict);
                let file = disk.create(ROOT, name("a"));
                write(&mut disk, file, 0, b"kept");
                disk.sync_file(file);
                disk.sync_dir(ROOT);
                write(&mut disk, file, 4, &[7; 2000]);
                let after = disk.cut(policy, seed);
                let bytes = bytes(&after, "a").unwrap();
                assert!(bytes.starts_with(b"kept"), "{policy:?} {seed}");
                if policy == Policy::DropAll {
                    assert_eq!(bytes, b"kept");
                }
            }
        }
    }

    #[test]
    fn names_are_durable_as_their_naming_says() {
        for (naming, stays) in [(Naming::Ext4, true), (Naming::Strict, false)] {
            let mut disk = Disk::new(naming);
            let dir = disk.mkdir(ROOT, name("d"));
            let file = disk.create(dir, name("a"));
            write(&mut disk, file, 0, b"x");
            disk.sync_file(file);
            let after = disk.cut(Policy::DropAll, 0);
            assert_eq!(after.lookup(ROOT, name("d")).is_some(), stays);
            assert_eq!(after.exists(file), stays);
        }
    }

    #[test]
    fn a_file_made_anew_under_an_old_name_keeps_it() {
        let mut disk = Disk::new(Naming::Ext4);
        disk.create(ROOT, name("a"));
        disk.sync_dir(ROOT);
        disk.unlink(ROOT, name("a"));
        let new = disk.create(ROOT, name("a"));
        disk.sync_file(new);
        disk.sync_dir(ROOT);
        assert_eq!(disk.cut(Policy::DropAll, 0).lookup(ROOT, name("a")), Some(new));
    }

    #[test]
    fn a_rename_is_whole_or_absent() {
        let mut both = [false; 2];
        for seed in 0..40 {
            let mut disk = Disk::new(Naming::Strict);
            let old = disk.create(ROOT, name("a"));
            write(&mut disk, old, 0, b"old");
            disk.sync_file(old);
            let new = disk.create(ROOT, name("a.new"));
            write(&mut disk, new, 0, b"new");
            disk.sync_file(new);
            disk.sync_dir(ROOT);
            assert!(disk.rename(ROOT, name("a.new"), ROOT, name("a")));
            let after = disk.cut(Policy::Subset, seed);
            let moved = bytes(&after, "a").unwrap() == b"new";
            assert_eq!(after.lookup(ROOT, name("a.new")).is_none(), moved);
            both[usize::from(moved)] = true;
        }
        assert_eq!(both, [true; 2]);
    }

    #[test]
    fn a_prefix_keeps_the_order_of_operations_across_files() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = Disk::new(Naming::Strict);
            let a = disk.create(ROOT, name("a"));
            let b = disk.create(ROOT, name("b"));
            disk.sync_dir(ROOT);
            write(&mut disk, a, 0, b"1");
            write(&mut disk, b, 0, b"2");
            write(&mut disk, a, 1, b"3");
            let after = disk.cut(Policy::Prefix, seed);
            let found = (
                bytes(&after, "a").unwrap().len(),
                bytes(&after, "b").unwrap().len(),
            );
            assert!(matches!(found, (0, 0) | (1, 0) | (1, 1) | (2, 1)), "{found:?}");
            seen.insert(found);
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_subset_tears_writes_at_sectors_only() {
        let mut torn = 0;
        for seed in 0..100 {
            let mut disk = Disk::new(Naming::Strict);
            let a = disk.create(ROOT, name("a"));
            disk.sync_dir(ROOT);
            write(&mut disk, a, 100, &[9; 3000]);
            let after = bytes(&disk.cut(Policy::Subset, seed), "a").unwrap();
            let mut whole: Vec<u8> = vec![0; 100];
            whole.extend([9; 3000]);
            whole.truncate(after.len());
            for (found, full) in after.chunks(SECTOR).zip(whole.chunks(SECTOR)) {
                assert!(found == full || found.iter().all(|byte| *byte == 0));
            }
            torn += usize::from(!after.is_empty() && after != whole);
        }
        assert!(torn > 10);
    }

    #[test]
    fn truncation_and_holes_read_as_zeros() {
        let mut disk = Disk::new(Naming::Ext4);
        let a = disk.create(ROOT, name("a"));
        write(&mut disk, a, 0, &[1; 200_000]);
        assert!(disk.change(a, Op::Len(70_000)));
        assert!(disk.change(a, Op::Len(140_000)));
        assert!(disk.change(a, Op::Zero { at: 10, len: 5 }));
        let found = bytes(&disk, "a").unwrap();
        assert_eq!(found.len(), 140_000);
        for (at, byte) in found.iter().enumerate() {
            let zero = at >= 70_000 || (10..15).contains(&at);
            assert_eq!(*byte, u8::from(!zero), "at {at}");
        }
        assert_eq!(disk.used(), 140_000);
    }
}
