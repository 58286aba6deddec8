//! What a component writes to its standard output and standard error.
//!
//! Every line becomes a line of the host's log, as if the component had written it through
//! `amends:saga/log`. The last lines of standard error, and those of the log that are errors, are kept
//! besides ([`LastWords`]): when the call is stopped, they say why, and go into the failure.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::capability::last_words::LastWords;
use crate::capability::log_limits::LOG_LINE_BYTES_MAX;

/// Bytes that a component may write at once. It writes the rest with its next call of the host, and the
/// host takes the lines of each call out before the next one.
const WRITE_BYTES_MAX: usize = 4_096;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

impl Stream {
    /// As log lines name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
        }
    }
}

/// What was written and is not yet in the log.
#[derive(Debug, Default)]
struct Pending {
    /// Whole lines, in the order in which they were written.
    lines: Vec<(Stream, Vec<u8>)>,
    /// The beginning of a line of standard output, and of one of standard error.
    begun: [Vec<u8>; 2],
}

impl Pending {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let begun = &mut self.begun[stream as usize];
            // The log would cut a longer line too.
            let left = (LOG_LINE_BYTES_MAX + 1).saturating_sub(begun.len());
            begun.extend_from_slice(&part[..part.len().min(left)]);
            if part.ends_with(b"\n") {
                let line = std::mem::take(begun);
                self.lines.push((stream, line));
            }
        }
    }

    /// Takes the whole lines; with `all` those as well that have not ended.
    fn take(&mut self, all: bool) -> Vec<(Stream, Vec<u8>)> {
        let mut lines = std::mem::take(&mut self.lines);
        for stream in [Stream::Output, Stream::Error] {
            let begun = &mut self.begun[stream as usize];
            if all && !begun.is_empty() {
                lines.push((stream, std::mem::take(begun)));
            }
        }
        lines
    }
}

/// What a component says during one call.
#[derive(Default)]
pub(crate) struct StandardStreams {
    pending: Arc<Mutex<Pending>>,
    pub(crate) last: LastWords,
}

impl StandardStreams {
    /// Gives a component its standard streams.
    ///
    /// Standard output is said to be a terminal, so that the libraries of most languages hand on each
    /// line when it ends. Otherwise they would keep some kilobytes back, and lose them with the instance.
    pub(crate) fn streams(&self, builder: &mut WasiCtxBuilder) {
        let to = |stream| Writer { stream, pending: Arc::clone(&self.pending) };
        builder.stdout(to(Stream::Output)).stderr(to(Stream::Error));
    }

    pub(crate) fn take(&self, all: bool) -> Vec<(Stream, Vec<u8>)> {
        // Most components have no stream: then nobody else holds this.
        if Arc::strong_count(&self.pending) == 1 {
            return Vec::new();
        }
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take(all)
    }
}

/// One of the streams, for the component to write to.
#[derive(Debug, Clone)]
struct Writer {
    stream: Stream,
    pending: Arc<Mutex<Pending>>,
}

impl IsTerminal for Writer {
    fn is_terminal(&self) -> bool {
        self.stream == Stream::Output
    }
}

