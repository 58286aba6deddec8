//! What an operator does to sagas: the verbs of the command line on a real host.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use amends_tests::{Behaviour, Component};
use rustix::process::Signal;
use serde_json::Value;

use crate::cli::fed;
use crate::place::{Host, Place, agent, signal, stderr, stdout};

const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000000";

/// Definitions: `blocked` cannot be undone, `pair` has two undos that cannot be, `good` completes,
/// `late` completes and cannot be undone any more, `gate` waits for a signal between two steps,
/// `forward` fails after its pivot, `lost` does not know whether its call happened.
fn place() -> Place {
    let place = Place::empty();
    plugin(&place, "good", Behaviour::Echo, Behaviour::Done);
    plugin(&place, "bad", Behaviour::Permanent, Behaviour::Done);
    plugin(&place, "held", Behaviour::Echo, Behaviour::Permanent);
    plugin(&place, "trap", Behaviour::Trap, Behaviour::Done);
    let step = |name: &str, plugin: &str, more: &str| {
        format!(
            "[[saga.step]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ninput = \"input\"\n{more}\n"
        )
    };
    let good = step("good", "good", "");
    let bad = step("bad", "bad", "");
    place.config(&format!(
        "[[saga]]\nname = \"blocked\"\n{good}{}{bad}\
         [[saga]]\nname = \"pair\"\n{}{}{}\
         [[saga]]\nname = \"good\"\n{good}\
         [[saga]]\nname = \"late\"\ncompensate_within = \"1ms\"\n{good}\
         [[saga]]\nname = \"gate\"\n{good}[[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n{}\
         [[saga]]\nname = \"forward\"\n{}{bad}\
         [[saga]]\nname = \"lost\"\n{good}{}",
        step("held", "held", ""),
        step("one", "held", "after = []"),
        step("two", "held", "after = []"),
        step("bad", "bad", "after = [\"one\", \"two\"]"),
        step("last", "good", ""),
        step("pivot", "good", "pivot = true"),
        step("lost", "trap", "retry = { attempts = 2, backoff = [\"1h\"] }"),
    ));
    place
}

fn plugin(place: &Place, name: &str, execute: Behaviour, compensate: Behaviour) {
    let component = Component { name, execute, compensate, ..Component::default() };
    fs::write(place.plugin(name), component.build()).unwrap();
}

/// Starts a saga; its id when it has come to rest, or at once when it does not end by itself.
fn start(place: &Place, definition: &str) -> String {
    let mut arguments = vec!["start", definition, "--input", "{\"n\": 1}", "-o", "ids"];
    if !["gate", "lost"].contains(&definition) {
        arguments.push("--wait");
    }
    let output = place.amends(&arguments);
    let id = stdout(&output).trim().to_owned();
    assert_eq!(id.len(), UNKNOWN.len(), "{}", stderr(&output));
    id
}

/// The verb is done; what it printed.
fn done(place: &Place, arguments: &[&str]) -> String {
    let output = place.amends(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// The verb is refused with this exit code and all of these words.
fn refused(place: &Place, arguments: &[&str], exit: i32, words: &[&str]) {
    let output = place.amends(arguments);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}{told}", stdout(&output));
    for word in words {
        assert!(told.contains(word), "{arguments:?}: no `{word}` in {told}");
    }
}

fn saga(host: &Host, id: &str) -> Value {
    host.get(&format!("/v1/sagas/{id}"))
}

fn until_status(host: &Host, id: &str, status: &str) {
    host.until(&format!("{id} is {status}"), || saga(host, id)["status"] == status);
}

fn step<'a>(saga: &'a Value, name: &str) -> &'a Value {
    let mut steps = saga["steps"].as_array().unwrap().iter();
    steps.find(|step| step["name"] == name).unwrap()
}

/// The types of a saga's events, with their step.
fn events(host: &Host, id: &str) -> Vec<String> {
    let page = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    let word = |event: &Value| {
        let step = event["data"]["step"].as_str().unwrap_or_default();
        format!("{} {step}", event["type"].as_str().unwrap()).trim().to_owned()
    };
    page["items"].as_array().unwrap().iter().map(word).collect()
}

