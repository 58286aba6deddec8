//! Which changes of the OpenAPI document break a client that was made from the earlier one.
//!
//! What a request may have must not become less, and what an answer has must not become less. Words of a text
//! may be added to answers: clients read words that they do not know.

use std::collections::BTreeMap;

use serde_json::Value;

/// Returns what breaks a client of `old`, one sentence each.
pub(super) fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut compared = Compared { old, new, breaks: Vec::new(), under_way: Vec::new() };
    for (path, operations) in object(&old["paths"]) {
        for (method, operation) in object(operations) {
            let name = format!("{} {path}", method.to_uppercase());
            match new["paths"][path].get(method) {
                Some(now) => compared.operation(&name, operation, now),
                None => compared.breaks.push(format!("{name} is gone")),
            }
        }
    }
    compared.breaks
}

/// Who writes a value, and who reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

struct Compared<'a> {
    old: &'a Value,
    new: &'a Value,
    breaks: Vec<String>,
    /// The names of the schemas within which it is. A schema may contain itself.
    under_way: Vec<String>,
}

impl<'a> Compared<'a> {
    fn operation(&mut self, name: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.breaks.push(format!("{name} has another operationId"));
        }
        self.parameters(name, old, new);
        let body = format!("the body of {name}");
        if new["requestBody"]["required"] == true && old["requestBody"]["required"] != true {
            self.breaks.push(format!("{body} is required now"));
        }
        self.content(&body, &old["requestBody"], &new["requestBody"], Direction::Request);
        for (status, answer) in object(&old["responses"]) {
            let about = format!("the answer {status} of {name}");
            match new["responses"].get(status) {
                Some(now) => self.content(&about, answer, now, Direction::Answer),
                None => self.breaks.push(format!("{about} is gone")),
            }
        }
    }

    fn parameters(&mut self, name: &str, old: &'a Value, new: &'a Value) {
        let by_name = |operation: &'a Value| -> BTreeMap<_, _> {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters.map(|one| ((text(&one["in"]), text(&one["name"])), one)).collect()
        };
        let (before, now) = (by_name(old), by_name(new));
        for (key, parameter) in &before {
            let about = format!("the parameter {} of {name}", key.1);
            match now.get(key) {
                Some(found) => {
                    let schemas = (&parameter["schema"], &found["schema"]);
                    self.schema(&about, schemas.0, schemas.1, Direction::Request);
                }
                None => self.breaks.push(format!("{about} is gone")),
            }
        }
        for (key, parameter) in &now {
            let was_required = before.get(key).is_some_and(|before| before["required"] == true);
            if parameter["required"] == true && !was_required {
                self.breaks.push(format!("the parameter {} of {name} is required now", key.1));
            }
        }
    }

    /// Compares what bodies of each media type have.
    fn content(&mut self, about: &str, old: &'a Value, new: &'a Value, direction: Direction) {
        for (media, content) in object(&old["content"]) {
            match new["content"].get(media) {
                Some(now) => self.schema(about, &content["schema"], &now["schema"], direction),
                None => self.breaks.push(format!("{about} is not {media} any more")),
            }
        }
    }

    fn schema(&mut self, about: &str, old: &'a Value, new: &'a Value, direction: Direction) {
        if let Some(name) = old["$ref"].as_str() {
            if self.under_way.iter().any(|other| other == name) {
                if new["$ref"] != name {
                    self.breaks.push(format!("{about} is of another type"));
                }
                return;
            }
            self.under_way.push(name.to_owned());
            let resolved = (follow(self.old, old), follow(self.new, new));
            self.schema(about, resolved.0, resolved.1, direction);
            self.under_way.pop();
            return;
        }
        let new = follow(self.new, new);
        let alternatives = |schema: &'a Value| schema["oneOf"].as_array();
        if let (Some(before), Some(now)) = (alternatives(old), alternatives(new)) {
            for (before, now) in before.iter().zip(now) {
                self.schema(about, before, now, direction);
            }
            return;
        }
        if old["type"] != new["type"] || old["format"] != new["format"] {
            self.breaks.push(format!("{about} is of another type"));
        }
        let narrower = |key: &str| match direction {
            Direction::Request => old[key] != new[key] && !new[key].is_null(),
            Direction::Answer => false,
        };
        for key in ["minimum", "maximum", "pattern", "maxLength", "maxItems"] {
            if narrower(key) {
                self.breaks.push(format!("{about} has another {key}"));
            }
        }
        if direction == Direction::Request
            && let Some(words) = new["enum"].as_array()
        {
            let before = old["enum"].as_array();
            let gone = |word| !words.contains(word);
            if before.is_none_or(|before| before.iter().any(gone)) {
                self.breaks.push(format!("{about} takes fewer words"));
            }
        }
        self.properties(about, old, new, direction);
        if !old["items"].is_null() {
            self.schema(&format!("an item of {about}"), &old["items"], &new["items"], direction);
        }
    }

    fn properties(&mut self, about: &str, old: &'a Value, new: &'a Value, direction: Direction) {
        for (key, property) in object(&old["properties"]) {
            let about = format!("`{key}` in {about}");
            let Some(now) = new["properties"].get(key) else {
                self.breaks.push(format!("{about} is gone"));
                continue;
            };
            self.schema(&about, property, now, direction);
            if direction == Direction::Answer && requires(old, key) && !requires(new, key) {
                self.breaks.push(format!("{about} may be absent now"));
            }
        }
        if direction == Direction::Request {
            let required = new["required"].as_array().into_iter().flatten();
            for key in required.filter(|key| !requires(old, text(key))) {
                self.breaks.push(format!("`{}` in {about} is required now", text(key)));
            }
        }
    }
}

/// Returns what a reference names, or the value itself.
fn follow<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(name) = value["$ref"].as_str() else { return value };
    document.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null)
}

fn requires(schema: &Value, key: &str) -> bool {
    schema["required"].as_array().into_iter().flatten().any(|other| other == key)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
