//! Plugins' state: seen by calls, written with their events, refused when it has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    CounterChange, PluginName, STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_ROWS_MAX,
    STATE_VALUE_BYTES_MAX, StateChange, StateList, StateQuery,
};
use futures::future::join_all;

use super::fixture::{start, then, whole_log};
use super::location::{StoreLocation, TestStore};
use crate::{Append, Appended, StoreError};

type Values<'a> = &'a [(&'a str, Option<&'a str>)];

fn inventory() -> PluginName {
    "inventory".parse().unwrap()
}

/// A change that saw some keys and writes some.
#[must_use]
pub fn state_change(reads: Values<'_>, writes: Values<'_>) -> StateChange {
    let of = |values: Values<'_>| -> BTreeMap<_, _> {
        values.iter().map(|(key, value)| ((*key).to_owned(), value.map(Arc::from))).collect()
    };
    StateChange { reads: of(reads), writes: of(writes), ..StateChange::new(inventory(), 1_000) }
}

fn with(append: Append, change: StateChange) -> Append {
    Append { state: vec![Arc::new(change)], ..append }
}

fn query(prefix: &str, after: Option<&str>, limit: u32) -> StateQuery {
    StateQuery { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit }
}

async fn value(store: &TestStore, key: &str) -> Option<Arc<str>> {
    store.state().value(inventory(), key.to_owned()).await.unwrap()
}

/// What is written is read, also after a reopen; what is removed is gone; a plugin sees its own.
pub async fn keeps_state(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    assert_eq!(value(&store, "a").await, None);
    let writes = [("a", Some("1")), ("stock/ä", Some("{\"n\":2}")), ("stock/z", Some("\"x\""))];
    let done = store.append(with(start(1), state_change(&[], &writes))).await;
    assert!(matches!(done, Ok(Appended::Done { .. })), "{done:?}");
    let other = StateChange { plugin: "other".parse().unwrap(), ..state_change(&[], &[]) };
    let other = StateChange { writes: [("a".to_owned(), Some("9".into()))].into(), ..other };
    store.append(with(start(2), other)).await.unwrap();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    store.close().await.unwrap();
    let store = location.open().await.unwrap();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(value(&store, "stock/ä").await.as_deref(), Some("{\"n\":2}"));
    let keys = |query| store.state().keys(inventory(), query);
    assert_eq!(keys(query("", None, 10)).await.unwrap(), ["a", "stock/z", "stock/ä"]);
    assert_eq!(keys(query("stock/", None, 10)).await.unwrap(), ["stock/z", "stock/ä"]);
    assert_eq!(keys(query("stock/", Some("stock/z"), 10)).await.unwrap(), ["stock/ä"]);
    assert_eq!(keys(query("", None, 2)).await.unwrap(), ["a", "stock/z"]);
    assert_eq!(keys(query("b", None, 10)).await.unwrap(), Vec::<String>::new());
    let gone = state_change(&[("a", Some("1"))], &[("a", None)]);
    store.append(with(then(1, 1), gone)).await.unwrap();
    assert_eq!(value(&store, "a").await, None);
    assert_eq!(keys(query("a", None, 10)).await.unwrap(), Vec::<String>::new());
}

/// What a call saw and is no more so: its append is refused, and nothing of it is there.
pub async fn refuses_state_that_has_changed(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(with(start(1), state_change(&[("a", None)], &[("a", Some("1"))]))).await.unwrap();
    let seen = |value| state_change(&[("a", value)], &[("a", Some("7")), ("b", Some("7"))]);
    for stale in [None, Some("2")] {
        let refused = store.append(with(start(2), seen(stale))).await.unwrap();
        assert_eq!(refused, Appended::StateChanged(0));
        // Also what only looked, and what was handed in meanwhile and refused.
        let looked = state_change(&[("a", stale)], &[]);
        let both = Append { state: vec![seen(Some("1")).into(), looked.into()], ..start(3) };
        assert_eq!(store.append(both).await.unwrap(), Appended::StateChanged(1));
    }
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(value(&store, "b").await, None);
    assert_eq!(whole_log(&*store).await.len(), 1);
    assert_eq!(store.state().keys(inventory(), query("", None, 9)).await.unwrap(), ["a"]);
    // The changes of one append follow one another.
    let next = state_change(&[("a", Some("7"))], &[("a", Some("8"))]);
    let both = Append { state: vec![seen(Some("1")).into(), next.into()], ..start(2) };
    assert!(matches!(store.append(both).await, Ok(Appended::Done { .. })));
    assert_eq!(value(&store, "a").await.as_deref(), Some("8"));
}

