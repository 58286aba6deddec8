//! The disk and the clock of a host, by way of `shim.c`: has writes fail, moves the clock, and makes
//! of what was written and synced the disk that a power cut would have left.
//!
//! The model: an fsync makes a file durable with its name, one of the folder makes durable what was
//! deleted and renamed in it. What was written, truncated, renamed or
//! deleted since is there, gone, or there in part: each operation by itself, and of a write each
//! sector by itself. Deliberately absent: a disk that loses what it said it had synced.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::random::Random;

/// What disks write whole.
const SECTOR_BYTES: usize = 512;

/// What the names of the database's files begin with.
const DATABASE: &str = "amends.db";

/// What a database writes at once.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The bytes of a record of the journal before its path: `struct record`.
const RECORD_BYTES: usize = 24;

const EIO: u32 = 5;
const ENOSPC: u32 = 28;

pub(crate) struct Disk {
    library: PathBuf,
    folder: PathBuf,
    journal: PathBuf,
    control: fs::File,
    control_path: PathBuf,
    seed: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    /// The sagas that were acknowledged, each with the moment after it.
    acknowledged: Vec<(Mark, String)>,
    /// How often the journal was begun anew.
    era: u64,
    /// The files as they were, durable, when it was.
    base: BTreeMap<PathBuf, Vec<u8>>,
}

/// A moment in what happened to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    era: u64,
    journal_bytes: u64,
}

/// One record of the journal.
enum Operation {
    Written { offset: usize, data: Vec<u8> },
    Truncated { length: usize },
    Unlinked,
    RenamedTo { content: Vec<u8> },
}

/// A file: what is durable, and what came since.
#[derive(Default)]
struct File {
    durable: Option<Vec<u8>>,
    since: Vec<Operation>,
}

/// What was done to un-synced operations.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) kept: usize,
    pub(crate) lost: usize,
    pub(crate) torn: usize,
}

impl Disk {
    /// Builds the shim for hosts whose data is in `folder`, and keeps its own files in `beside`.
    pub(crate) fn new(folder: &Path, beside: &Path, seed: u64) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let library = beside.join("shim.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let output = Command::new(&compiler)
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-pthread"])
            .output()
            .unwrap_or_else(|error| panic!("{compiler} cannot be run: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::create_dir_all(folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let control_path = beside.join("shim-control");
        let control = fs::File::create(&control_path).unwrap();
        control.set_len(24).unwrap();
        let journal = beside.join("shim-journal");
        let kept = Mutex::new(Kept { acknowledged: Vec::new(), era: 0, base: BTreeMap::new() });
        let disk = Self { library, folder, journal, control, control_path, seed, kept };
        disk.settle();
        disk
    }

    /// What a host's environment needs.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("AMENDS_SHIM_FILES", text(&self.folder.join(DATABASE))),
            ("AMENDS_SHIM_JOURNAL", text(&self.journal)),
            ("AMENDS_SHIM_CONTROL", text(&self.control_path)),
            ("AMENDS_SHIM_SEED", self.seed.to_string()),
        ]
    }

    /// From now on so many of 1,000 writes and of 1,000 syncs fail.
    pub(crate) fn fail(&self, writes_permille: u32, syncs_permille: u32, half: bool) {
        self.fail_with(writes_permille, syncs_permille, EIO, half);
    }

    /// From now on nothing can be written.
    pub(crate) fn fill(&self) {
        self.fail_with(1_000, 0, ENOSPC, false);
    }

    /// All is well again.
    pub(crate) fn mend(&self) {
        self.fail_with(0, 0, EIO, false);
    }

    fn fail_with(&self, writes: u32, syncs: u32, error: u32, half: bool) {
        let words = [writes, syncs, error, u32::from(half)];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        self.control.write_all_at(&bytes, 8).unwrap();
    }

    /// The wall clock is so far from right.
    pub(crate) fn set_clock(&self, offset_ms: i64) {
        self.control.write_all_at(&offset_ms.to_ne_bytes(), 0).unwrap();
    }

    /// The database and what is beside it.
    fn files(&self) -> Vec<PathBuf> {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(DATABASE) && !name.ends_with("-key")
        };
        let entries = fs::read_dir(&self.folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(is_ours).collect()
    }

    /// What is there is durable. No host runs.
    pub(crate) fn settle(&self) {
        let mut kept = self.kept.lock().unwrap();
        kept.era += 1;
        fs::write(&self.journal, []).unwrap();
        kept.base.clear();
        for path in self.files() {
            if !path.to_string_lossy().ends_with("-shm") {
                let bytes = fs::read(&path).unwrap();
                kept.base.insert(path, bytes);
            }
        }
    }