impl StdoutStream for Writer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Of WASI 0.3, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            let max = WRITE_BYTES_MAX;
            return Err(StreamError::trap(&format!("it may write {max} bytes at once")));
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::fmt::Write as _;

    use amends_engine::{SagaId, Timestamp};

    use super::*;
    use crate::call::call_id::CallId;
    use crate::call::guest::Guest;
    use crate::capability::grant::Grant;
    use crate::capability::last_words::LAST_LINES_MAX;
    use crate::capability::log_limits::LOG_LINES_MAX;
    use crate::limits::engine::WasmEngine;
    use crate::settings::{PluginSettings, Secret};

    fn texts(lines: Vec<(Stream, Vec<u8>)>) -> Vec<(Stream, String)> {
        let text = |(stream, line): (Stream, Vec<u8>)| (stream, String::from_utf8(line).unwrap());
        lines.into_iter().map(text).collect()
    }

    #[test]
    fn lines_are_put_together_from_parts_of_each_stream() {
        let mut pending = Pending::default();
        pending.write(Stream::Output, b"one");
        pending.write(Stream::Error, b"oh");
        pending.write(Stream::Output, b" line\nand");
        let whole = texts(pending.take(false));
        assert_eq!(whole, [(Stream::Output, "one line\n".to_owned())]);
        let rest = texts(pending.take(true));
        assert_eq!(rest, [(Stream::Output, "and".into()), (Stream::Error, "oh".into())]);
        assert_eq!(pending.take(true), []);
    }

    #[test]
    fn a_line_that_never_ends_is_bounded() {
        let mut pending = Pending::default();
        for _ in 0..100 {
            pending.write(Stream::Error, &[b'x'; WRITE_BYTES_MAX]);
        }
        let held = pending.take(true);
        assert_eq!(held[0].1.len(), LOG_LINE_BYTES_MAX + 1);
    }

    /// What the host logs, line by line.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<String>>>);

    struct Fields(String);

    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            let _ = write!(self.0, "{field}={value:?} ");
        }
    }

    impl tracing::Subscriber for Logged {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// What is logged of a call that writes these parts to standard error, each heard by itself, and its
    /// last words.
    fn heard(secret: &str, parts: &[&str]) -> (Vec<String>, LastWords) {
        let secrets = [("key".to_owned(), Secret::new(secret.to_owned()))].into();
        let granted = Grant::new(PluginSettings { secrets, ..PluginSettings::default() });
        let id = CallId {
            plugin: "test".parse().unwrap(),
            state_of: "test".parse().unwrap(),
            state_bytes_max: None,
            saga_id: SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]),
            definition: "definition".parse().unwrap(),
            step: "step".parse().unwrap(),
            attempt: 1,
            idempotency_key: String::new(),
            traceparent: None,
            is_traced: false,
            is_probe: false,
        };
        let sandbox = WasmEngine::for_inspection().unwrap();
        let mut store = Guest::store(&sandbox.engine, None, Some(id), Arc::new(granted));
        let guest = store.data_mut();
        let pending = Arc::clone(&guest.said.pending);
        let mut writer = Writer { stream: Stream::Error, pending };
        let logged = Logged::default();
        let last = tracing::subscriber::with_default(logged.clone(), || {
            for part in parts {
                for bytes in part.as_bytes().chunks(WRITE_BYTES_MAX) {
                    writer.write(Bytes::copy_from_slice(bytes)).unwrap();
                }
                guest.hear(false);
            }
            guest.last_words()
        });
        let logged = std::mem::take(&mut *logged.0.lock().unwrap());
        (logged, last)
    }

    #[test]
    fn a_secret_that_is_said_in_a_loop_does_not_flood_the_log() {
        let lines = "it is s-123456\n".repeat(200);
        let (logged, last) = heard("s-123456", &[&lines, &lines, "the last\n"]);
        let warnings = logged.iter().filter(|line| line.contains("a secret of its own")).count();
        assert_eq!(warnings, 1);
        // Those lines, and that there are more.
        assert_eq!(logged.len(), warnings + LOG_LINES_MAX as usize + 1);
        assert!(logged.iter().all(|line| !line.contains("s-123456")), "{logged:?}");
        // Why a call is stopped is heard however much it said before.
        let last: Vec<_> = last.lines().collect();
        assert_eq!(last.len(), LAST_LINES_MAX);
        assert_eq!(last[LAST_LINES_MAX - 2..], ["it is [secret key]", "the last"]);
    }

    #[test]
    fn a_secret_of_several_lines_is_taken_out_of_each() {
        let pem = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2Vw\r\n  BCIEIHxAbCdEf\n-----END KEY-----\n";
        let (logged, last) = heard(pem, &[&format!("{pem}done\n")]);
        let last: Vec<_> = last.lines().collect();
        let (secret, indented) = ("[secret key]", "  [secret key]");
        assert_eq!(last, [secret, secret, indented, secret, "done"]);
        for part in ["KEY---", "MC4C", "BCIE"] {
            assert!(logged.iter().all(|line| !line.contains(part)), "{logged:?}");
        }
    }

    #[test]
    fn a_secret_at_the_cut_of_a_line_is_taken_out() {
        let secret = "s-1234\u{e4}5678\u{1f39f}90";
        for begun in 0..=secret.len() {
            let before = "x".repeat(LOG_LINE_BYTES_MAX + 1 - begun);
            let (logged, last) = heard(secret, &[&format!("{before}{secret} and more\n")]);
            let said = last.lines().chain(logged.iter().map(String::as_str));
            for line in said {
                assert!(!line.contains("xs"), "{begun}: {line}");
            }
        }
    }
}
