//! What plugins keep, as operators see and change it: over HTTP and on the command line.

use std::fs;
use std::ops::Range;
use std::process::Output;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::cli::fed;
use crate::place::{Host, Place, agent, stderr, stdout};

/// `stock` keeps state, of 10 MiB; `other` keeps none.
fn place() -> Place {
    let place = Place::empty();
    for name in ["stock", "other"] {
        let component = Component { name, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    place.config(
        "[plugin.stock]\nstate = true\nstate_max = \"10MiB\"\n\
         [[saga]]\nname = \"order\"\n\
         [[saga.step]]\nname = \"stock\"\nplugin = \"stock\"\n\
         [[saga.step]]\nname = \"other\"\nplugin = \"other\"\n",
    );
    place
}

/// What it printed; it is done.
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

/// What it is refused with; nothing is printed.
fn refused(output: &Output, exit: i32) -> String {
    assert_eq!(output.status.code(), Some(exit), "{}", stderr(output));
    assert_eq!(stdout(output), "");
    stderr(output)
}

fn ask(host: &Host, method: &str, path: &str, body: &str) -> (u16, Value) {
    let is_import = path.contains("state:import");
    let kind = if is_import { "application/x-ndjson" } else { "application/json" };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(host.url(path))
        .header("content-type", kind)
        .header("amends-user", "grace");
    let mut response = agent().run(request.body(body.to_owned()).unwrap()).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// What there is of each of these numbers, one after the other.
fn text(numbers: Range<usize>, of_one: impl Fn(usize) -> String) -> String {
    numbers.map(of_one).collect()
}

/// The operators' events of a plugin.
fn operators(host: &Host) -> Vec<Value> {
    let mut events = host.events();
    events.retain(|event| event["type"].as_str().unwrap().starts_with("operator."));
    events
}

#[test]
fn a_value_is_set_and_stays_until_it_is_removed() {
    let place = place();
    let host = place.run();
    let state = |arguments: &[&str]| place.amends(&[&["state"], arguments].concat());
    let key = "stock/north/metformin 500 %";
    assert_eq!(done(&state(&["set", "stock", key, "40"])), format!("{key} of stock is set\n"));
    done(&state(&["set", "stock", "text", "40", "--text"]));
    done(&state(&["set", "stock", "below", "-1.50"]));
    done(&state(&["set", "stock", "object", "{\"b\":\n [1, null]}"]));
    assert_eq!(done(&state(&["get", "stock", key])), "40\n");
    assert_eq!(done(&state(&["get", "stock", "text"])), "\"40\"\n");
    assert_eq!(done(&state(&["get", "stock", "below"])), "-1.50\n", "every digit of it");
    let listed = done(&state(&["list", "stock", "-o", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[1], json!({"key": "object", "value": {"b": [1, null]}}));
    done(&state(&["set", "stock", "text", "--remove"]));
    let told = refused(&state(&["get", "stock", "text"]), 4);
    assert!(told.contains("plugin `stock` keeps nothing under `text`"), "{told}");

    assert_eq!(host.stop(), Some(0));
    let host = place.run();
    let keys = done(&state(&["list", "stock", "-o", "ids"]));
    assert_eq!(keys, format!("below\nobject\n{key}\n"));
    let table = done(&state(&["list", "stock", "stock/"]));
    assert!(table.starts_with("KEY") && table.contains("%  40\n"), "{table}");
    let events = operators(&host);
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event["plugin"] == "stock"), "{events:?}");
    assert!(events.iter().all(|event| event["type"] == "operator.state_set"), "{events:?}");
    let (first, last) = (&events[0]["data"], &events[4]["data"]);
    assert_eq!(first, &json!({"who": "ada@127.0.0.1", "key": key, "value": 40}));
    assert_eq!(last, &json!({"who": "ada@127.0.0.1", "key": "text", "removed": true}));
}

#[test]
fn what_cannot_be_is_refused_with_what_would_be_right() {
    let place = place();
    let host = place.run();
    let state = |arguments: &[&str]| place.amends(&[&["state"], arguments].concat());
    let told = refused(&state(&["set", "other", "a", "1"]), 1);
    assert!(told.contains("state = true in [plugin.other]"), "{told}");
    for verb in [&["get", "other", "a"][..], &["list", "other"]] {
        assert!(refused(&state(verb), 1).contains("state = true in [plugin.other]"));
    }
    assert!(refused(&state(&["list", "third"]), 4).contains("no plugin `third`"));
    assert!(refused(&state(&["set", "stock", "a", "north"]), 1).contains("--text"));
    assert!(refused(&state(&["set", "stock", "", "1"]), 1).contains("is not a key"));
    for usage in [&["set", "stock", "a"][..], &["set", "stock", "a", "1", "--remove"]] {
        refused(&state(usage), 2);
    }

    let code = |method, path, body| {
        let (status, answer) = ask(&host, method, path, body);
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    };
    let long = format!("/v1/plugins/stock/state/{}", "x".repeat(257));
    let large = |kib: usize| json!("x".repeat(kib << 10)).to_string();
    let a = "/v1/plugins/stock/state/a";
    for (method, path, body, expected) in [
        ("PUT", "/v1/plugins/other/state/a", "1", (409, "no_state")),
        ("PUT", "/v1/plugins/third/state/a", "1", (404, "no_plugin")),
        ("GET", "/v1/plugins/NO/state/a", "", (400, "bad_name")),
        ("GET", a, "", (404, "no_key")),
        ("GET", &long, "", (400, "bad_state")),
        ("PUT", "/v1/plugins/stock/state/a%07", "1", (400, "bad_state")),
        ("PUT", a, "north", (400, "bad_request")),
        ("PUT", a, &large(257), (400, "bad_state")),
        ("DELETE", a, "", (204, "")),
        ("PUT", a, &large(250), (204, "")),
        ("GET", "/v1/plugins/stock/state?limit=0", "", (400, "bad_query")),
        ("GET", "/v1/plugins/stock/state?first=a", "", (400, "bad_query")),
    ] {
        let found = code(method, path, body);
        assert_eq!((found.0, found.1.as_str()), expected, "{method} {path:.60}");
    }
    let (_, answer) = ask(&host, "GET", "/v1/plugins/stock/state/a", "");
    assert_eq!(answer["key"], "a");
    assert_eq!(operators(&host)[0]["data"]["who"], "grace@127.0.0.1");
}

#[test]
fn a_list_goes_on_from_page_to_page() {
    let place = place();
    let host = place.run();
    let rows = text(0..2_500, |number| format!("{number:04},{number}\n"));
    fs::write(place.path("stock.csv"), format!("sku,value\n{rows}")).unwrap();
    let import = ["state", "import", "stock", "stock.csv", "--key", "stock/{sku}"];
    assert_eq!(done(&place.amends(&import)), "2500 keys of stock written\n");
    for other in ["stock", "stock0", "t"] {
        done(&place.amends(&["state", "set", "stock", other, "null"]));
    }
    let list = |arguments: &[&str]| {
        done(&place.amends(&[&["state", "list", "stock", "-o", "ids"], arguments].concat()))
    };
    let keys = |count| text(0..count, |number| format!("stock/{number:04}\n"));
    assert_eq!(list(&["stock/"]), keys(2_500));
    assert_eq!(list(&["stock/", "--limit", "0"]), keys(2_500));
    assert_eq!(list(&["stock/", "--limit", "100"]), keys(100));
    assert_eq!(list(&["stock/", "--limit", "1000"]), keys(1_000));
    assert_eq!(list(&["stock/", "--limit", "2001"]), keys(2_001));
    assert_eq!(list(&["stock/", "--limit", "9999"]), keys(2_500));
    assert_eq!(list(&["--limit", "9999"]), format!("stock\n{}stock0\nt\n", keys(2_500)));
    assert_eq!(list(&["none"]), "");

    // The last page has no cursor, also when it is full.
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = host.get(&format!("/v1/plugins/stock/state?prefix=stock/&limit=500{cursor}"));
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 500);
        found.extend(items.iter().map(|item| item["value"].as_u64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, (0..2_500).collect::<Vec<_>>());
    let page = host.get("/v1/plugins/stock/state?limit=1000&prefix=stock/0");
    assert_eq!(page["items"].as_array().unwrap().len(), 1_000);
    assert_eq!(page.get("next_cursor"), None, "there are no more of them");
}

#[test]
fn a_page_of_large_values_ends_early_and_a_state_has_an_end() {
    let place = place();
    let host = place.run();
    let value = "x".repeat(200 << 10);
    let lines = |numbers| {
        text(numbers, |n| json!({"key": format!("{n:02}"), "value": value}).to_string() + "\n")
    };
    let path = "/v1/plugins/stock/state:import";
    assert_eq!(ask(&host, "POST", path, &lines(0..50)), (200, json!({"written": 50})));
    let (status, answer) = ask(&host, "POST", path, &lines(50..60));
    assert_eq!((status, answer["code"].as_str()), (507, Some("state_full")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("state_max"), "{answer}");
    let page = host.get("/v1/plugins/stock/state?limit=1000");
    let (count, next) = (page["items"].as_array().unwrap().len(), &page["next_cursor"]);
    assert_eq!((count, next.as_str()), (41, Some("40")), "8 MiB are reached");
    let keys = done(&place.amends(&["state", "list", "stock", "--limit", "1000", "-o", "ids"]));
    assert_eq!(keys, text(0..50, |number| format!("{number:02}\n")));
    // Larger than one request may be, so it is sent as several.
    let rows = text(0..50, |number| format!("{number:02},{}\n", "y".repeat(200 << 10)));
    fs::write(place.path("large.csv"), format!("key,value\n{rows}")).unwrap();
    let import = ["state", "import", "stock", "large.csv"];
    assert_eq!(done(&place.amends(&import)), "50 keys of stock written\n");
    assert_eq!(operators(&host).len(), 3);
    let rows = text(0..60, |number| format!("{number:02},{}\n", "z".repeat(200 << 10)));
    fs::write(place.path("large.csv"), format!("key,value\n{rows}")).unwrap();
    let told = refused(&place.amends(&import), 1);
    assert!(told.contains("large.csv: after 40 of 60 keys: the state of"), "{told}");
}

#[test]
fn an_import_writes_all_that_it_was_given_or_nothing() {
    let place = place();
    let host = place.run();
    let import = |arguments: &[&str]| {
        place.amends(&[&["state", "import", "stock", "stock.csv"], arguments].concat())
    };
    let by = ["--key", "stock/{warehouse}/{sku}", "--value", "quantity"];
    let rows = text(0..1_200, |number| format!("north,{number},1\n"));
    let header = "warehouse,sku,quantity\n";
    let write = |rows: &str| fs::write(place.path("stock.csv"), format!("{header}{rows}")).unwrap();

    write(&format!("{rows}north,7,2\n"));
    let told = refused(&import(&by), 1);
    assert!(told.contains("stock.csv line 1202: the key `stock/north/7` is on line 9"), "{told}");
    let told = refused(&import(&["--key", "{house}"]), 1);
    assert!(
        told.contains("no column `house`") && told.contains("warehouse, sku, quantity"),
        "{told}"
    );
    refused(&place.amends(&["state", "import", "stock", "none.csv"]), 1);
    assert_eq!(operators(&host), Vec::<Value>::new(), "nothing was written");

    write(&rows);
    assert_eq!(done(&import(&by)), "1200 keys of stock written\n");
    write("north,7,99\nsouth,7,2\n");
    let only_new = import(&[&by[..], &["--only-new"]].concat());
    assert_eq!(done(&only_new), "1 key of stock written, 1 left as they are\n");
    let value = |key: &str| done(&place.amends(&["state", "get", "stock", key]));
    assert_eq!((value("stock/north/7").as_str(), value("stock/south/7").as_str()), ("1\n", "2\n"));
    assert_eq!(done(&import(&by)), "2 keys of stock written\n");
    assert_eq!(value("stock/north/7"), "99\n");
    let arguments = ["state", "import", "stock", "-", "--key", "{sku}"];
    assert_eq!(done(&fed(&place, &arguments, "sku,cold\n8,true\n")), "1 key of stock written\n");
    assert_eq!(value("8"), "{\"cold\":true}\n");

    let data: Vec<_> = operators(&host).iter().map(|event| event["data"].clone()).collect();
    let told = |source: &str, keys| json!({"who": "ada@127.0.0.1", "source": source, "keys": keys});
    let expected = [1_000, 200, 1, 2].map(|keys| told("stock.csv", keys));
    assert_eq!(data[..4], expected);
    assert_eq!(data[4], told("standard input", 1));
}

#[test]
fn a_line_that_is_wrong_refuses_the_whole_request() {
    let place = place();
    let host = place.run();
    let path = "/v1/plugins/stock/state:import?source=curl";
    let import = |body: &str| {
        let (status, answer) = ask(&host, "POST", path, body);
        (status, answer["detail"].as_str().unwrap_or_default().to_owned())
    };
    let good = "{\"key\": \"a\", \"value\": 1}\n";
    let many = text(0..1_001, |n| format!("{{\"key\": \"{n}\", \"value\": 1}}\n"));
    for (body, words) in [
        (format!("{good}\n{{\"key\": \"b\"}}\n"), "line 3: missing field `value`"),
        (format!("{good}{{\"key\": \"\", \"value\": 1}}\n"), "line 2: \"\" is not a key"),
        (format!("{good}{good}"), "line 2: the key `a` is on line 1 as well"),
        (
            format!("{good}{{\"key\": \"b\", \"value\": 1, \"count\": 2}}"),
            "line 2: unknown field `count`",
        ),
        (many, "line 1001: there are more than 1000 lines"),
    ] {
        let (status, detail) = import(&body);
        assert_eq!(status, 400, "{detail}");
        assert!(detail.starts_with(words), "{words}: {detail}");
    }
    // Of one byte more than is taken, so that all is read before it is refused.
    assert_eq!(import(&"\n".repeat((16 << 20) + 1)).0, 413);
    assert_eq!(host.get("/v1/plugins/stock/state")["items"], json!([]));
    assert_eq!(ask(&host, "POST", path, good), (200, json!({"written": 1})));
    let path = format!("{path}&only_new=true");
    let two = format!("{{\"key\": \"b\", \"value\": null}}\n{good}");
    assert_eq!(ask(&host, "POST", &path, &two), (200, json!({"written": 1})));
    let expected = json!({"who": "grace@127.0.0.1", "source": "curl", "keys": 1});
    assert_eq!(operators(&host)[1]["data"], expected);
}

/// A saga was started when another plugin undid its step. State that its step left is that of the
/// plugin that did it, and so is the grant.
#[test]
fn an_undo_works_on_the_state_of_the_step_whatever_the_config_says_by_then() {
    const SET: &str = "(import \"amends:saga/state@1.1.0\" \"set\"
        (func $set (param i32 i32 i32 i32)))";
    const LEAVES: Behaviour = Behaviour::Text(
        "(call $set (i32.const 3060) (i32.const 2) (i32.const 3000) (i32.const 11)) (i32.const 2048)",
    );
    const TAKES: Behaviour = Behaviour::Text(
        "(call $set (i32.const 3060) (i32.const 2) (i32.const 3100) (i32.const 7)) (i32.const 2112)",
    );
    let place = Place::empty();
    let step = Component { name: "stock", imports: SET, execute: LEAVES, ..Component::default() };
    fs::write(place.plugin("stock"), step.build()).unwrap();
    // One that was built before counters came.
    let saga = "1.0.0";
    let undo = Component {
        name: "release",
        imports: SET,
        compensate: TAKES,
        saga,
        ..Component::default()
    };
    let undo = undo.build();
    assert!(undo.windows(23).any(|bytes| bytes == b"amends:saga/state@1.0.0"));
    fs::write(place.plugin("release"), undo).unwrap();
    let config = |undo: &str| {
        place.config(&format!(
            "[plugin.stock]\nstate = true\n\
             [[saga]]\nname = \"order\"\n\
             [[saga.step]]\nname = \"stock\"\nplugin = \"stock\"\n{undo}\
             [[saga.step]]\nname = \"wait\"\nwait = {{ signal = \"go\" }}\n"
        ));
    };
    config("undo = { plugin = \"release\" }\n");
    let host = place.run();
    let id = done(&place.amends(&["start", "order", "-o", "ids"]));
    host.until("the step is done", || {
        host.get(&format!("/v1/sagas/{}", id.trim()))["steps"][0]["status"] == "succeeded"
    });
    assert_eq!(done(&place.amends(&["state", "get", "stock", "no"])), "{\"ok\":true}\n");
    assert_eq!(host.stop(), Some(0));
    config("");
    let host = place.run();
    done(&place.amends(&["cancel", id.trim(), "--reason", "test"]));
    host.settle();
    let saga = host.get(&format!("/v1/sagas/{}", id.trim()));
    assert_eq!(saga["status"], "compensated", "{saga}");
    assert_eq!(done(&place.amends(&["state", "get", "stock", "no"])), "{\"n\":0}\n");
    assert_eq!(host.stop(), Some(0));
}
