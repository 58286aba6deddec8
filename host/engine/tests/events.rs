//! The stored form of events: what earlier versions wrote is read, and written the same.
//!
//! `golden/events.ndjson` has a line for every event type, and more where a field may be absent.
//! A line is never changed or removed: logs of that form exist.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends_engine::{
    Cause, DecodeError, Digest, Emitted, Event, Failure, FailureClass, PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX, Payload, PayloadError, SagaStarted, StepFailed, StepSucceeded, Timestamp,
    UndoSucceeded, check_json,
};
use amends_fuzz::{Shape, Target};
use proptest::prelude::*;

#[test]
fn what_earlier_versions_wrote_is_read_and_written_the_same() {
    let mut kinds = BTreeSet::new();
    for line in include_str!("golden/events.ndjson").lines() {
        let (kind, data) = line.split_once(' ').unwrap();
        let event = Event::decode(kind, data).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(event.kind(), kind);
        assert_eq!(event.data(), data);
        if !matches!(event, Event::Emitted(_)) {
            kinds.insert(kind);
        }
    }
    let all: BTreeSet<_> = Event::KINDS.iter().copied().collect();
    assert_eq!(kinds, all, "an event type has no golden line");
}

#[test]
fn a_field_that_a_later_version_adds_is_passed_over() {
    let data = r#"{"step":"a","attempt":1,"output":{},"since_version_9":true}"#;
    assert!(Event::decode("step.succeeded", data).is_ok());
}

#[test]
fn what_cannot_be_read_says_why() {
    let unknown = Event::decode("step.exploded", "{}").unwrap_err();
    assert_eq!(unknown, DecodeError::Kind("step.exploded".to_owned()));
    let damaged =
        ["step.succeedeX", "step.succeedee", "saga.", "undo", "operator.paused.", "ste`.a"];
    for kind in damaged {
        assert!(!Event::is_kind(kind), "{kind}");
        assert_eq!(Event::decode(kind, "{}"), Err(DecodeError::Kind(kind.to_owned())));
    }
    assert!(Event::KINDS.iter().all(|kind| Event::is_kind(kind)));
    assert!(Event::is_kind("order.made"));
    let odd = Event::decode("order", "{}").unwrap_err();
    assert_eq!(odd, DecodeError::Kind("order".to_owned()));
    let error = Event::decode("step.started", r#"{"step":"A b","attempt":1}"#).unwrap_err();
    assert!(error.to_string().contains("`A b` is not a name"), "{error}");
    assert!(Event::decode("step.started", "{").is_err());
}

#[test]
fn payloads_have_limits() {
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(Payload::parse(&text(PAYLOAD_BYTES_MAX)).is_ok());
    let bytes = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(Payload::parse(&text(bytes)), Err(PayloadError::TooLarge { bytes }));
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Payload::parse(&nested(PAYLOAD_DEPTH_MAX)).is_ok());
    assert_eq!(Payload::parse(&nested(PAYLOAD_DEPTH_MAX + 1)), Err(PayloadError::TooDeep));
    assert!(Payload::parse(&format!("\"{}\"", "[".repeat(500))).is_ok(), "text is not nesting");
    for wrong in ["", "{", "1 2", "nul", "{\"a\":}"] {
        assert!(matches!(Payload::parse(wrong), Err(PayloadError::Json(_))), "{wrong}");
    }
}

