//! Looking at components that mean harm, where it can do none: in a child process of the real binary.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_sandbox::{
    CacheConfig, INSPECT_COMPONENT, Inspection, LoadedComponent, Loader, PluginSettings, Priority,
    Rejection, TrustedKeys,
};
use amends_tests::{Component, bombs, live_locals, many_nested_loops};

/// What a test waits for at most; machines are shared.
const SOON: Duration = Duration::from_mins(2);

/// They look at the memory and the children of this process.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn loader(cache: Option<&Path>) -> Loader {
    let amends = Inspection::Child(env!("CARGO_BIN_EXE_amends").into());
    let cache = cache.map(|dir| CacheConfig { dir: dir.to_owned(), key: None });
    Loader::new(cache.as_ref(), TrustedKeys::default(), amends).unwrap()
}

async fn load(loader: &Loader, bytes: &[u8]) -> Result<LoadedComponent, Rejection> {
    let settings = Arc::new(PluginSettings::default());
    // In the background a busy machine has more time for it.
    loader.load(bytes.to_vec(), settings, Priority::Background).await
}

/// The most memory that this process has had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn what_a_look_shows_to_be_harmful_is_refused_at_once() {
    let _one = ONE_AT_A_TIME.lock().await;
    let loader = loader(None);
    for bomb in bombs() {
        let (name, began) = (bomb.name, Instant::now());
        let rejection = load(&loader, &bomb.bytes).await.expect_err(name);
        println!("{name}, {} bytes: {:?}: {rejection}", bomb.bytes.len(), began.elapsed());
        let reason = rejection.to_string();
        assert!(reason.contains(bomb.words), "{name}: {reason}");
        assert!(reason.contains("; "), "{name} names no remedy: {reason}");
        assert!(reason.len() <= 2_100, "{name}: {} bytes", reason.len());
    }
    // They are built in this process, and nothing else is done in it.
    assert!(peak_mib() < 512, "{} MiB", peak_mib());
    load(&loader, &Component::default().build()).await.unwrap();
}

#[tokio::test]
async fn more_memory_than_a_child_may_have_is_a_refusal_that_is_remembered() {
    let _one = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let bomb = live_locals();
    let rejection = load(&loader(Some(folder.path())), &bomb).await.unwrap_err();
    assert!(matches!(rejection, Rejection::Limit(_)), "{rejection}");
    let reason = rejection.to_string();
    assert!(reason.contains("took more than 1024 MiB of memory; split"), "{reason}");
    // Also by a later start: nobody is asked again.
    let no_child = Inspection::Child("/nobody/is/there".into());
    let cache = CacheConfig { dir: folder.path().to_owned(), key: None };
    let later = Loader::new(Some(&cache), TrustedKeys::default(), no_child).unwrap();
    assert_eq!(load(&later, &bomb).await.unwrap_err(), rejection);
    let other = load(&later, &Component::default().build()).await.unwrap_err();
    assert!(
        other.to_string().contains("it could not be looked at: there is no process"),
        "{other}"
    );
}

/// With a limit of two seconds instead of a host's two minutes.
#[tokio::test]
async fn a_child_ends_when_it_has_computed_for_as_long_as_it_may() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut child = asked_by_hand(&many_nested_loops(), 2);
    until("it has ended", || child.try_wait().unwrap().is_some()).await;
    // SIGXCPU: the host says which limit that is.
    assert_eq!(child.wait().unwrap().signal(), Some(24));
}

/// Processes whose parent is this one.
fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let is_mine = |stat: &str| {
        let after = stat.rsplit_once(") ").map(|(_, after)| after.to_owned()).unwrap_or_default();
        after.split(' ').nth(1) == Some(&me) && !after.starts_with('Z')
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|one| one.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| is_mine(&stat))
    })
    .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_child_ends_with_whoever_waits_for_it() {
    let _one = ONE_AT_A_TIME.lock().await;
    let (loader, bomb) = (loader(None), many_nested_loops());
    // Of three that nobody waits for two are looked at, until somebody waits for another. They differ
    // in the name of a custom section.
    let [one, two, three] = [b'a', b'b', b'c'].map(|name| [&bomb[..], &[0, 2, 1, name]].concat());
    let three =
        async { tokio::join!(load(&loader, &one), load(&loader, &two), load(&loader, &three)) };
    let good = async {
        until("two are there", || children().len() == 2).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(children().len(), 2);
        let settings = Arc::new(PluginSettings::default());
        loader.load(Component::default().build(), settings, Priority::Awaited).await
    };
    tokio::select! {
        _ = three => panic!("a bomb was looked at to its end"),
        good = good => drop(good.unwrap()),
    }
    until("they are gone with the futures", || children().is_empty()).await;
    // One that somebody else kills is a failure of this try, and nobody remembers it.
    let killed = load(&loader, &bomb);
    let kill = async {
        until("one is there", || !children().is_empty()).await;
        for id in children() {
            let id = rustix::process::Pid::from_raw(id.try_into().unwrap()).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        }
    };
    let (killed, ()) = tokio::join!(killed, kill);
    let reason = killed.unwrap_err().to_string();
    assert!(reason.contains("the process that looked at it was killed"), "{reason}");
    // And one whose host is gone ends by itself.
    let mut orphan = asked_by_hand(&bomb, 600);
    std::thread::sleep(Duration::from_millis(500));
    assert!(orphan.try_wait().unwrap().is_none(), "it is still at it");
    drop(orphan.stdin.take());
    until("it has ended", || orphan.try_wait().unwrap().is_some()).await;
}

