//! `[[subscription]]`: which events reach which receiver.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use amends_engine::Event;
use amends_subscriptions::{
    AfterDeadLetter, BATCH_EVENTS_MAX, BatchSettings, EventFilter, NatsCredentials, NatsSettings,
    RetrySettings, SOURCE_DEFAULT, SecretError, ServerAddr, SigningSecret, StartFrom,
    SubscriptionSettings, Target, TypePattern, UrlError, WebhookSettings,
};

use crate::range::{read_size, read_time};
use crate::report::Place;
use crate::secret::read_secret;
use crate::suggest::list;
use crate::table::{Context, Item, Table, check_name, join};

const HELP: &str = "begin each subscription with [[subscription]], in two brackets, then name = \
                    \"…\", and url = \"…\" or nats = \"…\"";
const TARGET_HELP: &str = "write url = \"https://billing.example.com/hooks/amends\", or nats = \
                           \"tls://nats.example.com\"";
const NATS_HELP: &str = "write the address of a server, such as \"tls://nats.example.com:4222\"";
const SUBJECT_HELP: &str = "write words of letters, digits, - and _ with dots between, such as \
                            \"amends\"; the definition and the type of the event follow";
const CREDENTIALS_HELP: &str = "name the file that `nsc generate creds` wrote: { file = \"path\" }";
const URL_HELP: &str = "write the address that takes the events, such as \
                        \"https://billing.example.com/hooks/amends\"";
const SECRETS_HELP: &str = "write a list such as [{ env = \"BILLING_SECRET\" }]: the first signs, \
                            and so does each other one while you replace it";
const SECRET_HELP: &str = "make one with `echo whsec_$(openssl rand -base64 32)`";
const TYPES_HELP: &str =
    "write types such as \"step.failed\", or the beginning of them: \"saga.*\"";
const BATCH_HELP: &str = "write { events = 100, bytes = \"1MiB\" }";
const SOURCE_HELP: &str = "write a URI such as \"https://amends.example.com\" or \"/amends/north\"";

/// What events in clear are warned of with.
const IN_CLEAR: &str = "the events go to this address in clear, for everybody on the way to read";

/// What subjects begin with when the config says nothing.
const SUBJECT_DEFAULT: &str = "amends";

/// The subscriptions of one config: each has a task, a part of the memory, and up to 16 connections.
const SUBSCRIPTIONS_MAX: usize = 64;
/// The secrets of one receiver. Each signs every request, and rotation needs two.
const SECRETS_MAX: usize = 8;
/// The longest `source`, in bytes.
const SOURCE_BYTES_MAX: usize = 200;

const BATCH_BYTES: RangeInclusive<u64> = 1 << 10..=16 << 20;
const REQUEST_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(5);
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 30);
const ATTEMPTS: RangeInclusive<u32> = 1..=1_000;

/// Words that only types of the host begin with.
const WORDS_OF_HOST: [&str; 6] =
    ["saga.", "step.", "undo.", "compensation.", "operator.", "signal."];

/// Reads every `[[subscription]]`. `definitions` has the names of all definitions.
pub(super) fn read_subscriptions(
    item: Option<&Item<'_>>,
    definitions: &[&str],
    context: &mut Context<'_>,
) -> Vec<SubscriptionSettings> {
    let Some(items) = item.and_then(|item| item.list(context, HELP)) else { return Vec::new() };
    if let Some(item) = items.get(SUBSCRIPTIONS_MAX) {
        let message =
            format!("{} subscriptions, at most {SUBSCRIPTIONS_MAX} are allowed", items.len());
        item.error(context, message, "have one receiver distribute the events to others");
    }
    let (mut read, mut seen) = (Vec::new(), BTreeMap::new());
    for item in &items {
        let Some(table) = item.table(context, HELP) else { continue };
        read.extend(read_subscription(table, definitions, &mut seen, context));
    }
    read
}

