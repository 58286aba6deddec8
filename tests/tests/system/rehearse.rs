//! What an undo would do otherwise is told before it is swapped, and nothing is changed by that.

use std::fmt::Write as _;
use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use amends_runtime::REHEARSAL_SAGAS_MAX;
use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::carrier::{self, Carrier, TOKEN};
use crate::place::{Host, Place, agent, example, stderr, stdout, text};
use crate::swap::another_version;

const NOTHING_DIFFERS: i32 = 0;
const DIFFERS: i32 = 8;

/// The steps of one saga that a rehearsal tries at most.
const STEPS_OF_ONE_SAGA_MAX: usize = 10;

/// The sagas of one definition that have ended and that a rehearsal looks at, at most.
const ENDED_SAGAS_MAX: usize = 5_000;

/// What it printed, and exits with.
fn told(output: &Output, exit: i32) -> String {
    let all = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(exit), "{all}");
    all
}

/// Rehearses these bytes, and answers the report for people and that for programs.
fn rehearse(place: &Place, plugin: &str, bytes: &[u8], exit: i32) -> (String, Value) {
    fs::write(place.path("new.wasm"), bytes).unwrap();
    let file = format!("{plugin}=new.wasm");
    let words = told(&place.amends(&["plugin", "rehearse", &file]), exit);
    let report = told(&place.amends(&["plugin", "rehearse", &file, "--json"]), exit);
    (words, serde_json::from_str(&report).unwrap())
}

/// A component with another text in it.
fn with_text(component: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = component.to_vec();
    let places: Vec<_> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{old} is not in the component");
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

/// All that a rehearsal must leave as it is.
fn witness(place: &Place, host: &Host, carrier: &Carrier) -> Value {
    let metrics = text(&host.url("/metrics"));
    let of_calls = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let is_count = name.ends_with("_total") || name.ends_with("_count");
        is_count && !name.starts_with("amends_plugin_reload")
    };
    // Which are in no order.
    let mut metrics: Vec<_> = metrics.lines().filter(of_calls).collect();
    metrics.sort_unstable();
    assert!(metrics.len() > 8, "{metrics:?}");
    let logged = host.log().into_iter().filter(|line| line.contains("\"target\":\"plugin\""));
    json!({
        "events": host.events(),
        "state": host.get("/v1/plugins/inventory/state?limit=1000"),
        "plugins": host.get("/v1/plugins"),
        "breakers": host.get("/v1/breakers"),
        "ledger": carrier.get("/ledger"),
        "asked": carrier.get("/stats"),
        "metrics": metrics,
        "logged": logged.collect::<Vec<_>>(),
        "deployed": fs::read_dir(place.plugins()).unwrap().count(),
    })
}

