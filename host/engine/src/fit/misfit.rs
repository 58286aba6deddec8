//! Whether values of one schema fit another, such as the outputs that one component wrote and the
//! next one reads.
//!
//! The comparison uses the plain parts of JSON Schema (2020-12): `type`, `required`, `properties`,
//! `items`, `additionalProperties = false` and local `$ref`s. A property that `properties` does not
//! name is certainly absent only when no other properties are allowed. It ignores `anyOf`, `if` and
//! the like, because the host checks each payload anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use serde_json::Value;

use super::schema::{DEPTH_MAX, Property, Schema};

/// The most misfits that are reported. Nobody reads more.
const MISFITS_MAX: usize = 100;

/// The most characters of a property's name that a message shows.
const NAME_SHOWN_CHARS: usize = 100;

/// The most properties that are compared. Schemas that refer to each other have many pairs of
/// properties, and a caller waits for the comparison.
const COMPARED_MAX: usize = 100_000;

/// One place where values of one schema do not fit another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// True when no value fits, false when some may not fit.
    pub is_certain: bool,
    /// True when a schema does not describe a property that is needed.
    pub(crate) is_undescribed: bool,
    /// The place, such as `lines[].sku`; empty for the whole value.
    pub(crate) place: String,
    /// What the reader does that the value does not allow: `needs `id`, which is not in it`.
    pub message: String,
}

/// Returns what is wrong when a reader with the schema `read` gets values of the schema `made`, up
/// to a hundred misfits.
#[must_use]
pub fn misfits(made: Schema<'_>, read: Schema<'_>) -> Vec<Misfit> {
    let mut comparison =
        SchemaComparison { found: Vec::new(), left: COMPARED_MAX, compared: BTreeMap::new() };
    comparison.compare(made, read, "", true, DEPTH_MAX);
    comparison.found.truncate(MISFITS_MAX);
    comparison.found
}

/// The state of one comparison.
struct SchemaComparison {
    found: Vec<Misfit>,
    /// How many more properties may be compared.
    left: usize,
    /// The pairs of schemas that were compared, because many ways may lead to one pair. Each has
    /// the depth that was left for it, and whether there is always such a value.
    compared: BTreeMap<(*const Value, *const Value), (usize, bool)>,
}

impl SchemaComparison {
    /// Adds a misfit.
    fn add(&mut self, is_certain: bool, place: String, message: String) {
        self.found.push(Misfit { is_certain, is_undescribed: false, place, message });
    }

    /// Returns true when the comparison should stop.
    fn is_over(&self) -> bool {
        self.left == 0 || self.found.len() >= MISFITS_MAX
    }

    /// Compares two schemas. `is_there` is true when there is always such a value.
    fn compare(
        &mut self,
        made: Schema<'_>,
        read: Schema<'_>,
        path: &str,
        is_there: bool,
        depth: usize,
    ) {
        let Some(deeper) = depth.checked_sub(1) else { return };
        let pair = (ptr::from_ref(made.value()), ptr::from_ref(read.value()));
        let known = self.compared.entry(pair).or_default();
        let (known_depth, was_there) = *known;
        if known_depth >= depth && (was_there || !is_there) || self.left == 0 {
            return;
        }
        *known = (depth, is_there);
        let names = made.names().count() + read.required().count();
        self.left = self.left.saturating_sub(1 + names);
        let is_apart = self.compare_types(made, read, path, is_there);
        if is_apart {
            return;
        }
        if let (Some(made), Some(read)) = (made.elements(), read.elements()) {
            // The list may be empty.
            self.compare(made, read, &format!("{path}[]"), false, deeper);
        }
        // A schema without properties says nothing of them.
        if made.properties().is_none() {
            return;
        }
        let name_of = |name: &str| {
            let name: String = name.chars().take(NAME_SHOWN_CHARS).collect();
            if path.is_empty() { name } else { format!("{path}.{name}") }
        };
        let always: BTreeSet<&str> = made.required().collect();
        for name in read.required() {
            if self.is_over() {
                return;
            }
            match made.look_up(name) {
                // Another part of the schema may describe it.
                Property::Unknown => {}
                Property::Undescribed { is_closed } => {
                    let verb = if is_closed { "is not" } else { "is not said to be" };
                    let message = format!("needs `{}`, which {verb} in it", name_of(name));
                    self.found.push(Misfit {
                        is_certain: is_there && is_closed,
                        is_undescribed: true,
                        place: name_of(name),
                        message,
                    });
                }
                Property::Described(_) if always.contains(name) => {}
                Property::Described(_) => {
                    let message = format!("needs `{}`, which may not be in it", name_of(name));
                    self.add(false, name_of(name), message);
                }
            }
        }
        for name in made.names() {
            if self.is_over() {
                return;
            }
            let is_there = is_there && always.contains(name);
            if !read.takes(name) {
                let verb = if is_there { "is" } else { "may be" };
                let message = format!("does not take `{}`, which {verb} in it", name_of(name));
                self.add(is_there, name_of(name), message);
            } else if let (Some(made), Some(read)) = (made.property(name), read.property(name)) {
                self.compare(made, read, &name_of(name), is_there, deeper);
            }
        }
    }

