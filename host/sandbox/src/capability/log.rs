//! `amends:saga/log`.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::bindings::amends::saga::log::{Host, Level};
use crate::call::call_id::trace_id;
use crate::call::call_trace::{TRACED_LINE_BYTES_MAX, TRACED_LINES_MAX, TracedLine};
use crate::call::guest::Guest;
use crate::capability::log_limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
use crate::capability::log_rate::Line;
use crate::cut::cut;

impl Host for Guest {
    fn write(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.host_call()?;
        // What was printed before comes before.
        self.hear(false);
        if level == Level::Error {
            let line = self.kept(self.granted.secrets.redact(&message), "a log line");
            self.hear_error(&line);
        }
        self.log(level, &message, fields);
        Ok(())
    }
}

impl Guest {
    /// Whether the rest of what the call says is dropped.
    pub(crate) const fn has_said_all(&self) -> bool {
        self.log_lines > LOG_LINES_MAX + 1
    }

    /// Writes a line of the component's to the log, within what it may write.
    pub(crate) fn log(&mut self, level: Level, message: &str, fields: Vec<(String, String)>) {
        if self.granted.is_rehearsal {
            return;
        }
        self.log_lines = self.log_lines.saturating_add(1);
        if !is_wanted(level) || self.has_said_all() {
            return;
        }
        if self.log_lines == LOG_LINES_MAX + 1 {
            let told =
                format!("more than {LOG_LINES_MAX} lines, the rest of this call's is dropped");
            self.line(Level::Warn, &told, None);
            return;
        }
        match self.granted.log_rate.line() {
            Line::Drop => return,
            Line::Write { dropped: 0 } => {}
            Line::Write { dropped } => {
                let rate = self.granted.settings.log_rate;
                let told = format!(
                    "{dropped} lines of this plugin were dropped: more than log_rate = {rate} a second"
                );
                self.line(Level::Warn, &told, None);
            }
        }
        let clean = |text: &str| self.kept(self.granted.secrets.redact(text), "a log line");
        let message = cut(clean(message), LOG_LINE_BYTES_MAX);
        let mut left = LOG_LINE_BYTES_MAX.saturating_sub(message.len());
        let mut kept = Map::new();
        for (name, value) in fields {
            let value = cut(clean(&value), left);
            let name = cut(clean(&name), left);
            left = left.saturating_sub(name.len() + value.len());
            kept.insert(name, Value::from(value));
            if left == 0 {
                break;
            }
        }
        let fields = (!kept.is_empty()).then(|| Value::from(kept).to_string());
        self.line(level, &message, fields.as_deref());
        self.trace_line(level, message);
    }

    /// Keeps a line for the trace of the call, if the call has one.
    fn trace_line(&mut self, level: Level, message: String) {
        if !self.id.as_ref().is_some_and(|id| id.is_traced) {
            return;
        }
        if self.trace.lines.len() >= TRACED_LINES_MAX {
            self.trace.lines_dropped = self.trace.lines_dropped.saturating_add(1);
            return;
        }
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let message = cut(message, TRACED_LINE_BYTES_MAX);
        self.trace.lines.push(TracedLine { at: SystemTime::now(), level, message });
    }
}

fn is_wanted(level: Level) -> bool {
    match level {
        Level::Debug => tracing::enabled!(target: "plugin", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "plugin", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "plugin", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "plugin", tracing::Level::ERROR),
    }
}

impl Guest {
    fn line(&self, level: Level, line: &str, fields: Option<&str>) {
        let id = self.id.as_ref();
        let plugin = id.map(|id| tracing::field::display(&id.plugin));
        let saga_id = id.map(|id| tracing::field::display(id.saga_id));
        let definition = id.map(|id| tracing::field::display(&id.definition));
        let step = id.map(|id| tracing::field::display(&id.step));
        let attempt = id.map(|id| id.attempt);
        let trace_id = trace_id(id.and_then(|id| id.traceparent.as_deref()));
        let idempotency_key = id.map(|id| id.idempotency_key.as_str());
        let fields = fields.map(tracing::field::display);
        macro_rules! write_line {
            ($macro:ident) => {
                tracing::$macro!(
                    target: "plugin",
                    plugin,
                    saga_id,
                    definition,
                    step,
                    attempt,
                    trace_id,
                    idempotency_key,
                    fields,
                    "{line}"
                )
            };
        }
        match level {
            Level::Debug => write_line!(debug),
            Level::Info => write_line!(info),
            Level::Warn => write_line!(warn),
            Level::Error => write_line!(error),
        }
    }
}
