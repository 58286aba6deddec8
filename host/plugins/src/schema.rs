//! The JSON Schemas of a manifest: what is taken as one, and what fits it.
//!
//! A schema comes from the component, so it is limited before anything walks it: the validator
//! recurses from schema to schema, and a chain of references would overflow the stack of the
//! thread that checks a payload, which ends the process.
//!
//! Deliberately absent: references to other documents, to anchors and to `$id`s.

use std::collections::HashMap;
use std::ptr;

use amends_engine::{PAYLOAD_DEPTH_MAX, Payload};
use jsonschema::Validator;
use serde_json::Value;

use crate::error::Rejection;

/// Bytes of one schema. What a derive makes of a large type has some kilobytes.
pub(crate) const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Objects and lists within one another in a schema: building a validator recurses over them.
pub(crate) const SCHEMA_DEPTH_MAX: usize = 64;

/// `$ref`s in a schema: each is resolved when its validator is built.
pub(crate) const SCHEMA_REFERENCES_MAX: usize = 256;

/// Schemas within one another that check the same value. Each takes some hundred bytes of stack
/// for each level of a payload: with 64 such schemas and a payload of [`PAYLOAD_DEPTH_MAX`]
/// levels, the 2 MiB of a worker overflowed.
pub(crate) const SCHEMA_CHAIN_MAX: u32 = 16;

/// Schemas that check one value in all. Without a limit, each step of a chain could double them.
pub(crate) const SCHEMA_CHECKS_MAX: u32 = 10_000;

const _: () = assert!(
    SCHEMA_CHAIN_MAX as usize * PAYLOAD_DEPTH_MAX <= 1_024,
    "a longer chain or a deeper payload was not measured against the stack of a worker"
);

/// Keywords with a schema for the same value.
const SAME_VALUE: [&str; 4] = ["not", "if", "then", "else"];

/// Keywords with a list or a map of schemas for the same value.
const SAME_VALUE_EACH: [&str; 5] = ["allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies"];

