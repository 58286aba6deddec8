//! Bytes that are handed in as components: each is looked at to its end and refused in words, or is
//! one that can serve.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]
#![allow(clippy::print_stdout, reason = "a test says what it has tried")]

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use amends_engine::{PAYLOAD_BYTES_MAX, Payload, Schema, misfits};
use amends_fuzz::{Shape, Target, custom_section};
use amends_tests::{Behaviour, Component, HOSTILE, bombs};
use minisign::KeyPair;
use serde_json::json;

use super::*;
use crate::component::schema;
use crate::component::signature::{Signed, TrustedKeys};

/// How long a look without the compiler may take. It is a hundredth of it on a quiet machine.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// How long it may take with the compiler and `describe`, which may compute for five seconds.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(12);

/// By how much the process may grow over an input, in MiB, besides what its bytes take: a quarter of
/// what the child has. What is measured is the whole process, so an input is tried again before it is
/// blamed.
const GROWTH_MAX: u64 = 256;

/// Bytes of a component that the first target makes.
const COMPONENT_BYTES_MAX: usize = 512 << 10;

/// Of one that is compiled.
const COMPILED_BYTES_MAX: usize = 16 << 10;

/// Bytes of the words of a rejection, and of what stands around them.
const REASON_BYTES_MAX: usize = 2_400;

/// Names of interfaces, good and bad, and what else may stand in a name.
const WORDS: [&str; 24] = [
    "amends:saga/manifest@1.1.0",
    "amends:saga/action@1.1.0",
    "amends:saga/undo@1.1.0",
    "amends:saga/probe@1.1.0",
    "amends:saga/log@1.1.0",
    "amends:saga/state@1.1.0",
    "amends:saga/log@2.0.0",
    "amends:saga/log@1.9.0",
    "amends:saga/log@18446744073709551616.0.0",
    "amends:saga/log",
    "amends:saga/",
    "wasi:http/types@0.2.0",
    "wasi:http/outgoing-handler@0.2.6",
    "wasi:keyvalue/store@0.2.0",
    "wasi:io/poll@0.2.0",
    "env:lib/thing",
    "amends:signature",
    "describe",
    "execute",
    "cabi_realloc",
    "memory",
    "a\u{1b}[2J",
    "\u{202e}b",
    "[method]a.b",
];

fn committed() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let names = ["prescription", "inventory", "inventory-release", "shipment", "trivial/trivial"];
    names.map(|name| fs::read(folder.join(format!("{name}.wasm"))).unwrap()).into()
}

