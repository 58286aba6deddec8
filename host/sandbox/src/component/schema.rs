//! The JSON Schemas of a manifest: what is taken as one, and what fits it.
//!
//! A schema comes from the component, so it is limited before anything walks it: the validator
//! recurses from schema to schema, and a chain of references would overflow the stack of the
//! thread that checks a payload, which ends the process. Its patterns are matched in a time that is
//! linear in the text, by automata that are limited in size.
//!
//! Deliberately absent: references to other documents, to anchors and to `$id`s; patterns that look
//! around or refer back.

use std::collections::HashMap;
use std::ptr;

use amends_engine::{PAYLOAD_DEPTH_MAX, PERSONAL_MARK, Payload};
use jsonschema::{PatternOptions, Validator};
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

/// Patterns of a schema, `pattern` and those of `patternProperties`. A schema that people write has a
/// handful.
pub(crate) const PATTERNS_MAX: usize = 64;

/// Bytes of one pattern.
pub(crate) const PATTERN_BYTES_MAX: usize = 1 << 10;

/// Bytes of the automata of all patterns of a schema, which share it: each of [`PATTERNS_MAX`] has
/// room for a class such as `\p{L}`, one alone for some hundred repetitions of it. They stay in memory
/// with the component.
const AUTOMATA_BYTES_MAX: usize = 4 << 20;

/// Bytes of one automaton, however few there are.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;

/// Schemas that are visited to say where a payload does not fit. It is told at once whether it fits,
/// because what was checked is remembered; looking for the place remembers nothing, and would go
/// through some schemas twice as often for each level of a payload.
const VISITS_MAX: u32 = 1_000_000;

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

/// What checks payloads.
pub(crate) struct Checker {
    validator: Validator,
    /// For saying where a payload does not fit.
    schema: Value,
}

/// What checks payloads; none for a schema that everything fits. Takes its time: for blocking
/// threads.
pub(crate) fn checker(schema: &Value, which: &str) -> Result<Option<Checker>, Rejection> {
    let takes_all =
        schema.as_bool() == Some(true) || schema.as_object().is_some_and(serde_json::Map::is_empty);
    if takes_all {
        return Ok(None);
    }
    let wrong = |why: String| Rejection::Manifest(format!("the {which} schema {why}"));
    let patterns = check(schema).map_err(wrong)?;
    let automaton_bytes = AUTOMATON_BYTES_MAX.min(AUTOMATA_BYTES_MAX / patterns.len().max(1));
    let validator = build(schema, automaton_bytes).map_err(|error| {
        let cannot = |pattern: &&&str| {
            build(&serde_json::json!({"pattern": pattern}), automaton_bytes).is_err()
        };
        wrong(match patterns.iter().find(cannot) {
            Some(pattern) => format!(
                "has the pattern {pattern:?}, which cannot be matched in a time and with memory that \
                 are known beforehand: leave out what looks around (`(?=…)`, `(?!…)`, `(?<=…)`, \
                 `(?<!…)`) or refers back (`\\1`), and repeat less of it"
            ),
            None => format!("is not a JSON Schema: {error}"),
        })
    })?;
    Ok(Some(Checker { validator, schema: schema.clone() }))
}

fn build(schema: &Value, automaton_bytes: usize) -> Result<Validator, String> {
    let patterns =
        PatternOptions::regex().size_limit(automaton_bytes).dfa_size_limit(automaton_bytes);
    let built = jsonschema::options().with_pattern_options(patterns).build(schema);
    built.map_err(|error| error.to_string())
}

/// Where a payload does not fit, and why.
pub(crate) fn fits(checker: Option<&Checker>, payload: &Payload) -> Result<(), String> {
    let Some(Checker { validator, schema }) = checker else { return Ok(()) };
    let value = payload.to_value().map_err(|error| error.to_string())?;
    // This is the one pass of a payload that fits.
    if validator.is_valid(&value) {
        return Ok(());
    }
    let mut visits = Visits { root: schema, left: VISITS_MAX };
    if visits.of(schema, &value).is_none() {
        return Err(
            "the whole: it does not fit; where is not looked for, because the schema checks \
                    the same values too many times"
                .to_owned(),
        );
    }
    let Err(error) = validator.validate(&value) else { return Ok(()) };
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the whole".to_owned() } else { place };
    // Without the value: the text is kept and shown to people who may not see payloads.
    Err(format!("{place}: {}", error.masked()))
}

/// Counts the schemas that would be visited to find where a payload does not fit, or more.
struct Visits<'a> {
    root: &'a Value,
    left: u32,
}

impl Visits<'_> {
    /// None when there are too many. It recurses as deep as a chain of schemas and a payload allow.
    fn of(&mut self, schema: &Value, value: &Value) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        if let Some(schema) = reference(schema).and_then(|to| target(self.root, to)) {
            self.of(schema, value)?;
        }
        for schema in SAME_VALUE.iter().filter_map(|key| schema.get(key)) {
            self.of(schema, value)?;
        }
        for schema in SAME_VALUE_EACH.iter().filter_map(|key| schema.get(key)).flat_map(each) {
            self.of(schema, value)?;
        }
        let inner: Vec<&Value> = match value {
            Value::Object(members) => members.values().collect(),
            Value::Array(items) => items.iter().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for schema in OF_ALL_INNER.iter().filter_map(|key| schema.get(key)) {
            inner.iter().try_for_each(|value| self.of(schema, value))?;
        }
        for schema in OF_INNER_EACH.iter().filter_map(|key| schema.get(key)).flat_map(each) {
            inner.iter().try_for_each(|value| self.of(schema, value))?;
        }
        if let (Some(properties), Value::Object(members)) = (schema.get("properties"), value) {
            for (name, value) in members {
                if let Some(schema) = properties.get(name) {
                    self.of(schema, value)?;
                }
            }
        }
        Some(())
    }
}

