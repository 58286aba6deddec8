//! One plugin that takes all it can get, and sagas that mean no harm beside it.

use std::fmt::Write as _;
use std::fs;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::carrier::Carrier;
use crate::place::{Host, Place, agent, stdout};

const SLEEP: &str = "(import \"wasi:clocks/monotonic-clock@0.2.0\" \"subscribe-duration\"
        (func $sleep (param i64) (result i32)))
    (import \"wasi:io/poll@0.2.0\" \"[method]pollable.block\" (func $block (param i32)))";

/// Answers after a second.
const SLOW: Behaviour =
    Behaviour::Text("(call $block (call $sleep (i64.const 1000000000))) (i32.const 2048)");

/// Fills 60 MiB and keeps them for a fifth of a second.
const HEAVY: Behaviour = Behaviour::Text(
    "(if (i32.eq (memory.grow (i32.const 960)) (i32.const -1)) (then unreachable))
     (memory.fill (i32.const 262144) (i32.const 1) (i32.const 62914560))
     (call $block (call $sleep (i64.const 200000000)))
     (i32.const 2048)",
);

const LIST: &str = "(import \"amends:saga/state@1.1.0\" \"list-keys\"
    (func $list (param i32 i32 i32 i32 i32 i32 i32)))";

/// Lists up to 1,000 keys 1,000 times, each time one fewer: a list that it saw before costs nothing.
const LISTS: Behaviour = Behaviour::Text(
    "(global.set $served (i32.const 0))
     (loop $on
        (global.set $free (i32.const 65536))
        (call $list (i32.const 3060) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.sub (i32.const 1000) (global.get $served)) (i32.const 9000))
        (global.set $served (i32.add (global.get $served) (i32.const 1)))
        (br_if $on (i32.lt_u (global.get $served) (i32.const 1000))))
     (i32.const 2048)",
);

/// The component with so many more core instances, each of a table: sections of its binary form
/// (Component Model, `Binary.md`), put behind the others.
fn with_tables(component: &[u8], tables: u8) -> Vec<u8> {
    let module = wat::parse_str("(module (table 1 funcref))").unwrap();
    let (mut at, mut modules) = (8, 0);
    while at < component.len() {
        let id = component[at];
        let (mut bytes, mut shift) = (0, 0);
        loop {
            at += 1;
            bytes |= usize::from(component[at] & 0x7f) << shift;
            shift += 7;
            if component[at] < 0x80 {
                break;
            }
        }
        modules += u8::from(id == 1);
        at += 1 + bytes;
    }
    let section = |id: u8, bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap();
        let length =
            [u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
        [&[id], &length[..], bytes].concat()
    };
    // Each is an instance of that module, and is given nothing.
    let instances: Vec<_> = (0..tables).flat_map(|_| [0, modules, 0]).collect();
    let instances = [&[tables], &instances[..]].concat();
    [component, &section(1, &module), &section(2, &instances)].concat()
}

/// `good`, and one that takes much: a step of the saga of its name, after a step of `good`.
fn place(name: &str, component: &[u8], config: &str) -> Place {
    let place = Place::empty();
    let good = Component { name: "good", ..Component::default() };
    fs::write(place.plugin("good"), good.build()).unwrap();
    fs::write(place.plugin(name), component).unwrap();
    let mut text = String::new();
    let _ = write!(
        text,
        "[plugin.{name}]\n{config}\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n\
         [[saga]]\nname = \"{name}\"\n[[saga.step]]\nname = \"first\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"much\"\nplugin = \"{name}\"\n\
         timeout = \"100s\"\nretry = {{ attempts = 2, backoff = [\"10ms\"] }}\n"
    );
    place.config(&text);
    place
}

/// Starts so many of a definition; each answers how it rests.
fn start(host: &Host, definition: &str, count: usize) -> Vec<JoinHandle<Value>> {
    let one = || {
        let (url, definition) = (host.url("/v1/sagas?wait=110s"), definition.to_owned());
        std::thread::spawn(move || {
            let request = serde_json::json!({"definition": definition, "input": {}});
            agent().post(&url).send_json(request).unwrap().body_mut().read_json().unwrap()
        })
    };
    (0..count).map(|_| one()).collect()
}

