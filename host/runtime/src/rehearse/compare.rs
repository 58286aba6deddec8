//! What two calls did otherwise, part by part.
//!
//! A part is the outcome, a request, a key of state or an event. Two parts whose heads are the same
//! (the class and code of an outcome, the method and address of a request) are compared value by
//! value; else one difference says it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use amends_engine::{FailureClass, Outcome};
use amends_sandbox::{PluginCall, Rehearsed, StubbedRequest};
use serde_json::Value;

/// Characters that are told of a value; more make a report unreadable.
const SHOWN_CHARS_MAX: usize = 500;

/// A larger JSON text is compared as a text: each of its values would be held apart.
const JSON_BYTES_MAX: usize = 64 << 10;

/// One thing that two components do otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `outcome`, `request 1`, `request 1 body.reference`, `state stock/north/metformin`.
    pub what: String,
    /// What the component that serves does; none: nothing.
    pub old: Option<String>,
    /// What the other does; none: nothing.
    pub new: Option<String>,
    /// The same for what differs in the same way in another saga.
    pub(super) kind: String,
}

impl Difference {
    /// Of the recorded output, which the new component is not called with.
    pub(super) fn of_output(old: &str, new: &str, why: &str) -> Self {
        let what = "recorded output".to_owned();
        let kind = format!("{what}: {}", SagaWords::default().general(why));
        Self { what, old: Some(shown(old)), new: Some(shown(new)), kind }
    }
}

/// Words that are one saga's own: those of the texts in what its step was given and answered.
#[derive(Debug, Default)]
pub(super) struct SagaWords(BTreeSet<String>);

impl SagaWords {
    pub(super) fn of(call: &PluginCall) -> Self {
        let mut own = Self::default();
        for payload in [Some(&call.input), call.output.as_ref()].into_iter().flatten() {
            // What has no value has no texts that others could read out of it.
            if let Ok(value) = payload.to_value() {
                own.add(&value);
            }
        }
        own
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                let words = text.split(|letter| !in_word(letter));
                self.0.extend(words.map(|word| word.trim_matches('.').to_owned()));
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.add(field)),
            // A word with digits is own anyway.
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text without what is likely one saga's own: a `*` stands for such a word, and for each that
    /// looks like an id.
    fn general(&self, text: &str) -> String {
        let (mut general, mut rest) = (String::new(), text);
        while !rest.is_empty() {
            let end = rest.find(|letter| !in_word(letter)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let is_own = !word.is_empty() && (is_id(word) || self.0.contains(word));
            general += if is_own { "*" } else { word };
            let other = after.find(in_word).unwrap_or(after.len());
            general += &after[..other];
            rest = &after[other..];
        }
        general
    }
}

fn in_word(letter: char) -> bool {
    letter.is_alphanumeric() || "-_.".contains(letter)
}

/// Whether a word has a digit in it, or is as long as an id and has no small letter.
fn is_id(word: &str) -> bool {
    const CHARS_MIN: usize = 8;
    word.contains(char::is_numeric) || word.len() >= CHARS_MIN && !word.contains(char::is_lowercase)
}

/// What a part is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Outcome,
    /// A request, by its number from 1.
    Request(usize),
    State(String),
    /// A domain event, by its number from 1.
    Event(usize),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome => f.write_str("outcome"),
            Self::Request(number) => write!(f, "request {number}"),
            Self::State(key) => write!(f, "state {key}"),
            Self::Event(number) => write!(f, "event {number}"),
        }
    }
}

#[derive(Debug)]
struct Part {
    /// What it is about, without what is one saga's own.
    kind: String,
    head: String,
    /// The head without what is one saga's own.
    head_kind: String,
    /// All of it, for people.
    shown: String,
    /// Every value in it, by its path.
    values: BTreeMap<String, String>,
}

/// What a call did.
#[derive(Debug, Default)]
pub(super) struct Conduct(BTreeMap<Subject, Part>);

/// What a component does not do the same twice, by kind.
#[derive(Debug, Default)]
pub(super) struct Unsteady(BTreeSet<String>);

