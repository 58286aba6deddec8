//! `[[on]]`: which events start sagas or become signals.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    DefinitionSpec, EventExpression, EventType, EventTypeError, ServiceName, SignalName, StepKind,
    is_steering,
};
use amends_runtime::{
    EventEffect, EventOrigin, EventPayload, EventRule, EventSignal, EventStart, SignalTarget,
    TAG_BYTES_MAX, is_event_tag,
};
use amends_subscriptions::{NatsSourceSettings, StartFrom, TypePattern};

use crate::report::Place;
use crate::schedule::read_definition;
use crate::subscription::{read_credentials, read_server, read_signing_secrets};
use crate::suggest::list;
use crate::table::{Context, Item, Table, check_name, join};

const HELP: &str = "begin each rule with [[on]], in two brackets, then name = \"…\", event = \"…\", \
                    and start = \"…\" or signal = \"…\"";
const EVENT_HELP: &str =
    "write a type such as \"order.placed\", or the beginning of one: \"order.*\"";
const FROM_HELP: &str = "write \"webhook\", \"events\", or { nats = \"tls://nats.example.com\", stream = \
                         \"ORDERS\" }";
const NATS_NAME_HELP: &str = "use letters, digits, - and _; in a subject also dots, * for a word and > at \
                              the end, such as \"orders.>\"";
const SECRETS_HELP: &str = "add secrets = [{ env = \"SHOP_SECRET\" }]: a request that is signed with any \
                            of them is taken";
const FIELDS_HELP: &str = "write a CEL expression, such as \"event.data\", or a table of them, such as \
                           { order_id = \"event.data.id\" }";
const TAGS_HELP: &str = "write a table of CEL expressions, such as { shop = \"event.source\" }";
const EFFECT_HELP: &str =
    "write start = \"a saga of this config\", or signal = \"approved\" and saga or key";
const TARGET_HELP: &str = "write saga = \"event.subject\" for its id, or key = \"event.data.order_id\" for \
                           the key that it was started with";

/// The rules of one config: each that takes domain events has a task and a part of the memory.
const RULES_MAX: usize = 64;
/// The tags of a saga beside those that are added; a saga has 16.
const TAGS_MAX: usize = 14;

/// Reads every `[[on]]`. `specs` are the definitions that could be read. `has_auth` says whether the host asks
/// callers for a token.
pub(super) fn read_rules(
    item: Option<&Item<'_>>,
    specs: &[DefinitionSpec],
    has_auth: bool,
    context: &mut Context<'_>,
) -> Vec<Arc<EventRule>> {
    let Some(items) = item.and_then(|item| item.list(context, HELP)) else { return Vec::new() };
    if let Some(item) = items.get(RULES_MAX) {
        let message = format!("{} rules, at most {RULES_MAX} are allowed", items.len());
        item.error(context, message, "have one rule take several types: event = \"order.*\"");
    }
    let (mut read, mut seen) = (Vec::new(), Seen::default());
    for item in &items {
        let Some(table) = item.table(context, HELP) else { continue };
        read.extend(read_rule(table, specs, has_auth, &mut seen, context).map(Arc::new));
    }
    read
}

/// What only one rule may have.
#[derive(Default)]
struct Seen {
    /// The names, with their lines.
    names: BTreeMap<String, usize>,
    /// The consumers of NATS, with their rules. A consumer is known by the server, the stream and its name.
    consumers: BTreeMap<(String, u16, String, String), String>,
}

fn read_rule(
    mut table: Table<'_>,
    specs: &[DefinitionSpec],
    has_auth: bool,
    seen: &mut Seen,
    context: &mut Context<'_>,
) -> Option<EventRule> {
    let name = table.require("name", "\"orders\"", context);
    let name = name.and_then(|item| read_name(&item, &mut seen.names, context));
    if let Some(name) = &name {
        table.key = format!("on.{name}");
        context.remember(&table.key, &table.span);
    }
    let origin = read_origin(&mut table, name.as_deref(), has_auth, seen, context);
    let event = table.require("event", "\"order.placed\"", context);
    let event = event.and_then(|item| read_event(&item, origin.as_ref(), context));
    let effect = read_effect(&mut table, specs, context);
    table.finish(context);
    Some(EventRule { name: name?, event: event?, origin: origin?, effect: effect? })
}