/// Keywords with a schema for each value inside.
const OF_ALL_INNER: [&str; 7] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords with schemas for values inside; for which is not looked at.
const OF_INNER_EACH: [&str; 3] = ["patternProperties", "prefixItems", "items"];

/// The schemas of a list or a map.
fn each(all: &Value) -> Vec<&Value> {
    match all {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The limits, and what would be right. Answers the patterns.
fn check(schema: &Value) -> Result<Vec<&str>, String> {
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
    let patterns: Vec<&str> = objects.iter().flat_map(|object| patterns(object)).collect();
    if patterns.len() > PATTERNS_MAX {
        return Err(format!(
            "has {} patterns, at most {PATTERNS_MAX} are allowed: check the rest in the component",
            patterns.len()
        ));
    }
    if let Some(long) = patterns.iter().find(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return Err(format!(
            "has a pattern of {} bytes, at most {PATTERN_BYTES_MAX} are allowed: check it in the \
             component",
            long.len()
        ));
    }
    let mark = objects.iter().find_map(|one| {
        // A property may have this name, and its schema is an object.
        one.get(PERSONAL_MARK).filter(|mark| !mark.is_boolean() && !mark.is_object())
    });
    if let Some(mark) = mark {
        return Err(format!(
            "has `{PERSONAL_MARK}`: {mark}, which says nothing: write true or false"
        ));
    }
    let mut chains = Chains { root: schema, known: HashMap::new() };
    for object in objects {
        chains.of(object, 0)?;
    }
    Ok(patterns)
}

/// The patterns of one object of a schema.
fn patterns(object: &Value) -> Vec<&str> {
    let of_names = object.get("patternProperties").and_then(Value::as_object);
    let of_names = of_names.into_iter().flat_map(|members| members.keys().map(String::as_str));
    object.get("pattern").and_then(Value::as_str).into_iter().chain(of_names).collect()
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
        next.extend(SAME_VALUE_EACH.iter().filter_map(|key| schema.get(key)).flat_map(each));
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
        let rejection = checker(schema, "input").err().expect("it is taken").to_string();
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
        let checker = checker(&schema, "input").unwrap();
        let payload = |text: &str| Payload::parse(text).unwrap();
        fits(checker.as_ref(), &payload(r#"{"parts":[{"id":null}],"not":{}}"#)).unwrap();
        let why = fits(checker.as_ref(), &payload(r#"{"parts":[{"id":7}]}"#)).unwrap_err();
        // The text is kept, and shown to people who may not see payloads.
        assert!(why.starts_with("/parts/0/id: value is not valid"), "{why}");
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
    fn refuses_patterns_that_take_time_or_memory() {
        let words = "which cannot be matched in a time and with memory that are known beforehand";
        for pattern in [r"[\p{L}\p{N}]{200}N", r"^(a|a)*\1b0", "(?=a)b", "(?<!a)b"] {
            refused(&json!({"pattern": pattern}), words);
            refused(&json!({"patternProperties": {pattern: {"type": "string"}}}), words);
        }
        let name = |number| format!(r"^\p{{L}}{number}");
        let many = |count: usize| {
            let all = (0..count).map(|number| (name(number), json!({"pattern": name(number)})));
            json!({"patternProperties": all.collect::<Map<_, _>>()})
        };
        checker(&many(PATTERNS_MAX / 2), "input").unwrap();
        refused(&many(200), "has 400 patterns, at most 64 are allowed: check");
        refused(&json!({"pattern": "x".repeat(1_025)}), "a pattern of 1025 bytes, at most 1024");
        // Names of properties are no patterns.
        let named = json!({"properties": {"pattern": {"type": "string"}}, "pattern": "a{1,900}"});
        checker(&named, "input").unwrap();
        for real in [r"^\p{Lu}\p{L}+( \p{Lu}\p{L}+)*$", r"^.{1,200}@.{1,200}$", r"^\d{4}-\d{2}$"] {
            checker(&json!({"pattern": real}), "input").unwrap();
        }
    }

    /// Whether it fits is remembered schema by schema; to look for the place would visit 2^60 of them.
    #[test]
    fn a_payload_of_many_levels_is_checked_and_refused_in_no_time() {
        for way in ["anyOf", "allOf", "oneOf"] {
            let inner = json!({way: [{"$ref": "#"}, {"$ref": "#"}]});
            let schema = json!({"properties": {"a": inner, "b": {"type": "string"}}});
            let checker = checker(&schema, "input").unwrap();
            let deep = "{\"a\":".repeat(60) + "{\"b\":1}" + &"}".repeat(60);
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let payload = Payload::parse(&deep).unwrap();
                sender.send(fits(checker.as_ref(), &payload)).unwrap();
            });
            let answer = receiver.recv_timeout(std::time::Duration::from_mins(1));
            let why = answer.expect("it takes no time").unwrap_err();
            assert!(
                why.starts_with("the whole: it does not fit; where is not looked for"),
                "{why}"
            );
        }
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
            let checker = checker(&schema, "input").unwrap();
            let _ = fits(checker.as_ref(), &payload);
        };
        let thread = std::thread::Builder::new().stack_size(WORKER_STACK_BYTES).spawn(work);
        thread.unwrap().join().unwrap();
    }
}
