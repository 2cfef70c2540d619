//! Power cuts in a test: a disk that forgets what was not synced, and a mount of it for the real program.

mod disk;
mod fs;

pub use disk::{Disk, Naming, Policy};
pub use fs::Mounted;