/// Reads a schema's text, `which` of the two it is for words.
pub(crate) fn parse(text: &str, which: &str) -> Result<Value, Rejection> {
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(Rejection::Manifest(format!(
            "the {which} schema has {} bytes, at most {SCHEMA_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    serde_json::from_str(text)
        .map_err(|error| Rejection::Manifest(format!("the {which} schema is not JSON: {error}")))
}

/// What checks payloads; none for a schema that everything fits. Takes its time: for blocking
/// threads.
pub(crate) fn validator(schema: &Value, which: &str) -> Result<Option<Validator>, Rejection> {
    let takes_all =
        schema.as_bool() == Some(true) || schema.as_object().is_some_and(serde_json::Map::is_empty);
    if takes_all {
        return Ok(None);
    }
    check(schema).map_err(|why| Rejection::Manifest(format!("the {which} schema {why}")))?;
    jsonschema::validator_for(schema).map(Some).map_err(|error| {
        Rejection::Manifest(format!("the {which} schema is not a JSON Schema: {error}"))
    })
}

/// Where a payload does not fit, and why.
pub(crate) fn fits(validator: Option<&Validator>, payload: &Payload) -> Result<(), String> {
    let Some(validator) = validator else { return Ok(()) };
    let value = payload.to_value().map_err(|error| error.to_string())?;
    // It remembers what it has checked; looking for errors does not.
    if validator.is_valid(&value) {
        return Ok(());
    }
    let Some(error) = validator.iter_errors(&value).next() else { return Ok(()) };
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the whole".to_owned() } else { place };
    Err(format!("{place}: {error}"))
}

/// The limits, and what would be right.
fn check(schema: &Value) -> Result<(), String> {
    let (objects, depth) = objects(schema);
    if depth > SCHEMA_DEPTH_MAX {
        return Err(format!(
            "nests {depth} deep, at most {SCHEMA_DEPTH_MAX} are allowed: move inner schemas to \
             `$defs`"
        ));
    }
    let references = objects.iter().filter(|object| reference(object).is_some()).count();
    if references > SCHEMA_REFERENCES_MAX {
        return Err(format!(
            "has {references} `$ref`, at most {SCHEMA_REFERENCES_MAX} are allowed: write small \
             definitions out where they are used"
        ));
    }
    let dialect = schema.get("$schema").and_then(Value::as_str).unwrap_or_default();
    let own_id = if dialect.contains("draft-04") { "id" } else { "$id" };
    for object in &objects {
        let foreign = ["$dynamicRef", "$recursiveRef"].into_iter().find(|key| is_text(object, key));
        if let Some(key) = foreign {
            return Err(format!("has a `{key}`: write `$ref` and a path such as `#/$defs/NAME`"));
        }
        // Paths would count from there.
        if is_text(object, own_id) && !ptr::eq(*object, schema) {
            return Err(format!(
                "has an `{own_id}` inside: leave it out, paths count from its root"
            ));
        }
    }
    let mut chains = Chains { root: schema, known: HashMap::new() };
    for object in objects {
        chains.of(object, 0)?;
    }
    Ok(())
}

/// Every object of a schema, whether it is a schema or not, and how deep the schema nests.
fn objects(schema: &Value) -> (Vec<&Value>, usize) {
    let (mut found, mut deepest, mut waiting) = (Vec::new(), 0, vec![(schema, 1)]);
    while let Some((value, depth)) = waiting.pop() {
        match value {
            Value::Object(members) => {
                found.push(value);
                waiting.extend(members.values().map(|member| (member, depth + 1)));
            }
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => continue,
        }
        deepest = deepest.max(depth);
    }
    (found, deepest)
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()
}

fn is_text(schema: &Value, key: &str) -> bool {
    schema.get(key).is_some_and(Value::is_string)
}

/// What stands behind each schema of a document for one and the same value: not what checks its
/// properties and items, because they are fewer with each level of a payload.
struct Chains<'a> {
    root: &'a Value,
    known: HashMap<*const Value, Chain>,
}

#[derive(Clone, Copy)]
struct Chain {
    /// Schemas within one another.
    longest: u32,
    /// Schemas in all.
    checks: u32,
}

impl<'a> Chains<'a> {
    /// `above` schemas within one another lead to this one: it is never past the limit, so that
    /// a circle is found and this does not overflow the stack itself.
    fn of(&mut self, schema: &'a Value, above: u32) -> Result<Chain, String> {
        let mut chain = Chain { longest: 1, checks: 1 };
        let key = ptr::from_ref(schema);
        if let Some(known) = self.known.get(&key) {
            chain = *known;
        } else if above < SCHEMA_CHAIN_MAX {
            for next in self.next(schema)? {
                let next = self.of(next, above + 1)?;
                chain.longest = chain.longest.max(next.longest + 1);
                chain.checks = chain.checks.saturating_add(next.checks);
            }
            self.known.insert(key, chain);
        }
        if above + chain.longest > SCHEMA_CHAIN_MAX {
            return Err(format!(
                "checks one value by more than {SCHEMA_CHAIN_MAX} schemas within one another, or \
                 a schema refers to itself: write definitions out, and let a circle of `$ref` \
                 lead through `properties` or `items`"
            ));
        }
        if chain.checks > SCHEMA_CHECKS_MAX {
            return Err(format!(
                "checks one value by more than {SCHEMA_CHECKS_MAX} schemas: refer to the same \
                 definition less often"
            ));
        }
        Ok(chain)
    }

    fn next(&self, schema: &'a Value) -> Result<Vec<&'a Value>, String> {
        let mut next = Vec::new();
        if let Some(reference) = reference(schema) {
            next.push(target(self.root, reference).ok_or_else(|| {
                format!(
                    "has the `$ref` {reference:?}, where nothing is: write `#` or a path in the \
                     schema such as `#/$defs/NAME`"
                )
            })?);
        }
        next.extend(SAME_VALUE.iter().filter_map(|key| schema.get(key)));
        for all in SAME_VALUE_EACH.iter().filter_map(|key| schema.get(key)) {
            match all {
                Value::Array(items) => next.extend(items),
                Value::Object(members) => next.extend(members.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(next)
    }
}

/// A JSON pointer as a fragment of a URI (RFC 6901, section 6).
fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let fragment = reference.strip_prefix('#')?;
    let (mut bytes, mut rest) = (Vec::new(), fragment.as_bytes());
    while let [first, behind @ ..] = rest {
        rest = behind;
        let mut byte = *first;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            byte = u8::from_str_radix(digits, 16).ok()?;
            rest = &rest[2..];
        }
        bytes.push(byte);
    }
    root.pointer(std::str::from_utf8(&bytes).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use serde_json::{Map, json};

    use super::*;

    /// A worker of tokio has this much stack.
    const WORKER_STACK_BYTES: usize = 2 << 20;

    fn refused(schema: &Value, words: &str) {
        let rejection = validator(schema, "input").expect_err("it is taken").to_string();
        assert!(
            rejection.contains("the input schema ") && rejection.contains(words),
            "{rejection}"
        );
    }

    /// Definitions that each lead to the next by `link`, and the last one to `last`.
    fn chained(length: usize, link: impl Fn(Value) -> Value, last: &Value) -> Value {
        let mut definitions = Map::new();
        for number in 1..length {
            let next = json!({"$ref": format!("#/$defs/{}", number + 1)});
            definitions.insert(number.to_string(), link(next));
        }
        definitions.insert(length.to_string(), last.clone());
        json!({"$ref": "#/$defs/1", "$defs": definitions})
    }

    #[test]
    fn takes_what_derives_make() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.com/order",
            "type": "object",
            "properties": {
                // Names of keywords are names of properties as well.
                "id": {"$ref": "#/$defs/a%20b~1c"},
                "not": {"$ref": "#"},
                "code": {"type": "string", "examples": [{"id": "A-1"}]},
                "parts": {"type": "array", "items": {"$ref": "#"}},
            },
            "$defs": {"a b/c": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        });
        let validator = validator(&schema, "input").unwrap();
        let payload = |text: &str| Payload::parse(text).unwrap();
        fits(validator.as_ref(), &payload(r#"{"parts":[{"id":null}],"not":{}}"#)).unwrap();
        let why = fits(validator.as_ref(), &payload(r#"{"parts":[{"id":7}]}"#)).unwrap_err();
        assert!(why.starts_with("/parts/0/id: 7 is not valid"), "{why}");
    }

    #[test]
    fn refuses_what_is_too_large() {
        let text = format!("{{\"title\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX));
        let rejection = parse(&text, "output").unwrap_err().to_string();
        assert!(rejection.contains("the output schema has 262156 bytes, at most"), "{rejection}");
        let deep = (0..SCHEMA_DEPTH_MAX).fold(json!({}), |inner, _| json!({"items": inner}));
        refused(&deep, "nests 65 deep, at most 64 are allowed: move");
        let wide = vec![json!({"$ref": "#"}); SCHEMA_REFERENCES_MAX + 1];
        refused(&json!({"prefixItems": wide}), "has 257 `$ref`, at most 256 are allowed: write");
    }

    #[test]
    fn refuses_long_chains_and_circles() {
        let words = "by more than 16 schemas within one another";
        refused(&chained(200, |next| next, &json!({})), words);
        refused(&chained(6, |next| json!({"allOf": [{"not": next}]}), &json!({})), words);
        refused(&json!({"$ref": "#"}), words);
        refused(&json!({"properties": {"a": {"if": {"$ref": "#/properties/a"}}}}), words);
        let twice = |next: Value| json!({"allOf": [next.clone(), next]});
        refused(&chained(8, twice, &twice(json!({}))), words);
        let many = |next: Value| json!({"anyOf": vec![next; 12]});
        refused(&chained(5, many, &many(json!({}))), "by more than 10000 schemas");
    }

    #[test]
    fn refuses_references_that_it_cannot_follow() {
        let reference = |to: &str| json!({"items": {"$ref": to}});
        for to in ["#/$defs/none", "#name", "https://example.com/", "other.json", "", "#/%"] {
            refused(&reference(to), "where nothing is: write `#` or a path");
        }
        refused(&json!({"items": {"$dynamicRef": "#a"}}), "has a `$dynamicRef`: write `$ref`");
        refused(&json!({"$defs": {"a": {"$id": "a", "$ref": "#"}}}), "has an `$id` inside");
        let dialect = "http://json-schema.org/draft-04/schema#";
        let old = json!({"$schema": dialect, "items": {"id": "a", "items": {"$ref": "#"}}});
        refused(&old, "has an `id` inside");
    }

    /// The longest chain that is allowed, again at each level of the deepest payload.
    #[test]
    fn what_is_allowed_does_not_overflow_the_stack() {
        let link = |next| json!({"anyOf": [next], "minItems": 1, "unevaluatedItems": false});
        let last = json!({"items": {"$ref": "#/$defs/1"}});
        let schema = chained(8, link, &last);
        refused(&chained(9, link, &last), "within one another");
        let deep = "[".repeat(PAYLOAD_DEPTH_MAX) + &"]".repeat(PAYLOAD_DEPTH_MAX);
        let payload = Payload::parse(&deep).unwrap();
        let work = move || {
            let validator = validator(&schema, "input").unwrap();
            let _ = fits(validator.as_ref(), &payload);
        };
        let thread = std::thread::Builder::new().stack_size(WORKER_STACK_BYTES).spawn(work);
        thread.unwrap().join().unwrap();
    }
}
