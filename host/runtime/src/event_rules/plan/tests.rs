//! What rules make of events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::json;

use super::*;
use crate::event_rules::{EventOrigin, EventSignal, EventStart};

fn expression(source: &str) -> EventExpression {
    EventExpression::compile(source).unwrap()
}

fn expressions(all: &[(&str, &str)]) -> BTreeMap<String, EventExpression> {
    all.iter().map(|(name, source)| ((*name).to_owned(), expression(source))).collect()
}

fn rule(effect: EventEffect) -> EventRule {
    EventRule {
        name: "orders".to_owned(),
        event: amends_subscriptions::TypePattern::of_others("order.*").unwrap(),
        origin: EventOrigin::Webhook(Vec::new()),
        effect,
    }
}

fn starts(input: EventPayload, tags: &[(&str, &str)]) -> EventRule {
    let definition = "purchase".parse().unwrap();
    rule(EventEffect::Start(EventStart { definition, key: None, input, tags: expressions(tags) }))
}

fn keyed(key: &str) -> EventRule {
    let mut rule = starts(EventPayload::Data, &[]);
    if let EventEffect::Start(start) = &mut rule.effect {
        start.key = Some(expression(key));
    }
    rule
}

fn signals(to: SignalTarget) -> EventRule {
    let name = "paid".parse().unwrap();
    rule(EventEffect::Signal(EventSignal { name, to, payload: EventPayload::Data }))
}

fn event(id: &str, source: &str) -> IncomingEvent {
    let event = json!({
        "specversion": "1.0", "id": id, "source": source, "type": "order.placed", "subject": "s-7",
        "data": {"order": "a", "n": 7, "vip": true, "list": [1], "none": null, "long": "x".repeat(256)},
    });
    IncomingEvent::parse(&event.to_string()).unwrap()
}

fn start_of(rule: &EventRule) -> Result<(String, BTreeMap<String, String>), String> {
    match rule.plan(&event("7", "/shop")).map_err(|error| error.to_string())? {
        Plan::Start { input, tags, .. } => Ok((input.as_str().to_owned(), tags)),
        other @ (Plan::Ignore | Plan::Signal { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn a_start_has_the_input_and_the_tags_of_the_rule() {
    let (input, tags) = start_of(&starts(EventPayload::Data, &[])).unwrap();
    assert!(input.starts_with(r#"{"list":[1],"#) || input.contains(r#""order":"a""#), "{input}");
    assert_eq!(tags, BTreeMap::from([("on".to_owned(), "orders".to_owned())]));
    let fields =
        EventPayload::Fields(expressions(&[("id", "event.data.order"), ("s", "event.subject")]));
    let tags = [("n", "event.data.n"), ("vip", "event.data.vip"), ("none", "event.data.none")];
    let (input, tags) = start_of(&starts(fields, &tags)).unwrap();
    assert_eq!(input, r#"{"id":"a","s":"s-7"}"#);
    assert_eq!(tags["n"], "7");
    assert_eq!(tags["vip"], "true");
    assert!(!tags.contains_key("none"));
    let whole = EventPayload::Whole(expression("event.type"));
    assert_eq!(start_of(&starts(whole, &[])).unwrap().0, r#""order.placed""#);
}

#[test]
fn an_error_names_the_key_of_the_rule() {
    let field = |source| EventPayload::Fields(expressions(&[("id", source)]));
    for (rule, words) in [
        (starts(field("event.data.missing"), &[]), "the rule's `input.id` fails on this event"),
        (starts(EventPayload::Whole(expression("event.data.x.y")), &[]), "`input`"),
        (starts(EventPayload::Data, &[("t", "event.data.list")]), "`tags.t`"),
        (starts(EventPayload::Data, &[("t", "event.data.long")]), "has 1 to 255 bytes"),
        (signals(SignalTarget::Saga(expression("event.subject"))), "`saga`"),
        (signals(SignalTarget::Saga(expression("event.data.n"))), "is no text"),
        (signals(SignalTarget::Key(expression("event.data.none"))), "`key`"),
        (signals(SignalTarget::Key(expression("event.data.long"))), "a key has 1 to 255 bytes"),
        (keyed("event.data.long"), "a key has 1 to 255 bytes"),
        (keyed("'on/orders/x'"), "is a key that the host makes"),
        (keyed("'schedule/nightly/x'"), "is a key that the host makes"),
    ] {
        let error = rule.plan(&event("7", "/shop")).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_passing());
    }
}

#[test]
fn a_rule_may_have_a_key_of_its_own() {
    let key = |rule: EventRule| match rule.plan(&event("7", "/shop")).unwrap() {
        Plan::Start { key, is_own_key, .. } => (key, is_own_key),
        other @ (Plan::Ignore | Plan::Signal { .. }) => panic!("{other:?}"),
    };
    assert_eq!(key(keyed("'order-' + event.data.order")), ("order-a".to_owned(), false));
    let made = ("on/orders//shop 7".to_owned(), true);
    assert_eq!(key(starts(EventPayload::Data, &[])), made);
}

#[test]
fn another_type_does_nothing() {
    let other = json!({"specversion": "1.0", "id": "7", "source": "/s", "type": "orders"});
    let other = IncomingEvent::parse(&other.to_string()).unwrap();
    // Also when its expressions would fail.
    let rule = starts(EventPayload::Whole(expression("event.data.x.y")), &[]);
    assert!(matches!(rule.plan(&other), Ok(Plan::Ignore)));
}

#[test]
fn the_key_is_one_of_rule_source_and_id() {
    let rule = starts(EventPayload::Data, &[]);
    let key = |id: &str, source: &str| rule.identity(&event(id, source));
    assert_eq!(key("7", "/shop"), "on/orders//shop 7");
    // Neither the end of a source nor a blank in an id makes two events one.
    assert_ne!(key("b/c", "a"), key("c", "a/b"));
    assert_ne!(key("b c", "a"), key("c", "a"));
    let long = "x".repeat(1_024);
    let digest = key(&long, "/shop");
    assert_eq!(digest.len(), "on/orders/sha256:".len() + 64);
    assert!(!digest.contains(' '));
    assert_ne!(digest, key(&long, "/other"));
    assert_eq!(digest, key(&long, "/shop"));
    let longest = START_KEY_BYTES_MAX - "on/orders//shop ".len();
    assert_eq!(key(&"x".repeat(longest), "/shop").len(), START_KEY_BYTES_MAX);
    assert_eq!(key(&"x".repeat(longest + 1), "/shop").len(), "on/orders/sha256:".len() + 64);
}

#[test]
fn a_signal_has_the_saga_that_the_rule_names() {
    let to = |target| match signals(target).plan(&event("7", "/shop")).unwrap() {
        Plan::Signal { id, to, .. } => {
            assert_eq!(id, "on/orders//shop 7");
            to
        }
        other @ (Plan::Ignore | Plan::Start { .. }) => panic!("{other:?}"),
    };
    assert_eq!(
        to(SignalTarget::Key(expression("'k-' + event.data.order"))),
        SignalTo::Key("k-a".to_owned())
    );
    let id = "0198f3a2-0000-7000-8000-000000000001";
    let saga = SignalTarget::Saga(expression(&format!("'{id}'")));
    assert_eq!(to(saga), SignalTo::Saga(id.parse().unwrap()));
}
