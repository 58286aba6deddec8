//! Prometheus metrics of the loop, by the names of the contract.

use std::time::Duration;

use amends_engine::{
    Direction, Event, FailureClass, NamespaceName, Saga, SagaEvent, ServiceName, StepEvent,
    StepName, UndoEvent,
};
use amends_store::StoreStats;
use metrics::{Gauge, Label};

use crate::message::Gauges;
use crate::namespaces::DEFAULT_NAMESPACE;
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

/// The label that the gauges of a host have. Several namespaces of one process record into one place: a gauge
/// without it would show the one that was set last. Counters and histograms have no such label; they add up.
#[derive(Debug)]
pub(crate) struct GaugeLabel(Option<NamespaceName>);

impl GaugeLabel {
    /// Makes that of a namespace; none for `default`.
    pub(crate) const fn of(namespace: Option<NamespaceName>) -> Self {
        Self(namespace)
    }

    /// Returns the name of the namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.0.as_ref().map_or(DEFAULT_NAMESPACE, NamespaceName::as_str)
    }

    /// Returns it as a list.
    pub(crate) fn labels(&self) -> Vec<Label> {
        self.0.iter().map(|name| Label::new("namespace", name.to_string())).collect()
    }

    fn gauge(&self, name: &'static str) -> Gauge {
        metrics::gauge!(name, self.labels())
    }

    fn gauge_of(&self, name: &'static str, key: &'static str, value: String) -> Gauge {
        let mut labels = self.labels();
        labels.push(Label::new(key, value));
        metrics::gauge!(name, labels)
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
    /// Components whose code is in memory.
    pub(crate) components: usize,
    /// Shards that the host owns.
    pub(crate) shards: usize,
    /// Each service with the value of its breaker.
    pub(crate) breakers: Vec<(ServiceName, f64)>,
    /// The age of the oldest ended saga; none before the first pass of the archive.
    pub(crate) oldest_ended: Option<Duration>,
    /// The bytes of the store and of its disk.
    pub(crate) store: StoreStats,
}

/// Sets every gauge of a host.
#[expect(clippy::cast_precision_loss, reason = "counts of sagas and bytes are far below 2^52")]
pub(crate) fn set(label: &GaugeLabel, gauges: &Gauges, host: &HostGauges) {
    let set = |name, value: f64| label.gauge(name).set(value);
    let memory = |budget: &str, bytes: usize| {
        label.gauge_of("amends_memory_bytes", "budget", budget.to_owned()).set(bytes as f64);
    };
    memory("guests", host.guest_bytes);
    memory("live_sagas", host.live_bytes);
    set("amends_quarantined", host.quarantined as f64);
    set("amends_saga_blocked", gauges.blocked as f64);
    set("amends_saga_in_memory", gauges.in_memory as f64);
    if let Some(waiting) = host.waiting {
        let others = gauges.in_memory - gauges.waiting;
        set("amends_saga_live", waiting as f64 + others as f64);
    }
    set("amends_saga_stuck", gauges.stuck as f64);
    set("amends_calls_in_flight", host.in_flight as f64);
    set("amends_oldest_unfinished_undo_seconds", gauges.oldest_undo.as_secs_f64());
    if let Some(oldest_live) = host.oldest_live {
        set("amends_oldest_live_saga_seconds", oldest_live.as_secs_f64());
    }
    if let Some(oldest_ended) = host.oldest_ended {
        set("amends_oldest_ended_saga_seconds", oldest_ended.as_secs_f64());
    }
    set("amends_plugin_components", host.components as f64);
    set("amends_shards_owned", host.shards as f64);
    for (service, value) in &host.breakers {
        label.gauge_of("amends_breaker_state", "service", service.to_string()).set(*value);
    }
    let StoreStats { bytes, wal_bytes, disk, .. } = host.store;
    let of_store = [
        ("amends_store_bytes", bytes),
        ("amends_store_wal_bytes", wal_bytes),
        ("amends_disk_free_bytes", disk.map(|disk| disk.free_bytes)),
    ];
    for (name, bytes) in of_store {
        if let Some(bytes) = bytes {
            set(name, bytes as f64);
        }
    }
    let memory = host.rooms.iter().filter_map(|room| match room {
        RoomKey::Plugin(name) => Some(RoomKey::Memory(name.clone())),
        RoomKey::Host | RoomKey::Service(_) | RoomKey::Memory(_) => None,
    });
    // A room in which no call waits any more says so.
    for room in host.rooms.iter().cloned().chain(memory) {
        let calls = gauges.calls_waiting.get(&room).copied().unwrap_or_default();
        label.gauge_of("amends_calls_waiting", "room", room.label()).set(calls as f64);
    }
}
