//! `[plugin.NAME]`: what one plugin may do.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use amends_engine::{PAYLOAD_BYTES_MAX, TIMEOUT_MAX};
use amends_sandbox::{
    AllowHost, AllowHosts, INSTANCES_MAX, INSTANCES_OF_ONE_MAX, PluginSettings, Secret,
    TABLE_ELEMENTS_MAX,
};
use serde_json::{Map, Value};
use toml::de::{DeInteger, DeValue};

use crate::range::{read_size, read_time};
use crate::secret::read_secret;
use crate::table::{Context, Item, Table};

/// A page of WebAssembly memory, and all that 32 bits can address.
const MEMORY_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;

/// Calls that an instance may serve at most: what leaks in a guest must end some time.
const REUSE_MAX: u32 = 1_000_000;

/// How deep settings may nest.
const SETTING_DEPTH_MAX: usize = 32;

/// What the limits of one plugin may be: past it one plugin could take what all share, or its
/// calls could hold up a stop.
const CPU: RangeInclusive<Duration> = Duration::from_millis(10)..=TIMEOUT_MAX;
const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=PAYLOAD_BYTES_MAX as u64;
const HOST_CALLS: RangeInclusive<u32> = 0..=1_000_000;
const LOG_RATE: RangeInclusive<u32> = 1..=100_000;
const HTTP_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=TIMEOUT_MAX;
const RESPONSE_BYTES: RangeInclusive<u64> = 1..=64 << 20;
const STATE_BYTES: RangeInclusive<u64> = 1..=1 << 40;

/// Reads one `[plugin.NAME]`.
pub(super) fn read_plugin(item: &Item<'_>, context: &mut Context<'_>) -> Option<PluginSettings> {
    let mut table = item.table(context, "write [plugin.NAME] and its keys below")?;
    let mut settings = PluginSettings::default();
    read_limits(&mut table, &mut settings, context);
    read_outbound(&mut table, &mut settings, context);
    if let Some(item) = table.take("component", context) {
        settings.component = item.text(context, "\"carrier\"").map(str::to_owned);
    }
    if let Some(item) = table.take("settings", context) {
        settings.settings = read_settings(&item, context).unwrap_or_default();
    }
    if let Some(item) = table.take("secrets", context) {
        settings.secrets = read_secrets(&item, context);
    }
    if let Some(item) = table.take("state", context) {
        settings.state = item.bool(context).unwrap_or(false);
    }
    if let Some(item) = table.take("state_personal", context) {
        settings.state_may_be_personal = item.bool(context).unwrap_or(true);
    }
    if let Some(item) = table.take("events", context) {
        settings.events = item.bool(context).unwrap_or(false);
    }
    table.finish(context);
    Some(settings)
}

fn read_limits(table: &mut Table<'_>, settings: &mut PluginSettings, context: &mut Context<'_>) {
    macro_rules! read {
        ($key:literal, $field:expr, $read:expr) => {
            if let Some(item) = table.take($key, context)
                && let Some(value) = $read(&item, context)
            {
                $field = value;
            }
        };
    }
    let whole = |range: RangeInclusive<u32>| {
        move |item: &Item<'_>, context: &mut Context<'_>| item.whole(context, range.clone())
    };
    let bytes = |range: RangeInclusive<u64>| {
        move |item: &Item<'_>, context: &mut Context<'_>| {
            read_size(item, range.clone(), context)?.try_into().ok()
        }
    };
    read!("memory_max", settings.memory_bytes_max, read_memory);
    read!("cpu_max", settings.cpu_max, |item: &Item<'_>, context: &mut Context<'_>| {
        read_time(item, &CPU, context)
    });
    read!("concurrency", settings.concurrency, whole(1..=INSTANCES_MAX));
    read!("reuse", settings.reuse, whole(0..=REUSE_MAX));
    read!("host_calls_max", settings.host_calls_max, whole(HOST_CALLS));
    read!("log_rate", settings.log_rate, whole(LOG_RATE));
    read!("payload_max", settings.payload_bytes_max, bytes(PAYLOAD_BYTES));
    read!("state_max", settings.state_bytes_max, |item: &Item<'_>, context: &mut Context<'_>| {
        read_size(item, STATE_BYTES, context)
    });
    let count = |range: RangeInclusive<u32>| {
        let whole = whole(range);
        move |item: &Item<'_>, context: &mut Context<'_>| {
            whole(item, context).map(|count| count as usize)
        }
    };
    let instances = 1..=u32::try_from(INSTANCES_OF_ONE_MAX).unwrap_or(u32::MAX);
    let elements = 0..=u32::try_from(TABLE_ELEMENTS_MAX).unwrap_or(u32::MAX);
    read!("table_elements_max", settings.table_elements_max, count(elements));
    read!("instances_max", settings.instances_max, count(instances));
}

