//! Sagas and their events, for people.

use std::borrow::Cow;

use comfy_table::Cell;
use serde_json::Value;

use amends_api_types::{EventView, PersonalView, SagaItem, SagaView, StepView};
use amends_engine::{EventType, Timestamp, on_one_line};

use super::{
    Look, paint, print_json, print_json_line, print_table_as, say, short_digest, span, status_cell,
    table,
};
use crate::commands::output::format::Format;

/// One saga.
pub(crate) fn print_saga(saga: &SagaView, format: Format, look: Look) -> anyhow::Result<()> {
    match format {
        Format::Json => return print_json(saga),
        Format::Jsonl => return print_json_line(saga),
        Format::Ids => return say!("{}", saga.id),
        Format::Table => {}
    }
    let time = |at: Timestamp| {
        if look.is_brief() { format!("{at}  ({})", look.time(at)) } else { at.to_string() }
    };
    say!("{}  {}  {}", saga.id, saga.definition, paint(&saga.status))?;
    if let Some(reason) = &saga.reason {
        say!("{}", look.paragraph(&format!("reason   {}", on_one_line(reason))))?;
    }
    if let Some(key) = &saga.key {
        say!("key      {}", on_one_line(key))?;
    }
    if !saga.tags.is_empty() {
        let tags: Vec<_> =
            saga.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        say!("tags     {}", on_one_line(&tags.join(", ")))?;
    }
    if !saga.index.is_empty() {
        let values: Vec<_> =
            saga.index.iter().map(|(name, value)| format!("{name}={value}")).collect();
        say!("index    {}", on_one_line(&values.join(", ")))?;
    }
    say!("started  {}", time(saga.started_at))?;
    if let Some(start_at) = saga.start_at {
        say!("starts   {}", time(start_at))?;
    }
    if let Some(ended_at) = saga.ended_at {
        say!("ended    {ended_at}  ({})", span(ended_at.since(saga.started_at)))?;
    }
    if let Some(personal) = &saga.personal {
        say!("{}", look.paragraph(&on_one_line(&personal_words(personal))))?;
    }
    if saga.archived {
        say!("archived; it can be read, and nothing can be done to it")?;
    }
    if let Some(parent) = &saga.parent {
        say!("parent   {}  ({})", parent.saga, on_one_line(&parent.step))?;
    }
    if let Some(note) = &saga.note {
        let words = format!("{} ({}, {})", note.reason, note.who, time(note.at));
        say!("note     {}", on_one_line(&words))?;
    }
    if let Some(output) = &saga.output {
        say!("output   {}", output.as_str())?;
    }
    say!("")?;
    print_table_as(&steps(saga, look), look)
}

/// What went wrong and when it goes on stand apart, so that neither cuts off the other.
fn steps(saga: &SagaView, look: Look) -> comfy_table::Table {
    let has_next = saga.steps.iter().any(|step| next(step, look.now()).is_some());
    let has_child = saga.steps.iter().any(|step| step.child.is_some());
    let columns = [
        ("step", true),
        ("status", true),
        ("attempts", true),
        ("next", has_next),
        ("saga", has_child),
        ("detail", true),
    ];
    let shown: Vec<_> = columns.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let mut rows = table(&shown);
    for step in &saga.steps {
        let next =
            next(step, look.now()).map(|next| look.text(&next).into_owned()).unwrap_or_default();
        let child = step.child.as_deref().map(|child| look.text(child).into_owned());
        let cells = [
            (Cell::new(&step.name), true),
            (status_cell(&step.status), true),
            (Cell::new(attempts(step)), true),
            (Cell::new(next), has_next),
            (Cell::new(child.unwrap_or_default()), has_child),
            (Cell::new(step_detail(step, saga)), true),
        ];
        rows.add_row(cells.into_iter().filter(|(_, is)| *is).map(|(cell, _)| cell));
    }
    rows
}