/// One child at a time looks at a component; whoever waits for it does not wait for one that nobody
/// waits for.
#[tokio::test]
async fn a_component_is_looked_at_once_and_first_for_who_waits() {
    let _one = ONE_AT_A_TIME.lock().await;
    let (loader, bomb) = (loader(None), many_nested_loops());
    let of_nobody = async { tokio::join!(load(&loader, &bomb), load(&loader, &bomb)) };
    let in_turn = async {
        until("one is there", || !children().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let [first] = children()[..] else { panic!("{:?}", children()) };
        let settings = Arc::new(PluginSettings::default());
        let waited_for = loader.load(bomb.clone(), settings, Priority::Awaited);
        let other = async {
            // Long before the first meets a limit of its own.
            let is_other = || children().iter().any(|child| *child != first);
            let other = until("another is there", is_other);
            tokio::time::timeout(Duration::from_secs(20), other).await.unwrap();
            until("the first is gone", || !children().contains(&first)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(children().len(), 1);
        };
        tokio::select! {
            _ = waited_for => panic!("a bomb was looked at to its end"),
            () = other => {}
        }
    };
    tokio::select! {
        _ = of_nobody => panic!("a bomb was looked at to its end"),
        () = in_turn => {}
    }
    until("they are gone with the futures", || children().is_empty()).await;
}

/// A child whose input is held open, as a host does it.
fn asked_by_hand(bytes: &[u8], processor_seconds: u64) -> Child {
    let code = tempfile::NamedTempFile::new().unwrap();
    let request = serde_json::json!({
        "asked": {
            "memory_bytes_max": 64 << 20, "table_elements_max": 1_000, "instances_max": 8,
            "host_calls_max": 10, "settings": {}, "state": false, "events": false, "http": false,
        },
        "limits": {"memory_bytes": 1_u64 << 30, "processor_seconds": processor_seconds},
        "code": {"To": code.path()},
        "is_background": false,
        "bytes_len": bytes.len(),
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_amends"))
        .arg(INSPECT_COMPONENT)
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = child.stdin.as_mut().unwrap();
    input.write_all(format!("{request}\n").as_bytes()).unwrap();
    input.write_all(bytes).unwrap();
    input.flush().unwrap();
    child
}

#[tokio::test]
async fn what_is_kept_needs_no_child() {
    let _one = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let component = Component::default().build();
    let began = Instant::now();
    load(&loader(Some(folder.path())), &component).await.unwrap();
    let cold = began.elapsed();
    let cache = CacheConfig { dir: folder.path().to_owned(), key: None };
    let no_child = Inspection::Child("/nobody/is/there".into());
    let later = Loader::new(Some(&cache), TrustedKeys::default(), no_child).unwrap();
    let began = Instant::now();
    let loaded = load(&later, &component).await.unwrap();
    println!("cold {cold:?}, kept {:?}", began.elapsed());
    assert_eq!((loaded.manifest.version.as_str(), later.compiled()), ("1.2.3", 0));
    // With other settings it may say something else, and it is asked again.
    let settings = PluginSettings { state: true, ..PluginSettings::default() };
    let asked = later.load(component.clone(), Arc::new(settings.clone()), Priority::Awaited).await;
    assert!(asked.unwrap_err().to_string().contains("there is no process"));
    let again = loader(Some(folder.path()));
    again.load(component, Arc::new(settings), Priority::Awaited).await.unwrap();
    assert_eq!(again.compiled(), 0, "its code is that of before");
}
