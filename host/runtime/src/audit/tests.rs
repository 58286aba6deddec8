//! The audit of hosts that share a store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use amends_store::{Durability, SqliteStore};

use super::*;

/// A store in a folder that goes with it.
struct Place {
    _folder: tempfile::TempDir,
    store: Arc<dyn Store>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        Self { _folder: folder, store: Arc::new(store.unwrap()) }
    }

    /// Opens the audit of one more host.
    async fn host(&self) -> Arc<Audit> {
        Audit::open(Arc::clone(&self.store)).await.unwrap()
    }

    /// Returns how many entries there are. Nothing is wrong with them.
    async fn entries(&self) -> u64 {
        let check = check_audit(&*self.store).await.unwrap();
        assert_eq!(check.finding(), None);
        check.entries()
    }
}

fn entry(who: &str, number: u32) -> AuditEntry {
    AuditEntry {
        who: who.to_owned(),
        token: None,
        roles: vec!["admin".to_owned()],
        address: IpAddr::from([127, 0, 0, 1]),
        operation: Some("cancel_saga".to_owned()),
        target: format!("/v1/sagas/{number}/cancel"),
        status: Some(200),
        code: None,
    }
}

/// Who asked, in the order of the stream.
fn whos(events: Vec<AuditEvent>) -> Vec<String> {
    let who = |event: AuditEvent| match event.fact {
        AuditFact::Recorded(recorded) => recorded.entry.who,
        AuditFact::Refused(refused) => format!("{} {}", refused.count, refused.code),
        AuditFact::Unreadable => "nobody can read it".to_owned(),
    };
    events.into_iter().map(who).collect()
}

#[tokio::test]
async fn hosts_that_write_in_turn_continue_one_chain() {
    let place = Place::new();
    let (one, other) = (place.host().await, place.host().await);
    // Each append of a host finds that the other one was first.
    for number in 0..3 {
        one.record(entry("one", number)).await.unwrap();
        other.record(entry("other", number)).await.unwrap();
    }
    assert_eq!(place.entries().await, 6);
    let turns = ["one", "other", "one", "other", "one", "other"];
    assert_eq!(whos(one.list(None, 100).await.unwrap()), turns);
    assert_eq!(whos(one.list(None, 2).await.unwrap()), turns[4..]);
    assert_eq!(whos(other.list(Some(Version(1)), 2).await.unwrap()), turns[1..3]);
    assert!(other.list(Some(Version(6)), 2).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_write_at_once_continue_one_chain() {
    const EACH: u32 = 400;
    let place = Place::new();
    let hosts = [place.host().await, place.host().await, place.host().await];
    let mut tasks = Vec::new();
    for (audit, who) in hosts.iter().zip(["a", "b", "c"]) {
        for number in 0..EACH {
            let audit = Arc::clone(audit);
            tasks.push(tokio::spawn(async move { audit.record(entry(who, number)).await }));
        }
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let all = place.entries().await;
    assert_eq!(all, u64::from(EACH) * 3);
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(Version(0), |event: &AuditEvent| event.version);
        let page = hosts[0].list(Some(after), 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        events.extend(page);
    }
    let mut targets: Vec<_> = events
        .into_iter()
        .map(|event| match event.fact {
            AuditFact::Recorded(AuditRecorded { entry, .. }) => (entry.who, entry.target),
            AuditFact::Refused(_) | AuditFact::Unreadable => panic!("it is no request"),
        })
        .collect();
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len() as u64, all);
}

#[tokio::test]
async fn refused_requests_stand_in_the_chain_as_counts() {
    let place = Place::new();
    let audit = place.host().await;
    audit.record_refused().await;
    assert_eq!(place.entries().await, 0);
    for _ in 0..1_000 {
        audit.count_refused(IpAddr::from([10, 0, 0, 7]), "token_missing");
    }
    audit.count_refused(IpAddr::from([10, 0, 0, 7]), "token_wrong");
    audit.record(entry("ada", 1)).await.unwrap();
    audit.record_refused().await;
    audit.record_refused().await;
    assert_eq!(place.entries().await, 3);
    let told = whos(audit.list(None, 10).await.unwrap());
    assert_eq!(told, ["ada", "1000 token_missing", "1 token_wrong"]);
}

#[tokio::test]
async fn the_end_is_found_however_long_the_stream_is() {
    let place = Place::new();
    assert_eq!(last_event(&*place.store).await.unwrap(), None);
    let audit = place.host().await;
    for number in 1..=40 {
        audit.record(entry("ada", number)).await.unwrap();
        let last = last_event(&*place.store).await.unwrap().unwrap();
        assert_eq!(last.version, Version(u64::from(number)));
        assert!(last.data.contains(&format!("/v1/sagas/{number}/cancel")), "{last:?}");
    }
    // A host that starts continues there.
    place.host().await.record(entry("eve", 1)).await.unwrap();
    assert_eq!(place.entries().await, 41);
}

#[tokio::test]
async fn the_entries_since_a_time_are_found() {
    let place = Place::new();
    let audit = place.host().await;
    assert_eq!(audit.version_before(Timestamp::from_millis(i64::MAX)).await.unwrap(), Version(0));
    let mut times = Vec::new();
    for number in 1..=20 {
        audit.record(entry("ada", number)).await.unwrap();
        times.push(last_event(&*place.store).await.unwrap().unwrap().at);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(audit.version_before(times[0]).await.unwrap(), Version(0));
    for (number, at) in (1..).zip(&times) {
        let later = at.after(Duration::from_millis(1));
        assert_eq!(audit.version_before(later).await.unwrap(), Version(number), "{times:?}");
    }
    let later = times[19].after(Duration::from_hours(1));
    assert_eq!(audit.version_before(later).await.unwrap(), Version(20));
}

#[tokio::test]
async fn an_entry_that_cannot_be_stored_is_told() {
    let place = Place::new();
    let audit = place.host().await;
    place.store.close().await.unwrap();
    assert!(audit.record(entry("ada", 1)).await.is_err());
    audit.count_refused(IpAddr::from([10, 0, 0, 7]), "token_missing");
    audit.record_refused().await;
    assert_eq!(audit.refused().take(now()).len(), 1, "it stays counted");
}

#[test]
fn a_long_target_is_shortened() {
    let long = |letters: &str| {
        let mut target = format!("/v1/{}", letters.repeat(2_000));
        shorten(&mut target);
        target
    };
    assert_eq!(long("a").len(), 2_004);
    for letters in ["ab", "é", "abé"] {
        let target = long(letters);
        assert!(target.ends_with('…') && target.starts_with("/v1/"), "{target}");
        let wanted = AUDIT_TARGET_BYTES_MAX - 1..=AUDIT_TARGET_BYTES_MAX;
        assert!(wanted.contains(&target.len()), "{}", target.len());
    }
}
