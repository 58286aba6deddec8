//! Instances that serve several calls, where a plugin's settings say so.

use amends_engine::{Direction, Outcome};
use amends_tests::{Behaviour, Component};

use crate::host::{Host, Place};

/// Counts its calls in its own memory, and traps when it undoes.
async fn host(reuse: u32) -> (Place, Host) {
    host_with(reuse, Behaviour::Trap).await
}

async fn host_with(reuse: u32, compensate: Behaviour) -> (Place, Host) {
    let mut place = Place::new();
    place.settings.reuse = reuse;
    let component = Component { execute: Behaviour::Count, compensate, ..Component::default() };
    place.write("test", &component.build());
    let host = place.open().await;
    (place, host)
}

/// Which call of its instance it was.
async fn count(host: &Host) -> u64 {
    let outcome = host.execute().await;
    let Outcome::Succeeded(output) = outcome else { panic!("{outcome:?}") };
    output.to_value().unwrap()["n"].as_u64().unwrap()
}

async fn counts(host: &Host, calls: usize) -> Vec<u64> {
    let mut counts = Vec::new();
    for _ in 0..calls {
        counts.push(count(host).await);
    }
    counts
}

#[tokio::test]
async fn every_call_has_an_instance_of_its_own() {
    for reuse in [0, 1] {
        let (_place, host) = host(reuse).await;
        assert_eq!(counts(&host, 4).await, [1; 4]);
        host.close().await;
    }
}

#[tokio::test]
async fn an_instance_serves_as_many_calls_as_it_may() {
    let (_place, host) = host(3).await;
    assert_eq!(counts(&host, 7).await, [1, 2, 3, 1, 2, 3, 1]);
    host.close().await;
}

#[tokio::test]
async fn one_that_trapped_serves_no_other() {
    let (_place, host) = host(100).await;
    assert_eq!(counts(&host, 2).await, [1, 2]);
    let undo = host.call(Direction::Compensate);
    assert!(matches!(host.plugins.call(&undo).await.outcome, Outcome::Unknown(_)));
    assert_eq!(counts(&host, 2).await, [1, 2]);
    host.close().await;
}

/// What was refused may have left it as it never is otherwise, and only it knows.
#[tokio::test]
async fn one_that_met_a_limit_serves_no_other_though_its_call_succeeded() {
    const GROWS_AND_COUNTS: &str = "(drop (memory.grow (i32.const 60000)))
         (global.set $served (i32.add (i32.const 1) (global.get $served)))
         (i32.store8 (i32.const 3105) (i32.add (i32.const 48) (global.get $served)))
         (i32.store offset=8 (i32.const 2048) (i32.const 3100))
         (i32.store offset=12 (i32.const 2048) (i32.const 7))
         (i32.const 2048)";
    let mut place = Place::new();
    place.settings.reuse = 100;
    let execute = Behaviour::Text(GROWS_AND_COUNTS);
    place.write("test", &Component { execute, ..Component::default() }.build());
    let host = place.open().await;
    assert_eq!(counts(&host, 3).await, [1; 3]);
    host.close().await;
}

/// The library of a language opens its standard streams once and keeps them. A component that keeps another
/// one from each call would fill the host's memory.
#[tokio::test]
async fn one_that_keeps_its_streams_serves_on_and_one_that_keeps_more_each_time_does_not() {
    const STDERR: &str =
        r#"(import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))"#;
    const COUNTS: &str = "(global.set $served (i32.add (i32.const 1) (global.get $served)))
         (i32.store8 (i32.const 3105) (i32.add (i32.const 48) (global.get $served)))
         (i32.store offset=8 (i32.const 2048) (i32.const 3100))
         (i32.store offset=12 (i32.const 2048) (i32.const 7))
         (i32.const 2048)";
    const OPENS_ONCE: &str = "(if (i32.eqz (global.get $served)) (then (drop (call $stderr))))";
    const OPENS_MANY: &str = "(drop (call $stderr)) (drop (call $stderr)) (drop (call $stderr))
         (drop (call $stderr)) (drop (call $stderr))";
    for (opens, expected) in [(OPENS_ONCE, [1, 2, 3, 4]), (OPENS_MANY, [1, 2, 1, 2])] {
        let mut place = Place::new();
        place.settings.reuse = 100;
        let text: &'static str = Box::leak(format!("{opens} {COUNTS}").into_boxed_str());
        let component =
            Component { execute: Behaviour::Text(text), imports: STDERR, ..Component::default() };
        place.write("test", &component.build());
        let host = place.open().await;
        assert_eq!(counts(&host, 4).await, expected);
        host.close().await;
    }
}

#[tokio::test]
async fn one_that_is_broken_off_serves_no_other() {
    let (_place, host) = host_with(100, Behaviour::Spin).await;
    assert_eq!(counts(&host, 2).await, [1, 2]);
    let mut undo = host.call(Direction::Compensate);
    undo.timeout = std::time::Duration::from_millis(50);
    assert!(matches!(host.plugins.call(&undo).await.outcome, Outcome::Unknown(_)));
    assert_eq!(counts(&host, 2).await, [1, 2]);
    host.close().await;
}

#[tokio::test]
async fn more_calls_at_once_have_more_instances_and_few_of_them_wait() {
    let (_place, host) = host(9).await;
    let calls = (0..200).map(|_| count(&host));
    let served = futures::future::join_all(calls).await;
    assert!(served.contains(&1), "{served:?}");
    // Every instance that waits gives up its place to calls of other components: at most 64 do.
    let again = futures::future::join_all((0..200).map(|_| count(&host))).await;
    let warm = again.iter().filter(|count| **count > 1).count();
    assert!(warm > 0, "{again:?}");
    host.close().await;
}
