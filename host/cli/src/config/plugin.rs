//! `[plugin.NAME]`: what one plugin may do.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use amends_plugins::{INSTANCES_MAX, PluginSettings, Required, Secret};
use serde_json::{Map, Value};
use toml::de::{DeInteger, DeValue};

use crate::config::suggest::did_you_mean;
use crate::config::table::{Context, Item};

/// A page of WebAssembly memory, and all that 32 bits can address.
const MEMORY_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;

/// Calls that an instance may serve at most: what leaks in a guest must end some time.
const REUSE_MAX: u32 = 1_000_000;

/// A secret is at most this many bytes: a key or a certificate, not a data set.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// How deep settings may nest.
const SETTING_DEPTH_MAX: usize = 32;

const SECRET_HELP: &str = "write { env = \"NAME\" } or { file = \"path\" }: a secret is never \
                           written into the config itself";

/// Reads one `[plugin.NAME]`.
pub(super) fn read_plugin(item: &Item<'_>, context: &mut Context<'_>) -> Option<PluginSettings> {
    let mut table = item.table(context, "write [plugin.NAME] and its keys below")?;
    let default = PluginSettings::default();
    let memory = table.take("memory_max", context).and_then(|item| read_memory(&item, context));
    let concurrency =
        table.take("concurrency", context).and_then(|item| item.whole(context, 1..=INSTANCES_MAX));
    let reuse = table.take("reuse", context).and_then(|item| item.whole(context, 0..=REUSE_MAX));
    let allow_hosts =
        table.take("allow_hosts", context).and_then(|item| read_hosts(&item, context));
    let settings = table.take("settings", context).and_then(|item| read_settings(&item, context));
    let secrets = table.take("secrets", context).map(|item| read_secrets(&item, context));
    let state = table.take("state", context);
    let state = read_grant(state, "the plugin keeps no state", context);
    let events = table.take("events", context);
    let events = read_grant(events, "the plugin emits no events", context);
    table.finish(context);
    Some(PluginSettings {
        required: Required::default(),
        memory_bytes_max: memory.unwrap_or(default.memory_bytes_max),
        concurrency: concurrency.unwrap_or(default.concurrency),
        reuse: reuse.unwrap_or(default.reuse),
        allow_hosts: allow_hosts.unwrap_or_default(),
        settings: settings.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        state,
        events,
    })
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

fn read_grant(item: Option<Item<'_>>, effect: &str, context: &mut Context<'_>) -> bool {
    let Some(item) = item else { return false };
    let granted = item.bool(context).unwrap_or(false);
    if granted {
        context.not_in_force(&item, effect);
    }
    granted
}

fn read_hosts(item: &Item<'_>, context: &mut Context<'_>) -> Option<Vec<String>> {
    let hosts = item.list(context, "write a list such as [\"https://api.example.com\"]")?;
    let mut read = Vec::with_capacity(hosts.len());
    for host in &hosts {
        let Some(text) = host.text(context, "\"https://api.example.com\"") else { continue };
        if is_origin(text) {
            read.push(text.to_owned());
        } else {
            host.error(
                context,
                format!("`{text}` is not a host's address"),
                "write http:// or https://, a host and perhaps a port, and no path: \
                 \"https://api.example.com:8443\"",
            );
        }
    }
    if !read.is_empty() {
        context.not_in_force(item, "the plugin can call no host");
    }
    Some(read)
}

/// Scheme, host and port, and nothing else.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_ip6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = !host.is_empty() && host.chars().all(plain);
    (is_ip6 || is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
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
            secrets.insert(name.to_owned(), secret);
        }
    }
    secrets
}

fn read_secret(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let mut table = item.table(context, SECRET_HELP)?;
    let variable = table.take("env", context);
    let file = table.take("file", context);
    let is_clean = table.finish(context);
    match (variable, file) {
        (Some(variable), None) => secret_of_variable(&variable, context),
        (None, Some(file)) => secret_of_file(&file, context),
        (Some(_), Some(_)) => {
            item.error(context, "a secret comes from one place, and two are named", SECRET_HELP);
            None
        }
        (None, None) => {
            // A misspelt key was reported with what would be right.
            if is_clean {
                item.error(context, "nothing says where the secret is", SECRET_HELP);
            }
            None
        }
    }
}

fn secret_of_variable(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let name = item.text(context, "\"INVENTORY_API_KEY\"")?;
    match context.environment.get(name) {
        Some(value) if !value.is_empty() => Some(Secret::new(value.to_owned())),
        set => {
            let state = if set.is_some() { "empty" } else { "not set" };
            let help = did_you_mean(name, context.environment.names(), || {
                format!("set {name} before the host starts, or remove the secret")
            });
            item.error(context, format!("the environment variable `{name}` is {state}"), help);
            None
        }
    }
}

fn secret_of_file(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let text = item.text(context, "\"/run/secrets/api-key\"")?;
    let path = context.source.resolve(text);
    let shown = path.display();
    let read = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Err(format!("{shown} is a folder")),
        Ok(metadata) if metadata.len() > SECRET_BYTES_MAX => {
            Err(format!("{shown} has more than {SECRET_BYTES_MAX} bytes"))
        }
        Ok(_) => std::fs::read_to_string(&path)
            .map_err(|error| format!("the file {shown} cannot be read: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("there is no file {shown}"))
        }
        Err(error) => Err(format!("the file {shown} cannot be read: {error}")),
    };
    // Editors end a file with a newline; no key does.
    let read = read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match read {
        Ok(secret) if secret.is_empty() => {
            let message = format!("the file {shown} is empty");
            item.error(context, message, "write the secret into it");
            None
        }
        Ok(secret) => Some(Secret::new(secret)),
        Err(message) => {
            let help = "put the secret there, readable by the host; a relative path counts from \
                        the config's folder";
            item.error(context, message, help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn a_host_is_scheme_name_and_port() {
        for text in
            ["http://127.0.0.1:7171", "https://a.example", "http://[::1]:80", "http://[::1]"]
        {
            assert!(is_origin(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a:0",
            "http://a:b",
            "http://u@a",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