/// A list that a call saw is what it saw, too.
pub async fn refuses_lists_that_have_changed(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let listed = |keys: &[&str]| {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let lists = vec![StateList { query: query("x/", None, 2), keys }];
        StateChange { lists, ..state_change(&[], &[("seen", Some("1"))]) }
    };
    let put = |key| state_change(&[], &[(key, Some("1"))]);
    store.append(with(start(1), put("x/b"))).await.unwrap();
    let stale = store.append(with(start(2), listed(&[]))).await.unwrap();
    assert_eq!(stale, Appended::StateChanged(0));
    let current = store.append(with(start(2), listed(&["x/b"]))).await.unwrap();
    assert!(matches!(current, Appended::Done { .. }));
    store.append(with(then(1, 1), put("x/a"))).await.unwrap();
    let stale = store.append(with(start(3), listed(&["x/b"]))).await.unwrap();
    assert_eq!(stale, Appended::StateChanged(0));
    // A change of the same append before it.
    let both =
        Append { state: vec![put("x/c").into(), listed(&["x/a", "x/b"]).into()], ..start(3) };
    assert_eq!(store.append(both).await.unwrap(), Appended::StateChanged(1));
}

/// A plugin's state has a size, and what would make it larger is refused.
pub async fn refuses_state_that_is_too_large(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let put =
        |key, value, bytes_max| StateChange { bytes_max, ..state_change(&[], &[(key, value)]) };
    store.append(with(start(1), put("a", Some("123"), 4))).await.unwrap();
    let full = store.append(with(start(2), put("b", Some("1"), 5))).await.unwrap();
    assert_eq!(full, Appended::StateFull(0));
    assert_eq!(value(&store, "b").await, None);
    // Removing makes room, also when less is allowed than before.
    store.append(with(then(1, 1), put("a", None, 0))).await.unwrap();
    let fits = store.append(with(start(2), put("b", Some("1234"), 5))).await.unwrap();
    assert!(matches!(fits, Appended::Done { .. }));
    let long = "k".repeat(STATE_KEY_BYTES_MAX + 1);
    let large = format!("\"{}\"", "x".repeat(STATE_VALUE_BYTES_MAX));
    for (key, value) in [("", "1"), ("a\n", "1"), (&long, "1"), ("a", &large)] {
        let refused = store.append(with(start(3), put(key, Some(value), 1 << 30))).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    let mut many = put("a", None, 1);
    many.writes = (0..=STATE_KEYS_MAX).map(|number| (number.to_string(), None)).collect();
    let refused = store.append(with(start(3), many)).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

/// A change may have seen so much and no more: the writer looks at all of it again.
pub async fn refuses_changes_that_saw_too_much(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let keys: Vec<_> = (0..STATE_KEYS_MAX).map(|number| format!("k{number:04}")).collect();
    let mut all = state_change(&[], &[]);
    all.bytes_max = 1 << 20;
    all.writes = keys.iter().map(|key| (key.clone(), Some("1".into()))).collect();
    store.append(with(start(1), all)).await.unwrap();
    let list = |number| StateList { query: query("k", None, 1_000 + number), keys: keys.clone() };
    let listed = |lists| StateChange { lists, ..state_change(&[], &[]) };
    // Each list counts one more than its keys.
    let most = u32::try_from(STATE_ROWS_MAX / (STATE_KEYS_MAX + 1)).unwrap();
    let much = listed((0..most).map(list).collect());
    let taken = store.append(with(start(2), much)).await;
    assert!(matches!(taken, Ok(Appended::Done { .. })), "{taken:?}");
    let too_much = listed((0..=most).map(list).collect());
    let refused = store.append(with(start(3), too_much)).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

fn counted(key: &str, delta: i64, low: i64, high: i64) -> StateChange {
    let counters = [(key.to_owned(), CounterChange { delta, low, high })].into();
    StateChange { counters, ..state_change(&[], &[]) }
}

/// A counter takes what is added whatever its number is, as long as that is in the range; what is no
/// number, and what is not there, is in no range.
pub async fn adds_to_counters(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let is_refused = async |change: StateChange| {
        let refused = store.append(with(start(9), change)).await.unwrap();
        assert_eq!(refused, Appended::StateChanged(0));
    };
    is_refused(counted("n", 1, -100, 100)).await;
    let first = state_change(&[], &[("n", Some("10")), ("text", Some("\"10\""))]);
    store.append(with(start(1), first)).await.unwrap();
    is_refused(counted("text", 1, -100, 100)).await;
    // Both are of a call that saw ten or more.
    for (number, left) in [(2, "7"), (3, "4")] {
        let taken = store.append(with(start(number), counted("n", -3, 3, 100))).await;
        assert!(matches!(taken, Ok(Appended::Done { .. })), "{taken:?}");
        assert_eq!(value(&store, "n").await.as_deref(), Some(left));
    }
    is_refused(counted("n", -3, 5, 100)).await;
    is_refused(counted("n", 3, -100, 3)).await;
    // What only depends on the range changes nothing, and is refused like the others.
    store.append(with(start(4), counted("n", 0, 4, 4))).await.unwrap();
    is_refused(counted("n", 0, 5, 5)).await;
    // The changes of one append follow one another, and a value that is written stays.
    let set = StateChange {
        writes: [("n".to_owned(), Some("100".into()))].into(),
        ..counted("n", 9, 1, 1)
    };
    let all = [counted("n", -3, 3, 9), set, counted("n", -100, 100, 100)].map(Arc::new);
    let done = store.append(Append { state: all.to_vec(), ..start(5) }).await;
    assert!(matches!(done, Ok(Appended::Done { .. })), "{done:?}");
    store.close().await.unwrap();
    let store = location.open().await.unwrap();
    assert_eq!(value(&store, "n").await.as_deref(), Some("0"));
    let full = StateChange { bytes_max: 1, ..counted("n", 10, 0, 0) };
    let full = store.append(with(start(9), full)).await.unwrap();
    assert_eq!(full, Appended::StateFull(0));
}

/// 64 at once add to one counter: none is refused, and none is lost.
pub async fn adds_to_one_counter_at_once(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(with(start(0), state_change(&[], &[("n", Some("0"))]))).await.unwrap();
    let added = (1..=64).map(|number| {
        let store = store.clone();
        tokio::spawn(
            async move { store.append(with(start(number), counted("n", 1, 0, 100))).await },
        )
    });
    for done in join_all(added).await {
        assert!(matches!(done.unwrap(), Ok(Appended::Done { .. })));
    }
    assert_eq!(value(&store, "n").await.as_deref(), Some("64"));
}

/// 64 at once want one of the last 10: 10 get one, whoever they are.
pub async fn gives_the_last_pieces_once(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(with(start(0), state_change(&[], &[("stock", Some("10"))]))).await.unwrap();
    let wanted = (1..=64).map(|number| tokio::spawn(take_one(store.clone(), number)));
    let got = join_all(wanted).await.into_iter().filter(|got| *got.as_ref().unwrap()).count();
    assert_eq!(got, 10);
    assert_eq!(value(&store, "stock").await.as_deref(), Some("0"));
    let taken = store.state().keys(inventory(), query("taken/", None, 100)).await.unwrap();
    assert_eq!(taken.len(), 10);
}

/// Takes one from the stock if there is one, and says whether there was, as the event of a saga.
async fn take_one(store: TestStore, number: u32) -> bool {
    loop {
        let stock = value(&store, "stock").await.unwrap();
        let left = stock.parse::<u32>().unwrap().checked_sub(1);
        let seen = [("stock", Some(&*stock))];
        let change = match left {
            Some(left) => state_change(
                &seen,
                &[("stock", Some(&left.to_string())), (&format!("taken/{number}"), Some("1"))],
            ),
            None => state_change(&seen, &[]),
        };
        match store.append(with(start(number), change)).await.unwrap() {
            Appended::Done { .. } => return left.is_some(),
            Appended::StateChanged(0) => {}
            Appended::Duplicate(_)
            | Appended::KeyReused(_)
            | Appended::StateChanged(_)
            | Appended::StateFull(_) => panic!("it has one change, and a small one"),
        }
    }
}
