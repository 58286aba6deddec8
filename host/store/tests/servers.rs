//! Servers that crash, fill their disk, or give way to their standby while a store is at work. Nothing that was
//! acknowledged is lost without a word, and nothing is there twice.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use amends_engine::Version;
use amends_store::conformance::{TestStore, saga_id, start, then, whole_log, whole_stream};
use amends_store::{
    Appended, Durability, Obstacle, PostgresStore, StoreError, StoreHealth, Stream,
};
use database::connect;
use database::own_server::OwnServer;
use tokio::task::JoinHandle;

async fn open(url: &str) -> TestStore {
    let store = PostgresStore::open(url, Durability::Full).unwrap();
    TestStore::of(Arc::new(store)).await.unwrap()
}

/// Waits until the health of the store is as it should be.
async fn until(store: &TestStore, is_right: impl FnMut(&StoreHealth) -> bool) {
    let mut health = store.maintenance().health();
    let right = tokio::time::timeout(Duration::from_secs(30), health.wait_for(is_right));
    drop(right.await.expect("its health stays as it is").unwrap());
}

/// Sagas that go on, each append of which is tried until it is there.
struct Load {
    store: TestStore,
    is_over: Arc<AtomicBool>,
    /// How many appends were acknowledged, and how many refused.
    acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU32>,
    sagas: Vec<JoinHandle<u64>>,
}

impl Load {
    fn begin(store: &TestStore, sagas: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (acknowledged, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(0)));
        let saga = |number| {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            let (acknowledged, refused) = (Arc::clone(&acknowledged), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut version = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let append = if version == 0 { start(number) } else { then(number, version) };
                    match store.append(append).await {
                        Ok(Appended::Done { .. }) => {
                            version += 1;
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(StoreError::Unavailable { .. }) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        other => panic!("saga {number} at {version}: {other:?}"),
                    }
                }
                version
            })
        };
        let sagas = (0..sagas).map(saga).collect();
        Self { store: store.clone(), is_over, acknowledged, refused, sagas }
    }

    /// Waits until so many more appends are acknowledged.
    async fn go_on(&self, more: u64) {
        let end = self.acknowledged.load(Ordering::Relaxed) + more;
        for _ in 0..3_000 {
            if self.acknowledged.load(Ordering::Relaxed) >= end {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the store does not go on");
    }

    /// Appends while the store takes no writes: that is refused, and nothing of it is stored. The sagas of the load may
    /// all wait for the answer of one transaction.
    async fn is_refused(&self) {
        let refused = self.store.append(start(1_000)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it. Each append is there once: in its stream, and in the log.
    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = 0;
        for (number, saga) in (0..).zip(self.sagas) {
            let version = saga.await.unwrap();
            let stream = whole_stream(&*self.store, Stream::Saga(saga_id(number))).await;
            let versions: Vec<_> = stream.iter().map(|event| event.version).collect();
            assert_eq!(versions, (1..=version).map(Version).collect::<Vec<_>>(), "saga {number}");
            all += version;
        }
        assert!(self.refused.load(Ordering::Relaxed) > 0, "nothing was in the way");
        assert_eq!(whole_log(&*self.store).await.len() as u64, all);
        assert_eq!(self.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        until(&self.store, |health| matches!(health, StoreHealth::Well)).await;
    }
}

/// The server crashes and comes up again, several times, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_when_the_server_crashes() {
    let Some(mut server) = database::own_server() else { return };
    server.start();
    let store = open(&format!("{}/postgres", server.url())).await;
    let load = Load::begin(&store, 20);
    for _ in 0..3 {
        load.go_on(100).await;
        server.stop("immediate");
        until(&store, |health| matches!(health, StoreHealth::NoWrites(_))).await;
        load.is_refused().await;
        server.start();
        until(&store, |health| matches!(health, StoreHealth::Well)).await;
    }
    load.go_on(100).await;
    load.end().await;
    store.close().await.unwrap();
}

/// Statements are ended by the server, as by a limit of their time, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_when_statements_are_cancelled() {
    let Some(mut server) = database::own_server() else { return };
    server.start();
    let store = open(&format!("{}/postgres", server.url())).await;
    let admin = connect(&format!("{}/postgres", server.url())).await.unwrap();
    let load = Load::begin(&store, 20);
    load.go_on(100).await;
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                  WHERE application_name = 'amends' AND state <> 'idle'";
    let (mut cancelled, began) = (0, std::time::Instant::now());
    while cancelled < 50 || load.refused.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < Duration::from_mins(1), "{cancelled} cancelled, none refused");
        cancelled += admin.query_one(cancel, &[]).await.unwrap().get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    load.go_on(100).await;
    load.end().await;
    store.close().await.unwrap();
}

