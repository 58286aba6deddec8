//! What a person at a terminal and a program in a pipe see of many sagas, and how they name one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use amends_tests::{Behaviour, Component};
use rustix::process::Signal;

use crate::cli::fed;
use crate::place::{Host, Place, signal, stderr, stdout};

/// `ask` waits for a signal, `nap` sleeps, `family` runs `ask`, `again` fails and is tried again after
/// an hour, `stands` sleeps after a step whose effect stands, `fine` ends.
fn place() -> Place {
    let place = Place::empty();
    for (name, execute) in [("good", Behaviour::Echo), ("busy", Behaviour::Retryable)] {
        let component = Component { name, execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    let saga = |name: &str, step: &str| {
        format!(
            "[[saga]]\nname = \"{name}\"\ndeadline = \"24h\"\n[[saga.step]]\nname = \"one\"\n{step}\n"
        )
    };
    let retry =
        "plugin = \"busy\"\nretry = { attempts = 4, initial = \"1h\", max = \"2h\", jitter = 0 }";
    let sagas = [
        saga("ask", "wait = { signal = \"approved\", timeout = \"2h\" }"),
        saga("nap", "sleep = \"1h\""),
        saga("family", "saga = \"ask\""),
        saga("again", retry),
        saga("stands", "plugin = \"good\"\n[[saga.step]]\nname = \"two\"\nsleep = \"1h\""),
        saga("fine", "plugin = \"good\""),
    ];
    place.config(&sagas.concat());
    place
}

fn start(place: &Place, definition: &str) -> String {
    let output = place.amends(&["start", definition, "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// What the verb prints on a terminal of this many columns.
fn on_terminal(place: &Place, columns: u32, verb: &str) -> String {
    let line = format!("stty cols {columns}; exec '{}' {verb}", crate::place::amends().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("NO_COLOR", "1");
    let output = command.env("AMENDS_HOST", format!("127.0.0.1:{}", place.port)).output().unwrap();
    stdout(&output).replace('\r', "")
}

fn running(place: &Place) -> Host {
    place.run()
}

#[test]
fn a_saga_is_named_by_a_part_of_its_id_or_as_the_last() {
    let place = place();
    let host = running(&place);
    let ids: Vec<_> = (0..3).map(|_| start(&place, "fine")).collect();
    let got = |name: &str| {
        let output = place.amends(&["get", name, "-o", "ids"]);
        (output.status.code(), stdout(&output).trim().to_owned(), stderr(&output))
    };
    let [first, second, last] = ids.as_slice() else { panic!("{ids:?}") };
    for (name, id) in [
        (&first[28..], first),
        (&second[24..], second),
        (&second.to_uppercase()[26..], second),
        (&last[..], last),
        (&last.replace('-', ""), last),
        ("@last", last),
        ("@last-2", first),
    ] {
        assert_eq!(got(name), (Some(0), id.clone(), String::new()), "{name}");
    }
    // They are started within seconds: the first digits are the same time.
    let (code, _, told) = got(&first[..8]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("is part of the ids of several sagas"), "{told}");
    assert!(ids.iter().all(|id| told.contains(id.as_str())), "{told}");
    assert!(told.contains("fine  completed  "), "{told}");
    for (name, exit) in
        [("00000000", 4), ("@last-3", 4), ("@lost", 1), ("seven", 1), ("1234567", 1)]
    {
        let (code, _, told) = got(name);
        assert_eq!(code, Some(exit), "{name}: {told}");
        assert!(told.contains(name) && !told.contains("/v1/"), "{name}: {told}");
    }
    // Also where a verb does something, and on standard input.
    let paused = place.amends(&["compensate", &first[28..], "--reason", "sent back"]);
    assert!(stdout(&paused).starts_with(first.as_str()), "{}", stderr(&paused));
    let output = fed(&place, &["history", "-", "-o", "ids"], &format!("@last\n{}\n", &first[28..]));
    assert_eq!(stdout(&output), format!("{last}\n{first}\n"));
    // A saga that another one started is not what a person started last.
    let family = start(&place, "family");
    host.until("its child is started", || host.sagas().len() == ids.len() + 2);
    assert_eq!(got("@last"), (Some(0), family.clone(), String::new()));
    assert_eq!(got("@last-1").1, *last);
    assert_eq!(got("@last-4").0, Some(4));
    let output = fed(&place, &["get", "-", "-o", "ids"], "@last\n@last-1\n@last\n");
    assert_eq!(stdout(&output), format!("{family}\n{last}\n{family}\n"));
}

#[test]
fn sagas_are_found_by_the_digest_of_their_definition() {
    let place = place();
    let host = running(&place);
    let id = start(&place, "fine");
    let _other = start(&place, "nap");
    let definition = host.get(&format!("/v1/sagas/{id}/definition"));
    let digest = definition["digest"].as_str().unwrap();
    let (_, digits) = digest.split_once(':').unwrap();
    for part in [digest, digits, &digits[..8]] {
        let found = place.amends(&["list", "--definition-digest", part, "-o", "ids"]);
        assert_eq!(stdout(&found).trim(), id, "{part}: {}", stderr(&found));
    }
    let none = place.amends(&["list", "--definition-digest", "0123456789", "--count"]);
    assert!(stdout(&none).starts_with('0'), "{}{}", stdout(&none), stderr(&none));
    let both = ["list", "--definition", "nap", "--definition-digest", digest, "-o", "ids"];
    assert_eq!(stdout(&place.amends(&both)), "");
    let refused = place.amends(&["list", "--definition-digest", "abc"]);
    assert!(stderr(&refused).contains("is no beginning of a digest"), "{}", stderr(&refused));
}

#[test]
fn a_saga_that_waits_says_for_what() {
    let place = place();
    let host = running(&place);
    let [ask, nap, family, again] =
        ["ask", "nap", "family", "again"].map(|definition| start(&place, definition));
    let told = |arguments: &[&str]| stdout(&place.amends(arguments));
    host.until("its first attempt has failed", || told(&["list"]).contains(", 2 of 4: "));
    let list = told(&["list"]);
    let row = |id: &str| list.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(row(&ask).contains("  one waits for signal approved until 20"), "{list}");
    assert!(row(&nap).contains("  one sleeps until 20"), "{list}");
    assert!(row(&family).contains("  one runs as saga 0"), "{list}");
    assert!(row(&again).contains(", 2 of 4: "), "{list}");
    // What the list shows can be found.
    let found = told(&["list", "--error-like", "2 of 4: no: it is NOT possible", "-o", "ids"]);
    assert_eq!(found, format!("{again}\n"));
    let child = row(&family).rsplit(' ').next().unwrap().to_owned();
    assert!(told(&["get", &family]).contains(&child), "a child's id is in the table");

    let why = told(&["why", &ask]);
    assert!(why.contains("\nnext: 20") && why.contains("\ndeadline: 20"), "{why}");
    assert!(why.contains("you can: signal, "), "{why}");
    let why = told(&["why", &family]);
    assert!(!why.contains("next: ") && why.contains("\ndeadline: 20"), "{why}");
    assert!(!why.contains("signal"), "{why}");

    let get = told(&["get", &ask]);
    let step = get.lines().last().unwrap();
    assert!(step.contains("  until 20") && !get.contains("attempt "), "{get}");
    assert!(step.ends_with("waits for the signal `approved`"), "{get}");
    let get = told(&["get", &again]);
    let step = get.lines().last().unwrap();
    assert!(step.contains("  again at 20") && step.contains("Z  "), "{get}");
}

#[test]
fn on_a_terminal_tables_fit_it() {
    let place = place();
    let host = running(&place);
    let stands = start(&place, "stands");
    host.until("an effect stands", || {
        stdout(&place.amends(&["undo-plan", &stands])).starts_with("WAVE")
    });
    let ids: Vec<_> =
        ["ask", "again", "family"].iter().map(|definition| start(&place, definition)).collect();
    let again = &ids[1][28..];
    for columns in [80, 120] {
        for verb in [
            "list",
            "plugin list",
            "plugin versions good",
            &format!("get {again}"),
            &format!("history {again}"),
            "exposure",
            &format!("exposure {stands}"),
            &format!("undo-plan {stands}"),
        ] {
            let told = on_terminal(&place, columns, verb);
            let is_header = |line: &str| line.starts_with(|c: char| c == '#' || c.is_uppercase());
            assert!(told.lines().any(is_header), "{verb} prints no table: {told}");
            // A line of text may be longer; a row of a table may not.
            for line in told.lines().filter(|line| !line.starts_with("started  ")) {
                let chars = line.chars().count();
                assert!(chars <= columns as usize, "{verb} at {columns}: {chars}\n{told}");
            }
        }
    }
    let list = on_terminal(&place, 80, "list");
    let rows: Vec<_> = list.lines().collect();
    assert!(rows[0].starts_with("ID        DEFINITION  STATUS   AGE  REASON"), "{list}");
    assert!(list.contains(&format!("{again}  again       ")), "{list}");
    assert!(list.contains("one again in 59m ") || list.contains("one again in 1h"), "{list}");
    let wide = on_terminal(&place, 80, "list --wide");
    assert!(ids.iter().all(|id| wide.contains(id.as_str())), "{wide}");
    assert!(!wide.contains('…'), "{wide}");
    let get = on_terminal(&place, 80, &format!("get {again}"));
    assert!(get.contains("again in "), "{get}");
}

#[test]
fn verbs_on_ids_print_a_line_for_each_saga_and_what_came_of_all() {
    let place = place();
    let host = running(&place);
    let ids: Vec<_> = (0..3).map(|_| start(&place, "nap")).collect();
    let unknown = "0198c0de-0000-7000-8000-000000000000";
    // They are started within seconds, so that the first digits are those of all.
    let several = &ids[0][..8];
    let text = format!("{}\n{unknown}\n{several}\n00000000\nseven\n", ids.join("\n"));
    let output = fed(&place, &["pause", "-", "--reason", "the price is wrong"], &text);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    let lines: Vec<_> = told.lines().collect();
    for (line, id) in lines.iter().zip(&ids) {
        assert_eq!(*line, format!("{id}  paused"));
    }
    assert!(lines[3].starts_with("pause: 3 of 7 sagas done in "), "{told}");
    assert_eq!(lines[4..], ["       3  paused", "       4  refused"]);
    let told = stderr(&output);
    assert!(told.starts_with(&format!("{unknown}: there is no saga")), "{told}");
    assert!(told.contains("`amends list` lists the sagas") && !told.contains("/v1/"), "{told}");
    let ambiguous = format!("\n{several}: `{several}` is part of the ids of several sagas:");
    assert!(told.contains(&ambiguous), "{told}");
    assert!(told.contains("\n00000000: there is no saga whose id"), "{told}");
    assert!(told.contains("\nseven: `seven` is no id of a saga"), "{told}");
    // A host that does not answer has refused nothing, and ends it.
    assert_eq!(host.stop(), Some(0));
    let output = fed(&place, &["pause", "-", "--reason", "the price is wrong"], &text);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("pause: 0 of 1 saga done in "), "{told}");
    assert_eq!(lines[1..], ["       1  no answer"]);
}

#[test]
fn an_interrupt_between_two_ids_tells_what_was_done() {
    let place = place();
    let _host = running(&place);
    let ids: Vec<_> = (0..2).map(|_| start(&place, "nap")).collect();
    let mut command = place.command(&["pause", "-", "--reason", "the price is wrong"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(format!("{}\n", ids.join("\n")).as_bytes()).unwrap();
    let printed = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(printed.take(ids.len()).flatten().count(), ids.len());
    // It waits for the next id.
    signal(&client, Signal::INT);
    let output = client.wait_with_output().unwrap();
    drop(input);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let lines: Vec<_> = told.lines().collect();
    let done = "interrupted: pause: 2 of 2 sagas done, 0 refused, 0 without an answer that may be \
                done or not";
    assert_eq!(lines, [done, "       2  paused"]);
}

#[test]
fn a_name_that_is_a_slip_is_no_empty_list() {
    let place = place();
    let _host = running(&place);
    let told = |arguments: &[&str]| {
        let output = place.amends(arguments);
        (output.status.code(), stdout(&output), stderr(&output))
    };
    assert_eq!(told(&["list"]), (Some(0), String::new(), "no sagas\n".to_owned()));
    assert_eq!(told(&["list", "-o", "json"]).1, "[]\n");
    start(&place, "nap");
    let empty = (Some(0), String::new(), "no sagas\n".to_owned());
    assert_eq!(told(&["list", "--definition", "fine"]), empty, "the host has it");
    assert_eq!(told(&["list", "--definition", "nap", "--status", "blocked"]), empty);
    let (code, _, text) = told(&["list", "--definition", "famly", "-o", "ids"]);
    assert_eq!(code, Some(4));
    assert!(
        text.contains("no definition `famly`") && text.contains("did you mean `family`?"),
        "{text}"
    );
    let (code, _, text) = told(&["plugin", "versions", "goood"]);
    assert_eq!(code, Some(4));
    assert!(text.contains("no plugin `goood`\n  help: did you mean `good`?"), "{text}");
    assert_eq!(told(&["list", "--started-before", "1h"]), empty);
    assert_eq!(told(&["list", "--started-after", "1h", "-o", "ids"]).1.lines().count(), 1);
    assert_eq!(told(&["list", "--started-after", "soon"]).0, Some(2));
}

#[test]
fn a_host_needs_no_scheme_and_may_stand_before_the_verb() {
    let place = place();
    let _host = running(&place);
    start(&place, "nap");
    let address = format!("127.0.0.1:{}", place.port);
    let code = |arguments: &[&str], host: &str| {
        let output = place.command(arguments).env("AMENDS_HOST", host).output().unwrap();
        (output.status.code(), stdout(&output).lines().count(), stderr(&output))
    };
    let fine = (Some(0), 1, String::new());
    assert_eq!(code(&["list", "-o", "ids"], &address), fine);
    assert_eq!(code(&["--host", &address, "list", "-o", "ids"], "127.0.0.1:1"), fine);
    assert_eq!(code(&["list", "-o", "ids", "--host", &address], "nonsense:x"), fine);
    for (arguments, host) in
        [(&["list"][..], "nonsense:x"), (&["list", "--host", "7070"], &address)]
    {
        let (code, _, told) = code(arguments, host);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("write an address such as 127.0.0.1:7070"), "{told}");
    }
    for verb in [&["check", "amends.toml"][..], &["run", "amends.toml"], &["completions", "bash"]] {
        let (code, _, told) = code(&[&["--host", address.as_str()][..], verb].concat(), &address);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("talks to no host"), "{told}");
    }
    let output = place.amends(&["history"]);
    let usage = "Usage: amends history <ID>";
    assert!(stderr(&output).contains(usage), "{}", stderr(&output));
}
