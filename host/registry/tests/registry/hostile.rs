//! Components that mean harm, or are broken: each call ends with an outcome that a person can
//! read, and the next call is served.

use std::time::{Duration, Instant};

use amends_engine::{Direction, Failure, Outcome};
use amends_sandbox::PluginCall;
use amends_tests::{Behaviour, Component};

use crate::host::{self, Host, Place, test};

async fn open(behaviour: Behaviour) -> (Place, Host) {
    open_with(behaviour, |_| ()).await
}

async fn open_with(
    behaviour: Behaviour,
    change: impl FnOnce(&mut amends_sandbox::PluginSettings),
) -> (Place, Host) {
    let mut place = Place::new();
    change(&mut place.settings);
    let component = Component { execute: behaviour, compensate: behaviour, ..Component::default() };
    place.write("test", &component.build());
    let host = place.open().await;
    (place, host)
}

/// The failure of a call whose effect may stand.
fn unknown(outcome: Outcome) -> Failure {
    let Outcome::Unknown(failure) = outcome else { panic!("not unknown: {outcome:?}") };
    failure
}

async fn refused(behaviour: Behaviour, code: &str, words: &str) {
    let (place, host) = open(behaviour).await;
    for direction in [Direction::Execute, Direction::Compensate] {
        let failure = unknown(host.plugins.call(&host.call(direction)).await.outcome);
        assert_eq!(failure.code, code, "{direction:?}: {}", failure.message);
        assert!(failure.message.contains(words), "{direction:?}: {}", failure.message);
        assert!(!failure.message.contains('\n'), "{}", failure.message);
    }
    // The same host serves others on.
    place.write("good", &Component { name: "good", ..Component::default() }.build());
    let good = "good".parse().unwrap();
    host::soon("the good one is active", || host.plugins.active(&good).is_some()).await;
    let digest = host.plugins.active(&good).unwrap().digest;
    let call = PluginCall { plugin: good, digest, ..host.call(Direction::Execute) };
    assert!(matches!(host.plugins.call(&call).await.outcome, Outcome::Succeeded(_)));
    host.close().await;
}

#[tokio::test]
async fn a_trap_is_unknown() {
    refused(Behaviour::Trap, "trap", "it panicked or aborted").await;
}