/// A standby that every commit waits for becomes the primary in the middle of the load. The URL names both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_when_a_synchronous_standby_takes_over() {
    let Some(mut primary) = database::own_server() else { return };
    primary.start();
    let mut standby = OwnServer::standby_of(&primary, "second");
    standby.start();
    primary.configure("synchronous_standby_names = 'second'");
    primary.reload();
    let ports = [primary.port, standby.port].map(|port| format!("127.0.0.1:{port}"));
    let store = open(&format!("postgres://postgres@{}/postgres", ports.join(","))).await;
    let load = Load::begin(&store, 20);
    load.go_on(300).await;
    primary.stop("immediate");
    until(&store, |health| matches!(health, StoreHealth::NoWrites(_))).await;
    load.is_refused().await;
    standby.promote();
    load.go_on(300).await;
    load.end().await;
    store.close().await.unwrap();
}

/// A standby takes over that did not have everything. The store says how much is missing, and ends; the next one goes
/// on with what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_what_a_standby_did_not_have() {
    let Some(mut primary) = database::own_server() else { return };
    primary.start();
    let mut standby = OwnServer::standby_of(&primary, "second");
    standby.start();
    let ports = [primary.port, standby.port].map(|port| format!("127.0.0.1:{port}"));
    let url = format!("postgres://postgres@{}/postgres", ports.join(","));
    let store = open(&url).await;
    store.append(start(1)).await.unwrap();
    store.append(then(1, 1)).await.unwrap();
    // The standby has these, and none of what follows.
    let of_standby = connect(&format!("{}/postgres", standby.url())).await.unwrap();
    let has = "SELECT coalesce(sum(version - first + 1), 0)::int8 FROM appends";
    while of_standby.query_one(has, &[]).await.map_or(0, |row| row.get::<_, i64>(0)) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(of_standby);
    standby.stop("fast");
    for version in 2..5 {
        store.append(then(1, version)).await.unwrap();
    }
    primary.stop("immediate");
    standby.start();
    standby.promote();
    until(&store, |health| matches!(health, StoreHealth::Lost(_))).await;
    let health = store.maintenance().health().borrow().clone();
    let said = format!("{health:?}");
    assert!(said.contains("3 events that were acknowledged are not there any more"), "{said}");
    let refused = store.append(then(1, 5)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    store.close().await.unwrap();

    let store = open(&url).await;
    assert_eq!(whole_log(&*store).await.len(), 2);
    store.append(then(1, 2)).await.unwrap();
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// A small disk, which is unmounted when this is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one. None when this user may not.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs"]).arg(at);
        mount.stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|done| done.success()).then(|| Self(at.to_owned()))
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The disk of the database is full. The store takes no writes, says why, and goes on by itself when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_when_the_disk_of_the_server_has_room_again() {
    let Some(mut server) = database::own_server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let Some(disk) = Disk::mount(folder.path()) else {
        return database::skip("only root may mount the small disk that a full one needs");
    };
    server.start();
    let admin = connect(&format!("{}/postgres", server.url())).await.unwrap();
    let space = OwnServer::folder_in(folder.path(), "space");
    admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{space}'")).await.unwrap();
    admin.batch_execute("CREATE DATABASE small TABLESPACE small").await.unwrap();
    let store = open(&format!("{}/small", server.url())).await;
    // Random letters, which the server cannot compress.
    let mut seed = 1_u64;
    let mut text = || -> String {
        let letter = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + (seed >> 59) as u8 % 26)
        };
        (0..100_000).map(letter).collect()
    };
    let mut version = 0;
    let refused = loop {
        assert!(version < 1_000, "the disk is never full");
        let mut append = if version == 0 { start(1) } else { then(1, version) };
        append.events[0].data = format!("{{\"text\":\"{}\"}}", text());
        match store.append(append).await {
            Ok(_) => version += 1,
            Err(error) => break error,
        }
    };
    let is_full = matches!(refused, StoreError::Unavailable { obstacle: Obstacle::Full, .. });
    assert!(is_full, "{refused:?}");
    let health = store.maintenance().health().borrow().clone();
    assert!(matches!(health, StoreHealth::NoWrites(_)), "{health:?}");
    disk.grow();
    until(&store, |health| matches!(health, StoreHealth::Well)).await;
    store.append(then(1, version)).await.unwrap();
    assert_eq!(whole_log(&*store).await.len() as u64, version + 1);
    store.close().await.unwrap();
    drop(admin);
    server.stop("immediate");
}