/// The name is a part of a path, of start keys and a label of metrics, so it is made like those of services.
fn read_name(
    item: &Item<'_>,
    seen: &mut BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<String> {
    let text = item.text(context, "\"orders\"")?;
    let name: ServiceName = check_name(text, &item.key, item.place(context), context)?;
    let (name, line) = (name.to_string(), context.source.position(&item.span).line);
    if let Some(first) = seen.get(&name) {
        let message = format!("two rules are named `{name}`; the first is in line {first}");
        item.error(context, message, "give each a name of its own");
        return None;
    }
    seen.insert(name.clone(), line);
    Some(name)
}

fn read_event(
    item: &Item<'_>,
    origin: Option<&EventOrigin>,
    context: &mut Context<'_>,
) -> Option<TypePattern> {
    let text = item.text(context, "\"order.placed\"")?;
    let is_of_log = matches!(origin, Some(EventOrigin::Log));
    let pattern = if is_of_log { text.parse() } else { TypePattern::of_others(text) };
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err(error) => {
            item.error(context, format!("`{text}` is no pattern: {error}"), EVENT_HELP);
            return None;
        }
    };
    // Sagas that the host's own events start have such events themselves.
    let word = text.split(['.', '*']).next().unwrap_or_default();
    let is_reserved =
        matches!(format!("{word}.happened").parse::<EventType>(), Err(EventTypeError::Reserved(_)));
    if is_of_log && is_reserved {
        let message =
            format!("`{text}` is an event of the host, and only those of plugins start sagas");
        item.error(context, message, "name a type that a plugin emits, such as \"order.placed\"");
        return None;
    }
    Some(pattern)
}

/// Reads where the events come from. `name` is that of the rule.
fn read_origin(
    table: &mut Table<'_>,
    name: Option<&str>,
    has_auth: bool,
    seen: &mut Seen,
    context: &mut Context<'_>,
) -> Option<EventOrigin> {
    let (from, secrets) = (table.take("from", context), table.take("secrets", context));
    let origin = match &from {
        None => Some(EventOrigin::Webhook(Vec::new())),
        Some(from) if from.value.is_table() => read_source(from, name, seen, context),
        Some(from) => match from.text(context, "\"webhook\"")? {
            "webhook" => Some(EventOrigin::Webhook(Vec::new())),
            "events" => Some(EventOrigin::Log),
            other => {
                from.error(context, format!("events do not come from `{other}`"), FROM_HELP);
                None
            }
        },
    };
    match (origin?, secrets) {
        (EventOrigin::Webhook(_), Some(secrets)) => {
            Some(EventOrigin::Webhook(read_signing_secrets(&secrets, context)))
        }
        // Without a signature, a request needs a token.
        (EventOrigin::Webhook(secrets), None) if has_auth => Some(EventOrigin::Webhook(secrets)),
        (EventOrigin::Webhook(secrets), None) => {
            let place = Place::At(context.source.position(&table.span));
            let message =
                "nothing signs the requests, so whoever reaches the host can send such events";
            context.warn(place, &join(&table.key, "secrets"), message, SECRETS_HELP);
            Some(EventOrigin::Webhook(secrets))
        }
        (EventOrigin::Log | EventOrigin::Nats(_), Some(secrets)) => {
            secrets.error(context, "it goes with from = \"webhook\"", "remove it");
            None
        }
        (origin @ (EventOrigin::Log | EventOrigin::Nats(_)), None) => Some(origin),
    }
}

/// Reads the stream of NATS that events come from.
fn read_source(
    item: &Item<'_>,
    name: Option<&str>,
    seen: &mut Seen,
    context: &mut Context<'_>,
) -> Option<EventOrigin> {
    let mut table = item.table(context, FROM_HELP)?;
    let server = table.require("nats", "\"tls://nats.example.com\"", context);
    let server = server.and_then(|item| {
        let server = read_server(&item, context)?;
        Some((server, item))
    });
    let stream = table.require("stream", "\"ORDERS\"", context);
    let stream = stream.and_then(|item| read_word(&item, NatsSourceSettings::is_name, context));
    let subject = table.take("subject", context);
    let subject = subject.map(|item| read_word(&item, NatsSourceSettings::is_filter, context));
    let consumer = table.take("consumer", context);
    let consumer = match consumer {
        Some(item) => read_word(&item, NatsSourceSettings::is_name, context),
        None => name.map(|name| format!("amends-{name}")),
    };
    let credentials = table.take("credentials", context);
    let credentials = credentials.map(|item| read_credentials(&item, context));
    let begin = table.take("begin", context);
    let begin = begin.and_then(|item| {
        item.word(context, &[("now", StartFrom::Now), ("start", StartFrom::Start)])
    });
    table.finish(context);
    let (server, server_item) = server?;
    let source = NatsSourceSettings {
        server,
        stream: stream?,
        subject: subject.map_or(Some(None), |subject| subject.map(Some))?,
        consumer: consumer?,
        begin: begin.unwrap_or_default(),
        // One that is not there is told by `check`, and stops a host that starts.
        credentials: credentials.flatten(),
    };
    if source.is_in_clear() {
        let message = "the events come from this address in clear, for everybody on the way to read \
                       and to change";
        context.warn(server_item.place(context), &server_item.key, message, "use tls://");
    }
    check_consumer(item, name?, &source, seen, context)?;
    Some(EventOrigin::Nats(source))
}