/// Components of a few kilobytes, of each world and each way to go wrong.
fn made() -> Vec<Vec<u8>> {
    let mut made: Vec<Vec<u8>> = ["step", "step-only", "undo-only"]
        .map(|world| Component { world, ..Component::default() }.build())
        .into();
    let schema = r##"{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}"##;
    made.push(Component { schema, needs: &["state"], ..Component::default() }.build());
    made.push(Component { execute: Behaviour::Chatty, ..Component::default() }.build());
    made.extend(HOSTILE.iter().map(amends_tests::Hostile::build));
    let text = |text: &str| wat::parse_str(text).unwrap();
    made.push(text("(component)"));
    made.push(text("(component (component (component)) (core module (func loop br 0 end)))"));
    made.push(text(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#));
    made.push(Component::default().core_module());
    made
}

fn signed(bytes: &[u8], key: &KeyPair) -> Vec<u8> {
    let read = Signed::read(bytes).unwrap();
    let text = minisign::sign(None, &key.sk, Cursor::new(read.content()), None, None).unwrap();
    read.with(&text.into_string()).unwrap()
}

/// What a person is told: one line, not too long, with what would be right.
fn assert_words(rejection: &Rejection) -> String {
    let words = rejection.clone().cut().to_string();
    assert!(words.len() <= REASON_BYTES_MAX, "{} bytes: {words}", words.len());
    assert!(!words.contains(char::is_control), "{words:?}");
    let has_remedy = words.contains("; ") || matches!(rejection, Rejection::Failed(_));
    assert!(has_remedy, "no remedy: {words}");
    words
}

/// The memory that this process has, and the most that it has had since the last time; in MiB.
#[cfg(target_os = "linux")]
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let found = (of("VmRSS:"), of("VmHWM:"));
    fs::write("/proc/self/clear_refs", "5").unwrap();
    found
}

#[cfg(not(target_os = "linux"))]
fn memory() -> (u64, u64) {
    (0, 0)
}

#[test]
fn any_bytes_are_looked_at_within_limits() {
    let (ours, theirs) = (
        KeyPair::generate_unencrypted_keypair().unwrap(),
        KeyPair::generate_unencrypted_keypair().unwrap(),
    );
    let trusted: TrustedKeys = [ours.pk.to_base64().parse().unwrap()].into_iter().collect();
    let (mut seeds, mut contents) = (committed(), Vec::new());
    for bytes in made() {
        let once = signed(&bytes, &ours);
        seeds.push(signed(&once, &theirs));
        seeds.push(signed(&bytes, &theirs));
        seeds.push([&once[..], &custom_section("producers", b"\0")].concat());
        contents.push(bytes.clone());
        seeds.extend([once, bytes]);
    }
    seeds.extend(bombs().into_iter().map(|bomb| bomb.bytes).filter(|one| one.len() < 64 << 10));
    memory();
    Target {
        name: "inspection",
        seeds,
        words: &WORDS,
        shape: Shape::Wasm,
        bytes_max: COMPONENT_BYTES_MAX,
        time_max: LOOK_TIME_MAX,
    }
    .run(|bytes| {
        let mut outcome = String::new();
        for tries_left in (0..3).rev() {
            let (before, _) = memory();
            outcome = look_cheaply(bytes, &trusted, &contents);
            let (_, most) = memory();
            if most <= before + GROWTH_MAX {
                break;
            }
            assert!(tries_left > 0, "from {before} to {most} MiB over {} bytes", bytes.len());
        }
        outcome
    });
}

/// What the host does itself, and what the child does before it compiles.
fn look_cheaply(bytes: &[u8], trusted: &TrustedKeys, contents: &[Vec<u8>]) -> String {
    let read = Signed::read(bytes);
    if trusted.check(bytes).is_ok() {
        let content = read.as_ref().unwrap().content();
        assert!(contents.iter().any(|signed| signed == content), "nobody has signed that");
    }
    let mut outcome = match &read {
        Ok(signed) => {
            assert!(bytes.starts_with(signed.content()));
            // What stands behind is read again as the same.
            let content = signed.content().len();
            assert_eq!(Signed::read(&bytes[..content]).unwrap().content().len(), content);
            format!("{} keys", "x".repeat(signed.keys().len()))
        }
        Err(rejection) => assert_words(rejection),
    };
    match check(bytes) {
        Ok((exports, imports)) => {
            assert!(exports.execute || exports.compensate);
            assert!(imports.iter().all(|name| name.len() <= 200), "{imports:?}");
            // How many signatures it has says nothing of the component.
            let is_read = matches!(read, Ok(_) | Err(Rejection::TooManySignatures { .. }));
            assert!(is_read, "it is sound, and its signatures cannot be looked for");
            let _ = write!(outcome, " {exports:?} {} imports", "x".repeat(imports.len()));
        }
        Err(rejection) => outcome = format!("{outcome} {}", assert_words(&rejection)),
    }
    outcome
}

#[test]
fn any_component_that_passes_is_described_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let code = folder.path().join("code");
    fs::write(&code, "").unwrap();
    Target {
        name: "description",
        seeds: made(),
        words: &WORDS,
        shape: Shape::Wasm,
        bytes_max: COMPILED_BYTES_MAX,
        time_max: WHOLE_TIME_MAX,
    }
    .run(|bytes| {
        let request = Request {
            asked: Asked::of(&PluginSettings::default()),
            code: Code::To(code.clone()),
            limits: Limits::default(),
            is_background: false,
            bytes_len: bytes.len() as u64,
        };
        match inspect(&request, bytes) {
            Ok(description) => {
                // It goes from one process to another.
                let json = serde_json::to_vec(&description).unwrap();
                assert_eq!(serde_json::from_slice::<Description>(&json).unwrap(), description);
                let manifest = description.texts.read().unwrap();
                format!("{} {} {:?}", manifest.name, manifest.version, description.exports)
            }
            Err(rejection) => {
                assert!(!matches!(rejection, Rejection::Failed(_)), "{rejection}");
                assert_words(&rejection)
            }
        }
    });
}