#[test]
fn a_variant_of_a_reference_undo_is_told_apart_and_leaves_everything_as_it_was() {
    let carrier = Carrier::start(&[]);
    let place = carrier::place(&carrier);
    let host = place.run();
    let orders = fs::read_to_string(example().join("orders.ndjson")).unwrap();
    let few: Vec<_> = orders.lines().take(60).collect();
    fs::write(place.path("few.ndjson"), few.join("\n")).unwrap();
    let start =
        ["start", "order-fulfillment", "--input", "few.ndjson", "--each", "--wait", "-o", "ids"];
    told(&place.amends(&start), 0);
    host.settle();
    let before = witness(&place, &host, &carrier);
    assert!(before["ledger"].as_array().unwrap().len() > 30, "labels were issued");
    let shipment = fs::read(place.plugin("shipment")).unwrap();

    // Other bytes that do the same.
    let (words, report) =
        rehearse(&place, "shipment", &another_version(&shipment), NOTHING_DIFFERS);
    assert!(words.ends_with("\nnothing differs\n"), "{words}");
    assert!(words.contains("with each of the answers 200, 404, 503, no answer"), "{words}");
    let steps = report["steps"].as_u64().unwrap();
    assert!(steps > 30 && report["steps_with_requests"] == steps, "{report}");
    assert_eq!((&report["steps_found"], &report["differences"]), (&steps.into(), &json!([])));

    // Another address, whatever is answered.
    let other = with_text(&shipment, "/labels/", "/labelz/");
    let (words, report) = rehearse(&place, "shipment", &other, DIFFERS);
    let one = report["differences"][0].clone();
    assert_eq!(report["differences_total"], 1, "{report}");
    assert_eq!((&one["steps"], &one["answers"]), (&steps.into(), &json!([])), "{report}");
    let (saga, step) = (one["saga"].as_str().unwrap(), one["step"].as_str().unwrap());
    let heading =
        format!("{steps} of {steps} differ (for example {step} of {saga}):\n  request 1\n");
    assert!(words.contains(&heading), "{words}");
    assert!(words.contains(&format!("    old: DELETE {}/labels/LBL-", carrier.url())), "{words}");
    assert!(words.contains(&format!("    new: DELETE {}/labelz/LBL-", carrier.url())), "{words}");

    // Another failure, with one of the answers.
    let other = with_text(&shipment, "carrier_refused", "carrier_refuzed");
    let (words, _) = rehearse(&place, "shipment", &other, DIFFERS);
    let heading = format!("{steps} of {steps} differ with answer 404 (for example shipment of ");
    assert!(words.contains(&heading), "{words}");
    assert!(words.contains("old: failed (permanent) with carrier_refused: "), "{words}");
    assert!(words.contains("new: failed (permanent) with carrier_refuzed: "), "{words}");

    // Another header, which has the token in it.
    let other = with_text(&shipment, "authorization", "authorizatiom");
    let (words, report) = rehearse(&place, "shipment", &other, DIFFERS);
    assert!(words.contains("new: Bearer [secret carrier_token]"), "{words}");
    assert!(words.contains("request 1 header authorization\n    old: not shown ("), "{words}");
    assert!(!format!("{words}{report}").contains(TOKEN), "{words}");

    // Another key of state: it finds none of the reservations that stand.
    let release = fs::read(place.plugin("inventory-release")).unwrap();
    let other = with_text(&release, "reservation/", "reservatiom/");
    let (words, report) = rehearse(&place, "inventory-release", &other, DIFFERS);
    let completed = host.sagas().iter().filter(|saga| saga["status"] == "completed").count();
    assert_eq!(report["steps_differing"], completed, "{report}");
    assert!(report["steps"].as_u64().unwrap() > completed as u64, "others have been undone");
    assert_eq!(report["steps_with_requests"], 0, "{report}");
    assert!(words.contains("old: answered {\"released\":\"RSV-"), "{words}");
    assert!(words.contains("new: found nothing to undo"), "{words}");
    assert!(words.contains("  state reservation/RSV-"), "{words}");

    let file = "inventory-release=plugins/inventory-release.wasm";
    let words = told(&place.amends(&["plugin", "rehearse", file]), NOTHING_DIFFERS);
    assert!(words.contains("is served by this very component: nothing can differ"), "{words}");
    let after = witness(&place, &host, &carrier);
    for (what, was) in before.as_object().unwrap() {
        assert_eq!(&after[what], was, "{what}");
    }
    assert_eq!(host.stop(), Some(0));
}

/// Reads whatever was answered.
const ANY: &str = "{}";

/// Does not read `{"ok":true}`, which is what these components answer.
const LABELLED: &str = r#"{"type":"object","required":["label"],"properties":{"label":{}}}"#;

fn component(version: &str, compensate: Behaviour) -> Component<'_> {
    Component { name: "pack", version, schema: ANY, compensate, ..Component::default() }
}

/// Sagas that pack, then wait.
fn place(old: &Component<'_>, config: &str) -> Place {
    let place = Place::empty();
    fs::write(place.plugin("pack"), old.build()).unwrap();
    let sagas = "[[saga]]\nname = \"order\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
                 [[saga.step]]\nname = \"wait\"\nwait = { signal = \"go\" }\n";
    place.config(&format!("{config}{sagas}"));
    place
}