fn read_subscription(
    mut table: Table<'_>,
    definitions: &[&str],
    seen: &mut BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<SubscriptionSettings> {
    let name = table.require("name", "\"billing\"", context);
    let name = name.and_then(|item| read_name(&item, seen, context));
    if let Some(name) = &name {
        table.key = format!("subscription.{name}");
        context.remember(&table.key, &table.span);
    }
    let target = read_target(&mut table, context);
    let filter = read_filter(&mut table, definitions, context);
    let from = table.take("from", context);
    let from = from.and_then(|item| {
        item.word(context, &[("now", StartFrom::Now), ("start", StartFrom::Start)])
    });
    let source = table.take("source", context).and_then(|item| read_source(&item, context));
    let batch = table.take("batch", context).and_then(|item| match target {
        Some(Target::Nats(_)) => {
            let message = "NATS gets each event as a message of its own";
            item.error(context, message, "remove batch");
            None
        }
        Some(Target::Webhook(_) | Target::Local(_)) | None => read_batch(&item, context),
    });
    let batch = batch.unwrap_or_default();
    let retry = read_retry(&mut table, context);
    table.finish(context);
    Some(SubscriptionSettings {
        name: name?,
        target: target?,
        filter,
        from: from.unwrap_or_default(),
        source: source.unwrap_or_else(|| SOURCE_DEFAULT.to_owned()),
        batch,
        retry,
    })
}

/// Reads where the events go: to a webhook or into a stream of NATS.
fn read_target(table: &mut Table<'_>, context: &mut Context<'_>) -> Option<Target> {
    let mut timeout = REQUEST_TIMEOUT_DEFAULT;
    if let Some(item) = table.take("request_timeout", context) {
        timeout = read_time(&item, &REQUEST_TIMEOUT, context).unwrap_or(timeout);
    }
    let (url, nats) = (table.take("url", context), table.take("nats", context));
    let of_webhook = [table.take("secrets", context)];
    let of_nats = [table.take("subject", context), table.take("credentials", context)];
    match (url, nats) {
        (Some(url), None) => {
            refuse(of_nats, "nats", context);
            let [secrets] = of_webhook;
            read_webhook(&url, secrets, timeout, context).map(Target::Webhook)
        }
        (None, Some(nats)) => {
            refuse(of_webhook, "url", context);
            let [subject, credentials] = of_nats;
            read_nats(&nats, (subject, credentials), timeout, context).map(Target::Nats)
        }
        (Some(_), Some(nats)) => {
            let message = "a subscription has one target, and two are named";
            nats.error(context, message, "make two subscriptions of it");
            None
        }
        (None, None) => {
            let place = Place::At(context.source.position(&table.span));
            let key = join(&table.key, "url");
            context.error(place, &key, "nothing says where the events go", TARGET_HELP);
            None
        }
    }
}

/// Reports keys that go with the other target.
fn refuse<const N: usize>(
    items: [Option<Item<'_>>; N],
    goes_with: &str,
    context: &mut Context<'_>,
) {
    for item in items.into_iter().flatten() {
        item.error(context, format!("it goes with {goes_with} = \"…\""), "remove it");
    }
}

fn read_webhook(
    item: &Item<'_>,
    secrets: Option<Item<'_>>,
    timeout: Duration,
    context: &mut Context<'_>,
) -> Option<WebhookSettings> {
    let url = read_url(item, context);
    let secrets_are_named = secrets.is_some();
    let secrets = secrets.map_or_else(Vec::new, |item| read_signing_secrets(&item, context));
    let webhook = WebhookSettings { url: url?, secrets, timeout };
    if webhook.is_in_clear() {
        context.warn(item.place(context), &item.key, IN_CLEAR, "use https://");
    }
    if !secrets_are_named {
        let message = "nothing signs the requests, so the receiver cannot tell who sends them";
        let help = format!("add secrets: {SECRETS_HELP}");
        context.warn(item.place(context), &item.key, message, help);
    }
    Some(webhook)
}

fn read_nats(
    item: &Item<'_>,
    (subject, credentials): (Option<Item<'_>>, Option<Item<'_>>),
    timeout: Duration,
    context: &mut Context<'_>,
) -> Option<NatsSettings> {
    let server = read_server(item, context);
    let prefix = subject;
    let mut subject = SUBJECT_DEFAULT.to_owned();
    if let Some(item) = prefix
        && let Some(text) = item.text(context, "\"amends\"")
    {
        if NatsSettings::is_subject(text) {
            text.clone_into(&mut subject);
        } else {
            let message = format!("`{text}` is not what subjects may begin with");
            item.error(context, message, SUBJECT_HELP);
        }
    }
    let credentials = credentials.and_then(|item| read_credentials(&item, context));
    let nats = NatsSettings { server: server?, subject, credentials, timeout };
    if nats.is_in_clear() {
        context.warn(item.place(context), &item.key, IN_CLEAR, "use tls://");
    }
    Some(nats)
}

/// Reads what the host proves itself to a NATS server with.
pub(super) fn read_credentials(
    item: &Item<'_>,
    context: &mut Context<'_>,
) -> Option<NatsCredentials> {
    let secret = read_secret(item, context)?;
    let read = NatsCredentials::parse(secret.reveal());
    read.map_err(|error| {
        let message = format!("it is no credentials file of NATS: {error}");
        item.error(context, message, CREDENTIALS_HELP);
    })
    .ok()
}

/// Reads the address of a NATS server.
pub(super) fn read_server(item: &Item<'_>, context: &mut Context<'_>) -> Option<ServerAddr> {
    let text = item.text(context, "\"tls://nats.example.com\"")?;
    let read = NatsSettings::parse_server(text);
    read.map_err(|error| {
        let help = match error {
            UrlError::NoServer | UrlError::NoUrl => NATS_HELP,
            UrlError::NoPort => "write a port such as :4222, or leave it out",
            UrlError::HasUser => "remove what is before the @, and name a file in credentials",
        };
        item.error(context, error.to_string(), help);
    })
    .ok()
}

/// The name is a label of metrics and a part of a path, so it is made like those of services.
fn read_name(
    item: &Item<'_>,
    seen: &mut BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<String> {
    let text = item.text(context, "\"billing\"")?;
    let name: amends_engine::ServiceName =
        check_name(text, &item.key, item.place(context), context)?;
    let (name, line) = (name.to_string(), context.source.position(&item.span).line);
    if let Some(first) = seen.get(&name) {
        let message = format!("two subscriptions are named `{name}`; the first is in line {first}");
        item.error(context, message, "give each a name of its own");
        return None;
    }
    seen.insert(name.clone(), line);
    Some(name)
}

fn read_url(item: &Item<'_>, context: &mut Context<'_>) -> Option<http::Uri> {
    let text = item.text(context, "\"https://billing.example.com/hooks/amends\"")?;
    let read = WebhookSettings::parse_url(text);
    read.map_err(|error| {
        let help = match error {
            UrlError::NoUrl | UrlError::NoServer => URL_HELP,
            UrlError::NoPort => "write a port such as :8443, or leave it out",
            UrlError::HasUser => "remove what is before the @; secrets sign the requests",
        };
        item.error(context, error.to_string(), help);
    })
    .ok()
}

/// Reads the secrets that sign requests, or with which requests are signed.
pub(super) fn read_signing_secrets(
    item: &Item<'_>,
    context: &mut Context<'_>,
) -> Vec<SigningSecret> {
    let Some(items) = item.list(context, SECRETS_HELP) else { return Vec::new() };
    if items.is_empty() || items.len() > SECRETS_MAX {
        let message = format!("{} secrets; there are from 1 to {SECRETS_MAX}", items.len());
        item.error(context, message, SECRETS_HELP);
        return Vec::new();
    }
    let mut secrets = Vec::with_capacity(items.len());
    for item in &items {
        let Some(secret) = read_secret(item, context) else { continue };
        match SigningSecret::parse(secret.reveal()) {
            Ok(secret) => secrets.push(secret),
            Err(error @ (SecretError::NotBase64 | SecretError::Length(_))) => {
                item.error(context, error.to_string(), SECRET_HELP);
            }
        }
    }
    secrets
}

fn read_filter(
    table: &mut Table<'_>,
    definitions: &[&str],
    context: &mut Context<'_>,
) -> EventFilter {
    let mut filter = EventFilter::default();
    let wanted = table.take("definitions", context);
    let help = "write a list such as [\"order-fulfillment\"], or remove the key for all of them";
    for item in wanted.and_then(|item| not_empty(&item, help, context)).unwrap_or_default() {
        let Some(name) = item.text(context, "\"order-fulfillment\"") else { continue };
        if !definitions.contains(&name) {
            let known = || definitions.iter().copied();
            let otherwise = || format!("the sagas here are {}", list(known()));
            let help = context.did_you_mean(name, known(), otherwise);
            let message = format!("there is no saga `{name}` in this config");
            context.warn(item.place(context), &item.key, message, help);
        }
        filter.definitions.push(name.to_owned());
    }
    let wanted = table.take("types", context);
    let help =
        "write a list such as [\"saga.*\", \"step.failed\"], or remove the key for all types";
    for item in wanted.and_then(|item| not_empty(&item, help, context)).unwrap_or_default() {
        filter.types.extend(read_type(&item, context));
    }
    filter
}

fn not_empty<'a>(item: &Item<'a>, help: &str, context: &mut Context<'_>) -> Option<Vec<Item<'a>>> {
    let items = item.list(context, help)?;
    if items.is_empty() {
        item.error(context, "an empty list would let no event through", help);
    }
    Some(items)
}

fn read_type(item: &Item<'_>, context: &mut Context<'_>) -> Option<TypePattern> {
    let text = item.text(context, "\"saga.*\"")?;
    let pattern: TypePattern = match text.parse() {
        Ok(pattern) => pattern,
        Err(error) => {
            item.error(context, format!("`{text}` is no pattern: {error}"), TYPES_HELP);
            return None;
        }
    };
    let is_of_host = WORDS_OF_HOST.iter().any(|word| text.starts_with(word));
    if is_of_host && !Event::KINDS.iter().any(|kind| pattern.matches(kind)) {
        let kinds = || Event::KINDS.iter().copied();
        let help = context.did_you_mean(text, kinds(), || TYPES_HELP.to_owned());
        item.error(context, format!("there is no event type `{text}`"), help);
        return None;
    }
    Some(pattern)
}

fn read_source(item: &Item<'_>, context: &mut Context<'_>) -> Option<String> {
    let text = item.text(context, "\"/amends\"")?;
    let is_of_uri = |c: char| c.is_ascii_graphic() && !"<>\"{}|\\^`".contains(c);
    if text.is_empty() || text.len() > SOURCE_BYTES_MAX || !text.chars().all(is_of_uri) {
        let message = format!("it is no URI of up to {SOURCE_BYTES_MAX} characters");
        item.error(context, message, SOURCE_HELP);
        return None;
    }
    Some(text.to_owned())
}

fn read_batch(item: &Item<'_>, context: &mut Context<'_>) -> Option<BatchSettings> {
    let mut batch = BatchSettings::default();
    let mut table = item.table(context, BATCH_HELP)?;
    if let Some(item) = table.take("events", context)
        && let Some(events) = item.whole(context, 1..=BATCH_EVENTS_MAX)
    {
        batch.events_max = events;
    }
    if let Some(item) = table.take("bytes", context)
        && let Some(bytes) = read_size(&item, BATCH_BYTES, context)
    {
        batch.bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    table.finish(context);
    Some(batch)
}

fn read_retry(table: &mut Table<'_>, context: &mut Context<'_>) -> RetrySettings {
    let mut retry = RetrySettings::default();
    if let Some(item) = table.take("attempts_max", context) {
        retry.attempts_max = item.whole(context, ATTEMPTS).unwrap_or(retry.attempts_max);
    }
    if let Some(item) = table.take("pause_max", context) {
        retry.pause_max = read_time(&item, &PAUSE, context).unwrap_or(retry.pause_max);
    }
    if let Some(item) = table.take("age_max", context) {
        retry.age_max = read_time(&item, &AGE, context).unwrap_or(retry.age_max);
    }
    if let Some(item) = table.take("after_dead_letter", context) {
        let words = [("go_on", AfterDeadLetter::GoOn), ("hold", AfterDeadLetter::Hold)];
        retry.after_dead_letter = item.word(context, &words).unwrap_or_default();
    }
    retry
}
