//! The disk alone: how long an append with fdatasync takes, and how many messages a plain log could confirm at best
//! with so many in one commit.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::BenchError;
use super::args::{count_parser, ms_parser};
use super::clock::Clock;
use super::report::{duration_text, grouped, us};

/// Messages in one commit of the ceiling.
const GROUPS: [usize; 6] = [1, 8, 64, 256, 512, 1024];
/// The file of one measurement is begun anew above this.
const FILE_BYTES_MAX: u64 = 512 << 20;

#[derive(Debug, Args)]
pub(super) struct DiskArgs {
    /// Folder to write in
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of each message
    #[arg(long, default_value_t = 1024, value_parser = count_parser)]
    size: usize,
    /// How long for each line
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = ms_parser)]
    duration_ms: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Times of one kind of write, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) mean: f64,
}

impl Times {
    /// Of at least one; sorts them.
    pub(super) fn of(taken: &mut [Duration]) -> Self {
        taken.sort_unstable();
        let at = |percent: usize| {
            taken
                .get(taken.len() * percent / 100)
                .copied()
                .map(us)
                .unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
            mean: taken.iter().copied().map(us).sum::<f64>() / taken.len().max(1) as f64,
        }
    }
}

/// A commit of `group` messages, again and again.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ceiling {
    group: usize,
    commit_us: Times,
    messages_per_s: f64,
    bytes_per_s: f64,
}

/// What the disk under a folder gives.
#[derive(Debug, Serialize)]
pub(super) struct DiskReport {
    body_bytes: usize,
    append_us: Times,
    overwrite_us: Times,
    ceilings: Vec<Ceiling>,
}

/// A file that is gone when dropped.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("steadfast-bench-{}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It holds nothing, and the path names it if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Appends of `bytes` with one fdatasync each, for `time`.
pub(super) fn append(dir: &Path, bytes: usize, time: Duration) -> io::Result<Times> {
    measure(dir, bytes, time, 0)
}

/// The whole table.
pub(super) fn run(args: &DiskArgs) -> Result<DiskReport, BenchError> {
    report(&args.dir, args.size, args.duration_ms).map_err(|source| BenchError::Disk {
        dir: args.dir.clone(),
        source,
    })
}

fn report(dir: &Path, body_bytes: usize, time: Duration) -> io::Result<DiskReport> {
    let append_us = append(dir, body_bytes, time)?;
    let overwrite_us = measure(dir, body_bytes, time, 16 << 20)?;
    let mut ceilings = Vec::new();
    for group in GROUPS {
        let commit_us = append(dir, group * body_bytes, time)?;
        let messages_per_s = group as f64 * 1e6 / commit_us.mean;
        ceilings.push(Ceiling {
            group,
            commit_us,
            messages_per_s,
            bytes_per_s: messages_per_s * body_bytes as f64,
        });
    }
    Ok(DiskReport {
        body_bytes,
        append_us,
        overwrite_us,
        ceilings,
    })
}

/// With `made_bytes` the file is written full before and only overwritten, from its beginning again at its end.
fn measure(dir: &Path, bytes: usize, time: Duration, made_bytes: u64) -> io::Result<Times> {
    let mut scratch = Scratch::create(dir)?;
    let block: Vec<u8> = (0..bytes)
        .map(|at| (at.wrapping_mul(2654435761) >> 7) as u8)
        .collect();
    let limit_bytes = if made_bytes > 0 {
        io::copy(
            &mut io::Read::take(io::repeat(0xA5), made_bytes),
            &mut scratch.file,
        )?;
        scratch.file.sync_all()?;
        scratch.file.seek(SeekFrom::Start(0))?;
        made_bytes
    } else {
        FILE_BYTES_MAX
    };
    let mut at_bytes = 0;
    let mut taken = Vec::new();
    let whole = Clock::start();
    while whole.elapsed() < time || taken.len() < 20 {
        if at_bytes + bytes as u64 > limit_bytes {
            at_bytes = 0;
            scratch.file.seek(SeekFrom::Start(0))?;
            if made_bytes == 0 {
                scratch.file.set_len(0)?;
                scratch.file.sync_all()?;
            }
        }
        let clock = Clock::start();
        scratch.file.write_all(&block)?;
        scratch.file.sync_data()?;
        taken.push(clock.elapsed());
        at_bytes += bytes as u64;
    }
    Ok(Times::of(&mut taken))
}

impl DiskReport {
    pub(super) fn text(&self) -> String {
        let times = |times: &Times| {
            format!(
                "p50 {}  p99 {}",
                duration_text(times.p50),
                duration_text(times.p99)
            )
        };
        let mut text = format!("disk  {} B\n", grouped(self.body_bytes as u64));
        text.push_str(&format!("  append + fdatasync      {}\n", times(&self.append_us)));
        text.push_str(&format!(
            "  overwrite + fdatasync   {}\n",
            times(&self.overwrite_us)
        ));
        text.push_str("  ceiling of a plain log, one write and one fdatasync per commit:\n");
        for ceiling in &self.ceilings {
            let rate = grouped(ceiling.messages_per_s as u64);
            let mb = ceiling.bytes_per_s / 1e6;
            let group = ceiling.group;
            text.push_str(&format!(
                "  {group:>6} in a commit  {rate:>12} msg/s {mb:>7.0} MB/s  {}\n",
                times(&ceiling.commit_us)
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_timed_and_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let times = append(dir.path(), 1024, Duration::from_millis(1)).unwrap();
        assert!(times.p50 > 0.0 && times.p50 <= times.p99);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