fn start(place: &Place, host: &Host, sagas: usize) {
    fs::write(place.path("sagas.ndjson"), "{}\n".repeat(sagas)).unwrap();
    told(&place.amends(&["start", "order", "--input", "sagas.ndjson", "--each"]), 0);
    host.until("they wait", || {
        let page = host.get("/v1/sagas?status=waiting&limit=1000");
        page["items"].as_array().unwrap().len() == sagas
    });
}

#[test]
fn sagas_in_flight_go_first_and_what_cannot_be_read_is_a_difference() {
    let place = place(&component("1.0.0", Behaviour::Done), "");
    let host = place.run();
    let old = host.get("/v1/plugins/pack")["digest"].as_str().unwrap().to_owned();
    let empty = component("1.1.0", Behaviour::Done).build();
    let (words, report) = rehearse(&place, "pack", &empty, NOTHING_DIFFERS);
    assert!(words.contains("nothing is recorded to rehearse on"), "{words}");
    assert_eq!((&report["steps"], &report["sagas"]), (&0.into(), &0.into()));

    start(&place, &host, 3);
    let events = host.events();
    let (words, report) =
        rehearse(&place, "pack", &component("1.1.0", Behaviour::Permanent).build(), DIFFERS);
    assert!(words.contains("3 steps of 3 sagas rehearsed, 3 of the sagas in flight"), "{words}");
    assert!(words.contains("3 of 3 differ (for example pack of "), "{words}");
    assert!(words.contains("old: answered null\n"), "{words}");
    let new = "new: failed (permanent) with no: it is not possible\n";
    assert!(words.contains(new), "{words}");
    assert_eq!(report["sagas_in_flight"], 3);
    fs::write(place.path("pack.wasm"), component("1.1.0", Behaviour::Trap).build()).unwrap();
    let ids = told(&place.amends(&["plugin", "rehearse", "pack.wasm", "-o", "ids"]), DIFFERS);
    assert_eq!(ids.trim().len(), 36, "an example: {ids}");
    let two = ["plugin", "rehearse", "pack.wasm", "--sagas", "2", "--json"];
    let two: Value = serde_json::from_str(&told(&place.amends(&two), DIFFERS)).unwrap();
    assert_eq!(two["steps"], 2);

    let labelled = Component { schema: LABELLED, ..component("2.0.0", Behaviour::Permanent) };
    let (words, _) = rehearse(&place, "pack", &labelled.build(), DIFFERS);
    assert!(words.contains("recorded output\n    old: it is undone by sha256:"), "{words}");
    let pinned = format!("its undo stays pinned to {old}");
    assert!(words.contains(&pinned) && words.contains("\"label\" is a required"), "{words}");
    assert_eq!(host.events(), events);
    let metrics = text(&host.url("/metrics"));
    assert!(!metrics.contains("amends_plugin_traps_total"), "a rehearsal is not counted");

    // Steps that are pinned already are undone as they are now, whatever serves.
    fs::write(place.path("labelled.wasm"), labelled.build()).unwrap();
    let deploy = [
        "plugin",
        "deploy",
        "pack=labelled.wasm",
        "--force",
        "--reason",
        "a test of what is pinned",
    ];
    told(&place.amends(&deploy), 0);
    let other = Component { version: "2.0.1", ..labelled };
    rehearse(&place, "pack", &other.build(), NOTHING_DIFFERS);
    let (words, _) = rehearse(&place, "pack", &empty, NOTHING_DIFFERS);
    assert!(words.contains("against 2.0.0"), "{words}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_cannot_be_rehearsed_is_refused_with_what_would_be_right() {
    let place = place(&component("1.0.0", Behaviour::Done), "");
    fs::write(place.plugin("broken"), "no component").unwrap();
    let only = Component { world: "step-only", name: "only", ..Component::default() };
    fs::write(place.plugin("only"), only.build()).unwrap();
    let host = place.run();
    // Nobody waits for what no definition needs.
    host.until("one is refused", || host.log().iter().any(|line| line.contains("is refused")));
    let listed = || told(&place.amends(&["plugin", "list", "-o", "ids"]), 0);
    host.until("the other is active", || listed().contains("only"));
    let refused = |plugin: &str, bytes: &[u8], exit: i32| {
        fs::write(place.path("new.wasm"), bytes).unwrap();
        told(&place.amends(&["plugin", "rehearse", &format!("{plugin}=new.wasm")]), exit)
    };
    let good = component("1.1.0", Behaviour::Done).build();
    assert!(refused("nobody", &good, 4).contains("there is no plugin `nobody`"));
    let words = refused("broken", &good, 1);
    assert!(words.contains("no component serves plugin `broken` now"), "{words}");
    assert!(words.contains("help: deploy it: amends plugin deploy"), "{words}");
    assert!(refused("pack", b"no component", 1).contains("plugin pack: it is not WebAssembly"));
    let none = Component { version: "1.1.0", ..only }.build();
    assert!(refused("only", &none, 1).contains("the component exports no undo"));
    assert!(refused("pack", &none, 1).contains("undo"), "a definition wants one");
    let rejections = host.get("/v1/plugins/pack")["rejections"].clone();
    assert_eq!(rejections, json!([]), "a rehearsal is not kept");

    let many = (REHEARSAL_SAGAS_MAX + 1).to_string();
    for sagas in ["0", &many, "x"] {
        let rehearse = ["plugin", "rehearse", "pack=new.wasm", "--sagas", sagas];
        assert!(told(&place.amends(&rehearse), 2).contains("--sagas"));
    }
    let post = |query: &str, parts: &[&str]| {
        let mut body = String::new();
        for part in parts {
            let _ = write!(
                body,
                "--x\r\ncontent-disposition: form-data; name=\"{part}\"\r\n\r\nbytes\r\n"
            );
        }
        let request = agent().post(host.url(&format!("/v1/plugins:rehearse{query}")));
        let request = request.header("content-type", "multipart/form-data; boundary=x");
        let request = request.header("amends-request", "1");
        let mut response = request.send(format!("{body}--x--\r\n")).unwrap();
        let problem: Value = response.body_mut().read_json().unwrap();
        let (code, detail) = (problem["code"].as_str(), problem["detail"].as_str());
        format!("{} {}: {}", response.status().as_u16(), code.unwrap(), detail.unwrap())
    };
    let words = post(&format!("?sagas={many}"), &["pack"]);
    assert_eq!(words, format!("400 bad_query: sagas = {many}, it is from 1 to 1000"));
    assert!(post("", &["pack", "only"]).starts_with("400 bad_form: there are several"));
    assert!(post("", &[]).starts_with("400 bad_form"));
    assert!(post("", &["pack"]).starts_with("409 component_refused"));
    assert_eq!(host.stop(), Some(0));
}

/// A receipt that is eight letters, others each time.
const RANDOM: &str = "
    (call $random (i64.const 8) (i32.const 9000))
    (i64.store (i32.const 12001) (i64.add (i64.const 0x6161616161616161)
        (i64.and (i64.const 0x0f0f0f0f0f0f0f0f) (i64.load (i32.load (i32.const 9000))))))
    (i32.store8 (i32.const 12000) (i32.const 34))
    (i32.store8 (i32.const 12009) (i32.const 34))
    (i32.store8 offset=12 (i32.const 2112) (i32.const 1))
    (i32.store offset=16 (i32.const 2112) (i32.const 12000))
    (i32.store offset=20 (i32.const 2112) (i32.const 10))";

const IMPORT_RANDOM: &str = "(import \"wasi:random/random@0.2.0\" \"get-random-bytes\"
    (func $random (param i64 i32)))";