#[test]
fn a_payload_is_one_line_and_says_the_same() {
    let text = "{ \"a b\" : [ 1.50 ,\r\n\t\"x \\\" y\\n\" ] }";
    let payload = Payload::parse(text).unwrap();
    assert_eq!(payload.as_str(), r#"{"a b":[1.50,"x \" y\n"]}"#.replace("\\\\", "\\"));
    assert_eq!(
        payload.to_value().unwrap(),
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
    let read: Payload = serde_json::from_str(text).unwrap();
    assert_eq!(read, payload);
}

/// RFC 8259 leaves open what these mean; readers differ.
#[test]
fn what_readers_understand_differently_is_no_payload() {
    let deep =
        format!("{}\"\\udc00\"{}", "[".repeat(PAYLOAD_DEPTH_MAX), "]".repeat(PAYLOAD_DEPTH_MAX));
    for text in [
        r#"{"qty":1000000,"x":"\ud800"}"#,
        r#"{"\udfff":1}"#,
        r#""\ud83d\ud83d""#,
        "1e999",
        "[-1e400]",
        r#"{"a":1,"b":2,"a":3}"#,
        r#"{"a":1,"\u0061":3}"#,
        r#"[{"b":[{"a":{},"a":{}}]}]"#,
        &"9".repeat(400),
        &deep,
    ] {
        let refused = Payload::parse(text);
        assert!(matches!(refused, Err(PayloadError::Ambiguous(_))), "{text}: {refused:?}");
        assert_eq!(check_json(text), refused.map(|_| ()), "{text}");
        // Earlier versions recorded them: their sagas are read, and what looks at them is told.
        let recorded = Payload::recorded(text).unwrap();
        assert_eq!(recorded.as_str(), text);
        let event = format!(r#"{{"step":"a","attempt":1,"output":{text}}}"#);
        let event = Event::decode("step.succeeded", &event).unwrap();
        assert!(event.data().contains(text));
        if !text.contains("\"a\"") {
            assert!(matches!(recorded.to_value(), Err(PayloadError::Ambiguous(_))), "{text}");
        }
    }
    for text in [
        r#"{"a":"\ud83d\ude80","b":{"a":1},"":0,"c":[{"a":1},{"a":2}]}"#,
        "1e308",
        "18446744073709551616",
        r#""\u0000\u007f\u202e""#,
    ] {
        let payload = Payload::parse(text).unwrap();
        assert_eq!(payload, Payload::recorded(text).unwrap(), "{text}");
        assert_eq!(
            payload.to_value().unwrap(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }
}

/// Any bytes: what is taken has a value, and what has none is not taken.
#[test]
fn any_text_is_a_payload_with_a_value_or_none() {
    let seeds = [
        r#"{"a":[1,-0,1.5e3,null,true,"\u0061\ud83d\ude80"],"b":{"a":{}}}"#,
        r#"{"qty":1000000,"x":"\ud800"}"#,
        " [ 1e999 , { \"a\" : 1 , \"a\" : 2 } ] \n",
        "\"\u{7f}é\"",
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    ];
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude80\"",
        "1",
        "-0",
        "1e999",
        "1.5e3",
        "null",
        "true",
        " ",
        "\n",
        "\"",
        "\\",
        "\u{7f}",
        "é",
    ];
    Target {
        name: "payloads",
        seeds: seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect(),
        words: &words,
        shape: Shape::Json,
        bytes_max: 4_096,
        time_max: Duration::from_secs(2),
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let value = serde_json::from_str::<serde_json::Value>(&text);
        match Payload::parse(&text) {
            Ok(payload) => {
                assert_eq!(payload.to_value().ok(), value.ok());
                assert_eq!(Payload::parse(payload.as_str()), Ok(payload.clone()));
                assert_eq!(Payload::recorded(&text), Ok(payload));
                return "a payload".to_owned();
            }
            Err(PayloadError::Ambiguous(_)) => assert!(Payload::recorded(&text).is_ok()),
            Err(PayloadError::Json(_)) => assert!(value.is_err()),
            Err(PayloadError::TooLarge { .. } | PayloadError::TooDeep) => {
                assert!(Payload::recorded(&text).is_err());
            }
        }
        Payload::parse(&text).map_or_else(|error| error.to_string(), |_| String::new())
    });
}

fn json() -> impl Strategy<Value = Payload> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    });
    value.prop_map(|value| Payload::from_value(&value).unwrap())
}

