//! How much memory this process may use: of its control group, or of the machine.

use std::fs;
use std::path::Path;

/// Where nothing says how much there is.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// Guests may have half of what there is: the other half is for the host, its store and the system's
/// cache of files.
const GUESTS_PART: u64 = 2;

/// Bytes that all guests of a host may have together, unless its config says otherwise.
#[must_use]
pub fn guest_memory_default() -> u64 {
    memory_bytes(Path::new("/")).unwrap_or(UNKNOWN_BYTES) / GUESTS_PART
}

/// Bytes that this process may use, by the files of `/proc` and `/sys`; none where they do not say.
fn memory_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limits_of_group(root, line));
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok();
    limits.chain(machine.as_deref().and_then(of_machine)).min()
}

/// `ID:CONTROLLERS:PATH`: of version 2 without controllers, of version 1 with the one of memory. Each
/// group above has a limit, too; those that a container does not show do not apply to what it sees.
fn limits_of_group(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (folder, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let path = Path::new(path.trim_start_matches('/'));
    // `max`, where there is no limit, is no number.
    let limit = |group: &Path| {
        let limit = fs::read_to_string(root.join(folder).join(group).join(file)).ok()?;
        limit.trim().parse().ok()
    };
    path.ancestors().filter_map(limit).collect()
}

/// `MemTotal:       16305780 kB`
fn of_machine(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn read(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        memory_bytes(root.path())
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let machine = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       1048576 kB\n");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[machine]), Some(1 << 30));
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let limit = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(read(&[machine, group, limit]), Some(1 << 30), "it has none");
        let above = ("sys/fs/cgroup/a/memory.max", "268435456\n");
        assert_eq!(read(&[machine, group, limit, above]), Some(256 << 20), "the one above counts");
        // In a container the group is the root that it sees.
        let group = ("proc/self/cgroup", "0::/\n");
        let limit = ("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(read(&[machine, group, limit]), Some(512 << 20));
        let group = ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/x\n");
        let limit = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "134217728\n");
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(read(&[machine, group, limit, none]), Some(128 << 20));
    }

    #[test]
    fn this_machine_says_how_much_it_has() {
        assert!((64 << 20..1 << 50).contains(&guest_memory_default()));
    }
}