#[test]
fn an_undo_that_fails_for_ever_blocks_through_restarts_until_it_is_resolved() {
    let place = place();
    let mut host = place.run();
    let id = start(&place, "blocked");
    for restart in 0..3 {
        let found = saga(&host, &id);
        assert_eq!(found["status"], "blocked", "restart {restart}: {found}");
        assert_eq!(step(&found, "held")["status"], "undo_blocked");
        assert_eq!(step(&found, "good")["status"], "succeeded", "its undo waits");
        let why = done(&place, &["why", &id]);
        for word in [
            "blocked and needs an operator",
            "it is not possible",
            "the undo of good waits for that",
            "you can: retry, resolve, skip",
        ] {
            assert!(why.contains(word), "restart {restart}: no `{word}` in {why}");
        }
        if restart == 0 {
            host.kill();
        } else {
            assert_eq!(host.stop(), Some(0));
        }
        host = place.run();
    }
    // Which component said so, since when, and with which key it was asked.
    let why = done(&place, &["why", &id]);
    let key = saga(&host, &id);
    let key = step(&key, "held")["undo_idempotency_key"].as_str().unwrap().to_owned();
    for word in
        ["The undo of held was served by plugin `held` 1.2.3 (sha256:", "active since", &key]
    {
        assert!(why.contains(word), "no `{word}` in {why}");
    }
    // What the undo is about, for a call on the telephone.
    assert!(why.contains("held answered {\"n\":1}"), "{why}");
    // Who follows it is not left waiting, also when it was blocked while it was paused.
    let reason = ["--reason", "a look at it"];
    done(&place, &[&["pause", &id][..], &reason].concat());
    let paused = done(&place, &["why", &id]);
    assert!(paused.contains("after that it needs an operator: the undo of held"), "{paused}");
    let list = done(&place, &["list", "--status", "paused"]);
    assert!(list.contains("paused by ada@127.0.0.1: a look at it"), "{list}");
    done(&place, &[&["resume", &id][..], &reason].concat());
    let watched = place.amends(&["watch", &id]);
    assert_eq!(watched.status.code(), Some(6), "{}", stderr(&watched));
    let lines = stdout(&watched);
    assert!(lines.contains("saga.blocked"), "{lines}");
    assert!(lines.trim_end().lines().last().unwrap().contains("operator.resumed"), "{lines}");
    assert!(stderr(&watched).contains(&format!("amends why {id}")), "{}", stderr(&watched));
    let plan = done(&place, &["undo-plan", &id]);
    let lines: Vec<&str> = plan.lines().collect();
    assert!(lines[1].starts_with("1 ") && lines[1].contains("held"), "{plan}");
    assert!(lines[2].starts_with("2 ") && lines[2].contains("good"), "{plan}");
    assert!(lines[1].contains("sha256:") && lines[1].contains("{\"n\":1}"), "{plan}");
    let before = events(&host, &id).len();
    let (reason, evidence) = ("released by hand", "ticket 12");
    let resolve = ["resolve", &id, "--step", "held", "--evidence", evidence, "--reason", reason];
    done(&place, &resolve);
    until_status(&host, &id, "compensated");
    let after = events(&host, &id).split_off(before);
    assert_eq!(
        after,
        ["operator.resolved held", "undo.started good", "undo.succeeded good", "saga.compensated"]
    );
    let history = done(&place, &["history", &id]);
    let line = history.lines().find(|line| line.contains("operator.resolved")).unwrap();
    for word in ["ada@127.0.0.1", reason, evidence, "held", "Z "] {
        assert!(line.contains(word), "who, when, why: no `{word}` in {line}");
    }
    let got = done(&place, &["get", &id]);
    assert!(got.contains("by ada@127.0.0.1: released by hand; known by ticket 12"), "{got}");
    let why = done(&place, &["why", &id]);
    assert!(why.contains("held counts as undone by word of ada@127.0.0.1: released"), "{why}");
    assert!(done(&place, &["why", &id]).contains("no effect stands"));
    assert_eq!(done(&place, &["exposure", &id]).trim(), "no effect stands");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_undo_that_is_skipped_leaves_its_effect_and_ends_as_abandoned() {
    let place = place();
    let host = place.run();
    let id = start(&place, "blocked");
    let stands = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("held")).unwrap_or_default();
        line.contains("yes") && line.contains("{\"n\":1}")
    };
    let exposure = done(&place, &["exposure", &id]);
    assert!(stands(&exposure) && exposure.contains("good"), "{exposure}");
    let all = done(&place, &["exposure", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let held = all.as_array().unwrap().iter().find(|sum| sum["step"] == "held").unwrap();
    assert_eq!((&held["standing"], &held["blocked"]), (&1.into(), &1.into()), "{all}");
    done(&place, &["skip", &id, "--reason", "written off"]);
    until_status(&host, &id, "abandoned");
    let exposure = done(&place, &["exposure", &id]);
    assert!(stands(&exposure) && !exposure.contains("good"), "only that one: {exposure}");
    let sums = done(&place, &["exposure"]);
    let line = sums.lines().find(|line| line.contains("held")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().skip(2).collect();
    assert_eq!(numbers, ["1", "0", "0", "1"], "standing, not known, blocked, abandoned: {sums}");
    let why = done(&place, &["why", &id]);
    assert!(why.contains("abandoned") && why.contains("the effect of held stands"), "{why}");
    drop(host);
}

#[test]
fn a_paused_saga_begins_no_call_until_it_is_resumed() {
    let place = place();
    let host = place.run();
    let id = start(&place, "gate");
    until_status(&host, &id, "waiting");
    done(&place, &["pause", &id, "--reason", "the price is wrong"]);
    done(&place, &["signal", &id, "approved"]);
    host.until("the signal is there", || events(&host, &id).len() > 5);
    let host = {
        host.kill();
        place.run()
    };
    let paused = events(&host, &id);
    assert!(!paused.contains(&"step.started last".to_owned()), "{paused:?}");
    assert_eq!(saga(&host, &id)["status"], "paused", "also after a restart");
    let why = done(&place, &["why", &id]);
    for word in ["paused by ada@127.0.0.1: the price is wrong", "you can: ", "resume"] {
        assert!(why.contains(word), "{why}");
    }
    done(&place, &["pause", &id, "--reason", "twice does nothing"]);
    assert_eq!(events(&host, &id), paused);
    done(&place, &["resume", &id, "--reason", "the price is right"]);
    until_status(&host, &id, "completed");
    let after = events(&host, &id).split_off(paused.len());
    let [first, rest @ ..] = after.as_slice() else { panic!("{after:?}") };
    assert_eq!(first, "operator.resumed");
    assert!(rest.contains(&"step.started last".to_owned()), "{rest:?}");
}

#[test]
fn nothing_acts_on_a_saga_that_was_abandoned() {
    let place = place();
    let host = place.run();
    let id = start(&place, "gate");
    until_status(&host, &id, "waiting");
    done(&place, &["abandon", &id, "--reason", "settled by phone"]);
    assert_eq!(saga(&host, &id)["status"], "abandoned");
    let ended = events(&host, &id);
    assert_eq!(ended.last().unwrap(), "saga.abandoned");
    refused(&place, &["signal", &id, "approved"], 1, &["the saga is abandoned", "help: "]);
    for verb in ["resume", "pause", "retry", "skip", "cancel", "compensate"] {
        refused(&place, &[verb, &id, "--reason", "again"], 1, &["help: "]);
    }
    done(&place, &["abandon", &id, "--reason", "twice does nothing"]);
    assert_eq!(events(&host, &id), ended);
    assert!(done(&place, &["exposure", &id]).contains("good"), "its effect stands");
    let why = done(&place, &["why", &id]);
    assert!(why.contains("abandoned") && why.contains("settled by phone"), "{why}");
}

#[test]
fn a_completed_saga_can_be_compensated_within_the_time_of_its_definition() {
    let place = place();
    let host = place.run();
    let id = start(&place, "good");
    assert_eq!(saga(&host, &id)["status"], "completed");
    let cancel = ["cancel", &id, "--reason", "sent back"];
    refused(&place, &cancel, 1, &["the saga is completed", "help: ", "it can be compensated"]);
    let plan = done(&place, &["undo-plan", &id, "-o", "json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan[0]["step"], "good");
    assert_eq!(plan[0]["output"]["n"], 1);
    done(&place, &["compensate", &id, "--reason", "sent back"]);
    until_status(&host, &id, "compensated");
    let told = events(&host, &id);
    assert!(told.contains(&"undo.succeeded good".to_owned()), "{told:?}");
    assert_eq!(done(&place, &["undo-plan", &id]).trim(), "nothing would be undone");
    let late = start(&place, "late");
    std::thread::sleep(Duration::from_millis(5));
    let compensate = ["compensate", &late, "--reason", "sent back"];
    refused(&place, &compensate, 1, &["could be compensated until", "compensate_within"]);
    assert_eq!(saga(&host, &late)["status"], "completed");
}

#[test]
fn a_step_past_the_pivot_is_repaired_in_each_way() {
    let place = place();
    let host = place.run();
    let [edited, resolved, skipped] = [(); 3].map(|()| start(&place, "forward"));
    for id in [&edited, &resolved, &skipped] {
        assert_eq!(saga(&host, id)["status"], "blocked");
        let cancel = ["cancel", id, "--reason", "too late"];
        refused(&place, &cancel, 1, &["past its pivot", "help: "]);
    }
    let result = ["--result", "{\"label\": 7}", "--evidence", "the carrier's list"];
    let resolve = ["resolve", &resolved, "--reason", "the answer was lost"];
    done(&place, &[&resolve[..], &result].concat());
    let found = saga(&host, &resolved);
    assert_eq!((&found["status"], &found["output"]["label"]), (&"completed".into(), &7.into()));
    done(&place, &["skip", &skipped, "--step", "bad", "--reason", "not needed"]);
    let found = saga(&host, &skipped);
    assert_eq!(found["status"], "completed");
    assert_eq!(step(&found, "bad")["status"], "skipped");
    plugin(&place, "bad", Behaviour::Echo, Behaviour::Done);
    let old = step(&found, "bad")["digest"].clone();
    host.until("another serves", || host.get("/v1/plugins/bad")["digest"] != old);
    fs::write(place.path("edited.json"), "{\"n\": 2}").unwrap();
    let retry = ["retry", &edited, "--step", "bad", "--input", "edited.json"];
    done(&place, &[&retry[..], &["--reason", "the ZIP code was wrong"]].concat());
    until_status(&host, &edited, "completed");
    assert_eq!(saga(&host, &edited)["output"]["n"], 2, "it was called with the new input");
}

#[test]
fn a_call_that_did_not_happen_is_not_undone() {
    let place = place();
    let host = place.run();
    let id = start(&place, "lost");
    let backs_off = || step(&saga(&host, &id), "lost")["status"] == "backing_off";
    host.until("it waits to be tried again", backs_off);
    let exposure = done(&place, &["exposure", &id]);
    let line = exposure.lines().find(|line| line.starts_with("lost")).unwrap();
    assert!(line.contains("not known"), "{exposure}");
    assert!(done(&place, &["undo-plan", &id]).contains("lost"));
    let resolve = ["resolve", &id, "--not-happened", "--evidence", "no label at the carrier"];
    done(&place, &[&resolve[..], &["--reason", "the answer was lost"]].concat());
    assert!(!done(&place, &["exposure", &id]).contains("lost"));
    assert!(!done(&place, &["undo-plan", &id]).contains("lost"));
    done(&place, &["cancel", &id, "--reason", "ordered twice"]);
    until_status(&host, &id, "compensated");
    let told = events(&host, &id);
    assert!(told.contains(&"undo.succeeded good".to_owned()), "{told:?}");
    assert!(!told.contains(&"undo.started lost".to_owned()), "{told:?}");
}

#[test]
fn a_verb_in_the_wrong_state_is_told_what_would_be_right() {
    let place = place();
    let host = place.run();
    let reason = ["--reason", "to see"];
    let verb = |verb: &str, id: &str, more: &[&str], exit: i32, words: &[&str]| {
        refused(&place, &[&[verb, id], &reason[..], more].concat(), exit, words);
    };
    let good = start(&place, "good");
    verb("resume", &good, &[], 1, &["the saga is not paused", "help: only a paused saga"]);
    for word in ["retry", "skip", "pause", "abandon"] {
        verb(word, &good, &[], 1, &["the saga is completed", "help: ", "can be compensated"]);
    }
    verb("resolve", &good, &["--evidence", "seen"], 1, &["the saga is completed", "help: "]);
    let pair = start(&place, "pair");
    verb("skip", &pair, &[], 1, &["more than one step can be", "help: name one of one, two"]);
    verb("skip", &pair, &["--step", "three"], 1, &["no step `three`", "its steps are one, two"]);
    verb("skip", &pair, &["--step", "bad"], 1, &["bad is failed", "help: name one of one, two"]);
    verb("resolve", &pair, &["--step", "one", "--evidence", " "], 1, &["no evidence", "help: "]);
    let gate = start(&place, "gate");
    until_status(&host, &gate, "waiting");
    verb("retry", &gate, &[], 1, &["no call of the saga has failed", "help: `amends why`"]);
    refused(&place, &["signal", &gate, "aproved"], 1, &["waits for `aproved`", "approved"]);
    refused(&place, &["pause", &gate, "--reason", " "], 1, &["the reason is empty", "help: "]);
    verb("retry", UNKNOWN, &[], 4, &["there is no saga"]);
    for verb in ["undo-plan", "exposure"] {
        refused(&place, &[verb, UNKNOWN], 4, &["there is no saga"]);
    }
    refused(&place, &["signal", UNKNOWN, "approved"], 4, &["there is no saga"]);
    // A 409 says so to every client.
    let url = host.url(&format!("/v1/sagas/{good}/resume"));
    let request = agent().post(url).header("content-type", "application/json");
    let mut answer = request.send("{\"reason\": \"to see\"}").unwrap();
    assert_eq!(answer.status().as_u16(), 409);
    let problem: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(problem["code"], "wrong_state");
    assert_eq!(problem["remedy"], "only a paused saga, or one whose log is full, can be resumed");
}

#[test]
fn an_id_and_filters_exclude_each_other() {
    let place = Place::empty();
    let usage = |arguments: &[&str], word: &str| {
        refused(&place, arguments, 2, &[word, "help: "]);
    };
    let reason = ["--reason", "to see"];
    for verb in ["cancel", "compensate", "retry", "skip", "pause", "resume", "abandon"] {
        usage(&[&[verb], &reason[..]].concat(), &format!("which sagas to {verb}"));
        usage(&[&[verb, UNKNOWN, "--status", "blocked"], &reason[..]].concat(), "exclude each");
        usage(&[&[verb, UNKNOWN, "--dry-run"], &reason[..]].concat(), "go with filters");
    }
    for rate in ["0", "-1", "fast", "inf", "NaN"] {
        let rate = format!("--rate={rate}");
        let retry = [&["retry", "--status", "blocked", &rate], &reason[..]].concat();
        refused(&place, &retry, 2, &["write a number of sagas"]);
    }
    refused(&place, &["retry", UNKNOWN], 2, &["--reason"]);
    refused(&place, &["resolve", UNKNOWN, "--reason", "to see"], 2, &["--evidence"]);
}

#[test]
fn a_thousand_blocked_sagas_are_repaired_with_one_command() {
    const SAGAS: usize = 1_000;
    let place = place();
    let host = place.run();
    fs::write(place.path("each.ndjson"), "{\"n\": 1}\n".repeat(SAGAS)).unwrap();
    let each = ["start", "blocked", "--input", "each.ndjson", "--each", "--wait", "2m"];
    let output = place.amends(&each);
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    let completed = start(&place, "good");
    let query = ["--status", "blocked", "--error-like", "NOT Possible"];
    let retry = |more: &[&str]| {
        let arguments = [&["retry", "--reason", "the undo is mended"], &query[..], more].concat();
        place.amends(&arguments)
    };
    let count = |status: &str| host.sagas().iter().filter(|saga| saga["status"] == status).count();

    let events = host.events().len();
    let dry = retry(&["--dry-run"]);
    let text = stdout(&dry);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    let last = text.lines().last().unwrap();
    assert_eq!(last, "retry would act on 1000 sagas; nothing is done yet");
    assert_eq!(text.lines().filter(|line| line.contains("it is not possible")).count(), SAGAS);
    assert!(!text.contains(&completed), "that one is not blocked");
    let dry = retry(&["--dry-run", "-o", "ids"]);
    let ids: std::collections::BTreeSet<_> = stdout(&dry).lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), SAGAS);
    let dry: Value = serde_json::from_slice(&retry(&["--dry-run", "-o", "json"]).stdout).unwrap();
    assert_eq!((&dry["found"], &dry["dry_run"]), (&SAGAS.into(), &true.into()));
    assert_eq!(host.events().len(), events, "a dry run does nothing");

    // Nothing is mended yet: the first ten, slowly, are blocked again.
    let began = Instant::now();
    let ten = retry(&["--limit", "10", "--rate", "20", "-o", "jsonl"]);
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert_eq!(stdout(&ten).lines().count(), 10, "{}", stderr(&ten));
    host.settle();
    assert_eq!(count("blocked"), SAGAS);

    let version = "1.2.4";
    let mended =
        Component { name: "held", version, execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("held"), mended.build()).unwrap();
    host.until("the mended one is active", || host.get("/v1/plugins/held")["version"] == version);
    let output = retry(&[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    println!("{text}");
    assert!(text.starts_with("retry: 1000 of 1000 sagas done in "), "{text}");
    let by_status = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().next().unwrap().parse::<usize>().unwrap());
    assert_eq!(by_status.sum::<usize>(), SAGAS, "{text}");
    host.settle();
    assert_eq!((count("compensated"), count("completed")), (SAGAS, 1));
    let retried = host.events();
    let retried = retried.iter().filter(|event| event["type"] == "operator.retried");
    let of_ada = retried.filter(|event| {
        event["data"]["who"] == "ada@127.0.0.1" && event["data"]["reason"] == "the undo is mended"
    });
    assert_eq!(of_ada.count(), SAGAS + 10);
    let again: Value = serde_json::from_slice(&retry(&["-o", "json"]).stdout).unwrap();
    assert_eq!(again["found"], 0, "{again}");
}

#[test]
fn a_query_that_is_interrupted_tells_what_was_done_and_what_was_not() {
    const SAGAS: usize = 40;
    let place = place();
    let host = place.run();
    fs::write(place.path("each.ndjson"), "{\"n\": 1}\n".repeat(SAGAS)).unwrap();
    done(&place, &["start", "gate", "--input", "each.ndjson", "--each"]);
    let count = |status: &str| host.sagas().iter().filter(|saga| saga["status"] == status).count();
    host.until("every one waits", || count("waiting") == SAGAS);
    let pause = ["pause", "--definition", "gate", "--rate", "4", "--reason", "to see"];
    let mut client = place.command(&pause);
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    host.until("some are paused", || count("paused") >= 3);
    signal(&client, Signal::INT);
    let output = client.wait_with_output().unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let words: Vec<_> = told.split_whitespace().collect();
    assert_eq!(words[..2], ["interrupted:", "pause:"], "{told}");
    let number = |index: usize| words[index].parse::<usize>().unwrap();
    let (done, found, unanswered, left) =
        (number(2), number(4), number(9), number(words.len() - 5));
    assert_eq!((found, done + unanswered + left), (SAGAS, SAGAS), "{told}");
    assert!(done >= 2 && left >= SAGAS / 2, "{told}");
    host.until("no more are paused", || (done..=done + unanswered).contains(&count("paused")));
}

#[test]
fn a_query_tells_what_was_refused() {
    let place = place();
    let host = place.run();
    let (good, gate) = (start(&place, "good"), start(&place, "gate"));
    until_status(&host, &gate, "waiting");
    let pause = ["pause", "--started-after", "2026-01-01T00:00:00Z", "--reason", "to see"];
    let output = place.amends(&[&pause[..], &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["found"], &told["done"], &told["refused"]),
        (&2.into(), &1.into(), &1.into())
    );
    assert_eq!(told["statuses"]["paused"], 1, "{told}");
    assert_eq!(told["refusals"][0]["id"], good.as_str());
    assert!(told["refusals"][0]["reason"].as_str().unwrap().contains("completed"), "{told}");
    let output = place.amends(&pause);
    let (text, errors) = (stdout(&output), stderr(&output));
    assert!(text.starts_with("pause: 1 of 2 sagas done") && text.contains("1  refused"), "{text}");
    assert!(errors.contains(&format!("{good}: the saga is completed")), "{errors}");
    // Ids from standard input as well.
    let ids = format!("{good}\n{gate}\n");
    let output = fed(&place, &["resume", "-", "--reason", "to see", "-o", "ids"], &ids);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output).trim(), gate);
    let found = done(&place, &["list", "--error-like", "to see", "-o", "ids"]);
    assert_eq!(found, "", "a pause is no error");
    assert_eq!(done(&place, &["list", "--stuck", "-o", "ids"]), "");
}
