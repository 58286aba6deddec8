//! The form of evidence, against a file of it. The command line checks the signature of the same file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use amends_engine::Payload;
use serde_json::value::RawValue;

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/evidence.jsonl");

const SAGA: &str = "0198c0de-0000-7000-8000-000000000000";

/// The key that has signed the file.
const KEY: &str = "75C60E4AC9F1E627";

fn at(second: u8) -> Timestamp {
    format!("2026-11-29T13:15:{second:02}.000Z").parse().unwrap()
}

fn event(version: u64, kind: &str, data: &str) -> EventView {
    EventView {
        version,
        position: version + 6,
        at: at(u8::try_from(version).unwrap()),
        saga: Some(SAGA.to_owned()),
        plugin: None,
        service: None,
        kind: kind.to_owned(),
        data: RawValue::from_string(data.to_owned()).unwrap(),
        step: None,
        idempotency_key: None,
    }
}

fn head() -> EvidenceHead {
    EvidenceHead {
        format: EVIDENCE_FORMAT.to_owned(),
        amends: "0.1.0".to_owned(),
        key: KEY.to_owned(),
        made_at: at(30),
        asked_by: "ada@127.0.0.1".to_owned(),
        access_control: true,
        saga: SAGA.to_owned(),
        status: "compensated".to_owned(),
        ended: true,
        events: 3,
        started_at: at(1),
        ended_at: Some(at(3)),
        personal: None,
        definition: DefinitionView {
            name: "order".to_owned(),
            digest: format!("sha256:{}", "0".repeat(64)),
            spec: Payload::parse("{\"name\":\"order\"}").unwrap(),
        },
    }
}

/// The lines of the file before the last one.
fn lines() -> Vec<EvidenceLine> {
    let mut started = event(2, "step.started", "{\"step\":\"pack\",\"attempt\":1}");
    started.idempotency_key = Some("k-1".to_owned());
    let component = |plugin: &str, digit: &str| EvidenceComponent {
        plugin: plugin.to_owned(),
        digest: format!("sha256:{}", digit.repeat(64)),
        version: None,
        signed_by: None,
        unchecked: None,
    };
    let entry = AuditView {
        version: 4,
        kind: "audit.recorded".to_owned(),
        at: at(2),
        who: Some("ada@127.0.0.1".to_owned()),
        token: None,
        roles: vec!["admin".to_owned()],
        address: Some("127.0.0.1".to_owned()),
        operation: Some("cancel_saga".to_owned()),
        target: Some(format!("/v1/sagas/{SAGA}/cancel")),
        status: Some(200),
        code: None,
        count: None,
        since: None,
        chain: Some("3".repeat(64)),
    };
    vec![
        EvidenceLine::Evidence(Box::new(head())),
        EvidenceLine::Event(event(1, "saga.started", "{\"input\":{\"city\":\"Zürich\"}}")),
        EvidenceLine::Event(started),
        EvidenceLine::Event(event(3, "saga.compensated", "{}")),
        EvidenceLine::Component(EvidenceComponent {
            version: Some("1.0.0".to_owned()),
            signed_by: Some(vec![KEY.to_owned()]),
            unchecked: Some(Vec::new()),
            ..component("pack", "1")
        }),
        EvidenceLine::Component(component("ship", "2")),
        EvidenceLine::Audit(entry),
        EvidenceLine::Children(vec!["0198c0de-0000-7000-8000-000000000001".to_owned()]),
    ]
}