fn failure() -> impl Strategy<Value = Failure> {
    (".{0,20}", ".{0,40}", any::<Option<u64>>(), prop::option::of(json())).prop_map(
        |(code, message, retry_after_ms, details)| Failure {
            code,
            message,
            retry_after_ms,
            details,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let step = "[a-z0-9][a-z0-9_-]{0,20}".prop_map(|name| name.parse().unwrap());
    let at = prop::option::of((0..4_000_000_000_000_i64).prop_map(Timestamp::from_millis));
    prop_oneof![
        (json(), any::<[Option<String>; 2]>(), any::<[u8; 32]>(), at.clone()).prop_map(
            |(input, [key, who], digest, deadline_at)| {
                Event::from(SagaStarted {
                    definition: "d".parse().unwrap(),
                    definition_digest: Digest::from_bytes(digest),
                    input,
                    key: key.clone(),
                    tags: key.map(|key| (key.clone(), key)).into_iter().collect::<BTreeMap<_, _>>(),
                    index: BTreeMap::new(),
                    traceparent: None,
                    deadline_at,
                    start_at: deadline_at,
                    parent: None,
                    sealed_key: None,
                    who,
                })
            }
        ),
        (step.clone(), any::<u32>(), json()).prop_map(|(step, attempt, output)| StepSucceeded {
            step,
            attempt,
            output,
            probe: None
        }
        .into()),
        (step.clone(), any::<u32>(), failure(), at).prop_map(|(step, attempt, error, retry_at)| {
            let class = FailureClass::Retryable;
            StepFailed { step, attempt, class, error, retry_at, probe: None }.into()
        }),
        ("[a-r][a-z0-9_]{0,9}(\\.[a-z][a-z0-9_]{0,9}){1,3}", json())
            .prop_filter_map("reserved", |(kind, data)| Some(
                Emitted { kind: kind.parse().ok()?, data }.into()
            )),
        (step, any::<u32>(), prop::option::of(json()), any::<bool>()).prop_map(
            |(step, attempt, receipt, nothing)| UndoSucceeded {
                step,
                attempt,
                receipt,
                nothing,
                probe: None
            }
            .into()
        ),
    ]
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(event in event()) {
        prop_assert_eq!(Event::decode(&event.kind(), &event.data()).unwrap(), event);
    }

    #[test]
    fn no_text_makes_the_reader_panic(kind in 0..Event::KINDS.len(), data in ".{0,200}") {
        let _ = Event::decode(Event::KINDS[kind], &data);
        let _ = Payload::parse(&data);
    }

    #[test]
    fn a_time_is_read_as_it_was_written(millis in -60_000_000_000_000_i64..250_000_000_000_000) {
        let time = Timestamp::from_millis(millis);
        prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
}

/// A clock that is set to the end of time, and a pause on top of it.
#[test]
fn a_time_that_has_no_words_is_written_as_the_nearest_that_has() {
    for (millis, text) in [
        (i64::MAX, "9999-12-30T22:00:00.999Z"),
        (253_402_300_800_000, "9999-12-30T22:00:00.999Z"),
        (i64::MIN, "-009999-01-02T01:59:59.000Z"),
    ] {
        let time = Timestamp::from_millis(millis);
        assert_eq!(time.to_string(), text);
        let read = time.to_string().parse::<Timestamp>().unwrap();
        assert_eq!(read.to_string(), text);
    }
}

#[test]
fn causes_have_the_words_of_the_contract() {
    let words: Vec<_> = [
        Cause::StepFailed,
        Cause::StepUnknown,
        Cause::Deadline,
        Cause::Cancelled,
        Cause::Compensated,
    ]
    .iter()
    .map(|cause| serde_json::to_string(cause).unwrap())
    .collect();
    assert_eq!(
        words,
        [
            r#""step_failed""#,
            r#""step_unknown""#,
            r#""deadline""#,
            r#""cancelled""#,
            r#""compensated""#
        ]
    );
}
