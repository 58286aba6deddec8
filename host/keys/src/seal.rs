//! The stored form of a saga's events: personal values are sealed in it.
//!
//! What stands at a personal path is sealed as a whole. So is each text elsewhere that has a personal
//! text in it, whoever wrote it: an output that repeats the input, the message of an error, a reason. A
//! text that looks sealed is sealed too, so that nobody can have another value opened.
//!
//! Names, times, ids, the code of a failure, tags and keys are never sealed.

use std::borrow::Cow;

use amends_engine::{
    ERASED, Event, OperatorEvent, PAYLOAD_BYTES_MAX, Saga, SagaEvent, SagaId, SignalEvent,
    SignalName, StepEvent, StepKind, StepName, Version, is_sealed,
};

use crate::cipher::DataKey;
use crate::json::{Rewrite, decoded, elements, fields, rewrite};
use crate::place::{Place, open, seal};
use crate::texts::Texts;

/// The fields of events that may have personal values.
const FIELDS: [&str; 7] = ["input", "items", "output", "receipt", "payload", "reason", "evidence"];

/// The fields of a failure that may have them.
const ERROR_FIELDS: [&str; 2] = ["message", "details"];

/// Seals the personal values of one saga.
#[derive(Debug)]
pub struct Sealer<'s> {
    saga: &'s Saga,
    key: Option<&'s DataKey>,
    texts: Texts,
}

impl<'s> Sealer<'s> {
    /// Makes the sealer of a saga that is to have these events. `saga` is the saga with them. Without a
    /// key, which is gone then, personal values are replaced.
    #[must_use]
    pub fn new(saga: &'s Saga, events: &[Event], key: Option<&'s DataKey>) -> Self {
        let mut sealer = Self { saga, key, texts: Texts::default() };
        let of_input = sealer.of_input();
        sealer.texts.gather(saga.started().input.as_str(), &of_input);
        for step in saga.steps() {
            if let Some(input) = step.edited_input {
                sealer.texts.gather(input.as_str(), &of_step_input(saga, step.name));
            }
            if let Some(output) = step.output {
                sealer.texts.gather(output.as_str(), &of_output(saga, step.name));
            }
        }
        for event in events {
            let (field, paths) = sealer.paths(event);
            if let Some(json) = field.and_then(|field| payload(event, field)) {
                sealer.texts.gather(json, &paths);
            }
        }
        sealer
    }

    fn of_input(&self) -> Vec<&'s [String]> {
        self.saga.personal().filter_map(|path| path.in_input()).collect()
    }

    /// Returns the field of an event with a payload that has personal values at these paths.
    fn paths(&self, event: &Event) -> (Option<&'static str>, Vec<&'s [String]>) {
        let (field, paths) = match event {
            Event::Saga(SagaEvent::Started(_)) => ("input", self.of_input()),
            Event::Step(StepEvent::Succeeded(fact)) => ("output", of_output(self.saga, &fact.step)),
            Event::Operator(OperatorEvent::Retried(fact)) => {
                ("input", of_step_input(self.saga, &fact.step))
            }
            Event::Operator(OperatorEvent::Resolved(fact)) => {
                ("output", of_output(self.saga, &fact.step))
            }
            Event::Signal(SignalEvent::Received(fact)) => {
                ("payload", of_signal(self.saga, &fact.name))
            }
            Event::Saga(_)
            | Event::Step(_)
            | Event::Undo(_)
            | Event::Operator(_)
            | Event::Emitted(_) => return (None, Vec::new()),
        };
        (Some(field), paths)
    }

    /// Returns the data of an event as it is stored.
    #[must_use]
    pub fn data(&self, version: Version, event: &Event) -> String {
        let data = event.data();
        let (field, paths) = self.paths(event);
        let mut sealing = Sealing { sealer: self, version, paths: &[] };
        let is_of_plugin = matches!(event, Event::Emitted(_));
        each_field(&event.kind(), is_of_plugin, &data, |path, json| {
            let is_it = field.is_some_and(|field| path.split('.').next() == Some(field));
            sealing.paths = if is_it { &paths } else { &[] };
            let sealed = rewrite(json, path, &mut sealing);
            if sealed.len() > PAYLOAD_BYTES_MAX && sealed.len() > json.len() {
                // As a whole it is only a third longer.
                return sealing.seal(path, json);
            }
            sealed
        })
        .unwrap_or(data)
    }

    /// Returns true when a text of the saga is sealed in its events.
    #[must_use]
    pub fn is_personal(&self, text: &str) -> bool {
        is_sealed(text) || self.texts.are_in(text)
    }
}

fn of_output<'s>(saga: &'s Saga, step: &StepName) -> Vec<&'s [String]> {
    saga.personal().filter_map(|path| path.in_output(step)).collect()
}

fn of_step_input<'s>(saga: &'s Saga, step: &StepName) -> Vec<&'s [String]> {
    saga.personal().filter_map(|path| path.in_step_input(step)).collect()
}

/// Returns the paths of the outputs that a signal becomes.
fn of_signal<'s>(saga: &'s Saga, signal: &SignalName) -> Vec<&'s [String]> {
    let waits = saga.definition().steps().iter().filter(|step| match &step.kind {
        StepKind::Wait { wait } => wait.signal == *signal,
        StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => false,
    });
    waits.flat_map(|step| of_output(saga, &step.name)).collect()
}