/// Each of two rules with one consumer would get a part of the messages, and lose the others.
fn check_consumer(
    item: &Item<'_>,
    name: &str,
    source: &NatsSourceSettings,
    seen: &mut Seen,
    context: &mut Context<'_>,
) -> Option<()> {
    let NatsSourceSettings { server, stream, consumer, .. } = source;
    let key = (server.host().to_owned(), server.port(), stream.clone(), consumer.clone());
    if let Some(first) = seen.consumers.get(&key) {
        let message = format!(
            "the rules `{first}` and `{name}` have the consumer `{consumer}` of the stream `{stream}`, \
             so each would get a part of the messages"
        );
        item.error(context, message, "remove consumer, or give each rule one of its own");
        return None;
    }
    seen.consumers.insert(key, name.to_owned());
    Some(())
}

/// Reads the name of a stream or consumer, or subjects.
fn read_word(
    item: &Item<'_>,
    is_right: fn(&str) -> bool,
    context: &mut Context<'_>,
) -> Option<String> {
    let text = item.text(context, "\"ORDERS\"")?;
    if !is_right(text) {
        item.error(context, format!("NATS has no such name as `{text}`"), NATS_NAME_HELP);
        return None;
    }
    Some(text.to_owned())
}

/// Reads what an event does: it starts a saga, or it becomes a signal.
fn read_effect(
    table: &mut Table<'_>,
    specs: &[DefinitionSpec],
    context: &mut Context<'_>,
) -> Option<EventEffect> {
    let (start, signal) = (table.take("start", context), table.take("signal", context));
    let of_start = [table.take("input", context), table.take("tags", context)];
    let of_signal = [table.take("payload", context), table.take("saga", context)];
    let key = table.take("key", context);
    match (start, signal) {
        (Some(start), None) => {
            refuse(of_signal, "signal", context);
            let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
            let definition = read_definition(&start, &names, context);
            let [input, tags] = of_start;
            let input = input.map_or(Some(EventPayload::Data), |item| read_payload(&item, context));
            let tags = tags.map_or_else(|| Some(BTreeMap::new()), |item| read_tags(&item, context));
            let key = key.map(|item| read_expression(&item, context));
            let key = key.map_or(Some(None), |key| key.map(Some));
            let (definition, key, input, tags) = (definition?, key?, input?, tags?);
            let start = EventStart { definition, key, input, tags };
            check_personal(&start, specs, &table.key, context);
            Some(EventEffect::Start(start))
        }
        (None, Some(signal)) => {
            refuse(of_start, "start", context);
            let [payload, saga] = of_signal;
            let name = read_signal(&signal, specs, context);
            let payload =
                payload.map_or(Some(EventPayload::Data), |item| read_payload(&item, context));
            let to = match (saga, key) {
                (Some(saga), None) => read_expression(&saga, context).map(SignalTarget::Saga),
                (None, Some(key)) => read_expression(&key, context).map(SignalTarget::Key),
                (Some(_), Some(key)) => {
                    key.error(context, "a signal goes to one saga, and two are named", TARGET_HELP);
                    None
                }
                (None, None) => {
                    let message = "nothing says which saga gets the signal";
                    signal.error(context, message, TARGET_HELP);
                    None
                }
            };
            Some(EventEffect::Signal(EventSignal { name: name?, to: to?, payload: payload? }))
        }
        (Some(_), Some(signal)) => {
            let message = "a rule does one thing, and two are named";
            signal.error(context, message, "make two rules of it");
            None
        }
        (None, None) => {
            let place = Place::At(context.source.position(&table.span));
            let message = "nothing says what an event does";
            context.error(place, &join(&table.key, "start"), message, EFFECT_HELP);
            None
        }
    }
}

/// What to do about a tag or a key that is a personal value.
pub(crate) const UNSEALED_HELP: &str =
    "use something that is not personal, such as the id of an order";

/// Reports a tag or a key that is computed of a personal value: neither is sealed.
fn check_personal(
    start: &EventStart,
    specs: &[DefinitionSpec],
    rule: &str,
    context: &mut Context<'_>,
) {
    let Some(spec) = specs.iter().find(|spec| spec.name == start.definition) else {
        return;
    };
    for (key, message) in unsealed(start, &spec.personal) {
        let key = join(rule, &key);
        context.error(context.places.of(&key), &key, message, UNSEALED_HELP);
    }
}