    /// Compares the types of two schemas. Returns true when no value fits both.
    fn compare_types(
        &mut self,
        made: Schema<'_>,
        read: Schema<'_>,
        path: &str,
        is_there: bool,
    ) -> bool {
        let (Some(made), Some(read)) = (made.types(), read.types()) else { return false };
        let fits = |one: &str| read.contains(one) || one == "integer" && read.contains("number");
        let may_fit = |one: &str| fits(one) || one == "number" && read.contains("integer");
        let what = if path.is_empty() { "it".to_owned() } else { format!("`{path}`") };
        let list = |types: &BTreeSet<&str>| types.iter().copied().collect::<Vec<_>>().join(" or ");
        let (made_types, read_types) = (list(&made), list(&read));
        if !made.iter().any(|one| may_fit(one)) {
            let message = format!("reads {what} as {read_types}, and it is {made_types}");
            self.add(is_there, path.to_owned(), message);
            return true;
        }
        if !made.iter().all(|one| fits(one)) {
            let message = format!("reads {what} as {read_types}, and it may be {made_types}");
            self.add(false, path.to_owned(), message);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn told(made: &Value, read: &Value) -> Vec<String> {
        misfits(Schema::new(made), Schema::new(read))
            .into_iter()
            .map(|Misfit { is_certain, message, .. }| {
                format!("{}: {message}", if is_certain { "error" } else { "warning" })
            })
            .collect()
    }

    #[test]
    fn properties_are_compared_through_references() {
        let made = json!({
            "$ref": "#/$defs/made",
            "$defs": {"made": {
                "type": "object",
                "additionalProperties": false,
                "required": ["id", "lines", "total"],
                "properties": {
                    "id": {"type": "string"},
                    "note": {"type": "string"},
                    "total": {"type": "integer"},
                    "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                },
            }, "line": {
                "type": "object", "required": ["sku"], "properties": {"sku": {"type": "integer"}},
            }},
        });
        assert_eq!(told(&made, &made), [""; 0]);
        assert_eq!(told(&made, &json!({})), [""; 0]);
        assert_eq!(told(&json!({}), &made), [""; 0], "it says nothing of what it makes");
        let read = json!({
            "type": "object",
            "required": ["id", "note", "warehouse"],
            "additionalProperties": false,
            "properties": {
                "id": {"type": "integer"},
                "note": {"type": ["string", "null"]},
                "warehouse": {},
                "lines": {"items": {"required": ["sku"], "properties": {"sku": {"type": "string"}}}},
            },
        });
        assert_eq!(
            told(&made, &read),
            [
                "warning: needs `note`, which may not be in it",
                "error: needs `warehouse`, which is not in it",
                "error: reads `id` as integer, and it is string",
                "warning: reads `lines[].sku` as string, and it is integer",
                "error: does not take `total`, which is in it",
            ]
        );
    }

    /// What need not be there fits while it is not, and another part of a schema may describe it.
    #[test]
    fn what_may_fit_is_no_error() {
        let made = json!({"properties": {"note": {"type": "string"}}});
        let read = json!({"properties": {"note": {"type": "integer"}}});
        assert_eq!(told(&made, &read), ["warning: reads `note` as integer, and it is string"]);
        let closed = json!({"additionalProperties": false});
        assert_eq!(told(&made, &closed), ["warning: does not take `note`, which may be in it"]);
        let needs = json!({"required": ["id"]});
        assert_eq!(told(&made, &needs), ["warning: needs `id`, which is not said to be in it"]);
        let mut whole = made.clone();
        whole["additionalProperties"] = json!(false);
        assert_eq!(told(&whole, &needs), ["error: needs `id`, which is not in it"]);
        for (key, value) in
            [("anyOf", json!([{"required": ["id"]}])), ("additionalProperties", json!(true))]
        {
            let mut open = made.clone();
            open[key] = value;
            assert_eq!(told(&open, &needs), [""; 0], "{open}");
        }
    }

    /// A list may be empty, and its first elements may be unlike the others.
    #[test]
    fn elements_of_lists_are_not_certain() {
        let list = |kind: &str| json!({"type": "array", "items": {"type": kind}});
        let (made, mut read) = (list("string"), list("integer"));
        assert_eq!(told(&made, &read), ["warning: reads `[]` as integer, and it is string"]);
        read["prefixItems"] = json!([{"type": "string"}]);
        assert_eq!(told(&made, &read), [""; 0]);
        assert_eq!(told(&read, &made), [""; 0]);
    }

    #[test]
    fn types_that_overlap_are_warned_of() {
        let typed = |types: Value| json!({"type": types});
        assert_eq!(told(&typed(json!("integer")), &typed(json!("number"))), [""; 0]);
        assert_eq!(
            told(&typed(json!(["string", "null"])), &typed(json!("string"))),
            ["warning: reads it as string, and it may be null or string"]
        );
        assert_eq!(
            told(&typed(json!("number")), &typed(json!("integer"))),
            ["warning: reads it as integer, and it may be number"]
        );
    }

    /// Each pair is compared once, and not once for each of the 26^7 ways that lead to it.
    #[test]
    fn a_circle_of_many_properties_ends_soon() {
        let all: Map<String, Value> =
            ('a'..='z').map(|name| (name.to_string(), json!({"$ref": "#"}))).collect();
        let circle = |required: &str| json!({"required": [required], "properties": all});
        let (made, read) = (circle("a"), circle("b"));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(self::told(&made, &read)));
        let told = told.recv_timeout(std::time::Duration::from_secs(20)).expect("it ends");
        assert_eq!(told, ["warning: needs `b`, which may not be in it"]);
    }

    /// What is wrong in many ways is told in some.
    #[test]
    fn misfits_have_a_limit() {
        let all = |kind: &str| -> Map<String, Value> {
            (0..2_000).map(|n| (format!("p{n}"), json!({"type": kind}))).collect()
        };
        let (made, read) =
            (json!({"properties": all("string")}), json!({"properties": all("null")}));
        assert_eq!(told(&made, &read).len(), MISFITS_MAX);
    }

    #[test]
    fn a_circle_of_references_ends() {
        let circle = json!({"$ref": "#"});
        assert_eq!(told(&circle, &circle), [""; 0]);
        let nested = json!({
            "type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}},
        });
        assert_eq!(told(&nested, &nested), [""; 0]);
    }
}