/// Returns the payload of an event in a field.
fn payload<'e>(event: &'e Event, field: &str) -> Option<&'e str> {
    match (event, field) {
        (Event::Saga(SagaEvent::Started(fact)), "input") => Some(fact.input.as_str()),
        (Event::Step(StepEvent::Succeeded(fact)), "output") => Some(fact.output.as_str()),
        (Event::Operator(OperatorEvent::Retried(fact)), "input") => {
            fact.input.as_ref().map(amends_engine::Payload::as_str)
        }
        (Event::Operator(OperatorEvent::Resolved(fact)), "output") => {
            fact.output.as_ref().map(amends_engine::Payload::as_str)
        }
        (Event::Signal(SignalEvent::Received(fact)), "payload") => Some(fact.payload.as_str()),
        _ => None,
    }
}

/// Replaces the fields of an event that may have personal values. None when the data is no object, as
/// that of a plugin's event may be.
fn each_field(
    kind: &str,
    is_of_plugin: bool,
    data: &str,
    mut replace: impl FnMut(&str, &str) -> String,
) -> Option<String> {
    if is_of_plugin {
        return Some(replace("", data));
    }
    let mut out = String::with_capacity(data.len());
    for (token, value) in fields(data)? {
        out.push_str(if out.is_empty() { "{" } else { "," });
        out.push_str(token);
        out.push(':');
        let name = decoded(token);
        match &*name {
            // The reason of a step that was skipped is an expression of the definition.
            "reason" if kind == "step.skipped" => out.push_str(value),
            "items" => {
                for (at, item) in elements(value)?.into_iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "[" });
                    out.push_str(&replace(&format!("items.{at}"), item));
                }
                out.push_str(if out.ends_with(':') { "[]" } else { "]" });
            }
            "error" => {
                for (at, (token, value)) in fields(value)?.into_iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "{" });
                    out.push_str(token);
                    out.push(':');
                    let name = decoded(token);
                    if ERROR_FIELDS.contains(&&*name) {
                        out.push_str(&replace(&format!("error.{name}"), value));
                    } else {
                        out.push_str(value);
                    }
                }
                out.push_str(if out.ends_with(':') { "{}" } else { "}" });
            }
            name if FIELDS.contains(&name) => out.push_str(&replace(name, value)),
            _ => out.push_str(value),
        }
    }
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    Some(out)
}

struct Sealing<'a> {
    sealer: &'a Sealer<'a>,
    version: Version,
    /// The personal paths of the payload that is sealed.
    paths: &'a [&'a [String]],
}

impl Sealing<'_> {
    fn seal(&self, path: &str, json: &str) -> String {
        let Sealer { saga, key, .. } = self.sealer;
        seal(*key, Place { saga: saga.id(), version: self.version, path }, json)
    }
}

impl Rewrite for Sealing<'_> {
    fn value(&mut self, path: &str, names: &[Cow<'_, str>], json: &str) -> Option<String> {
        let texts = &self.sealer.texts;
        let is_there = |wanted: &&[String]| {
            wanted.len() == names.len() && wanted.iter().zip(names).all(|(one, is)| one == is)
        };
        // A list is passed through, and each of its elements is at the path.
        let is_list = json.starts_with('[');
        let is_personal = match json.as_bytes().first() {
            Some(b'n') => false,
            _ if !is_list && self.paths.iter().any(is_there) => true,
            _ if texts.are_too_many() => true,
            Some(b'"') => self.sealer.is_personal(&decoded(json)),
            Some(b'-' | b'0'..=b'9') => texts.is_number(json),
            Some(_) | None => false,
        };
        is_personal.then(|| self.seal(path, json))
    }

    fn object_of(&mut self, name: &str, path: &str, json: &str) -> Option<String> {
        self.sealer.is_personal(name).then(|| self.seal(path, json))
    }
}

/// Returns the data of an event of a saga whose values are sealed, with the values that the key opens.
/// Without a key they are [`ERASED`]. None when nothing is sealed.
#[must_use]
pub fn open_event(
    (saga, version): (SagaId, Version),
    kind: &str,
    data: &str,
    key: Option<&DataKey>,
) -> Option<String> {
    if !data.contains(amends_engine::SEALED_PREFIX) {
        return None;
    }
    let is_of_plugin = !Event::KINDS.contains(&kind);
    each_field(kind, is_of_plugin, data, |path, json| {
        rewrite(json, path, &mut Opening { saga, version, key })
    })
}

struct Opening<'k> {
    saga: SagaId,
    version: Version,
    key: Option<&'k DataKey>,
}

impl Rewrite for Opening<'_> {
    fn value(&mut self, path: &str, _: &[Cow<'_, str>], json: &str) -> Option<String> {
        if !json.strip_prefix('"').is_some_and(is_sealed) {
            return None;
        }
        let place = Place { saga: self.saga, version: self.version, path };
        match self.key {
            Some(key) => open(key, place, json),
            None => Some(format!("\"{ERASED}\"")),
        }
    }

    fn object_of(&mut self, _: &str, _: &str, _: &str) -> Option<String> {
        None
    }
}
