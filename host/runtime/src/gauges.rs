//! Prometheus metrics of the loop, by the names of the contract.

use std::time::Duration;

use amends_engine::{
    Direction, Event, FailureClass, Saga, SagaEvent, StepEvent, StepName, UndoEvent,
};

use crate::message::Gauges;
use crate::room_key::RoomKey;

/// Counts what became durable.
pub(crate) fn count(saga: &Saga, events: &[Event]) {
    let definition = || saga.definition().name().to_string();
    let failed = |step: &StepName, direction: Direction, class: FailureClass| {
        metrics::counter!(
            "amends_step_failures_total",
            "definition" => definition(),
            // Of an element its step: a list must not make as many series.
            "step" => step.step().to_owned(),
            "direction" => direction.as_str(),
            "class" => class.as_str()
        )
        .increment(1);
    };
    let finished = |outcome: &'static str| {
        metrics::counter!(
            "amends_saga_finished_total",
            "definition" => definition(),
            "outcome" => outcome
        )
        .increment(1);
    };
    for event in events {
        match event {
            Event::Saga(SagaEvent::Started(_)) => {
                metrics::counter!("amends_saga_started_total", "definition" => definition())
                    .increment(1);
            }
            Event::Saga(SagaEvent::Completed(_)) => finished("completed"),
            Event::Saga(SagaEvent::Compensated(_)) => finished("compensated"),
            Event::Saga(SagaEvent::Abandoned(_)) => finished("abandoned"),
            Event::Step(StepEvent::Failed(event)) => {
                failed(&event.step, Direction::Execute, event.class);
            }
            Event::Step(StepEvent::Unknown(event)) => {
                failed(&event.step, Direction::Execute, FailureClass::Unknown);
            }
            Event::Undo(UndoEvent::Failed(event)) => {
                failed(&event.step, Direction::Compensate, event.class);
            }
            Event::Undo(UndoEvent::Blocked(event)) => {
                failed(&event.step, Direction::Compensate, event.class);
            }
            Event::Saga(
                SagaEvent::Due(_)
                | SagaEvent::CompensationStarted(_)
                | SagaEvent::Blocked(_)
                | SagaEvent::Retimed(_)
                | SagaEvent::Marked(_),
            )
            | Event::Step(
                StepEvent::Started(_)
                | StepEvent::Waiting(_)
                | StepEvent::Expanded(_)
                | StepEvent::Succeeded(_)
                | StepEvent::Skipped(_),
            )
            | Event::Undo(UndoEvent::Started(_) | UndoEvent::Succeeded(_))
            | Event::Signal(_)
            | Event::Operator(_)
            | Event::Emitted(_) => {}
        }
    }
}

/// What a host says of itself beside its live sagas.
#[derive(Debug)]
pub(crate) struct HostGauges {
    /// The rooms of calls.
    pub(crate) rooms: Vec<RoomKey>,
    /// How long ago the oldest saga began that has not ended; none when the store did not tell.
    pub(crate) oldest_live: Option<Duration>,
    /// Calls under way.
    pub(crate) in_flight: usize,
    /// Memory of guests.
    pub(crate) guest_bytes: usize,
    /// Sagas that wait, in memory or not; none when the store did not tell.
    pub(crate) waiting: Option<u64>,
    /// What live sagas hold.
    pub(crate) live_bytes: usize,
    /// Sagas that are set aside.
    pub(crate) quarantined: usize,
}

/// Sets what is computed from the live sagas.
#[expect(clippy::cast_precision_loss, reason = "counts of sagas and bytes are far below 2^52")]
pub(crate) fn set(gauges: &Gauges, host: HostGauges) {
    let HostGauges { rooms, oldest_live, in_flight, guest_bytes, waiting, live_bytes, quarantined } =
        host;
    metrics::gauge!("amends_memory_bytes", "budget" => "guests").set(guest_bytes as f64);
    metrics::gauge!("amends_quarantined").set(quarantined as f64);
    metrics::gauge!("amends_saga_blocked").set(gauges.blocked as f64);
    metrics::gauge!("amends_saga_in_memory").set(gauges.in_memory as f64);
    if let Some(waiting) = waiting {
        let others = gauges.in_memory - gauges.waiting;
        metrics::gauge!("amends_saga_live").set(waiting as f64 + others as f64);
    }
    metrics::gauge!("amends_saga_stuck").set(gauges.stuck as f64);
    metrics::gauge!("amends_memory_bytes", "budget" => "live_sagas").set(live_bytes as f64);
    metrics::gauge!("amends_calls_in_flight").set(in_flight as f64);
    metrics::gauge!("amends_oldest_unfinished_undo_seconds").set(gauges.oldest_undo.as_secs_f64());
    if let Some(oldest_live) = oldest_live {
        metrics::gauge!("amends_oldest_live_saga_seconds").set(oldest_live.as_secs_f64());
    }
    let memory = rooms.iter().filter_map(|room| match room {
        RoomKey::Plugin(name) => Some(RoomKey::Memory(name.clone())),
        RoomKey::Host | RoomKey::Service(_) | RoomKey::Memory(_) => None,
    });
    // A room in which no call waits any more says so.
    for room in rooms.iter().cloned().chain(memory) {
        let calls = gauges.calls_waiting.get(&room).copied().unwrap_or_default();
        metrics::gauge!("amends_calls_waiting", "room" => room.label()).set(calls as f64);
    }
}
