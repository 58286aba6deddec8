//! How sagas are found by what failed in them, and by when they ended.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, agent, stderr, stdout};

/// `fine` completes. `refused` is compensated, because `pay` fails for good. `stuck` is blocked, because
/// the undo of `stock` fails as well. Both have the code `no`. `trapped` is compensated with another code.
fn place() -> Place {
    let place = Place::empty();
    let component = |name: &str, execute, compensate| {
        let component = Component { name, execute, compensate, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    };
    component("good", Behaviour::Echo, Behaviour::Done);
    component("bad", Behaviour::Permanent, Behaviour::Done);
    component("kept", Behaviour::Echo, Behaviour::Permanent);
    component("trap", Behaviour::Trap, Behaviour::Done);
    let saga = |name: &str, first: &str, second: &str| {
        format!(
            "[[saga]]\nname = \"{name}\"\n[[saga.step]]\nname = \"stock\"\nplugin = \"{first}\"\n\
             [[saga.step]]\nname = \"pay\"\nplugin = \"{second}\"\nretry = {{ attempts = 1 }}\n"
        )
    };
    let sagas = [
        saga("fine", "good", "good"),
        saga("refused", "good", "bad"),
        saga("stuck", "kept", "bad"),
        saga("trapped", "good", "trap"),
    ];
    place.config(&sagas.concat());
    place
}

fn start(place: &Place, definition: &str, tags: &[&str]) -> String {
    let mut arguments = vec!["start", definition, "-o", "ids", "--wait"];
    for tag in tags {
        arguments.extend(["--tag", tag]);
    }
    let output = place.amends(&arguments);
    let id = stdout(&output).trim().to_owned();
    assert_eq!(id.len(), 36, "{}", stderr(&output));
    id
}

/// The sagas that `amends list` finds, in this order.
fn found(place: &Place, arguments: &[&str]) -> Vec<String> {
    let output = place.amends(&[&["list", "-o", "ids"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

/// The digest of the component that serves a plugin, in digits.
fn digest(host: &Host, plugin: &str) -> String {
    let plugin: Value = host.get(&format!("/v1/plugins/{plugin}"));
    plugin["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned()
}

#[test]
fn sagas_are_found_by_what_failed_in_them() {
    let place = place();
    let host = place.run();
    let fine = start(&place, "fine", &["shop=north"]);
    let refused = start(&place, "refused", &["shop=north", "customer=7"]);
    let stuck = start(&place, "stuck", &["shop=north", "customer=7"]);
    let trapped = start(&place, "trapped", &[]);
    let (bad, kept) = (digest(&host, "bad"), digest(&host, "kept"));
    let all = [&stuck, &refused].map(String::as_str);
    let prefixed = format!("sha256:{}", &bad[..12]);
    let cases: &[(&[&str], &[&str])] = &[
        (&["--code", "no"], &all),
        (&["--code", "trap"], &[&trapped]),
        (&["--code", "nothing"], &[]),
        (&["--step", "pay"], &[&trapped, &stuck, &refused]),
        (&["--step", "stock"], &[&stuck]),
        (&["--step", "pay", "--code", "no"], &all),
        (&["--step", "stock", "--code", "trap"], &[]),
        (&["--digest", &bad[..8]], &all),
        (&["--digest", &bad], &all),
        (&["--digest", &prefixed], &all),
        (&["--digest", &kept[..11]], &[&stuck]),
        (&["--digest", &kept[..11], "--step", "pay"], &[]),
        (&["--text", "IT is not possi*"], &all),
        // The reason of the block.
        (&["--text", "undo stock possible"], &[&stuck]),
        (&["--text", "possible", "--status", "blocked"], &[&stuck]),
        (&["--text", "possible", "--definition", "refused"], &[&refused]),
        (&["--text", "impossible"], &[]),
        (&["--tag", "shop=north"], &[&stuck, &refused, &fine]),
        (&["--tag", "shop=north", "--tag", "customer=7"], &all),
        (&["--tag", "shop=north", "--tag", "customer=8"], &[]),
        (&["--tag", "customer=7", "--code", "no", "--step", "stock"], &[&stuck]),
        (&["--ended-after", "1h"], &[&trapped, &refused, &fine]),
        (&["--ended-after", "1h", "--code", "no"], &[&refused]),
        (&["--ended-before", "1h"], &[]),
    ];
    for (arguments, ids) in cases {
        assert_eq!(found(&place, arguments), *ids, "{arguments:?}");
    }
    // Pages of one, while others fail.
    let mut cursor = String::new();
    let mut paged = Vec::new();
    loop {
        let page =
            host.get(&format!("/v1/sagas?limit=1&code=no&tag=shop:north&tag=customer:7{cursor}"));
        paged.push(page["items"][0]["id"].as_str().unwrap().to_owned());
        start(&place, "refused", &["shop=north", "customer=7"]);
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);
    // An order takes the same filters.
    let output = place.amends(&[
        "retry",
        "--code",
        "no",
        "--status",
        "blocked",
        "--reason",
        "again",
        "--dry-run",
    ]);
    assert!(stdout(&output).contains("1 saga"), "{} {}", stdout(&output), stderr(&output));
    for (arguments, told) in [
        (&["list", "--digest", "1234"][..], "give 8 to 64 hexadecimal digits"),
        (&["list", "--text", ".. !"], "give some words of the message"),
        (&["list", "--step", "A b"], "A b"),
        (&["list", "--stuck", "--code", "no"], "leave out step, code, digest and text"),
        (&["list", "--archived", "--step", "pay"], "leave out tag, where, definition_digest, step"),
    ] {
        let output = place.amends(arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn failures_are_known_after_a_crash_and_in_a_store_of_before() {
    let place = place();
    let host = place.run();
    let stuck = start(&place, "stuck", &[]);
    let queries: [&[&str]; 4] =
        [&["--code", "no"], &["--step", "stock"], &["--text", "possible"], &["--digest"]];
    let kept = digest(&host, "kept");
    let all = |place: &Place| {
        queries.map(|arguments| {
            let mut arguments = arguments.to_vec();
            if arguments == ["--digest"] {
                arguments.push(&kept[..8]);
            }
            found(place, &arguments)
        })
    };
    let expected = [(); 4].map(|()| vec![stuck.clone()]);
    assert_eq!(all(&place), expected);
    host.kill();
    let host = place.run();
    assert_eq!(all(&place), expected);
    assert_eq!(host.stop(), Some(0));
    let output = place.amends(&["store", "verify", "data/amends.db"]);
    assert_eq!(output.status.code(), Some(0), "{} {}", stdout(&output), stderr(&output));
    // As a store of a version that kept no failures.
    let store = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    store.execute_batch("DELETE FROM failures; DELETE FROM meta WHERE name = 'failures'").unwrap();
    drop(store);
    let _host = place.run();
    assert_eq!(all(&place), expected);
}

/// The groups that `amends list` counts: what they have in common, how many they are, the example.
fn groups(place: &Place, arguments: &[&str]) -> Vec<(Value, u64, String)> {
    let output = place.amends(&[&["list", "-o", "json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    let counts: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let group = |group: &Value| {
        let example = group["example"].as_str().unwrap().to_owned();
        (group["by"].clone(), group["sagas"].as_u64().unwrap(), example)
    };
    let groups: Vec<_> = counts["groups"].as_array().unwrap().iter().map(group).collect();
    let all: u64 = groups.iter().map(|(_, sagas, _)| sagas).sum();
    assert_eq!(counts["sagas"].as_u64(), Some(all), "{counts}");
    groups
}

#[test]
fn sagas_are_counted_by_what_they_have_in_common() {
    let place = place();
    let host = place.run();
    let stuck: Vec<_> = (0..3).map(|_| start(&place, "stuck", &["shop=north"])).collect();
    let refused: Vec<_> = (0..2).map(|_| start(&place, "refused", &[])).collect();
    let fine = start(&place, "fine", &[]);
    let by_both = groups(&place, &["--group-by", "step,code"]);
    let expected = [
        (json!({"step": "stock undo", "code": "no"}), 3, stuck[0].clone()),
        (json!({"step": "pay", "code": "no"}), 2, refused[0].clone()),
        (json!({"step": null, "code": null}), 1, fine.clone()),
    ];
    assert_eq!(by_both, expected);
    let blocked = groups(&place, &["--status", "blocked", "--group-by", "reason,definition"]);
    assert_eq!((blocked.len(), blocked[0].1), (1, 3), "{blocked:?}");
    let reason = blocked[0].0["reason"].as_str().unwrap();
    assert!(reason.contains("the undo of stock failed: no"), "{reason}");
    assert_eq!(blocked[0].0["definition"], "stuck");
    let by_status = groups(&place, &["--group-by", "status"]);
    let statuses: Vec<_> =
        by_status.iter().map(|(by, sagas, _)| (by["status"].as_str().unwrap(), *sagas)).collect();
    assert_eq!(statuses, [("blocked", 3), ("compensated", 2), ("completed", 1)]);
    // The filters are those of a list, and name the failure that counts.
    let by_step = groups(&place, &["--step", "pay", "--tag", "shop=north", "--group-by", "step"]);
    assert_eq!(by_step, [(json!({"step": "pay"}), 3, stuck[0].clone())]);

    let told = |arguments: &[&str]| {
        let output = place.amends(arguments);
        (output.status.code(), stdout(&output), stderr(&output))
    };
    assert_eq!(told(&["list", "--count"]), (Some(0), "6\n".to_owned(), String::new()));
    assert_eq!(told(&["list", "--count", "--code", "no", "--status", "blocked"]).1, "3\n");
    assert_eq!(told(&["list", "--count", "--definition", "stuk"]).0, Some(4));
    let (_, table, rest) = told(&["list", "--group-by", "code"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("SAGAS  CODE  OLDEST"), "{table}");
    assert!(lines[1].starts_with("5      no    20") && lines[1].ends_with(&stuck[0]), "{table}");
    assert!(lines[2].starts_with("1      -     20") && lines[2].ends_with(&fine), "{table}");
    assert_eq!(rest, "6 sagas in 2 groups\n");
    assert_eq!(told(&["list", "--group-by", "code", "-o", "ids"]).1.lines().count(), 2);
    assert_eq!(told(&["list", "--group-by", "colour"]).0, Some(1));
    assert_eq!(told(&["list", "--count", "--stuck"]).0, Some(2));
    for (query, told) in [
        ("by=colour", "sagas are not grouped by `colour`"),
        ("by=code,code", "`code` is there twice"),
        ("limit=3", "leave out limit"),
        ("status=quarantined", "leave out limit"),
    ] {
        let answer = agent().get(host.url(&format!("/v1/sagas/counts?{query}"))).call().unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        let text = answer.into_body().read_to_string().unwrap();
        assert!(text.contains(told), "{text}");
    }
}
