//! Namespaces: two of one host have nothing in common, and a token sees its own.

use std::fs;
use std::process::Output;

use amends_tests::Component;
use serde_json::{Value, json};

use crate::access::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Answer, Asker};
use crate::place::{Host, Place, agent, stderr, stdout};

/// An id that no saga has.
const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000000";

/// The namespace `default`, and two more. `order` is another saga in each, and `stock` keeps state in `default` alone.
const NAMESPACES: &str = "
[plugin.stock]
state = true

[[saga]]
name = \"order\"

[[saga.step]]
name = \"approval\"
wait = \"approved\"

[[saga]]
name = \"take\"

[[saga.step]]
name = \"stock\"
plugin = \"stock\"

[namespace.shop.store]
retention = \"1ms\"

[namespace.shop.plugins]
dir = \"plugins\"

[[namespace.shop.saga]]
name = \"order\"

[[namespace.shop.saga.step]]
name = \"payment\"
wait = \"paid\"

[[namespace.shop.saga]]
name = \"take\"

[[namespace.shop.saga.step]]
name = \"stock\"
plugin = \"stock\"

[namespace.billing]
memory_max = \"64MiB\"

[namespace.billing.plugins]
dir = \"plugins\"

[[namespace.billing.saga]]
name = \"order\"

[[namespace.billing.saga.step]]
name = \"pause\"
sleep = \"25s\"
";

fn place(head: &str) -> Place {
    let place = Place::empty();
    let component = Component { name: "stock", ..Component::default() };
    fs::write(place.plugin("stock"), component.build()).unwrap();
    place.config(&format!("{head}{NAMESPACES}"));
    place
}

fn in_namespace(name: &str) -> Asker<'_> {
    Asker::default().in_namespace(name)
}

fn start(host: &Host, asker: Asker<'_>, input: &Value) -> Answer {
    asker.post(host, "/v1/sagas", &json!({"definition": "order", "input": input}))
}

fn started(host: &Host, asker: Asker<'_>) -> String {
    start(host, asker, &json!({})).done()["id"].as_str().unwrap().to_owned()
}