/// The lines of a text, with their line feeds.
fn texts(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// Evidence of these lines, with a last line that fits to them.
fn sealed(lines: &[EvidenceLine]) -> Vec<String> {
    let mut chain = EvidenceChain::default();
    let mut texts: Vec<_> = lines.iter().map(|line| chain.add(line).unwrap()).collect();
    texts.push(chain.seal(KEY.to_owned(), "signature".to_owned()).unwrap());
    texts
}

fn check(texts: &[String]) -> Result<EvidenceFound, EvidenceMisfit> {
    let mut check = EvidenceCheck::default();
    for text in texts {
        check.take(text.as_bytes())?;
    }
    check.finish()
}

/// The line that does not fit, and why.
#[track_caller]
fn misfit(texts: &[String]) -> (u64, String) {
    let EvidenceMisfit { line, wrong } = check(texts).unwrap_err();
    (line, wrong)
}

#[test]
fn the_form_is_this_one() {
    let mut chain = EvidenceChain::default();
    let mut written: String = lines().iter().map(|line| chain.add(line).unwrap()).collect();
    let last: LastLine = serde_json::from_str(texts(GOLDEN).last().unwrap()).unwrap();
    written += &chain.seal(last.signed.key, last.signed.signature).unwrap();
    assert_eq!(written, GOLDEN);
}

#[test]
fn what_nobody_has_changed_fits() {
    let found = check(&texts(GOLDEN)).unwrap();
    assert_eq!(
        serde_json::to_string(&found.head).unwrap(),
        serde_json::to_string(&head()).unwrap()
    );
    assert_eq!((found.first_at, found.last_at), (at(1), at(3)));
    assert_eq!((found.seal.lines, found.seal.key.as_str()), (8, KEY));
    assert_eq!(found.message, format!("amends-evidence/1 8 {}", found.seal.hash));
}

#[test]
fn what_was_changed_moved_or_removed_is_told_with_its_line() {
    let good = texts(GOLDEN);
    for number in 0..good.len() - 1 {
        let line = number as u64 + 1;
        let mut changed = good.clone();
        changed[number] = changed[number].replacen("\":", "\" :", 1);
        assert_eq!(misfit(&changed).0, line, "a line is changed");
        let mut removed = good.clone();
        removed.remove(number);
        // Without the last of the lines, the signature is what does not fit.
        assert_eq!(misfit(&removed).0, line, "a line is removed");
        let mut twice = good.clone();
        twice.insert(number, good[number].clone());
        assert_eq!(misfit(&twice).0, line + 1, "a line stands there twice");
        if number + 2 < good.len() {
            let mut swapped = good.clone();
            swapped.swap(number, number + 1);
            assert_eq!(misfit(&swapped).0, line, "two lines are swapped");
        }
    }
    let (line, wrong) = misfit(&good[..5]);
    assert_eq!((line, wrong.contains("cut off")), (6, true), "{wrong}");
    let mut cut = good.clone();
    cut[6].truncate(40);
    cut.truncate(7);
    let (line, wrong) = misfit(&cut);
    assert_eq!((line, wrong.contains("cut off")), (7, true), "{wrong}");
    assert_eq!(misfit(&[]).0, 1);
    let more = [good.clone(), vec!["{}\n".to_owned()]].concat();
    assert_eq!(misfit(&more), (10, "it follows the signature, which is the last line".to_owned()));
    let mut check = EvidenceCheck::default();
    assert!(check.take(b"\xff\n").unwrap_err().wrong.contains("UTF-8"));
}

/// Somebody who has no key can still compute a chain.
#[test]
fn lines_that_do_not_belong_together_are_told_whatever_their_chain_says() {
    let changed = |change: &dyn Fn(&mut Vec<EvidenceLine>)| {
        let mut lines = lines();
        change(&mut lines);
        misfit(&sealed(&lines))
    };
    let (line, wrong) = changed(&|lines| drop(lines.remove(2)));
    assert_eq!((line, wrong.as_str()), (3, "event 2 is missing; this one is 3"));
    let (line, wrong) = changed(&|lines| drop(lines.remove(3)));
    assert_eq!((line, wrong.starts_with("the saga had 3 events")), (8, true), "{wrong}");
    let other = |line: usize| {
        changed(&move |lines| {
            let text = serde_json::to_string(&lines[line]).unwrap().replace(SAGA, "other");
            lines[line] = serde_json::from_str(&text).unwrap();
        })
    };
    assert_eq!(other(2), (3, format!("it is an event of saga other, and not of {SAGA}")));
    assert_eq!(other(6).0, 7);
    assert_eq!(other(0).0, 2, "the events are of another saga than the first line says");
    let (line, wrong) = changed(&|lines| {
        let head = EvidenceHead { format: "amends-evidence/2".to_owned(), ..head() };
        lines[0] = EvidenceLine::Evidence(Box::new(head));
    });
    assert_eq!((line, wrong.contains("its format is amends-evidence/2")), (1, true), "{wrong}");
    assert_eq!(changed(&|lines| drop(lines.remove(0))).0, 1);
    let twice = changed(&|lines| lines.insert(4, EvidenceLine::Evidence(Box::new(head()))));
    assert_eq!(twice, (5, "other evidence begins here".to_owned()));
    let (line, wrong) = changed(&|lines| {
        let head = EvidenceHead { key: "0000000000000000".to_owned(), ..head() };
        lines[0] = EvidenceLine::Evidence(Box::new(head));
    });
    assert_eq!((line, wrong.contains("line 1 names key 0000")), (9, true), "{wrong}");
}

#[test]
fn white_space_of_a_payload_breaks_no_line() {
    let mut chain = EvidenceChain::default();
    let line = EvidenceLine::Event(event(1, "order.made", "{\n\"a\": \"b\\nc\"\n}"));
    let text = chain.add(&line).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(text.contains("{ \"a\": \"b\\nc\" }"), "{text}");
}