fn read_outbound(table: &mut Table<'_>, settings: &mut PluginSettings, context: &mut Context<'_>) {
    if let Some(item) = table.take("allow_hosts", context) {
        settings.allow_hosts = read_hosts(&item, context).unwrap_or_default();
    }
    if let Some(item) = table.take("connect_timeout", context)
        && let Some(timeout) = read_time(&item, &HTTP_TIMEOUT, context)
    {
        settings.connect_timeout = timeout;
    }
    if let Some(item) = table.take("request_timeout", context)
        && let Some(timeout) = read_time(&item, &HTTP_TIMEOUT, context)
    {
        settings.request_timeout = timeout;
    }
    if let Some(item) = table.take("response_max", context)
        && let Some(bytes) = read_size(&item, RESPONSE_BYTES, context)
    {
        settings.response_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
}

fn read_memory(item: &Item<'_>, context: &mut Context<'_>) -> Option<u64> {
    let memory = item.size(context, "64MiB")?;
    if !MEMORY_BYTES.contains(&memory) {
        item.error(
            context,
            "WebAssembly memory is from 64KiB to 4GiB",
            "write a size between them, such as \"64MiB\"",
        );
        return None;
    }
    Some(memory)
}

fn read_hosts(item: &Item<'_>, context: &mut Context<'_>) -> Option<AllowHosts> {
    let hosts = item.list(context, "write a list such as [\"https://api.example.com\"]")?;
    let mut read = Vec::with_capacity(hosts.len());
    for host in &hosts {
        let Some(text) = host.text(context, "\"https://api.example.com\"") else { continue };
        match text.parse::<AllowHost>() {
            Ok(allowed) => read.push(allowed),
            Err(message) => {
                let (what, help) = message.split_once(": ").unwrap_or((&message, ""));
                host.error(context, what, help);
            }
        }
    }
    Some(read.into_iter().collect())
}

fn read_settings(item: &Item<'_>, context: &mut Context<'_>) -> Option<Map<String, Value>> {
    let table = item.table(context, "write a table such as { warehouse = \"north\" }")?;
    let mut settings = Map::new();
    for (name, _, item) in table.entries(context) {
        match to_json(item.value, SETTING_DEPTH_MAX) {
            Ok(value) => {
                settings.insert(name.to_owned(), value);
            }
            Err(message) => item.error(context, message, "settings reach a plugin as JSON"),
        }
    }
    Some(settings)
}

/// TOML as JSON: dates become text.
fn to_json(value: &DeValue<'_>, depth: usize) -> Result<Value, &'static str> {
    let deeper = depth.checked_sub(1).ok_or("this is nested too deeply")?;
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => {
            whole(integer).ok_or("this number has too many digits")?.into()
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Value::Number(number.ok_or("JSON has no such number")?)
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => items
            .iter()
            .map(|item| to_json(item.get_ref(), deeper))
            .collect::<Result<_, _>>()
            .map(Value::Array)?,
        DeValue::Table(fields) => fields
            .iter()
            .map(|(name, item)| {
                Ok::<_, &str>((name.get_ref().to_string(), to_json(item.get_ref(), deeper)?))
            })
            .collect::<Result<_, _>>()
            .map(Value::Object)?,
    })
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn read_secrets(item: &Item<'_>, context: &mut Context<'_>) -> BTreeMap<String, Secret> {
    let help = "write such as { api_key = { env = \"INVENTORY_API_KEY\" } }";
    let Some(table) = item.table(context, help) else { return BTreeMap::new() };
    let mut secrets = BTreeMap::new();
    for (name, _, item) in table.entries(context) {
        if let Some(secret) = read_secret(&item, context) {
            if secret.is_short() {
                let message = "this secret is shorter than 6 bytes: it is not taken out of what \
                               the plugin says, because it would be found everywhere";
                context.warn(item.place(context), &item.key, message, "use a longer one");
            }
            secrets.insert(name.to_owned(), secret);
        }
    }
    secrets
}
