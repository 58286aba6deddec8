//! A killed process loses nothing that it acknowledged.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use amends_engine::Version;
use amends_store::conformance::{
    StoreLocation as _, TestStore, saga_id, start, then, whole_log, whole_stream,
};
use amends_store::{Appended, Durability, SqliteStore, Stream};
use temporary_file::TemporaryFile;

/// Names the file to the child: this same test, in a process of its own.
const CHILD: &str = "AMENDS_STORE_TEST_CHILD";

/// Sagas that the child appends to at the same time.
const SAGAS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_acknowledged() {
    if let Some(path) = std::env::var_os(CHILD) {
        append_until_killed(Path::new(&path)).await;
    }
    let place = TemporaryFile::new();
    let mut acknowledged = BTreeSet::new();
    // Killed at once, and after more and more.
    for lines in [0, 1, 10, 100, 1_000, 5_000] {
        let acks = kill_after(&place.path(), lines);
        assert!(acks.len() >= lines, "the child ended by itself");
        acknowledged.extend(acks);

        let store = place.open().await.unwrap();
        assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        let log = whole_log(&*store).await;
        let places: BTreeSet<_> =
            log.iter().map(|event| (event.stream.clone(), event.version)).collect();
        for (number, version) in &acknowledged {
            let place = (Stream::Saga(saga_id(*number)), Version(*version));
            assert!(places.contains(&place), "{place:?} was acknowledged");
        }
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() > 6_000, "{}", acknowledged.len());
}

/// Starts a child, reads this many acknowledgements, kills it, and reads the rest.
fn kill_after(path: &Path, lines: usize) -> Vec<(u32, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["a_killed_process_loses_nothing_acknowledged", "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acks = Vec::new();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // A cut line is one that was not acknowledged.
    while (acks.len() < lines || child.kill().is_ok())
        && output.read_line(&mut line).unwrap() > 0
        && line.ends_with('\n')
    {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["ack", number, version] = words[..] else { panic!("{line}") };
        let (number, version) = (number.parse().unwrap(), version.parse().unwrap());
        acks.push((number, version));
        line.clear();
    }
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the child was not killed: {status}");
    acks
}

/// Writes a line to standard error for each append that is done.
async fn append_until_killed(path: &Path) -> ! {
    let store = SqliteStore::open(path, Durability::Full).unwrap();
    let store = TestStore::of(std::sync::Arc::new(store)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..SAGAS {
        let store = store.clone();
        tasks.spawn(async move {
            let stream = Stream::Saga(saga_id(number));
            let known = whole_stream(&*store, stream).await.len() as u64;
            for expected in known.. {
                let append = if expected == 0 { start(number) } else { then(number, expected) };
                match store.append(append).await.unwrap() {
                    Appended::Done { version } => eprintln!("ack {number} {}", version.0),
                    Appended::StateChanged(_) | Appended::StateFull(_) => unreachable!(),
                    Appended::Duplicate(id) | Appended::KeyReused(id) => {
                        panic!("no key was given: {id}")
                    }
                }
            }
        });
    }
    tasks.join_next().await;
    panic!("a task ended");
}
