//! What one plugin is granted, and what is counted of all its calls together.

use std::borrow::Cow;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use amends_engine::PluginName;
use serde_json::Value;

use crate::config::PluginSettings;
use crate::outbound::Outbound;

/// A secret that is shorter is not looked for in what a plugin says: it would be found everywhere.
pub(crate) const SECRET_BYTES_MIN: usize = 6;

/// The settings of a plugin and what belongs to them.
pub(crate) struct Granted {
    pub(crate) settings: PluginSettings,
    /// Secrets in the forms in which they may stand in a text, the longest first.
    forms: Vec<(String, String)>,
    outbound: OnceLock<Outbound>,
    log: Mutex<LogRate>,
}

/// A bucket of log lines that fills with `log_rate` a second, up to one second's.
struct LogRate {
    lines: f64,
    filled_at: Instant,
    dropped: u64,
}

/// Whether a line may be written.
pub(crate) enum Line {
    /// It may; so many before it were dropped.
    Write {
        dropped: u64,
    },
    Drop,
}

impl Granted {
    pub(crate) fn new(settings: PluginSettings) -> Self {
        let mut forms = Vec::new();
        for (name, secret) in &settings.secrets {
            let text = secret.reveal();
            if text.len() < SECRET_BYTES_MIN {
                continue;
            }
            let instead = format!("[secret {name}]");
            // As it stands inside a JSON text, where quotes and newlines are written otherwise.
            let json = Value::from(text).to_string();
            let json = json[1..json.len() - 1].to_owned();
            if json != text {
                forms.push((json, instead.clone()));
            }
            forms.push((text.to_owned(), instead));
        }
        // One secret may be a part of another.
        forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        let lines = f64::from(settings.log_rate);
        let log = Mutex::new(LogRate { lines, filled_at: Instant::now(), dropped: 0 });
        Self { settings, forms, outbound: OnceLock::new(), log }
    }

    /// With another client, for tests.
    #[cfg(test)]
    pub(crate) fn with_outbound(settings: PluginSettings, outbound: Outbound) -> Self {
        Self { outbound: OnceLock::from(outbound), ..Self::new(settings) }
    }

    /// The text without the plugin's secrets.
    pub(crate) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for (form, instead) in &self.forms {
            if text.contains(form.as_str()) {
                text = Cow::Owned(text.replace(form.as_str(), instead));
            }
        }
        text
    }

    /// Its client for outbound calls.
    pub(crate) fn outbound(&self) -> &Outbound {
        self.outbound.get_or_init(|| Outbound::new(&self.settings))
    }

    /// Takes a line out of the bucket.
    pub(crate) fn log_line(&self) -> Line {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(self.settings.log_rate);
        let now = Instant::now();
        let filled = now.duration_since(log.filled_at).as_secs_f64() * rate;
        log.lines = (log.lines + filled).min(rate);
        log.filled_at = now;
        if log.lines < 1.0 {
            log.dropped += 1;
            return Line::Drop;
        }
        log.lines -= 1.0;
        Line::Write { dropped: std::mem::take(&mut log.dropped) }
    }
}

/// Told to operators when a plugin says a secret of its own.
pub(crate) fn warn_of_secret(plugin: &PluginName, place: &str) {
    tracing::warn!(plugin = %plugin, place, "the plugin said a secret of its own; it was taken out");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::config::Secret;

    fn granted(secrets: &[(&str, &str)], log_rate: u32) -> Granted {
        let of =
            |(name, text): &(&str, &str)| ((*name).to_owned(), Secret::new((*text).to_owned()));
        let secrets = secrets.iter().map(of).collect();
        Granted::new(PluginSettings { log_rate, secrets, ..PluginSettings::default() })
    }

    #[test]
    fn secrets_are_taken_out_in_every_form() {
        let granted = granted(&[("short", "abc"), ("key", "k-123456"), ("long", "k-123456\"7")], 1);
        assert_eq!(granted.redact("an abc and k-123456."), "an abc and [secret key].");
        assert_eq!(granted.redact("k-123456\"7"), "[secret long]");
        let json = serde_json::json!({"a": "k-123456\"7", "b": "k-123456"}).to_string();
        let redacted = granted.redact(&json);
        assert_eq!(redacted, r#"{"a":"[secret long]","b":"[secret key]"}"#);
        assert!(matches!(granted.redact("nothing"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_past_the_rate_are_counted() {
        let granted = granted(&[], 2);
        let mut written = 0;
        while matches!(granted.log_line(), Line::Write { .. }) {
            written += 1;
        }
        assert!((2..4).contains(&written), "{written}");
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(matches!(granted.log_line(), Line::Write { dropped: 1.. }));
    }
}