fn ids(host: &Host, asker: Asker<'_>) -> Vec<String> {
    let page = asker.get(host, "/v1/sagas").done();
    let items = page["items"].as_array().unwrap();
    items.iter().map(|saga| saga["id"].as_str().unwrap().to_owned()).collect()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

#[test]
fn a_saga_of_another_namespace_is_one_that_nobody_knows() {
    let place = place("");
    let host = place.run();
    let (default, shop) = (in_namespace("default"), in_namespace("shop"));
    let (of_default, of_shop) = (started(&host, Asker::default()), started(&host, shop));
    assert_eq!(ids(&host, default), std::slice::from_ref(&of_default));
    assert_eq!(ids(&host, shop), std::slice::from_ref(&of_shop));
    assert!(ids(&host, in_namespace("billing")).is_empty());
    let step = |asker: Asker<'_>, id: &str| {
        let saga = asker.get(&host, &format!("/v1/sagas/{id}")).done();
        saga["steps"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!([step(default, &of_default), step(shop, &of_shop)], ["approval", "payment"]);
    // The same answer as for an id that no saga has, whatever is asked of it.
    for (asker, id) in [(default, &of_shop), (shop, &of_default)] {
        for of_saga in
            ["", "/events", "/why", "/undo-plan", "/exposure", "/watch", "/definition", "/evidence"]
        {
            let ask = |id: &str| asker.get(&host, &format!("/v1/sagas/{id}{of_saga}"));
            let (other, unknown) = (ask(id), ask(UNKNOWN));
            assert_eq!(other.text.replace(id.as_str(), UNKNOWN), unknown.text, "{of_saga}");
            assert!(other.status >= 400, "{of_saga}: {}", other.text);
        }
        asker.get(&host, &format!("/v1/sagas/{id}")).is_refused(404, "saga_unknown");
        for order in ["cancel", "compensate", "pause", "resume", "abandon", "note"] {
            let path = format!("/v1/sagas/{id}/{order}");
            let answer = asker.post(&host, &path, &json!({"reason": "a test"}));
            answer.is_refused(404, "saga_unknown");
        }
    }
    let events = |asker: Asker<'_>| {
        let page = asker.get(&host, "/v1/events?limit=1000").done();
        page["items"].as_array().unwrap().clone()
    };
    let is_of = |event: &Value, id: &str| event["saga"] == id;
    assert!(events(shop).iter().any(|event| is_of(event, &of_shop)));
    assert!(!events(shop).iter().any(|event| is_of(event, &of_default)));
    assert!(!events(default).iter().any(|event| is_of(event, &of_shop)));

    // Each is whole after the host has died.
    assert_eq!(host.kill().len().min(1), 1);
    let host = place.run();
    assert_eq!((ids(&host, default), ids(&host, shop)), (vec![of_default], vec![of_shop]));
}

#[test]
fn state_grants_retention_and_backups_are_those_of_one_namespace() {
    let place = place("");
    let host = place.run();
    let shop = in_namespace("shop");
    let key = "/v1/plugins/stock/state/level";
    Asker::default().put(&host, key, &json!(40)).done();
    assert_eq!(Asker::default().get(&host, key).done()["value"], 40);
    // There the plugin has no such grant, and nothing to show.
    assert!(shop.put(&host, key, &json!(7)).status >= 400);
    assert!(shop.get(&host, key).status >= 400);

    for asker in [Asker::default(), shop] {
        let id = started(&host, asker);
        asker.post(&host, &format!("/v1/sagas/{id}/cancel"), &json!({"reason": "a test"})).done();
        host.until("it is compensated", || {
            let saga = asker.get(&host, &format!("/v1/sagas/{id}")).done();
            saga["status"] == "compensated"
        });
    }
    let archive = |asker: Asker<'_>| asker.post(&host, "/v1/store/archive", &json!({}));
    assert_eq!(archive(Asker::default()).status, 409, "`default` has no retention");
    host.until("its retention is over", || archive(shop).done()["sagas"] == 1);
    assert!(ids(&host, shop).is_empty());
    assert_eq!(ids(&host, Asker::default()).len(), 1);

    started(&host, shop);
    started(&host, shop);
    let backup =
        done(&place.amends(&["store", "backup", "b.db", "--namespace", "shop", "-o", "json"]));
    let backup: Value = serde_json::from_str(&backup).unwrap();
    assert_eq!(backup["sagas"], 2, "{backup}");
    done(&place.amends(&["store", "verify", "b.db"]));
    // The variable names it as well as the flag, and the flag counts first.
    let listed = |command: &mut std::process::Command| done(&command.output().unwrap());
    let mut command = place.command(&["list", "-o", "ids"]);
    assert_eq!(listed(command.env("AMENDS_NAMESPACE", "shop")).lines().count(), 2);
    let mut command = place.command(&["--namespace", "default", "list", "-o", "ids"]);
    assert_eq!(listed(command.env("AMENDS_NAMESPACE", "shop")).lines().count(), 1);
    let unknown = place.amends(&["list", "--namespace", "shup"]);
    assert_eq!(unknown.status.code(), Some(4), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("there is no namespace `shup`"), "{}", stderr(&unknown));

    // The store of a stopped host is found by the same flag.
    assert_eq!(host.stop(), Some(0));
    let sagas = |namespace: &str| {
        let stats =
            ["store", "stats", "--config", "amends.toml", "--namespace", namespace, "-o", "json"];
        let stats: Value = serde_json::from_str(&done(&place.amends(&stats))).unwrap();
        stats["sagas"].as_u64().unwrap()
    };
    assert_eq!((sagas("default"), sagas("shop"), sagas("billing")), (1, 2, 0));
    let restore = [
        "store",
        "restore",
        "b.db",
        "--config",
        "amends.toml",
        "--namespace",
        "billing",
        "--replace",
    ];
    done(&place.amends(&restore));
    assert_eq!((sagas("default"), sagas("shop"), sagas("billing")), (1, 2, 2));
}

#[test]
fn a_full_namespace_does_not_hold_up_another() {
    let place = place("");
    let host = place.run();
    let billing = in_namespace("billing");
    let large = json!({"text": "x".repeat(500_000)});
    let mut answer = start(&host, billing, &large);
    for _ in 0..100 {
        if answer.status == 429 {
            break;
        }
        answer.done();
        answer = start(&host, billing, &large);
    }
    answer.is_refused(429, "overloaded");
    for asker in [Asker::default(), in_namespace("shop")] {
        start(&host, asker, &large).done();
    }
}

/// Makes a token for these namespaces.
fn make(host: &Host, name: &str, namespaces: &[&str]) -> String {
    let body = json!({
        "name": name, "roles": ["admin"], "payloads": true, "namespaces": namespaces,
    });
    let made = Asker::with(ADMIN).post(host, "/v1/tokens", &body).done();
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_sees_its_namespaces_and_cannot_tell_whether_there_are_others() {
    let place = place(AUTH);
    let host = place.run_with_env(&[ADMIN_VARIABLE]);
    let none = make(&host, "none", &[]);
    let one = make(&host, "one", &["shop"]);
    let two = make(&host, "two", &["shop", "billing"]);
    let all = make(&host, "all", &["*"]);
    let gone = make(&host, "gone", &["of-another-host"]);
    let cases: [(&String, &[&str]); 5] = [
        (&none, &["default"]),
        (&one, &["shop"]),
        (&two, &["billing", "shop"]),
        (&all, &["default", "billing", "shop"]),
        (&gone, &[]),
    ];
    for (token, seen) in cases {
        let asker = Asker::with(token);
        let me = asker.get(&host, "/v1/me").done();
        assert_eq!(me["namespaces"], json!(seen));
        for name in ["default", "shop", "billing"] {
            let answer = asker.in_namespace(name).get(&host, "/v1/sagas");
            if seen.contains(&name) {
                answer.done();
                continue;
            }
            answer.is_refused(404, "no_namespace");
            let other = asker.in_namespace("shup").get(&host, "/v1/sagas");
            assert_eq!(answer.text.replace(name, "shup"), other.text);
        }
        assert_eq!(asker.in_namespace("shop").get(&host, "/v1/me").status, 200);
    }
    // Without a token nobody learns anything.
    for name in ["default", "shop", "shup"] {
        let nobody = in_namespace(name);
        nobody.get(&host, "/v1/sagas").is_refused(401, "token_missing");
    }
    // The only namespace of a token need not be named.
    let id = started(&host, Asker::with(&one));
    assert_eq!(ids(&host, Asker::with(ADMIN).in_namespace("shop")), [id]);
    Asker::with(&two).get(&host, "/v1/sagas").is_refused(404, "no_namespace");
    assert!(ids(&host, Asker::with(&all)).is_empty());
    // Tokens are in one place, and so is whoever may make them.
    for path in ["/v1/tokens", "/metrics"] {
        Asker::with(&one).get(&host, path).is_refused(404, "only_in_default");
    }
    let body = json!({"name": "more", "roles": ["admin"], "namespaces": ["*"]});
    Asker::with(&one).post(&host, "/v1/tokens", &body).is_refused(404, "only_in_default");
    let body = json!({"name": "more", "roles": ["admin"], "namespaces": ["A b"]});
    Asker::with(ADMIN).post(&host, "/v1/tokens", &body).is_refused(400, "bad_request");

    // After a restart the tokens are for the same namespaces, and one that is revoked sees none.
    assert_eq!(host.kill().len().min(1), 1);
    let host = place.run_with_env(&[ADMIN_VARIABLE]);
    assert_eq!(
        Asker::with(&two).get(&host, "/v1/me").done()["namespaces"],
        json!(["billing", "shop"])
    );
    crate::access::asker::revoke(&host, "two");
    let answer = Asker::with(&two).in_namespace("shop").get(&host, "/v1/sagas");
    answer.is_refused(401, "token_revoked");
}

#[test]
fn what_is_done_in_a_namespace_is_in_its_audit() {
    let place = place(AUTH);
    let host = place.run_with_env(&[ADMIN_VARIABLE]);
    let one = make(&host, "one", &["shop"]);
    let id = started(&host, Asker::with(&one));
    let cancel = format!("/v1/sagas/{id}/cancel");
    Asker::with(&one).post(&host, &cancel, &json!({"reason": "a test"})).done();
    let operations = |asker: Asker<'_>| -> Vec<(String, String)> {
        let page = asker.get(&host, "/v1/audit?after=0").done();
        let items = page["items"].as_array().unwrap();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        items.iter().map(|entry| (text(entry, "operation"), text(entry, "who"))).collect()
    };
    let admin = "admin_token@127.0.0.1".to_owned();
    assert_eq!(operations(Asker::with(ADMIN)), [("create_token".to_owned(), admin)]);
    let by_one = ("cancel_saga".to_owned(), "one@127.0.0.1".to_owned());
    assert_eq!(operations(Asker::with(&one)), [by_one]);
    let audit = ["audit", "--namespace", "shop"];
    let told = place.command(&audit).env("AMENDS_TOKEN", ADMIN).output().unwrap();
    let told = done(&told);
    assert!(told.contains("one@127.0.0.1") && !told.contains("create_token"), "{told}");
    let check = Asker::with(&one).get(&host, "/v1/audit:verify").done();
    assert_eq!((&check["entries"], &check["finding"]), (&json!(1), &Value::Null));
}

/// A sender of events often cannot set a header.
#[test]
fn a_sender_of_events_may_name_the_namespace_in_the_address() {
    let place = place(AUTH);
    let rule =
        "[[namespace.shop.on]]\nname = \"orders\"\nevent = \"order.placed\"\nstart = \"order\"\n";
    place.config(&format!("{AUTH}{NAMESPACES}{rule}"));
    let host = place.run_with_env(&[ADMIN_VARIABLE]);
    let none = make(&host, "none", &[]);
    let send = |token: &str, query: &str| {
        let event =
            json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"});
        let request = ureq::http::Request::builder()
            .method("POST")
            .uri(host.url(&format!("/v1/on/orders{query}")))
            .header("content-type", "application/cloudevents+json")
            .header("authorization", format!("Bearer {token}"));
        let mut response = agent().run(request.body(event.to_string()).unwrap()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        (response.status().as_u16(), body["code"].as_str().map(str::to_owned))
    };
    assert_eq!(send(ADMIN, "?namespace=shop"), (202, None));
    assert_eq!(ids(&host, Asker::with(ADMIN).in_namespace("shop")).len(), 1);
    assert!(ids(&host, Asker::with(ADMIN)).is_empty());
    let unknown = |code: &str| (404, Some(code.to_owned()));
    assert_eq!(send(ADMIN, ""), unknown("rule_unknown"));
    assert_eq!(send(ADMIN, "?namespace=shup"), unknown("no_namespace"));
    assert_eq!(send(&none, "?namespace=shop"), unknown("no_namespace"));
    assert_eq!(send(&none, "?namespace=shup"), unknown("no_namespace"));
}

#[test]
fn a_namespace_that_cannot_be_opened_is_named() {
    let place = place("");
    let folder = place.path("namespaces/shop/data");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("amends.db"), "this is no database, whatever its name says".repeat(500))
        .unwrap();
    let (code, log) = place.spawn().ended_logged();
    assert_ne!(code, Some(0));
    let log = log.join("\n");
    assert!(log.contains("namespace `shop`: "), "{log}");
}

#[test]
fn two_namespaces_have_no_store_in_common() {
    let place = place("");
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let store = "[namespace.shop.store]\n";
    let shared = format!("{store}url = \"sqlite:plugins/../data/./amends.db\"\n");
    fs::write(place.path("amends.toml"), config.replace(store, &shared)).unwrap();
    let output = place.amends(&["check", "amends.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(told.contains("namespace.shop.store.url"), "{told}");
    assert!(told.contains("the namespace `default` has this as its own"), "{told}");
}