#[expect(clippy::too_many_lines, reason = "its seeds are a list")]
#[test]
fn any_manifest_is_refused_or_checks_payloads() {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let schema = json!({
        "type": "object",
        "required": ["id", "lines"],
        "additionalProperties": false,
        "$defs": {"line": {"type": "object", "properties": {"sku": {"type": "integer"},
            "inner": {"$ref": "#/$defs/line"}, "more": {"items": {"$ref": "#"}}}}},
        "properties": {
            "id": {"type": "string", "pattern": "^[A-Z]{1,8}-\\d+$", "minLength": 1, "format": "date"},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "uniqueItems": true},
            "a": {"anyOf": [{"const": 1}, {"enum": ["x", null]}, {"not": {"type": "object"}}]},
            "b": {"oneOf": [{"minimum": 0.5, "multipleOf": 0.1}, {"$ref": "#/properties/id"}]},
            "c": {"if": {"maxItems": 2}, "then": {"contains": true}, "else": {"prefixItems": [{}]}},
        },
        "patternProperties": {"^x-": {"propertyNames": {"maxLength": 5}}},
        "dependentSchemas": {"id": {"unevaluatedProperties": false}},
    });
    let around = json!({
        "type": ["object", "array"],
        "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}, "c": {"$ref": "#"}},
        "items": {"$ref": "#"},
    });
    let manifest = |input: &Value, output: &Value, payload: Value| {
        json!({
            "name": "test", "version": "1.0.0", "summary": "For tests.", "service": "carrier",
            "needs": ["state"], "input_schema": input, "output_schema": output, "payload": payload,
        })
    };
    let line = json!({"id": "A-1", "lines": [{"sku": 1, "inner": {"sku": 2}}], "x-a": {"b": 1}});
    let seeds = [
        manifest(&schema, &around, line.clone()),
        manifest(&around, &schema, json!({"a": {"b": {"c": []}}})),
        manifest(&around, &around, json!([[[{"a": 1}]]])),
        manifest(&json!("{\"type\":7}"), &json!(true), json!(null)),
    ];
    let words = [
        "type",
        "object",
        "array",
        "string",
        "integer",
        "number",
        "boolean",
        "null",
        "required",
        "properties",
        "items",
        "additionalProperties",
        "patternProperties",
        "pattern",
        "$ref",
        "$defs",
        "$id",
        "id",
        "$schema",
        "$anchor",
        "$dynamicRef",
        "#",
        "#/$defs/line",
        "#/properties/a",
        "#/$defs/none",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "const",
        "enum",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "dependentSchemas",
        "dependentRequired",
        "format",
        "date-time",
        "uri",
        "regex",
        "contentEncoding",
        "base64",
        "^(a+)+$",
        "[\\p{L}\\p{N}]{200}N",
        "(?=a)",
        "\\1",
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2020-12/schema",
        "https://example.com/schema",
    ];
    Target {
        name: "manifest",
        seeds: seeds.iter().map(|seed| seed.to_string().into_bytes()).collect(),
        words: &words,
        shape: Shape::Json,
        bytes_max: 128 << 10,
        time_max: LOOK_TIME_MAX,
    }
    .run(|bytes| {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return String::new() };
        let texts = Texts {
            name: text(&value["name"]),
            version: text(&value["version"]),
            summary: text(&value["summary"]),
            input_schema: text(&value["input_schema"]),
            output_schema: text(&value["output_schema"]),
            service: value["service"].as_str().map(str::to_owned),
            needs: value["needs"].as_array().into_iter().flatten().map(text).collect(),
        };
        let manifest = match texts.read() {
            Ok(manifest) => manifest,
            Err(rejection) => return assert_words(&rejection),
        };
        let payload = Payload::parse(&value["payload"].to_string());
        let mut outcome = String::new();
        for (schema, which) in
            [(&manifest.input_schema, "input"), (&manifest.output_schema, "output")]
        {
            match schema::checker(schema, which) {
                Ok(checker) => {
                    let fits = payload.as_ref().map(|one| schema::fits(checker.as_ref(), one));
                    let _ = write!(outcome, " {fits:?}");
                }
                Err(rejection) => outcome += &assert_words(&rejection),
            }
        }
        let found =
            misfits(Schema::new(&manifest.input_schema), Schema::new(&manifest.output_schema));
        let told: usize = found.iter().map(|one| one.message.len()).sum();
        assert!(told < PAYLOAD_BYTES_MAX, "{told} bytes of misfits");
        outcome + &found.first().map(|one| one.message.clone()).unwrap_or_default()
    });
}