    /// Keeps that a saga was acknowledged. Whatever makes it durable is before this.
    pub(crate) fn note(&self, saga: &str) {
        let mark = self.mark();
        self.kept.lock().unwrap().acknowledged.push((mark, saga.to_owned()));
    }

    /// The sagas that were acknowledged before a moment.
    pub(crate) fn acknowledged_before(&self, moment: Mark) -> Vec<(Mark, String)> {
        let kept = self.kept.lock().unwrap();
        kept.acknowledged.iter().filter(|(at, _)| *at <= moment).cloned().collect()
    }

    /// Now.
    fn mark(&self) -> Mark {
        let era = self.kept.lock().unwrap().era;
        Mark { era, journal_bytes: fs::metadata(&self.journal).unwrap().len() }
    }

    /// Puts in the place of the files what a power cut leaves of them. No host runs.
    pub(crate) fn cut_power(&self, random: &mut Random) -> Cut {
        let mut cut = Cut::default();
        let mut files = self.files_at(&fs::read(&self.journal).unwrap());
        for (path, file) in &mut files {
            // What the shim has missed would pass for synced. A kill may come between a write and
            // its record.
            let (told, found) = (file.content(), fs::read(path).unwrap_or_default());
            let missed = difference(&told, &found);
            let path = path.display();
            assert!(missed <= WRITE_BYTES_MAX, "the journal lacks {missed} bytes of {path}");
        }
        for path in self.files() {
            fs::remove_file(path).unwrap();
        }
        for (path, file) in files {
            if let Some(bytes) = file.after_a_cut(random, &mut cut) {
                fs::write(&path, bytes).unwrap();
            }
        }
        self.settle();
        cut
    }

    /// Writes to `folder` what a power cut would have left that came at some earlier moment of this
    /// era: the database's path, and the moment. No host runs.
    pub(crate) fn image(
        &self,
        folder: &Path,
        random: &mut Random,
        cut: &mut Cut,
    ) -> (PathBuf, Mark) {
        let journal = fs::read(&self.journal).unwrap();
        let bytes = random.below(journal.len() as u64 + 1);
        for (path, file) in self.files_at(&journal[..usize::try_from(bytes).unwrap()]) {
            if let Some(bytes) = file.after_a_cut(random, cut) {
                fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap();
            }
        }
        (folder.join(DATABASE), Mark { journal_bytes: bytes, ..self.mark() })
    }

    fn files_at(&self, journal: &[u8]) -> BTreeMap<PathBuf, File> {
        let mut files: BTreeMap<PathBuf, File> = BTreeMap::new();
        for (path, bytes) in &self.kept.lock().unwrap().base {
            files.insert(path.clone(), File { durable: Some(bytes.clone()), since: Vec::new() });
        }
        read_journal(journal, &self.folder, &mut files);
        files
    }
}

impl File {
    fn sync(&mut self) {
        for operation in std::mem::take(&mut self.since) {
            apply(&mut self.durable, operation);
        }
    }

    /// The folder is synced: what deleted or replaced the file is durable, and so what came before.
    fn sync_name(&mut self) {
        let of_name =
            |it: &Operation| matches!(it, Operation::Unlinked | Operation::RenamedTo { .. });
        if let Some(last) = self.since.iter().rposition(of_name) {
            for operation in self.since.drain(..=last) {
                apply(&mut self.durable, operation);
            }
        }
    }

    /// As a reader sees it.
    fn content(&mut self) -> Vec<u8> {
        let mut content = self.durable.clone();
        for operation in &self.since {
            apply(&mut content, operation.clone_of());
        }
        content.unwrap_or_default()
    }

    fn after_a_cut(self, random: &mut Random, cut: &mut Cut) -> Option<Vec<u8>> {
        let mut content = self.durable;
        // All of it gone, all of it there, or each by itself.
        let kept_percent = *random.pick(&[0, 100, 50, 90, 10]);
        for operation in self.since {
            if !random.percent(kept_percent) {
                cut.lost += 1;
                // The name still stands for the file before, which later writes did not go to.
                if matches!(operation, Operation::Unlinked | Operation::RenamedTo { .. }) {
                    break;
                }
                continue;
            }
            if let Operation::Written { offset, data } = &operation
                && kept_percent < 100
                && random.percent(50)
            {
                cut.torn += 1;
                // Sectors of the disk, not of the write.
                let mut at = 0;
                while at < data.len() {
                    let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(data.len());
                    if random.percent(50) {
                        let data = data[at..end].to_vec();
                        apply(&mut content, Operation::Written { offset: offset + at, data });
                    }
                    at = end;
                }
            } else {
                cut.kept += 1;
                apply(&mut content, operation);
            }
        }
        content
    }
}

