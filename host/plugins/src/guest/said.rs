//! What a component writes to its standard output and standard error.
//!
//! Every line becomes a line of the host's log, as if the component had written it through
//! `amends:saga/log`. The last lines of standard error, and those of the log that are errors, are kept
//! besides: when the call is stopped, they say why, and go into the failure.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::Guest;
use crate::bindings::amends::saga::log::Level;
use crate::sandbox::LOG_LINE_BYTES_MAX;

/// Bytes that a component may write at once. It writes the rest with its next call of the host, and the
/// host takes the lines of each call out before the next one.
const WRITE_BYTES_MAX: usize = 4_096;

/// Lines that are kept for the failure of a call.
const LAST_LINES_MAX: usize = 40;

/// Bytes of them: a failure stands in the log of events, in answers and in logs.
const LAST_BYTES_MAX: usize = 4_096;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

impl Stream {
    /// As log lines name it.
    const fn as_str(self) -> &'static str {
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
pub(super) struct Said {
    pending: Arc<Mutex<Pending>>,
    last: LastWords,
}

impl Said {
    /// Gives a component its standard streams.
    ///
    /// Standard output is said to be a terminal, so that the libraries of most languages hand on each
    /// line when it ends. Otherwise they would keep some kilobytes back, and lose them with the instance.
    pub(super) fn streams(&self, builder: &mut WasiCtxBuilder) {
        let to = |stream| Writer { stream, pending: Arc::clone(&self.pending) };
        builder.stdout(to(Stream::Output)).stderr(to(Stream::Error));
    }

    fn take(&self, all: bool) -> Vec<(Stream, Vec<u8>)> {
        // Most components have no stream: then nobody else holds this.
        if Arc::strong_count(&self.pending) == 1 {
            return Vec::new();
        }
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take(all)
    }
}

/// The last lines of what it says when something is wrong.
#[derive(Debug, Default, Clone)]
pub(crate) struct LastWords {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LastWords {
    /// Adds a text, line by line.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            self.add_line(line);
        }
    }

    fn add_line(&mut self, line: &str) {
        let line = super::log::cut(line, LAST_BYTES_MAX / 2);
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > LAST_BYTES_MAX || self.lines.len() > LAST_LINES_MAX {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
        }
    }

    /// Oldest first.
    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The line that says what was thrown, if there is one.
    ///
    /// Where a runtime reports an exception, its name and message are the line that begins at the
    /// margin and is followed by the places where it was thrown, or is preceded by them. What the
    /// runtime itself adds after it, when it ends the process, says nothing of the plugin.
    pub(crate) fn thrown(&self) -> Option<&str> {
        let is_word = |line: &&str| {
            !line.is_empty()
                && !line.starts_with(char::is_whitespace)
                && !is_frame(line)
                && !RUNTIME.iter().any(|words| line.starts_with(words))
        };
        self.lines().rev().find(is_word)
    }
}

/// Whether it is a place of JavaScript, `FUNCTION@FILE:LINE:COLUMN`.
fn is_frame(line: &str) -> bool {
    let mut parts = line.rsplit(':');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    is_number(parts.next()) && is_number(parts.next()) && line.contains('@')
}

/// How lines of the languages' own runtimes begin that say nothing of what was thrown.
const RUNTIME: [&str; 7] = [
    "Stack:",
    "Redirecting call to abort",
    "invalid variant tag value `undefined`",
    "Traceback (",
    "thread '",
    "Python function threw an unexpected exception",
    "note: run with",
];

impl Guest {
    /// Takes what was written to the standard streams into the log: whole lines, with `all` also those
    /// that have not ended.
    pub(super) fn hear(&mut self, all: bool) {
        for (stream, bytes) in self.said.take(all) {
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            let line = self.kept(self.granted.redact(line), stream.as_str());
            let level = match stream {
                Stream::Output => Level::Info,
                Stream::Error => {
                    self.said.last.add(&line);
                    Level::Warn
                }
            };
            if !line.is_empty() {
                let fields = vec![("stream".to_owned(), stream.as_str().to_owned())];
                self.log(level, &line, fields);
            }
        }
    }

    /// Keeps an error that the component wrote to the log, for when the call is stopped next.
    pub(super) fn hear_error(&mut self, line: &str) {
        self.said.last.add(line);
    }

    /// What the component said last of what is wrong, in the call that is over.
    pub(crate) fn last_words(&mut self) -> LastWords {
        self.hear(true);
        std::mem::take(&mut self.said.last)
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

    use super::*;

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

    #[test]
    fn what_was_thrown_is_found_among_what_each_runtime_says() {
        for (said, thrown) in [
            (
                "TypeError: no seats\nexecute@plugin.js:49:30\nheard/</<@.build-1/entry.mjs:4:21\n\n\
                 invalid variant tag value `undefined` (received `TypeError: no seats`) specified for \
                 `Failure`\nStack:\n  export$execute@/tmp/1/sources/initializer.js:730:17\n\
                 Redirecting call to abort() to mozalloc_abort\n",
                "TypeError: no seats",
            ),
            (
                "Traceback (most recent call last):\n  File \"/0/plugin.py\", line 64, in execute\n\
                 KeyError: 'nope'\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:29:\n\
                 Python function threw an unexpected exception\nnote: run with `RUST_BACKTRACE=1`\n",
                "KeyError: 'nope'",
            ),
            (
                "panicked at src/lib.rs:3:5: assertion `left == right` failed\n  left: 1\n right: 2",
                "panicked at src/lib.rs:3:5: assertion `left == right` failed",
            ),
            (
                "Assertion failed: seats > 0 (plugin.c: execute: 74)\n",
                "Assertion failed: seats > 0 (plugin.c: execute: 74)",
            ),
            ("mail to ada@example.com:25 failed", "mail to ada@example.com:25 failed"),
        ] {
            let mut last = LastWords::default();
            last.add(said);
            assert_eq!(last.thrown(), Some(thrown));
        }
        assert_eq!(LastWords::default().thrown(), None);
    }

    #[test]
    fn the_last_words_are_the_last_of_many_and_bounded() {
        let mut last = LastWords::default();
        for number in 0..1_000 {
            last.add(&format!("{number} {}", "x".repeat(200)));
        }
        assert!(last.bytes <= LAST_BYTES_MAX);
        assert_eq!(last.bytes, last.lines().map(str::len).sum::<usize>());
        assert!(last.lines().next_back().is_some_and(|line| line.starts_with("999 ")));
        last.add(&"y".repeat(100_000));
        assert!(last.bytes <= LAST_BYTES_MAX && !last.lines.is_empty());
    }
}
