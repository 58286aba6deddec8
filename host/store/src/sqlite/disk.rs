//! How much space the disk of the store has.

use std::path::Path;

use crate::maintenance::DiskRoom;

/// The disk is nearly full when less than one twentieth of it is free, and less than
/// [`DISK_FREE_LOW`].
const DISK_FREE_PART: u64 = 20;

/// A large disk is nearly full when less than this is free. A busy host writes some 10 MiB a
/// second, so this lasts for a minute or two.
const DISK_FREE_LOW: u64 = 1 << 30;

/// Measures the disk that holds a file or folder; none when that is not possible.
pub(super) fn disk_room(path: &Path) -> Option<DiskRoom> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let free_bytes = disk.f_bavail * disk.f_frsize;
    let total_bytes = disk.f_blocks * disk.f_frsize;
    Some(DiskRoom { free_bytes, total_bytes, is_low: free_bytes < low_mark(total_bytes) })
}

/// Returns the free bytes below which a disk of this size is nearly full.
pub(super) fn low_mark(total_bytes: u64) -> u64 {
    (total_bytes / DISK_FREE_PART).min(DISK_FREE_LOW)
}
