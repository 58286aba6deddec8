//! What is told of a call beside its outcome, for whoever makes spans of it: log lines, requests, and the
//! time of its probe.
//!
//! Deliberately absent: payloads, paths and queries of requests, and texts of errors.

use std::time::SystemTime;

/// Log lines of a call that are kept. A span with more of them is not read by anybody.
pub const TRACED_LINES_MAX: usize = 32;

/// Bytes of a log line that are kept: what a person reads of it.
pub const TRACED_LINE_BYTES_MAX: usize = 1_024;

/// What a call did that can be told in a trace. Empty unless the call is traced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallTrace {
    /// The first log lines, at most [`TRACED_LINES_MAX`].
    pub lines: Vec<TracedLine>,
    /// How many more lines there were.
    pub lines_dropped: u32,
    /// The requests, in order.
    pub requests: Vec<TracedRequest>,
    /// When the component was asked what became of the call, and when that was over; none when it was
    /// not asked.
    pub probe: Option<(SystemTime, SystemTime)>,
}

/// A log line of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedLine {
    /// When it was written.
    pub at: SystemTime,
    /// Its level: `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The text, without secrets and at most [`TRACED_LINE_BYTES_MAX`] long.
    pub message: String,
}

/// A request that a component sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedRequest {
    /// The name of its span, for [`amends_engine::TraceContext::child`].
    pub name: String,
    /// The method.
    pub method: String,
    /// The name of the server, without secrets.
    pub server: String,
    /// The port of the server; none when the URL names none.
    pub port: Option<u16>,
    /// When it was sent.
    pub began: SystemTime,
    /// When its answer began, or when it was known that none comes; none when the call ended before.
    pub ended: Option<SystemTime>,
    /// The status of the answer; none without an answer.
    pub status: Option<u16>,
}

impl CallTrace {
    /// Returns the bytes that it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let lines = self.lines.iter().map(|line| size_of_val(line) + line.message.len());
        let requests = self.requests.iter().map(|request| {
            let texts = [&request.name, &request.method, &request.server];
            size_of_val(request) + texts.map(String::len).iter().sum::<usize>()
        });
        lines.sum::<usize>() + requests.sum::<usize>()
    }
}
