//! Trace contexts (W3C Trace Context, level 1), and the ids of the spans of a saga.
//!
//! The ids follow from the saga and the call. So they are known before the call begins, they are the
//! same after a crash, and links between spans need no storage.
//!
//! Deliberately absent: spans themselves, and which of them are kept. The runtime makes spans from
//! events.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::call::Direction;
use crate::ids::{SagaId, StepName, push_hex};

/// The bytes of a trace context: version, trace id, parent id and flags, in hexadecimal.
const TRACEPARENT_BYTES: usize = 55;

/// The id of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A span, as the header `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace that the span belongs to.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// True when whoever made the context keeps the trace.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. None when the text is not one. What later versions of the standard append
    /// is left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version] = bytes(parts.next()?)?;
        let (trace_id, span_id) = (bytes::<16>(parts.next()?)?, bytes::<8>(parts.next()?)?);
        let [flags] = bytes(parts.next()?)?;
        let is_valid = version != 0xff && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            is_sampled: flags & 1 == 1,
        })
    }

    /// Returns the context of a saga whose caller gave none. Its trace id is the id of the saga, and its flags
    /// ask receivers to keep the trace.
    #[must_use]
    pub fn of_saga(saga: SagaId) -> Self {
        // Both halves of a UUID of version 7 have bits that are set, so no id is zero.
        let id = saga.as_bytes();
        Self { trace_id: TraceId(*id), span_id: SpanId(first_bytes(&id[8..])), is_sampled: true }
    }

    /// Returns the context of a span below this one. Its id follows from this one and `name`, which must
    /// differ among the spans below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.trace_id.0);
        hash.update(self.span_id.0);
        hash.update(name.as_bytes());
        let span_id = SpanId(first_bytes(&hash.finalize()[..]));
        Self { span_id, ..*self }
    }

    /// Returns the context of the span below this one in which a component is asked what became of a call.
    #[must_use]
    pub fn probe(&self) -> Self {
        self.child("probe")
    }
}

/// Writes the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TRACEPARENT_BYTES);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id.0);
        text.push('-');
        push_hex(&mut text, &self.span_id.0);
        text.push_str(if self.is_sampled { "-01" } else { "-00" });
        f.write_str(&text)
    }
}

/// Returns the id of the span of an attempt.
#[must_use]
pub fn attempt_span_id(
    saga: SagaId,
    step: &StepName,
    direction: Direction,
    attempt: u32,
) -> SpanId {
    SpanId(first_bytes(&attempt_hash(saga, step, direction, attempt)))
}

/// Returns the id of the trace of an attempt that is in a trace of its own.
#[must_use]
pub fn attempt_trace_id(
    saga: SagaId,
    step: &StepName,
    direction: Direction,
    attempt: u32,
) -> TraceId {
    // The id of the span is in the bytes before.
    TraceId(first_bytes(&attempt_hash(saga, step, direction, attempt)[8..]))
}

/// Returns the id of the span of a whole saga that ended with `status`. A saga that is compensated after
/// it completed has two.
#[must_use]
pub fn saga_span_id(saga: SagaId, status: &str) -> SpanId {
    let mut hash = Sha256::new();
    hash.update(saga.as_bytes());
    // No step has this name.
    hash.update([0]);
    hash.update(status.as_bytes());
    SpanId(first_bytes(&hash.finalize()[..]))
}

fn attempt_hash(saga: SagaId, step: &StepName, direction: Direction, attempt: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(saga.as_bytes());
    hash.update(step.as_str().as_bytes());
    hash.update([0]);
    hash.update(direction.as_str().as_bytes());
    hash.update([0]);
    hash.update(attempt.to_be_bytes());
    hash.finalize().into()
}

/// Returns the first bytes of a hash. The standard wants ids that are not zero.
fn first_bytes<const N: usize>(hash: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&hash[..N]);
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

/// Reads hexadecimal digits in lower case, as the standard has them.
fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 2 * N || !digits.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::ids::Timestamp;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(text).unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), text);
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02-more";
        let context = TraceContext::parse(later).unwrap();
        assert_eq!(context.to_string(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        for wrong in [
            "",
            "00-aa-bb-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333+-01",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_call_has_ids_of_its_own_and_always_the_same() {
        let saga = SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]);
        let (one, other): (StepName, StepName) =
            ("inventory".parse().unwrap(), "shipment".parse().unwrap());
        let all = [
            attempt_span_id(saga, &one, Direction::Execute, 1),
            attempt_span_id(saga, &one, Direction::Execute, 2),
            attempt_span_id(saga, &one, Direction::Compensate, 1),
            attempt_span_id(saga, &other, Direction::Execute, 1),
            saga_span_id(saga, "completed"),
            saga_span_id(saga, "compensated"),
        ];
        let set = std::collections::BTreeSet::from(all);
        assert_eq!(set.len(), all.len());
        assert_eq!(all[0], attempt_span_id(saga, &one, Direction::Execute, 1));
        let context = TraceContext {
            trace_id: attempt_trace_id(saga, &one, Direction::Execute, 1),
            span_id: all[0],
            is_sampled: true,
        };
        let (probe, request) = (context.probe(), context.child("request 1"));
        assert_ne!(probe.span_id, request.span_id);
        assert_eq!(probe.trace_id, context.trace_id);
        assert_eq!(probe, context.child("probe"));
    }
}