/// So many that mean no harm, one after the other: all complete, each with one attempt.
fn good(place: &Place, host: &Host, count: usize) {
    fs::write(place.path("good.ndjson"), "{}\n".repeat(count)).unwrap();
    let output =
        place.amends(&["start", "good", "--input", "good.ndjson", "--each", "--wait", "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", crate::place::stderr(&output));
    for id in stdout(&output).lines() {
        completed(&host.get(&format!("/v1/sagas/{id}")));
    }
}

/// It completed, and no step needed more than one attempt.
fn completed(saga: &Value) {
    assert_eq!(saga["status"], "completed", "{saga}");
    for step in saga["steps"].as_array().unwrap() {
        assert!(step["attempts"].as_u64() <= Some(1), "{saga}");
    }
}

/// Calls of it take all tables that there are.
pub(crate) fn tables() -> Vec<u8> {
    let component =
        Component { name: "tables", imports: SLEEP, execute: SLOW, ..Component::default() };
    with_tables(&component.build(), 59)
}

/// Calls of it take all memory that there is.
pub(crate) fn heavy() -> Vec<u8> {
    Component { name: "heavy", imports: SLEEP, execute: HEAVY, ..Component::default() }.build()
}

#[test]
fn tables_times_calls_leave_tables_to_others() {
    let place = place("tables", &tables(), "concurrency = 64");
    let host = place.run();
    let all = start(&host, "tables", 56);
    host.until("all of them run", || {
        host.log().iter().filter(|line| line.contains("\"step\":\"first\"")).count() >= 56
    });
    good(&place, &host, 100);
    for saga in all {
        completed(&saga.join().unwrap());
    }
    assert_eq!(host.stop(), Some(0));
}

/// 64 calls of 60 MiB in a host whose guests may have 256 MiB.
#[test]
fn memory_times_calls_waits_for_memory() {
    let place = place("heavy", &heavy(), "concurrency = 64");
    let host = place.run_with_env(&[("AMENDS_MEMORY_MAX", "256MiB")]);
    good(&place, &host, 10);
    let before = host.memory_mib();
    let all = start(&host, "heavy", 64);
    let mut most = 0;
    let mut is_told = false;
    for _ in 0..5 {
        good(&place, &host, 20);
        most = most.max(host.memory_mib());
        let waiting = host.get("/v1/sagas?status=running,waiting&definition=heavy&limit=64");
        for saga in waiting["items"].as_array().unwrap() {
            let url = format!("/v1/sagas/{}/why", saga["id"].as_str().unwrap());
            let why = host.get(&url).to_string();
            is_told |= why.contains("waits for memory: calls of plugin `heavy`");
        }
    }
    assert!(is_told, "nobody is told what the others wait for");
    for saga in all {
        completed(&saga.join().unwrap());
        most = most.max(host.memory_mib());
    }
    println!("memory {before} MiB before, {most} MiB at most");
    assert!(most < before + 256 + 150, "memory {before} to {most} MiB");
    let metrics = crate::place::text(&host.url("/metrics"));
    assert!(metrics.contains("amends_memory_bytes{budget=\"guests\"} 0"), "{metrics}");
    assert_eq!(host.stop(), Some(0));
}

/// A call of it lists 500,000 keys, of those that [`import_keys`] makes.
pub(crate) fn lists() -> Vec<u8> {
    Component { name: "lists", imports: LIST, execute: LISTS, ..Component::default() }.build()
}

pub(crate) const LISTS_CONFIG: &str = "state = true\ncpu_max = \"100s\"";

pub(crate) fn import_keys(place: &Place) {
    let rows = (0..1_000).fold(String::from("key,value\n"), |mut rows, number| {
        let _ = writeln!(rows, "{number:03},1");
        rows
    });
    fs::write(place.path("keys.csv"), rows).unwrap();
    let import = place.amends(&["state", "import", "lists", "keys.csv"]);
    assert_eq!(import.status.code(), Some(0), "{}", crate::place::stderr(&import));
}

#[test]
fn lists_times_keys_leave_the_writer_to_others() {
    let place = place("lists", &lists(), LISTS_CONFIG);
    let host = place.run();
    import_keys(&place);
    let all = start(&host, "lists", 8);
    good(&place, &host, 100);
    for saga in all {
        let saga = saga.join().unwrap();
        let reason = saga["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("reads and lists at most 10000 keys of state"), "{saga}");
    }
    assert_eq!(host.stop(), Some(0));
}

/// How many descriptors the process may have; what it has more it keeps.
fn limit_descriptors(child: &Child, most: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(most), maximum: Some(1_024) };
    prlimit(Pid::from_raw(i32::try_from(child.id()).unwrap()), Resource::Nofile, limit).unwrap();
}

/// Of the machine's, which no retry of a saga can help.
#[test]
fn a_host_without_descriptors_uses_no_attempt() {
    let carrier = Carrier::start(&[]);
    let place = crate::carrier::place(&carrier);
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let first = "[[saga.step]]\nname = \"prescription\"";
    assert!(config.contains(first), "{config}");
    let later = format!("[[saga.step]]\nname = \"later\"\nsleep = \"3s\"\n\n{first}");
    let config = config.replacen(first, &later, 1);
    fs::write(place.path("amends.toml"), config).unwrap();
    let host = place.run();
    let orders = fs::read_to_string(crate::place::example().join("orders.ndjson")).unwrap();
    // Those that complete when nothing goes wrong.
    let is_good = |line: &&str| line.contains("\"ship\":true") && !line.contains("fills_left\":0");
    let orders: Vec<_> = orders.lines().filter(is_good).collect();
    assert!(orders.len() > 20, "the example has other orders");
    fs::write(place.path("some.ndjson"), orders[..20].join("\n")).unwrap();
    let start = ["start", "order-fulfillment", "--input", "some.ndjson", "--each", "-o", "ids"];
    let started = place.amends(&start);
    assert_eq!(started.status.code(), Some(0), "{}", crate::place::stderr(&started));
    limit_descriptors(host.child(), 1);
    host.until("calls find no descriptor", || {
        let words = "the host has no file descriptors left";
        host.log().iter().filter(|line| line.contains(words)).count() >= 10
    });
    std::thread::sleep(Duration::from_secs(2));
    limit_descriptors(host.child(), 1_024);
    host.settle();
    let mut shipped = 0;
    for id in stdout(&started).lines() {
        let saga = host.get(&format!("/v1/sagas/{id}"));
        // An order may be wrong in another way.
        if !saga["reason"].as_str().is_some_and(|reason| reason.starts_with("prescription failed"))
        {
            completed(&saga);
            shipped += 1;
        }
    }
    assert!(shipped >= 10, "{shipped} of 20");
    assert_eq!(host.stop(), Some(0));
}

/// A call that waits for memory when its host stops did not happen, and nobody has to wonder.
#[test]
fn a_stop_leaves_no_call_unknown_that_did_not_begin() {
    let place = place("heavy", &heavy(), "concurrency = 64");
    let host = place.run_with_env(&[("AMENDS_MEMORY_MAX", "256MiB")]);
    fs::write(place.path("some.ndjson"), "{}\n".repeat(12)).unwrap();
    let started =
        place.amends(&["start", "heavy", "--input", "some.ndjson", "--each", "-o", "ids"]);
    assert_eq!(started.status.code(), Some(0), "{}", crate::place::stderr(&started));
    host.until("some wait", || host.log().join("\n").contains("call did not begin"));
    assert_eq!(host.stop(), Some(0));
    let host = place.run_with_env(&[("AMENDS_MEMORY_MAX", "256MiB")]);
    host.settle();
    for id in stdout(&started).lines() {
        assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "completed");
    }
    let events = host.events();
    assert!(events.iter().all(|event| event["type"] != "step.unknown"), "{events:?}");
    let not_begun = events.iter().filter(|event| event["data"]["error"]["code"] == "not_begun");
    assert!(not_begun.count() > 0, "none waited when it stopped");
    assert_eq!(host.stop(), Some(0));
}