/// As a language's runtime reports an exception before it ends the process: what it writes to standard
/// error, in two parts, and a line of standard output that never ends.
const THROWS: &str = r#"
    (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (data (i32.const 8192) "Traceback (most recent call last):\n  File \22plugin.py\22, line 7\n")
    (data (i32.const 8300) "KeyError: 's-123456'\nthread '<unnamed>' panicked")"#;

#[tokio::test]
async fn what_was_thrown_stands_in_the_failure_without_secrets() {
    let mut place = Place::new();
    let secret = amends_sandbox::Secret::new("s-123456".to_owned());
    place.settings.secrets = [("key".to_owned(), secret)].into();
    let execute = Behaviour::Text(
        "(global.set $free (call $stderr))
         (call $write (global.get $free) (i32.const 8192) (i32.const 62) (i32.const 9000))
         (call $write (global.get $free) (i32.const 8300) (i32.const 48) (i32.const 9000))
         unreachable",
    );
    let component = Component { execute, imports: THROWS, ..Component::default() };
    place.write("test", &component.build());
    let host = place.open().await;
    let failure = unknown(host.plugins.call(&host.call(Direction::Execute)).await.outcome);
    assert_eq!(failure.code, "trap");
    let words = "the component was stopped: it panicked or aborted (unreachable code reached): \
                 KeyError: '[secret key]'";
    assert_eq!(failure.message, words);
    let details: serde_json::Value =
        serde_json::from_str(failure.details.unwrap().as_str()).unwrap();
    let said = [
        "Traceback (most recent call last):",
        "  File \"plugin.py\", line 7",
        "KeyError: '[secret key]'",
        "thread '<unnamed>' panicked",
    ];
    assert_eq!(details["said"], serde_json::json!(said));
    // The next call begins with nothing said.
    let failure = unknown(host.plugins.call(&host.call(Direction::Execute)).await.outcome);
    let details: serde_json::Value =
        serde_json::from_str(failure.details.unwrap().as_str()).unwrap();
    assert_eq!(details["said"].as_array().unwrap().len(), said.len());
    host.close().await;
}

/// A line of standard error that says nothing of what stops the call.
const PRINTS: &str = r#"
    (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (data (i32.const 8192) "connected to carrier\n")"#;

#[tokio::test]
async fn what_was_printed_before_is_not_told_as_what_was_thrown() {
    for (execute, words) in [
        (
            "(call $write (call $stderr) (i32.const 8192) (i32.const 21) (i32.const 9000))
             unreachable",
            "it panicked or aborted",
        ),
        (
            "(call $write (call $stderr) (i32.const 8192) (i32.const 21) (i32.const 9000))
             (i32.load (i32.const -8))",
            "it reached beyond its memory",
        ),
    ] {
        let place = Place::new();
        let execute = Behaviour::Text(execute);
        let component = Component { execute, imports: PRINTS, ..Component::default() };
        place.write("test", &component.build());
        let host = place.open().await;
        let failure = unknown(host.plugins.call(&host.call(Direction::Execute)).await.outcome);
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(!failure.message.contains("connected"), "{}", failure.message);
        let details = failure.details.unwrap().to_value().unwrap();
        assert_eq!(details["said"], serde_json::json!(["connected to carrier"]));
        host.close().await;
    }
}

#[tokio::test]
async fn an_output_beside_its_schema_is_unknown_and_nothing_of_the_call_is_kept() {
    let place = Place::new();
    // The input fits, and the answer of `execute`, `{"ok":true}`, does not.
    let schema = r#"{"type":"object","required":["total"]}"#;
    place.write("test", &Component { schema, ..Component::default() }.build());
    let host = place.open().await;
    let input = amends_engine::Payload::parse(r#"{"total":1}"#).unwrap();
    let call = PluginCall { input, ..host.call(Direction::Execute) };
    let answer = host.plugins.call(&call).await;
    let failure = unknown(answer.outcome);
    assert_eq!(failure.code, "invalid_output");
    let words = "the output does not fit the schema of test: the whole: \"total\" is a required \
                 property";
    assert_eq!(failure.message, words);
    assert_eq!(answer.effects, amends_sandbox::Effects::default());
    // Of a receipt the schema says nothing.
    let undo = PluginCall { direction: Direction::Compensate, ..call };
    assert!(matches!(host.plugins.call(&undo).await.outcome, Outcome::Succeeded(_)));
    host.close().await;
}

#[tokio::test]
async fn recursion_without_end_is_a_stack_overflow() {
    refused(Behaviour::Recurse, "trap", "it called itself too deep").await;
}

#[tokio::test]
async fn four_gigabytes_are_refused() {
    refused(Behaviour::Allocate, "memory_limit", "and may have 64 MiB; raise memory_max").await;
}

/// A component that also has `count` core instances of a module of its own.
fn with_instances(module: &str, count: u8) -> Vec<u8> {
    let mut component = Component::default().build();
    let modules = wasmparser::Parser::new(0).parse_all(&component);
    let is_module = |payload: &wasmparser::Payload<'_>| {
        matches!(payload, wasmparser::Payload::ModuleSection { .. })
    };
    let index = modules.filter(|payload| payload.as_ref().is_ok_and(is_module)).count();
    let index = u8::try_from(index).unwrap();
    let module = wat::parse_str(module).unwrap();
    // Sections of the component model's binary format: a module, then its instances.
    component.extend([1, u8::try_from(module.len()).expect("one byte of LEB128")]);
    component.extend(module);
    component.extend([2, 1 + 3 * count, count]);
    component.extend([0, index, 0].repeat(usize::from(count)));
    component
}

/// What few instances have is served; what many have together is refused when they are made.
async fn refused_together(module: &str, few: u8, many: u8, words: &str) {
    let place = Place::new();
    let host = place.open().await;
    place.write("test", &with_instances(module, many));
    host::soon("it is refused", || {
        host.plugins.info(&test()).is_some_and(|info| !info.rejections.is_empty())
            || host.version().is_some()
    })
    .await;
    assert_eq!(host.version(), None, "{many} are served");
    let reason = host.info().rejections.swap_remove(0).reason;
    assert!(reason.contains(words), "{reason}");
    place.write("test", &with_instances(module, few));
    host::soon("it is served", || host.version().is_some()).await;
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    host.close().await;
}

#[tokio::test]
async fn memory_is_limited_over_all_memories() {
    // 24 MiB each, of 64 MiB.
    refused_together("(module (memory 384))", 2, 3, "exceeds memory limits").await;
}

#[tokio::test]
async fn elements_are_limited_over_all_tables() {
    // Of 100,000; the sandbox gives 20,000 to one table.
    refused_together("(module (table 20000 funcref))", 4, 6, "exceeds table limits").await;
}

#[tokio::test]
async fn an_answer_outside_of_the_memory_is_unknown() {
    let (_place, host) = open(Behaviour::OutOfBounds).await;
    let failure = unknown(host.execute().await);
    assert_eq!(failure.code, "trap");
    assert!(failure.message.contains("out of bounds"), "{}", failure.message);
    host.close().await;
}

#[tokio::test]
async fn an_answer_of_100_mib_is_refused_before_it_is_copied() {
    let (_place, host) =
        open_with(Behaviour::Huge, |settings| settings.memory_bytes_max = 256 << 20).await;
    let failure = unknown(host.execute().await);
    assert_eq!(failure.code, "output_limit", "{}", failure.message);
    assert!(failure.message.contains("make it answer less"), "{}", failure.message);
    host.close().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_is_unknown() {
    let (_place, host) = open(Behaviour::NotJson).await;
    let failure = unknown(host.execute().await);
    assert_eq!(failure.code, "invalid_output");
    assert!(failure.message.contains("cannot be recorded: not JSON"), "{}", failure.message);
    host.close().await;
    let (_place, host) = open(Behaviour::NotUtf8).await;
    let failure = unknown(host.execute().await);
    assert!(failure.message.contains("utf-8"), "{}", failure.message);
    host.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_loop_without_end_stops_at_its_timeout_and_holds_up_nobody() {
    let (place, host) = open(Behaviour::Spin).await;
    place.write("good", &Component { name: "good", ..Component::default() }.build());
    let good = "good".parse().unwrap();
    host::soon("the good one is active", || host.plugins.active(&good).is_some()).await;
    let timeout = Duration::from_millis(500);
    let spinning = PluginCall { timeout, ..host.call(Direction::Execute) };
    let spinning = host.plugins.call(&spinning);
    let others = async {
        // On the one thread that there is, while the other computes.
        let digest = host.plugins.active(&good).unwrap().digest;
        for _ in 0..10 {
            let call = PluginCall { plugin: good.clone(), digest, ..host.call(Direction::Execute) };
            assert!(matches!(host.plugins.call(&call).await.outcome, Outcome::Succeeded(_)));
        }
        Instant::now()
    };
    let (outcome, others_done) = tokio::join!(async { (spinning.await, Instant::now()) }, others);
    let (outcome, spinning_done) = outcome;
    let failure = unknown(outcome.outcome);
    assert_eq!(failure.code, "timeout");
    assert!(failure.message.contains("did not answer within its timeout of 500ms"));
    assert!(others_done < spinning_done, "the loop held the others up");
    host.close().await;
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_ends() {
    let (_place, host) = open(Behaviour::Spin).await;
    let call = PluginCall { timeout: Duration::from_mins(10), ..host.call(Direction::Execute) };
    let dropped = host.plugins.call(&call);
    assert!(tokio::time::timeout(Duration::from_millis(50), dropped).await.is_err());
    // Nothing of it is left: the next one begins, and meets its own timeout.
    let next = PluginCall { timeout: Duration::from_millis(50), ..call };
    let next = tokio::time::timeout(host::SOON, host.plugins.call(&next)).await.unwrap();
    assert_eq!(unknown(next.outcome).code, "timeout");
    host.close().await;
}

#[tokio::test]
async fn logs_are_cut_and_the_call_goes_on() {
    for behaviour in [Behaviour::Chatty, Behaviour::LongLine] {
        let (_place, host) = open(behaviour).await;
        assert!(matches!(host.execute().await, Outcome::Succeeded(_)), "{behaviour:?}");
        host.close().await;
    }
}

#[tokio::test]
async fn failures_are_told_as_the_guest_says() {
    let (_place, host) = open(Behaviour::Permanent).await;
    let expected = Failure::new("no", "it is not possible");
    assert_eq!(host.execute().await, Outcome::Permanent(expected));
    host.close().await;
}

#[tokio::test]
async fn an_input_that_does_not_fit_the_schema_never_reaches_the_guest() {
    let place = Place::new();
    let schema = r#"{"type":"object","required":["drug"]}"#;
    // It would trap.
    let component = Component { execute: Behaviour::Trap, schema, ..Component::default() };
    place.write("test", &component.build());
    let host = place.open().await;
    let Outcome::Permanent(failure) = host.execute().await else { panic!("it was called") };
    assert_eq!(failure.code, "invalid_input");
    assert!(failure.message.contains("\"drug\" is a required property"), "{}", failure.message);
    host.close().await;
}

/// What is refused when it is loaded, and the words of the reason.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Component::default().build();
    let text = |text: &str| wat::parse_str(text).unwrap();
    let named = |text: String| wat::parse_str(text).unwrap();
    let bare = Component { describe: Some("unreachable"), ..Component::default() }.build();
    let schema = Component { schema: "{", ..Component::default() }.build();
    let not_a_schema = Component { schema: r#"{"type":7}"#, ..Component::default() }.build();
    // Its validator would recurse over 200 schemas.
    let chain: serde_json::Map<String, serde_json::Value> = (0..200)
        .map(|n| (n.to_string(), serde_json::json!({"$ref": format!("#/$defs/{}", (n + 1) % 200)})))
        .collect();
    let chain = serde_json::json!({"$defs": chain, "$ref": "#/$defs/0"}).to_string();
    let chain = Component { schema: &chain, ..Component::default() }.build();
    let nameless = Component { name: "", ..Component::default() }.build();
    vec![
        ("a text file", b"fn main() {}".to_vec(), "it is not WebAssembly: it does not begin with"),
        ("nothing", Vec::new(), "it is incomplete"),
        ("a truncated file", good[..good.len() / 2].to_vec(), "it is incomplete"),
        (
            "noise inside",
            [&good[..good.len() / 2], &[0xff; 200]].concat(),
            "it is not valid WebAssembly",
        ),
        ("a bare module", text("(module)"), "it is a core module, and a host takes components"),
        (
            "what a compiler leaves",
            Component::default().core_module(),
            "it is a core module, and a host takes components; build it with `amends plugin build`",
        ),
        ("no exports", text("(component)"), "it does not export amends:saga/manifest"),
        (
            "keyvalue",
            text(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#),
            "it imports wasi:keyvalue/store@0.2.0, which is not granted",
        ),
        (
            "state",
            Component { needs: &["state"], ..Component::default() }.build(),
            "it imports amends:saga/state, which is not granted; grant it by state = true",
        ),
        (
            "something else",
            text(r#"(component (import "env:lib/thing" (instance)))"#),
            "it imports env:lib/thing, which is not granted",
        ),
        (
            "a later major version",
            text(r#"(component (import "amends:saga/log@2.0.0" (instance)))"#),
            "it was built for amends:saga@2.0.0, this host has amends:saga@1.1.0",
        ),
        (
            "a later minor version",
            text(r#"(component (import "amends:saga/log@1.2.0" (instance)))"#),
            "it was built for amends:saga@1.2.0",
        ),
        ("a manifest that traps", bare, "its manifest is not usable: describe failed"),
        ("a schema that is not JSON", schema, "the input schema is not JSON"),
        ("a schema that is none", not_a_schema, "the input schema is not a JSON Schema"),
        ("a schema of a long chain", chain, "by more than 16 schemas within one another"),
        ("no name", nameless, "it has no name or no version"),
        (
            "too many bytes",
            vec![0; amends_sandbox::COMPONENT_BYTES_MAX + 1],
            "at most 67108864 are allowed",
        ),
        (
            "a hundred instances",
            named(format!(
                "(component (core module $m) {})",
                "(core instance (instantiate $m))".repeat(100)
            )),
            "it does not export amends:saga/manifest",
        ),
    ]
}

#[tokio::test]
async fn each_broken_file_is_refused_with_its_reason_while_the_old_one_serves() {
    let place = Place::new();
    let good = Component::default().build();
    place.write("test", &good);
    let host = place.open().await;
    for (what, bytes, words) in broken() {
        place.write("test", &bytes);
        let is_read = bytes.len() <= amends_sandbox::COMPONENT_BYTES_MAX;
        let expected = is_read.then(|| host::digest(&bytes));
        host::soon(what, || {
            host.info().rejections.first().is_some_and(|one| one.digest == expected)
        })
        .await;
        let reason = host.info().rejections.swap_remove(0).reason;
        assert!(reason.contains(words), "{what}: {reason}");
        assert!(reason.contains("; "), "{what} names no remedy: {reason}");
        assert_eq!(host.info().digest, Some(host::digest(&good)), "{what}");
        assert!(matches!(host.execute().await, Outcome::Succeeded(_)), "{what}");
    }
    let rejected = host.events().await;
    let rejected: Vec<_> = rejected.iter().filter(|(kind, _)| kind == "plugin.rejected").collect();
    assert_eq!(rejected.len(), broken().len());
    assert_eq!(rejected[0].1["serving"], host::digest(&good).to_string());
    host.close().await;
}

#[tokio::test]
async fn a_component_without_what_definitions_call_is_refused() {
    let mut place = Place::new();
    place.settings.required.execute = true;
    place.write("test", &Component::default().build());
    let host = place.open().await;
    let less = Component { world: "undo-only", version: "2.0.0", ..Component::default() };
    place.write("test", &less.build());
    host::soon("it is refused", || !host.info().rejections.is_empty()).await;
    let reason = host.info().rejections.swap_remove(0).reason;
    assert!(reason.contains("it does not export amends:saga/action; a definition calls it"));
    assert_eq!(host.version().as_deref(), Some("1.2.3"));
    host.close().await;
}

#[tokio::test]
async fn settings_and_secrets_do_not_show_in_what_is_printed() {
    let secret = amends_sandbox::Secret::new("hunter2".to_owned());
    let mut place = Place::new();
    place.settings.secrets.insert("key".to_owned(), secret);
    assert!(!format!("{:?}", place.settings).contains("hunter2"));
    place.write("test", &Component::default().build());
    let host = place.open().await;
    assert_eq!(host.info().name, test());
    host.close().await;
}