impl Unsteady {
    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn into_kinds(self) -> impl Iterator<Item = String> {
        self.0.into_iter()
    }
}

impl Conduct {
    pub(super) fn of(rehearsed: &Rehearsed, own: &SagaWords) -> Self {
        let mut parts = BTreeMap::from([(Subject::Outcome, of_outcome(&rehearsed.outcome))]);
        for (request, number) in rehearsed.requests.iter().zip(1..) {
            parts.insert(Subject::Request(number), of_request(number, request, own));
        }
        if let Some(change) = &rehearsed.effects.state {
            let kind = |key| format!("state {}", own.general(key));
            for (key, counter) in &change.counters {
                let added = format!("{:+}", counter.delta);
                parts.insert(Subject::State(key.clone()), of_state(kind(key), Some(&added)));
            }
            for (key, value) in &change.writes {
                parts.insert(Subject::State(key.clone()), of_state(kind(key), value.as_deref()));
            }
        }
        for (event, number) in rehearsed.effects.emitted.iter().zip(1..) {
            let mut values = BTreeMap::new();
            flatten_json("data", event.data.as_str(), &mut values);
            let shown = format!("{} {}", event.kind, event.data.as_str());
            let what = Subject::Event(number);
            let part = part(what.to_string(), event.kind.to_string(), shown, values);
            parts.insert(what, part);
        }
        Self(parts)
    }
}

fn of_outcome(outcome: &Outcome) -> Part {
    let mut values = BTreeMap::new();
    let kind = Subject::Outcome.to_string();
    let (class, failure) = match outcome {
        Outcome::Succeeded(receipt) => {
            flatten_json("receipt", receipt.as_str(), &mut values);
            return part(kind, "done".to_owned(), outcome.to_string(), values);
        }
        Outcome::NothingToUndo => {
            return part(kind, "nothing to undo".to_owned(), outcome.to_string(), values);
        }
        Outcome::Permanent(failure) => (FailureClass::Permanent, failure),
        Outcome::Retryable(failure) => (FailureClass::Retryable, failure),
        Outcome::Unknown(failure) => (FailureClass::Unknown, failure),
    };
    values.insert("message".to_owned(), failure.message.clone());
    if let Some(after_ms) = failure.retry_after_ms {
        values.insert("retry_after_ms".to_owned(), after_ms.to_string());
    }
    if let Some(details) = &failure.details {
        flatten_json("details", details.as_str(), &mut values);
    }
    let head = format!("{} {}", class.as_str(), failure.code);
    part(kind, head, outcome.to_string(), values)
}

/// One whose head is the same in all sagas.
fn part(kind: String, head: String, shown: String, values: BTreeMap<String, String>) -> Part {
    Part { kind, head_kind: head.clone(), head, shown, values }
}

fn of_request(number: usize, request: &StubbedRequest, own: &SagaWords) -> Part {
    let StubbedRequest { method, url, headers, body, refused } = request;
    let mut values = BTreeMap::new();
    for (name, value) in headers {
        values.insert(format!("header {name}"), value.clone());
    }
    if !body.is_empty() {
        flatten_json("body", body, &mut values);
    }
    let refused = refused.as_ref().map(|why| format!(", refused: {why}")).unwrap_or_default();
    let separator = if body.is_empty() { "" } else { " " };
    Part {
        kind: Subject::Request(number).to_string(),
        head: format!("{method} {url}{refused}"),
        head_kind: format!("{method} {}{}", own.general(url), own.general(&refused)),
        shown: format!("{method} {url}{separator}{body}{refused}"),
        values,
    }
}

fn of_state(kind: String, value: Option<&str>) -> Part {
    let mut values = BTreeMap::new();
    let Some(value) = value else {
        return part(kind, "removed".to_owned(), "removed".to_owned(), values);
    };
    flatten_json("", value, &mut values);
    part(kind, "set".to_owned(), value.to_owned(), values)
}