/// Returns the tags and the key of a start that are personal values, when the values at these paths are:
/// the key of the rule, and what is wrong.
pub(crate) fn unsealed(start: &EventStart, personal: &[String]) -> Vec<(String, String)> {
    let paths = personal.iter().filter_map(|path| {
        let path = path.strip_prefix("input")?;
        let (source, rest) = match &start.input {
            EventPayload::Data => ("event.data", path),
            EventPayload::Whole(whole) => (whole.source(), path),
            EventPayload::Fields(fields) => {
                let path = path.strip_prefix('.')?;
                let (field, _) = path.split_once(['.', '[']).unwrap_or((path, ""));
                (fields.get(field)?.source(), &path[field.len()..])
            }
        };
        Some(format!("{source}{rest}"))
    });
    let paths: Vec<_> = paths.collect();
    let is_personal =
        |expression: &EventExpression| paths.iter().any(|path| expression.reads(path));
    let tags = start.tags.iter().map(|(name, tag)| (format!("tags.{name}"), tag));
    let key = start.key.iter().map(|key| ("key".to_owned(), key));
    let personal = tags.chain(key).filter(|(_, expression)| is_personal(expression));
    let told = personal.map(|(key, expression)| {
        let message = format!(
            "`{}` reads a personal value of `{}`, and tags and keys are not sealed",
            expression.source(),
            start.definition
        );
        (key, message)
    });
    told.collect()
}

/// Reports keys that go with the other effect.
fn refuse(items: [Option<Item<'_>>; 2], goes_with: &str, context: &mut Context<'_>) {
    for item in items.into_iter().flatten() {
        item.error(context, format!("it goes with {goes_with} = \"…\""), "remove it");
    }
}

fn read_signal(
    item: &Item<'_>,
    specs: &[DefinitionSpec],
    context: &mut Context<'_>,
) -> Option<SignalName> {
    let name: SignalName = item.name(context, "approved")?;
    let steps = specs.iter().flat_map(|spec| &spec.steps);
    let signals: Vec<&SignalName> = steps
        .filter_map(|step| match &step.kind {
            StepKind::Wait { wait } => Some(&wait.signal),
            StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        })
        .collect();
    if !signals.contains(&&name) {
        let known = || signals.iter().map(|signal| signal.as_str());
        let otherwise = || {
            if signals.is_empty() {
                "add a step with wait = { signal = \"…\" }".to_owned()
            } else {
                format!("the sagas here wait for {}", list(known()))
            }
        };
        let help = context.did_you_mean(name.as_str(), known(), otherwise);
        let message = format!("no saga of this config waits for the signal `{name}`");
        context.warn(item.place(context), &item.key, message, help);
    }
    Some(name)
}

fn read_expression(item: &Item<'_>, context: &mut Context<'_>) -> Option<EventExpression> {
    let text = item.text(context, "\"event.data.order_id\"")?;
    EventExpression::compile(text)
        .map_err(|error| item.error(context, error.message, error.remedy))
        .ok()
}

/// Reads a table of expressions, all of them also when some are wrong.
fn read_expressions(
    item: &Item<'_>,
    help: &str,
    context: &mut Context<'_>,
) -> Option<BTreeMap<String, EventExpression>> {
    let table = item.table(context, help)?;
    let mut read = BTreeMap::new();
    let entries = table.entries(context);
    let count = entries.len();
    for (name, _, item) in entries {
        read.extend(
            read_expression(&item, context).map(|expression| (name.to_owned(), expression)),
        );
    }
    (read.len() == count).then_some(read)
}

fn read_payload(item: &Item<'_>, context: &mut Context<'_>) -> Option<EventPayload> {
    if item.value.is_str() {
        return read_expression(item, context).map(EventPayload::Whole);
    }
    if !item.value.is_table() {
        item.wrong_type(context, "an expression or a table of them", FIELDS_HELP);
        return None;
    }
    read_expressions(item, FIELDS_HELP, context).map(EventPayload::Fields)
}

fn read_tags(
    item: &Item<'_>,
    context: &mut Context<'_>,
) -> Option<BTreeMap<String, EventExpression>> {
    let tags = read_expressions(item, TAGS_HELP, context)?;
    if tags.len() > TAGS_MAX {
        let message = format!("{} tags, at most {TAGS_MAX} are allowed", tags.len());
        item.error(context, message, TAGS_HELP);
        return None;
    }
    for name in tags.keys() {
        let message = if is_event_tag(name) {
            format!("the host sets the tag `{name}`")
        } else if name.is_empty() || name.len() > TAG_BYTES_MAX {
            format!("the name of a tag has 1 to {TAG_BYTES_MAX} bytes")
        } else if name.chars().any(is_steering) {
            "a tag has no control characters".to_owned()
        } else {
            continue;
        };
        item.error(context, message, "give the tag another name");
        return None;
    }
    Some(tags)
}