/// When a step goes on by itself: `again at …`, or until when it waits.
/// When it goes on by the clock; what is due already waits for something else.
fn next(step: &StepView, now: Timestamp) -> Option<String> {
    let at = step.next_at.filter(|at| *at > now)?;
    let is_wait = step.status == "waiting";
    Some(if is_wait { format!("until {at}") } else { format!("again at {at}") })
}

/// The attempts of its last calls: of `execute`, or of its undo.
fn attempts(step: &StepView) -> String {
    if step.direction == "compensate" && step.attempts > 0 {
        format!("undo {}", step.attempts)
    } else {
        step.attempts.to_string()
    }
}

fn step_detail(step: &StepView, saga: &SagaView) -> String {
    let error = step.error.as_ref().map(|error| format!("{}: {}", error.code, error.message));
    let output = step.output.as_ref().map(|output| output.as_str().to_owned());
    let omitted = step
        .omitted
        .as_ref()
        .map(|omitted| format!("{} bytes, which `amends history {}` has", omitted.bytes, saga.id));
    let signal = step.signal.as_ref().filter(|_| step.status == "waiting");
    let signal = signal.map(|signal| format!("waits for the signal `{signal}`"));
    if let Some(by) = &step.by_hand {
        // What its calls said before is over.
        let output = output.filter(|_| step.status == "succeeded");
        let output = output.map_or_else(String::new, |output| format!(": {output}"));
        return format!("by {}: {}{output}", by.who, by.reason);
    }
    let nothing = step.undid_nothing.then(|| "there was nothing to undo".to_owned());
    // What went wrong before it was undone is over.
    let error = error.filter(|_| step.status != "undone");
    error.or(nothing).or(output).or(omitted).or(signal).unwrap_or_default()
}

/// One saga of many that an order went to.
fn personal_words(personal: &PersonalView) -> String {
    let by = match (&personal.at, &personal.who, &personal.reason) {
        (Some(at), Some(who), Some(reason)) => format!(", asked for at {at} by {who}: {reason}"),
        _ => String::new(),
    };
    match personal.state.as_str() {
        "erased" => format!("its personal values are erased{by}"),
        "waiting" => format!("its personal values are erased when it can no longer be undone{by}"),
        state => format!("its personal values are {state}"),
    }
}

pub(crate) fn print_saga_line(saga: &SagaView, look: Look) -> anyhow::Result<()> {
    let reason = saga.reason.as_deref().map(|reason| format!("  {reason}"));
    let line = format!("{}  {}{}", saga.id, saga.status, reason.unwrap_or_default());
    say!("{}", look.line(&line).replacen(&saga.status, &paint(&saga.status), 1))
}

/// A list of sagas.
pub(crate) fn print_sagas(items: &[SagaItem], format: Format, look: Look) -> anyhow::Result<()> {
    match format {
        Format::Json => return print_json(&items),
        Format::Jsonl => return items.iter().try_for_each(print_json_line),
        Format::Ids => return items.iter().try_for_each(|item| say!("{}", item.id)),
        Format::Table => {}
    }
    let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
    let started = if look.is_brief() { "age" } else { "started" };
    let mut rows = table(&["id", "definition", "status", started, "reason"]);
    for (item, id) in items.iter().zip(look.ids(&ids)) {
        let at = if look.is_brief() {
            super::time::age(item.started_at, look.now())
        } else {
            item.started_at.to_string()
        };
        rows.add_row(vec![
            Cell::new(id),
            Cell::new(&item.definition),
            status_cell(&item.status),
            Cell::new(at),
            Cell::new(why(item, look)),
        ]);
    }
    print_table_as(&rows, look)
}

/// Why a saga is where it is, and what it does or waits for: that is said by the host, and in brief.
fn why(item: &SagaItem, look: Look) -> String {
    let reason = item.reason.as_deref().map(Cow::from);
    let activity = item.activity.as_deref().map(|activity| look.text(activity));
    reason.into_iter().chain(activity).collect::<Vec<_>>().join("; ")
}

