//! The stored form of a saga's events: personal values are sealed in it.
//!
//! What stands at a personal path is sealed as a whole. So are an input that an operator edited, the
//! evidence of an operator and the elements of a list: the host does not know what is in them. So is each
//! text elsewhere that has a personal text in it, whoever wrote it: an output that repeats the input, the
//! message of an error, a reason. A text that looks sealed is sealed too, so that nobody can have another
//! value opened.
//!
//! When the key is gone, a saga may still get events, such as those of an undo that an operator orders. What
//! a plugin gives then is replaced as a whole, because nothing is left that it could be compared with.
//!
//! Names, times, ids, the code of a failure, tags and keys are never sealed.

use std::borrow::Cow;

use amends_engine::{
    ERASED, Event, OperatorEvent, PAYLOAD_BYTES_MAX, Payload, Saga, SagaEvent, SagaId, SignalEvent,
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

/// The fields that a plugin or a sender fills.
const FIELDS_OF_OTHERS: [&str; 4] = ["output", "receipt", "payload", "error"];

/// The path of a payload as a whole.
const WHOLE: &[String] = &[];

/// Seals the personal values of one saga.
#[derive(Debug)]
pub struct Sealer<'s> {
    saga: &'s Saga,
    key: Option<&'s DataKey>,
    texts: Texts,
    /// The values were erased before: nothing that others give is kept.
    is_erased: bool,
}

/// A field of an event with a payload, and the paths of the personal values in it.
struct PersonalField<'s> {
    name: &'static str,
    /// The payloads in it: one, or those of a list.
    payloads: Vec<&'s str>,
    paths: Vec<&'s [String]>,
}

impl<'s> Sealer<'s> {
    /// Makes the sealer of a saga that is to have these events. `saga` is the saga with them. Without a
    /// key, which is gone then, personal values are replaced.
    #[must_use]
    pub fn new(saga: &'s Saga, events: &[Event], key: Option<&'s DataKey>) -> Self {
        Self::with(saga, events, key, false)
    }

    /// Makes the sealer of a saga whose values were erased before these events.
    #[must_use]
    pub fn of_erased(saga: &'s Saga, events: &[Event]) -> Self {
        Self::with(saga, events, None, true)
    }

    fn with(saga: &'s Saga, events: &[Event], key: Option<&'s DataKey>, is_erased: bool) -> Self {
        let mut sealer = Self { saga, key, texts: Texts::default(), is_erased };
        let of_input = sealer.of_input();
        sealer.texts.gather(saga.started().input.as_str(), &of_input);
        for step in saga.steps() {
            if let Some(output) = step.output {
                sealer.texts.gather(output.as_str(), &of_output(saga, step.name));
            }
            if let Some(input) = step.edited_input {
                sealer.texts.gather(input.as_str(), &[WHOLE]);
            }
        }
        for (name, payload) in saga.kept_signals() {
            sealer.texts.gather(payload.as_str(), &of_signal(saga, name));
        }
        for event in events {
            for PersonalField { payloads, paths, .. } in sealer.fields(event) {
                for json in payloads {
                    sealer.texts.gather(json, &paths);
                }
            }
        }
        sealer
    }

    fn of_input(&self) -> Vec<&'s [String]> {
        self.saga.personal().filter_map(|path| path.in_input()).collect()
    }

    /// Returns the fields of an event that have personal values.
    fn fields<'e>(&self, event: &'e Event) -> Vec<PersonalField<'e>>
    where
        's: 'e,
    {
        let one = |name, payload: &'e Payload, paths| {
            vec![PersonalField { name, payloads: vec![payload.as_str()], paths }]
        };
        match event {
            Event::Saga(SagaEvent::Started(fact)) => one("input", &fact.input, self.of_input()),
            Event::Step(StepEvent::Succeeded(fact)) => {
                one("output", &fact.output, of_output(self.saga, &fact.step))
            }
            Event::Step(StepEvent::Expanded(fact)) => {
                let payloads = fact.items.iter().map(Payload::as_str).collect();
                vec![PersonalField { name: "items", payloads, paths: vec![WHOLE] }]
            }
            Event::Operator(OperatorEvent::Retried(fact)) => match &fact.input {
                Some(input) => one("input", input, vec![WHOLE]),
                None => Vec::new(),
            },
            Event::Operator(OperatorEvent::Resolved(fact)) => {
                // It is no payload, and what it says is the operator's own.
                let evidence =
                    PersonalField { name: "evidence", payloads: Vec::new(), paths: vec![WHOLE] };
                let mut fields = vec![evidence];
                if let Some(output) = &fact.output {
                    fields.extend(one("output", output, of_output(self.saga, &fact.step)));
                }
                fields
            }
            Event::Signal(SignalEvent::Received(fact)) => {
                one("payload", &fact.payload, of_signal(self.saga, &fact.name))
            }
            Event::Saga(_)
            | Event::Step(_)
            | Event::Undo(_)
            | Event::Operator(_)
            | Event::Emitted(_) => Vec::new(),
        }
    }

    /// Returns the data of an event as it is stored.
    #[must_use]
    pub fn data(&self, version: Version, event: &Event) -> String {
        let data = event.data();
        let fields = self.fields(event);
        let mut sealing = Sealing { sealer: self, version, paths: &[] };
        let is_of_plugin = matches!(event, Event::Emitted(_));
        each_field(&event.kind(), is_of_plugin, &data, |path, json| {
            let name = path.split('.').next().unwrap_or_default();
            let is_of_others = is_of_plugin || FIELDS_OF_OTHERS.contains(&name);
            sealing.paths = match fields.iter().find(|field| field.name == name) {
                _ if self.is_erased && is_of_others => &[WHOLE],
                Some(field) => &field.paths,
                None => &[],
            };
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

/// Returns the paths of the outputs that a signal becomes.
fn of_signal<'s>(saga: &'s Saga, signal: &SignalName) -> Vec<&'s [String]> {
    let waits = saga.definition().steps().iter().filter(|step| match &step.kind {
        StepKind::Wait { wait } => wait.signal == *signal,
        StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => false,
    });
    waits.flat_map(|step| of_output(saga, &step.name)).collect()
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