#[test]
fn what_the_old_one_does_not_do_the_same_twice_is_left_out() {
    let text: &'static str = format!("{RANDOM} (i32.const 2112)").leak();
    let random =
        |version| Component { imports: IMPORT_RANDOM, ..component(version, Behaviour::Text(text)) };
    let place = place(&random("1.0.0"), "");
    let host = place.run();
    start(&place, &host, 5);
    let (words, report) = rehearse(&place, "pack", &random("1.1.0").build(), NOTHING_DIFFERS);
    assert!(
        words.contains("does not do it the same twice:\n  outcome receipt (5 steps)"),
        "{words}"
    );
    assert_eq!(report["left_out"], json!([{"what": "outcome receipt", "steps": 5}]));
    let other = component("1.2.0", Behaviour::Retryable);
    let (words, _) = rehearse(&place, "pack", &other.build(), DIFFERS);
    assert!(words.contains("new: failed (retryable) with no: it is not possible"), "{words}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_host_does_one_rehearsal_at_a_time_and_ends_it_with_its_client() {
    let place = place(&component("1.0.0", Behaviour::Done), "[plugin.pack]\ncpu_max = \"25s\"\n");
    let host = place.run();
    start(&place, &host, 1);
    fs::write(place.path("endless.wasm"), component("1.1.0", Behaviour::Spin).build()).unwrap();
    fs::write(place.path("pack.wasm"), component("1.1.1", Behaviour::Done).build()).unwrap();
    let spawn = || {
        let mut command = place.command(&["plugin", "rehearse", "pack=endless.wasm"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut endless = spawn();
    let rehearse = || place.amends(&["plugin", "rehearse", "pack.wasm"]);
    host.until("another is refused", || {
        // Perhaps it was the one that was refused.
        if endless.try_wait().unwrap().is_some() {
            endless = spawn();
        }
        std::thread::sleep(Duration::from_millis(200));
        let output = rehearse();
        if output.status.success() {
            return false;
        }
        assert!(told(&output, 1).contains("another rehearsal is running"));
        true
    });
    // Sagas go on meanwhile.
    told(&place.amends(&["cancel", "--status", "waiting", "--reason", "a test"]), 0);
    host.settle();
    assert_eq!(endless.try_wait().unwrap(), None, "it has ended");
    let killed_at = Instant::now();
    endless.kill().unwrap();
    endless.wait().unwrap();
    host.until("it has ended", || rehearse().status.success());
    assert!(killed_at.elapsed() < Duration::from_secs(20), "it went on: {:?}", killed_at.elapsed());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn of_lists_and_of_sagas_that_have_ended_the_first_are_taken() {
    let place = Place::empty();
    for name in ["pack", "rare"] {
        let component = Component { name, ..component("1.0.0", Behaviour::Done) };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    place.config(
        "[[saga]]\nname = \"list\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
         each = \"input\"\ninput = \"item\"\n\
         [[saga]]\nname = \"rare\"\n[[saga.step]]\nname = \"rare\"\nplugin = \"rare\"\n\
         when = \"input\"\n",
    );
    let host = place.run();
    let elements: Vec<_> = (0..STEPS_OF_ONE_SAGA_MAX + 2).collect();
    let list = serde_json::to_string(&elements).unwrap();
    told(&place.amends(&["start", "list", "--input", &list, "--wait", "-o", "ids"]), 0);
    let other = component("1.1.0", Behaviour::Permanent).build();
    let (_, report) = rehearse(&place, "pack", &other, DIFFERS);
    assert_eq!((&report["steps"], &report["sagas"]), (&STEPS_OF_ONE_SAGA_MAX.into(), &1.into()));
    assert_eq!(report["differences"][0]["step"], "pack[0]");

    told(&place.amends(&["start", "rare", "--input", "true", "--wait", "-o", "ids"]), 0);
    let skip = |sagas: usize| {
        fs::write(place.path("sagas.ndjson"), "false\n".repeat(sagas)).unwrap();
        told(&place.amends(&["start", "rare", "--input", "sagas.ndjson", "--each", "--wait"]), 0);
    };
    skip(ENDED_SAGAS_MAX - 1);
    let (_, report) = rehearse(&place, "rare", &other, DIFFERS);
    assert_eq!((&report["steps"], &report["sagas_in_flight"]), (&1.into(), &0.into()));
    skip(500);
    let (words, _) = rehearse(&place, "rare", &other, NOTHING_DIFFERS);
    assert!(words.contains("nothing is recorded to rehearse on"), "{words}");
    assert_eq!(host.stop(), Some(0));
}