/// The columns of [`event_row`]; in brief, the time is that since the saga's start.
pub(crate) const EVENT_COLUMNS: [&str; 5] = ["#", "at", "event", "step", "detail"];

/// One line of a history whose first event was at `start`.
pub(crate) fn event_row(event: &EventView, start: Timestamp, look: Look) -> Vec<Cell> {
    let (at, step, detail) = event_cells(event, start, look);
    vec![
        Cell::new(event.version),
        Cell::new(at),
        Cell::new(&event.kind),
        Cell::new(step),
        Cell::new(detail),
    ]
}

/// One line of a history that is still being written, so that no column knows how wide it has to be.
pub(crate) fn event_line(event: &EventView, start: Timestamp, look: Look) -> String {
    let (at, step, detail) = event_cells(event, start, look);
    let (at_width, step_width) = if look.is_brief() { (8, 12) } else { (24, 16) };
    let line =
        format!("{at:<at_width$}  {kind:<22} {step:<step_width$} {detail}", kind = event.kind);
    look.line(&line)
}

fn event_cells(event: &EventView, start: Timestamp, look: Look) -> (String, String, String) {
    let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
    let at = if look.is_brief() {
        format!("+{}", span(event.at.since(start)))
    } else {
        event.at.to_string()
    };
    // What a domain event says is the plugin's.
    let own = data["step"].as_str().filter(|_| event.kind.parse::<EventType>().is_err());
    let step = event.step.as_deref().or(own).unwrap_or_default().to_owned();
    // Times are those of then.
    let brief = |words: String| {
        if look.is_brief() { super::time::in_brief(&words, event.at) } else { words }
    };
    (at, step, detail(&event.kind, &data, brief))
}

/// What a person wants to know of an event. `brief` shortens what the host itself says; what a payload or a
/// plugin says is left as it is.
fn detail(kind: &str, data: &Value, brief: impl Fn(String) -> String) -> String {
    let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    let attempt = || format!("attempt {}", data["attempt"]);
    let error = || {
        let error = &data["error"];
        let words = |field: &str| error[field].as_str().unwrap_or_default();
        format!("{}: {}", words("code"), words("message"))
    };
    let retry = || {
        let at = data["retry_at"].as_str();
        at.map_or_else(String::new, |at| brief(format!(", again at {at}")))
    };
    let probe = || {
        let fate = data["probe"].as_str();
        let words = fate.map(|fate| fate.replace('_', " "));
        words.map_or_else(String::new, |words| format!(", its component says: {words}"))
    };
    match kind {
        "saga.started" => data["input"].to_string(),
        "step.started" | "undo.started" => {
            let digest = text("digest");
            let short = short_digest(&digest);
            let trial =
                if data["trial"] == Value::Bool(true) { ", a trial of the breaker" } else { "" };
            let note = data["note"].as_str().map_or_else(String::new, |note| format!(", {note}"));
            let child = data["child"].as_str();
            let child = child.map_or_else(String::new, |child| format!(", runs {child}"));
            format!("{}, {short}{trial}{note}{child}", attempt())
        }
        "step.expanded" => {
            let items = data["items"].as_array().map_or(0, Vec::len);
            format!("{items} {}", if items == 1 { "element" } else { "elements" })
        }
        "step.succeeded" => data["output"].to_string(),
        "step.failed" | "step.unknown" | "undo.failed" | "undo.blocked" => {
            format!("{}, {}{}{}", attempt(), error(), retry(), probe())
        }
        "undo.succeeded" if data["nothing"] == Value::Bool(true) => "nothing to undo".to_owned(),
        "undo.succeeded" if data["receipt"].is_null() => String::new(),
        "undo.succeeded" => data["receipt"].to_string(),
        "step.waiting" => {
            let signal = data["signal"].as_str().map(|name| format!("for the signal {name}"));
            let until = data["until"].as_str().map(|until| brief(format!("until {until}")));
            signal.into_iter().chain(until).collect::<Vec<_>>().join(", ")
        }
        "saga.retimed" => format!("the clock was {} ms ahead", data["ahead_ms"]),
        "saga.marked" => {
            let places = data["personal"].as_array().into_iter().flatten();
            let places = places.filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
            format!("personal from here on: {places}")
        }
        "signal.received" => {
            let id = data["id"].as_str().map_or_else(String::new, |id| format!(" ({id})"));
            let who = data["who"].as_str().map_or_else(String::new, |who| format!(" from {who}"));
            format!("{}{id}{who}: {}", text("name"), data["payload"])
        }
        _ if kind.starts_with("operator.") => {
            format!("{}: {}{}", brief(text("who")), text("reason"), order(data))
        }
        // What a plugin tells, in words of its own.
        _ if kind.parse::<EventType>().is_ok() => data.to_string(),
        _ => text("reason"),
    }
}

