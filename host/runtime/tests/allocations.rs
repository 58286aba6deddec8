//! How often a saga allocates: a count that does not depend on the mood of the machine. A change
//! that allocates more says so here, by committing the new figure.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod place;

use std::sync::Arc;

use amends_engine::{
    BackoffSpec, Definition, DefinitionSpec, InputSpec, Payload, RetrySpec, SagaStatus, StepKind,
    StepSpec, UndoSpec,
};
use amends_runtime::{Host, RuntimeConfig, StartRequest};

use place::{Place, SOON, ada};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The component of `amends bench`.
const TRIVIAL: &[u8] = include_bytes!("../../../plugins/trivial/trivial.wasm");

/// Of one saga of three steps, each call in a fresh instance: start, calls, appends and end.
const BLOCKS_PER_SAGA: u64 = 274;

/// How much more or less it may be, in percent: channels allocate by the block.
const MARGIN: u64 = 5;

const SAGAS: u64 = 200;

fn definition() -> Definition {
    let retry = || RetrySpec { attempts: 3, backoff: BackoffSpec::Listed(vec![SOON]) };
    let names = ["prescription", "inventory", "shipment"];
    let step = |(name, before): (&str, Option<&&str>)| StepSpec {
        name: name.parse().unwrap(),
        kind: StepKind::Call { plugin: "trivial".parse().unwrap(), service: None },
        after: before.into_iter().map(|before| before.parse().unwrap()).collect(),
        each: None,
        when: None,
        input: Some(InputSpec::Whole("input".to_owned())),
        timeout: SOON,
        retry: retry(),
        undo: Some(UndoSpec { plugin: None, timeout: SOON, retry: retry() }),
        pivot: false,
    };
    let before = std::iter::once(None).chain(names.iter().map(Some));
    Definition::new(DefinitionSpec {
        name: "order".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: names.into_iter().zip(before).map(step).collect(),
    })
    .unwrap()
}

async fn run(runtime: &Host, sagas: u64) {
    for _ in 0..sagas {
        let request = StartRequest {
            definition: "order".to_owned(),
            input: Payload::parse(r#"{"order_id":"ORD-2026-000001"}"#).unwrap(),
            key: None,
            tags: std::collections::BTreeMap::new(),
            traceparent: None,
            start_at: None,
        };
        let (_, state) = runtime.start_and_wait(&ada(), request, SOON).await.unwrap();
        assert_eq!(state.unwrap().unwrap().saga.status(), SagaStatus::Completed);
    }
}

#[tokio::test]
async fn a_saga_allocates_as_often_as_is_committed() {
    let place = Place::new();
    place.write("trivial", TRIVIAL);
    let store = place.store();
    let config = RuntimeConfig::default();
    let runtime = place.run(Arc::clone(&store), vec![definition()], config).await;
    // From here on it counts.
    let _profiler = dhat::Profiler::builder().testing().build();
    run(&runtime, SAGAS).await;
    let before = dhat::HeapStats::get().total_blocks;
    run(&runtime, SAGAS).await;
    let count = (dhat::HeapStats::get().total_blocks - before) / SAGAS;
    println!("{count} allocations a saga, {BLOCKS_PER_SAGA} are committed");
    let differs = count.abs_diff(BLOCKS_PER_SAGA) * 100 > BLOCKS_PER_SAGA * MARGIN;
    assert!(!differs, "{count} and not {BLOCKS_PER_SAGA}: commit the new figure if it is meant");
}