/// Every value of a JSON text, by its path: `items[0].label`; of another text, that.
fn flatten_json(path: &str, text: &str, values: &mut BTreeMap<String, String>) {
    let json = (text.len() <= JSON_BYTES_MAX).then(|| serde_json::from_str(text).ok()).flatten();
    match json {
        Some(value) => flatten(path.to_owned(), &value, values),
        None => {
            values.insert(path.to_owned(), text.to_owned());
        }
    }
}

fn flatten(path: String, value: &Value, values: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let separator = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{separator}{name}"), value, values);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                flatten(format!("{path}[{index}]"), value, values);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            values.insert(path, value.to_string());
        }
    }
}

/// What differs between two calls of the same component with the same arguments.
pub(super) fn unsteady(first: &Conduct, second: &Conduct) -> Unsteady {
    Unsteady(differing(first, second).into_iter().map(|found| found.place).collect())
}

/// What differs between two components, but for what the old one does not do the same twice.
pub(super) fn differences(old: &Conduct, new: &Conduct, own: &Unsteady) -> Vec<Difference> {
    let is_steady = |found: &Found| !own.0.contains(&found.place) && !own.0.contains(&found.part);
    let found = differing(old, new).into_iter().filter(is_steady);
    found.map(|found| found.difference).collect()
}

struct Found {
    /// The kind of the part in which it is.
    part: String,
    /// The kind of the part and, where that is there in both, of the value.
    place: String,
    difference: Difference,
}

fn differing(old: &Conduct, new: &Conduct) -> Vec<Found> {
    let all: BTreeSet<&Subject> = old.0.keys().chain(new.0.keys()).collect();
    let mut found = Vec::new();
    for what in all {
        let (old, new) = (old.0.get(what), new.0.get(what));
        let part = old.or(new).map(|part| part.kind.clone()).unwrap_or_default();
        match (old, new) {
            (Some(old), Some(new)) if old.head == new.head => {
                found.extend(differing_values(what, &part, old, new));
            }
            (old, new) => {
                let head = |part: Option<&Part>| part.map(|part| part.head_kind.clone());
                let text = |part: Option<&Part>| part.map(|part| shown(&part.shown));
                let kind = format!("{part}: {:?}, {:?}", head(old), head(new));
                let difference =
                    Difference { what: what.to_string(), old: text(old), new: text(new), kind };
                found.push(Found { place: part.clone(), part, difference });
            }
        }
    }
    found
}

fn differing_values(what: &Subject, part: &str, old: &Part, new: &Part) -> Vec<Found> {
    let paths: BTreeSet<&String> = old.values.keys().chain(new.values.keys()).collect();
    let differ = paths.into_iter().filter(|path| old.values.get(*path) != new.values.get(*path));
    differ
        .map(|path| {
            let (old, new) = (old.values.get(path), new.values.get(path));
            let separator = if path.is_empty() { "" } else { " " };
            let place = format!("{part}{separator}{}", without_indexes(path));
            let kind = format!("{place}: {}, {}", old.is_some(), new.is_some());
            let difference = Difference {
                what: format!("{what}{separator}{path}"),
                old: old.map(|value| shown(value)),
                new: new.map(|value| shown(value)),
                kind,
            };
            Found { part: part.to_owned(), place, difference }
        })
        .collect()
}

/// `items[*].label` of `items[7].label`.
fn without_indexes(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let index = if rest.len() < part.len() && rest.starts_with(']') { "*" } else { "" };
        let rest = if index.is_empty() { part } else { rest };
        path + "[" + index + rest
    })
}

fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::StateChange;
    use amends_engine::{Emitted, Failure, Payload};
    use amends_sandbox::Effects;
    use serde_json::json;

    use super::*;

    fn done(receipt: &Value) -> Rehearsed {
        let outcome = Outcome::Succeeded(Payload::from_value(receipt).unwrap());
        Rehearsed { outcome, effects: Effects::default(), requests: Vec::new() }
    }

    fn request(url: &str, body: &str) -> StubbedRequest {
        let (method, url) = ("POST".to_owned(), url.to_owned());
        let headers = [("x-a".to_owned(), "1".to_owned())].into();
        StubbedRequest { method, url, headers, body: body.to_owned(), refused: None }
    }

    fn with_state(writes: &[(&str, Option<&str>)]) -> Rehearsed {
        let mut change = StateChange::new("test".parse().unwrap(), 0);
        let owned = writes.iter().map(|(key, value)| ((*key).to_owned(), value.map(Into::into)));
        change.writes = owned.collect();
        let mut all = done(&Value::Null);
        all.effects.state = Some(Box::new(change));
        all
    }

    /// As the old one does it twice, and as the new one does it.
    fn told(before: &Rehearsed, new: &Rehearsed, after: &Rehearsed) -> Vec<String> {
        let of = |rehearsed| Conduct::of(rehearsed, &SagaWords::default());
        let [before, new, after] = [before, new, after].map(of);
        let differences = differences(&before, &new, &unsteady(&before, &after));
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        differences
            .iter()
            .map(|one| format!("{}: {}, {}", one.what, text(&one.old), text(&one.new)))
            .collect()
    }

    fn differ(old: &Rehearsed, new: &Rehearsed) -> Vec<String> {
        told(old, new, old)
    }

    #[test]
    fn outcomes_are_compared_by_class_and_code_then_value_by_value() {
        let one = done(&json!({"released": "R-1", "quantity": 60}));
        let order = done(&serde_json::from_str(r#"{"quantity": 60,  "released": "R-1"}"#).unwrap());
        assert_eq!(differ(&one, &order), [""; 0], "two texts say the same");
        let other = done(&json!({"released": "R-1", "items": [1, {"a": true}]}));
        assert_eq!(
            differ(&one, &other),
            [
                "outcome receipt.items[0]: nothing, 1",
                "outcome receipt.items[1].a: nothing, true",
                "outcome receipt.quantity: 60, nothing",
            ]
        );
        let failed = |class: fn(Failure) -> Outcome, code, message| Rehearsed {
            outcome: class(Failure::new(code, message)),
            ..done(&Value::Null)
        };
        let gone = failed(Outcome::Retryable, "not_found", "no label");
        let nothing = Rehearsed { outcome: Outcome::NothingToUndo, ..done(&Value::Null) };
        assert_eq!(
            differ(&nothing, &gone),
            ["outcome: found nothing to undo, failed (retryable) with not_found: no label"]
        );
        for (other, count) in [
            (failed(Outcome::Permanent, "not_found", "no label"), 1),
            (failed(Outcome::Retryable, "gone", "no label"), 1),
            (failed(Outcome::Retryable, "not_found", "no such label"), 1),
            (failed(Outcome::Retryable, "not_found", "no label"), 0),
        ] {
            assert_eq!(differ(&gone, &other).len(), count, "{}", other.outcome);
        }
    }

    #[test]
    fn requests_state_and_events_are_compared() {
        let mut old = done(&Value::Null);
        old.requests = vec![request("http://a/1", r#"{"a":1}"#)];
        let mut new = old.clone();
        new.requests = vec![request("http://a/1", r#"{"a":2}"#), request("http://a/2", "")];
        assert_eq!(
            differ(&old, &new),
            ["request 1 body.a: 1, 2", "request 2: nothing, POST http://a/2"]
        );
        new.requests = vec![request("http://b/1", r#"{"a":1}"#)];
        assert_eq!(
            differ(&old, &new),
            [r#"request 1: POST http://a/1 {"a":1}, POST http://b/1 {"a":1}"#]
        );
        new.requests = vec![request("http://a/1", r#"{"a":1}"#)];
        new.requests[0].headers.insert("x-a".to_owned(), "2".to_owned());
        assert_eq!(differ(&old, &new), ["request 1 header x-a: 1, 2"]);
        new.requests =
            vec![StubbedRequest { refused: Some("no".to_owned()), ..old.requests[0].clone() }];
        assert_eq!(differ(&old, &new).len(), 1);

        let old = with_state(&[("a", Some("1")), ("b", None), ("c", Some(r#"{"n":1}"#))]);
        let new = with_state(&[("a", None), ("b", None), ("c", Some(r#"{"n":2}"#))]);
        assert_eq!(differ(&old, &new), ["state a: 1, removed", "state c n: 1, 2"]);

        let emitted = |kind: &str, data| {
            let data = Payload::from_value(&data).unwrap();
            let mut all = done(&Value::Null);
            all.effects.emitted = vec![Emitted { kind: kind.parse().unwrap(), data }];
            all
        };
        let (old, new) = (emitted("a.b", json!({"n": 1})), emitted("a.b", json!({"n": 2})));
        assert_eq!(differ(&old, &new), ["event 1 data.n: 1, 2"]);
        assert_eq!(differ(&old, &done(&Value::Null)), [r#"event 1: a.b {"n":1}, nothing"#]);
    }

    #[test]
    fn what_the_old_one_does_not_do_the_same_twice_is_left_out() {
        let at = |at: u32, quantity: u32| done(&json!({"at": at, "quantity": quantity}));
        assert_eq!(told(&at(1, 60), &at(2, 60), &at(3, 60)), [""; 0]);
        assert_eq!(told(&at(1, 60), &at(2, 70), &at(3, 60)), ["outcome receipt.quantity: 60, 70"]);
        // A key with a number that is another each time.
        let log = |key: &str| with_state(&[(key, Some("1")), ("kept", Some("1"))]);
        assert_eq!(told(&log("log/a1"), &log("log/a2"), &log("log/a3")), [""; 0]);
        let other = with_state(&[("log/a2", Some("1"))]);
        assert_eq!(told(&log("log/a1"), &other, &log("log/a3")), ["state kept: 1, nothing"]);
    }

    #[test]
    fn the_same_difference_in_another_saga_is_of_the_same_kind() {
        let kind = |new: &Rehearsed, input: &Value| {
            let mut own = SagaWords::default();
            own.add(input);
            let [old, new] = [&done(&Value::Null), new].map(|one| Conduct::of(one, &own));
            let found = differences(&old, &new, &Unsteady::default());
            found.iter().map(|one| one.kind.clone()).collect::<Vec<_>>()
        };
        let sends = |url: &str| {
            let mut all = done(&Value::Null);
            all.requests = vec![request(url, "")];
            kind(&all, &json!({"id": ["LBL-ABCD"]}))
        };
        assert_eq!(sends("http://a/labels/LBL-12AB"), sends("http://a/labels/LBL-77QZ"));
        assert_eq!(sends("http://a/labels/LBL-12AB"), sends("http://a/labels/LBL-ABCD"));
        assert_ne!(sends("http://a/labels/LBL-12AB"), sends("http://a/parcels/LBL-12AB"));
        let writes = |key: &str, input| kind(&with_state(&[(key, Some("1"))]), &input);
        let of_south = json!("of south");
        assert_eq!(writes("stock/north", json!("north")), writes("stock/south", of_south));
        assert_ne!(writes("stock/north", json!("")), writes("stock/south", json!("")));
        assert_eq!(writes("stock/m-0.5mg", json!("")), writes("stock/a-5mg", json!("")));
        let general =
            SagaWords::default().general("a1b é2 c-3_x, über LBL-ABCD 127.0.0.1:80/DELETE");
        assert_eq!(general, "* * *, über * *:*/DELETE");
        assert_eq!(without_indexes("a1.items[12][3].b[x]"), "a1.items[*][*].b[x]");
    }

    #[test]
    fn long_texts_are_cut() {
        let long = done(&Value::from("é".repeat(2 * SHOWN_CHARS_MAX)));
        let found = differ(&done(&Value::Null), &long);
        assert!(found[0].ends_with('…') && found[0].chars().count() < 600, "{found:?}");
        // Larger JSON is compared as a text.
        let large = |last: u32| done(&json!([vec!["a"; JSON_BYTES_MAX / 4], [last]]));
        assert_eq!(differ(&large(1), &large(1)), [""; 0]);
        assert_eq!(differ(&large(1), &large(2)).len(), 1);
    }
}