/// The most characters of a payload that an order brought.
const ORDER_PAYLOAD_CHARS: usize = 200;

/// What an order of an operator says beside who gave it and why.
fn order(data: &Value) -> String {
    let payload = |field: &str| {
        let payload = data.get(field)?.to_string();
        let mut shown: String = payload.chars().take(ORDER_PAYLOAD_CHARS).collect();
        if shown.len() < payload.len() {
            shown.push('…');
        }
        Some(format!("{field} {shown}"))
    };
    let digest =
        data["digest"].as_str().map(|digest| format!("served by {}", short_digest(digest)));
    let new_key =
        (data["new_key"] == Value::Bool(true)).then(|| "a new idempotency key".to_owned());
    let happened = (data["happened"] == Value::Bool(false)).then(|| "it did not happen".to_owned());
    let evidence = data["evidence"].as_str().map(|evidence| format!("known by {evidence}"));
    let all = [payload("input"), new_key, digest, happened, payload("output"), evidence];
    all.into_iter().flatten().fold(String::new(), |told, part| told + "; " + &part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What an operator wants to know of these events stands in their line, and no payload fills the screen.
    #[test]
    fn a_line_of_the_history_tells_what_its_event_says() {
        let digest = "sha256:0123456789abcdef";
        let long = "x".repeat(1_000);
        let cut = format!("\"{}…", "x".repeat(ORDER_PAYLOAD_CHARS - 1));
        let failed = json!({"attempt": 2, "error": {"code": "busy", "message": "later"}, "probe": "did_not_happen"});
        for (kind, data, told) in [
            ("operator.paused", json!({"who": "ada", "reason": "lunch"}), "ada: lunch".to_owned()),
            (
                "operator.retried",
                json!({"who": "ada", "reason": "typo", "step": "pay", "input": {"cents": 5},
                    "new_key": true, "digest": digest}),
                "ada: typo; input {\"cents\":5}; a new idempotency key; served by sha256:0123456789ab"
                    .to_owned(),
            ),
            (
                "operator.retried",
                json!({"who": "ada", "reason": "typo", "step": "pay", "input": long}),
                format!("ada: typo; input {cut}"),
            ),
            (
                "operator.resolved",
                json!({"who": "ada", "reason": "asked", "happened": true, "output": null, "evidence": "a call"}),
                "ada: asked; output null; known by a call".to_owned(),
            ),
            (
                "operator.resolved",
                json!({"who": "ada", "reason": "asked", "happened": false, "evidence": "a call"}),
                "ada: asked; it did not happen; known by a call".to_owned(),
            ),
            (
                "step.unknown",
                failed,
                "attempt 2, busy: later, its component says: did not happen".to_owned(),
            ),
            (
                "step.started",
                json!({"attempt": 1, "digest": digest, "trial": true, "child": "0198"}),
                "attempt 1, sha256:0123456789ab, a trial of the breaker, runs 0198".to_owned(),
            ),
            ("step.expanded", json!({"items": [1, 2]}), "2 elements".to_owned()),
        ] {
            assert_eq!(detail(kind, &data, |words| words), told, "{kind}");
        }
    }
}
