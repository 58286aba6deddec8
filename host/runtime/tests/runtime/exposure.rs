//! What abandoned sagas left standing is counted once, not at each request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use amends_engine::{Definition, StepKind, Verb, WaitSpec};
use amends_runtime::RuntimeConfig;

use crate::place::hooked::{Hooked, Next};
use crate::place::{Place, ada, definition, start, step};

/// `gate` waits for a signal that never comes.
fn gate() -> Definition {
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    definition("gate", vec![step("gate", StepKind::Wait { wait })])
}

#[tokio::test]
async fn what_abandoned_sagas_left_is_read_once() {
    const ABANDONED: usize = 30;
    let place = Place::new();
    let hooked = Hooked::new(place.store(), Next::append_then);
    let reads = Arc::clone(&hooked.reads);
    let definitions = vec![gate()];
    let runtime = place.run(Arc::new(hooked), definitions, RuntimeConfig::default()).await;
    let abandon = async || {
        let id = start(&runtime, "gate").await;
        let reason = "nobody needs it".to_owned();
        runtime.operate(&ada(), id, Verb::Abandon, reason).await.unwrap();
    };
    for _ in 0..ABANDONED {
        abandon().await;
    }
    let mut before = 0;
    let mut reads_for_exposure = async || {
        assert!(runtime.exposure().await.unwrap().is_empty(), "no step of theirs has an effect");
        let now = reads.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now).abs_diff(now)
    };
    assert!(reads_for_exposure().await >= ABANDONED);
    assert_eq!(reads_for_exposure().await, 0, "what was counted is remembered");
    abandon().await;
    let read = reads_for_exposure().await;
    assert!((1..=2).contains(&read), "one more is read: {read}");
}