impl Operation {
    fn clone_of(&self) -> Self {
        match self {
            Self::Written { offset, data } => Self::Written { offset: *offset, data: data.clone() },
            Self::Truncated { length } => Self::Truncated { length: *length },
            Self::Unlinked => Self::Unlinked,
            Self::RenamedTo { content } => Self::RenamedTo { content: content.clone() },
        }
    }
}

fn apply(content: &mut Option<Vec<u8>>, operation: Operation) {
    match operation {
        Operation::Written { offset, data } => {
            let bytes = content.get_or_insert_default();
            let end = offset + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset..end].copy_from_slice(&data);
        }
        Operation::Truncated { length } => content.get_or_insert_default().resize(length, 0),
        Operation::Unlinked => *content = None,
        Operation::RenamedTo { content: new } => *content = Some(new),
    }
}

/// From the first to the last byte in which they differ.
fn difference(one: &[u8], other: &[u8]) -> usize {
    let longer = one.len().max(other.len());
    let differs = |at: &usize| one.get(*at) != other.get(*at);
    let first = (0..longer).find(differs).unwrap_or(longer);
    (first..longer).rev().find(differs).map_or(0, |last| last + 1 - first)
}

/// Goes through the journal; a record that a kill cut off is the last.
fn read_journal(journal: &[u8], folder: &Path, files: &mut BTreeMap<PathBuf, File>) {
    let mut rest = journal;
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |bytes: &[u8], at: usize| {
        usize::try_from(u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    };
    while rest.len() >= RECORD_BYTES {
        let (kind, path_bytes) = (word(rest, 0), word(rest, 4) as usize);
        let (offset, data_bytes) = (long(rest, 8), long(rest, 16));
        let whole = RECORD_BYTES + path_bytes + data_bytes;
        if rest.len() < whole {
            break;
        }
        let text = |bytes: &[u8]| PathBuf::from(std::str::from_utf8(bytes).unwrap());
        let path = text(&rest[RECORD_BYTES..RECORD_BYTES + path_bytes]);
        let data = &rest[RECORD_BYTES + path_bytes..whole];
        rest = &rest[whole..];
        if kind == 3 && path == folder {
            for file in files.values_mut() {
                file.sync_name();
            }
            continue;
        }
        let file = files.entry(path).or_default();
        match kind {
            1 => file.since.push(Operation::Written { offset, data: data.to_vec() }),
            2 => file.since.push(Operation::Truncated { length: offset }),
            3 => file.sync(),
            4 => file.since.push(Operation::Unlinked),
            5 => {
                let content = file.content();
                file.since.push(Operation::Unlinked);
                let new = files.entry(text(data)).or_default();
                new.since.push(Operation::RenamedTo { content });
            }
            other => panic!("the journal has a record of kind {other}"),
        }
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    let record = |kind: u32, offset: u64, data: &[u8]| {
        let path = b"/data/file";
        let head = [kind, u32::try_from(path.len()).unwrap()];
        let mut bytes: Vec<u8> = head.into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend([offset, data.len() as u64].into_iter().flat_map(u64::to_ne_bytes));
        bytes.extend(path);
        bytes.extend(data);
        bytes
    };
    let journal =
        [record(1, 0, &[1; 2_048]), record(3, 0, &[]), record(1, 100, &[2; 2_048])].concat();
    let (mut gone, mut whole, mut torn) = (false, false, false);
    for seed in 0..200 {
        let mut files = BTreeMap::new();
        read_journal(&journal, Path::new("/data"), &mut files);
        let file = files.remove(Path::new("/data/file")).unwrap();
        let found = file.after_a_cut(&mut Random::new(seed), &mut Cut::default()).unwrap();
        assert_eq!(found[..100], [1; 100], "what was synced and not written since");
        gone |= found == [1; 2_048];
        whole |= found.len() == 2_148 && found[100..] == [2; 2_048];
        torn |= found[100..512] == [2; 412] && found[512..1_024] == [1; 512];
    }
    assert_eq!((gone, whole, torn), (true, true, true));
}
