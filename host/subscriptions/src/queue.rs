//! What a subscription holds, and the rules by which it is sent: order within a stream, retries, dead
//! letters, and the cursor. It knows neither a clock nor the network.
//!
//! - No two requests carry events of one stream at once, and the events of a stream go out in order. So a
//!   failure holds up one stream.
//! - A receiver that cannot be reached, or that refuses events of many streams in a row, is away. Then one
//!   request at a time tries, with growing pauses and each time with another stream, and its failures are
//!   no attempts of an event. A receiver within the host says itself that it is away, and refusals say
//!   nothing of that.
//! - The cursor is the place before the first event that is neither delivered nor a dead letter.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::Timestamp;
use amends_store::{Cursor, DeadLetter, Stream, SubscriptionChange};

use crate::answer::Answer;
use crate::event::NamedEvent;
use crate::limits::{
    DEAD_LETTERS_MAX, EVENT_BYTES_HELD_MAX, EVENTS_HELD_MAX, FAILING_STREAMS_MAX, PAUSE_FIRST,
    REQUESTS_MAX, RETRY_AFTER_MAX,
};
use crate::settings::{AfterDeadLetter, BatchSettings, RetrySettings};

/// The error of an event that waits for an earlier one.
const BEHIND: &str = "an earlier event of the same saga is a dead letter";

/// One event that is to be sent.
#[derive(Debug)]
struct Item {
    /// The order in which events came.
    number: u64,
    /// The place in the log before the event.
    place: Cursor,
    event: Arc<NamedEvent>,
    attempts: u32,
    first_failed: Option<Instant>,
    /// True for a dead letter that is sent again: the cursor does not wait for it.
    is_redriven: bool,
}

/// The events of one stream, in order.
#[derive(Debug, Default)]
struct Line {
    items: VecDeque<Item>,
    state: LineState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LineState {
    /// In `ready`.
    #[default]
    Ready,
    /// So many of its first events are under way.
    UnderWay(usize),
    /// In `waiting`, until then.
    Waiting(Instant),
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    /// At least one event.
    pub(crate) events: Vec<Arc<NamedEvent>>,
}

/// What a subscription holds.
#[derive(Debug)]
pub(crate) struct Queue {
    name: String,
    batch: BatchSettings,
    retry: RetrySettings,
    lines: HashMap<Stream, Line>,
    /// By their turn: the number of the first event, or a later one after a failure.
    ready: BTreeMap<u64, Stream>,
    /// By the time until which they wait, and their turn then.
    waiting: BTreeMap<(Instant, u64), Stream>,
    under_way: HashMap<u64, Vec<Stream>>,
    next_number: u64,
    /// The places of the events of the log that are held, by their order.
    open: BTreeMap<u64, Cursor>,
    /// The place up to which events were taken in.
    tail: Cursor,
    events: usize,
    bytes: usize,
    redriven: usize,
    /// Streams with events that failed since something was last delivered.
    failing: HashSet<Stream>,
    /// Failures in a row while the receiver is away; 0 when it is not.
    away: u32,
    /// No request before this time.
    away_until: Option<Instant>,
    /// True for a receiver within the host, which says itself when it can take nothing.
    is_local: bool,
    disabled: Option<String>,
    last_error: Option<(String, Timestamp)>,
    /// Dead letters that are kept or to be kept.
    dead_count: u64,
    /// Dead letters of each stream, when its later events wait for them.
    held: HashMap<Stream, u64>,
    /// The places of the dead letters that the store had at the start: the log may be read again from a
    /// place before them.
    known_dead: HashSet<Cursor>,
    /// Streams that got a dead letter while dead letters are being sent again.
    fresh: BTreeSet<Stream>,
    dead: Vec<DeadLetter>,
    delivered: Vec<Cursor>,
    /// What is written down already.
    saved: (Cursor, Option<String>),
}

impl Queue {
    /// Makes a queue that goes on where the store says.
    pub(crate) fn new(
        name: String,
        (batch, retry): (BatchSettings, RetrySettings),
        cursor: Cursor,
        disabled: Option<String>,
        is_local: bool,
    ) -> Self {
        Self {
            name,
            is_local,
            batch,
            retry,
            lines: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            under_way: HashMap::new(),
            next_number: 0,
            open: BTreeMap::new(),
            tail: cursor,
            events: 0,
            bytes: 0,
            redriven: 0,
            failing: HashSet::new(),
            away: 0,
            away_until: None,
            disabled: disabled.clone(),
            last_error: None,
            dead_count: 0,
            held: HashMap::new(),
            known_dead: HashSet::new(),
            fresh: BTreeSet::new(),
            dead: Vec::new(),
            delivered: Vec::new(),
            saved: (cursor, disabled),
        }
    }

    /// Counts a dead letter that the store keeps.
    pub(crate) fn knows_dead(&mut self, stream: Stream, place: Cursor) {
        self.dead_count += 1;
        self.known_dead.insert(place);
        self.hold(stream);
    }

    /// Returns the place from which the queue wants events.
    pub(crate) fn tail(&self) -> Cursor {
        self.tail
    }

    /// Returns true when the queue takes events of the log.
    pub(crate) fn has_room(&self) -> bool {
        let holds = self.retry.after_dead_letter == AfterDeadLetter::Hold;
        self.disabled.is_none()
            && self.events < EVENTS_HELD_MAX
            && self.bytes < EVENT_BYTES_HELD_MAX
            && !(holds && self.dead_count >= DEAD_LETTERS_MAX)
    }

    /// Returns true when the queue takes dead letters that are sent again.
    pub(crate) fn has_room_for_redriven(&self) -> bool {
        self.events < EVENTS_HELD_MAX && self.bytes < EVENT_BYTES_HELD_MAX
    }

    /// Takes an event of the log in. `place` is the place before it.
    pub(crate) fn push(&mut self, event: Arc<NamedEvent>, place: Cursor, now: Timestamp) {
        // The log is read again from the first event that was not settled.
        if self.known_dead.remove(&place) {
            return;
        }
        if self.held.contains_key(&event.event.stream) {
            self.bury(&event, place, 0, BEHIND, now);
            return;
        }
        self.open.insert(self.next_number, place);
        self.add(event, place, false);
    }

    /// Moves on to a place in the log; everything wanted before it was taken in.
    pub(crate) fn advance(&mut self, tail: Cursor) {
        self.tail = tail;
    }

    /// Takes a dead letter in, to be sent again.
    pub(crate) fn push_redriven(&mut self, event: Arc<NamedEvent>, place: Cursor) {
        self.redriven += 1;
        self.add(event, place, true);
    }

    /// Returns true when a dead letter has to wait for an earlier one of its stream.
    pub(crate) fn is_behind_another(&self, stream: &Stream) -> bool {
        self.held.contains_key(stream) && self.fresh.contains(stream)
    }

    /// Removes a dead letter whose event is not in the log any more.
    pub(crate) fn drop_dead(&mut self, letter: &DeadLetter) {
        self.exhume(&letter.stream, letter.place);
    }

    /// Returns how many dead letters are being sent again.
    pub(crate) fn redriven(&self) -> usize {
        self.redriven
    }

    /// Begins a redrive: what becomes a dead letter from now on is not part of it.
    pub(crate) fn begin_redrive(&mut self) {
        self.fresh.clear();
        self.disabled = None;
        self.away_until = None;
        // An operator knows better than a pause when the receiver is back.
        for stream in std::mem::take(&mut self.waiting).into_values() {
            self.make_ready(stream);
        }
    }

    fn add(&mut self, event: Arc<NamedEvent>, place: Cursor, is_redriven: bool) {
        let number = self.next_number;
        self.next_number += 1;
        self.events += 1;
        self.bytes += event.bytes();
        let stream = event.event.stream.clone();
        let line = self.lines.entry(stream.clone()).or_default();
        if line.items.is_empty() {
            self.ready.insert(number, stream);
        }
        let item = Item { number, place, event, attempts: 0, first_failed: None, is_redriven };
        line.items.push_back(item);
    }

    /// Returns a request to be sent now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Request> {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, turn), stream) = entry.remove_entry();
            if let Some(line) = self.lines.get_mut(&stream) {
                line.state = LineState::Ready;
                self.ready.insert(turn, stream);
            }
        }
        if !self.may_send(now) {
            return None;
        }
        let mut request = Request { number: self.next_number, events: Vec::new() };
        let (mut streams, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = self.ready.first_entry() {
            let Some(line) = self.lines.get_mut(entry.get()) else {
                entry.remove();
                continue;
            };
            // An event that failed goes alone, so that it fails no others.
            let is_alone = line
                .items
                .front()
                .is_some_and(|item| item.attempts > 0 || item.first_failed.is_some());
            if is_alone && !streams.is_empty() {
                break;
            }
            let mut taken = 0;
            for item in &line.items {
                let is_full = request.events.len() >= self.batch.events_max as usize
                    || bytes + item.event.bytes() > self.batch.bytes_max;
                if is_full && !request.events.is_empty() {
                    break;
                }
                bytes += item.event.bytes();
                request.events.push(Arc::clone(&item.event));
                taken += 1;
                if is_alone {
                    break;
                }
            }
            if taken == 0 {
                break;
            }
            line.state = LineState::UnderWay(taken);
            streams.push(entry.remove());
            if is_alone {
                break;
            }
        }
        if streams.is_empty() {
            return None;
        }
        self.next_number += 1;
        self.under_way.insert(request.number, streams);
        Some(request)
    }

    /// Returns true when one more request may be under way.
    fn has_place(&self) -> bool {
        let requests_max = if self.away > 0 { 1 } else { REQUESTS_MAX };
        self.disabled.is_none() && self.under_way.len() < requests_max
    }

    fn may_send(&self, now: Instant) -> bool {
        self.has_place() && self.away_until.is_none_or(|until| until <= now)
    }

    /// Returns when the next request may be due, without an event or an answer before.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if !self.has_place() {
            return None;
        }
        let waiting = self.waiting.first_key_value().map(|((until, _), _)| *until);
        let away = if self.ready.is_empty() { None } else { self.away_until };
        [waiting.map(|waiting| self.away_until.map_or(waiting, |until| until.max(waiting))), away]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes in what became of a request.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        answer: Answer,
        (now, at): (Instant, Timestamp),
    ) {
        let streams = self.under_way.remove(&number).unwrap_or_default();
        match answer {
            Answer::Delivered => {
                (self.away, self.away_until) = (0, None);
                self.failing.clear();
                for stream in streams {
                    self.accepted(stream);
                }
            }
            Answer::Gone(reason) => {
                self.last_error = Some((reason.clone(), at));
                self.disabled = Some(reason);
                for stream in streams {
                    self.make_ready(stream);
                }
            }
            Answer::Failed { error, is_away, retry_after } => {
                let retry_after = retry_after.map(|time| time.clamp(PAUSE_FIRST, RETRY_AFTER_MAX));
                for stream in &streams {
                    if self.failing.len() < FAILING_STREAMS_MAX {
                        self.failing.insert(stream.clone());
                    }
                }
                let is_away = if self.is_local {
                    // A refusal says that the host is there.
                    if !is_away {
                        (self.away, self.away_until) = (0, None);
                    }
                    is_away
                } else {
                    is_away || self.away > 0 || self.failing.len() >= FAILING_STREAMS_MAX
                };
                // Requests that were under way together fail together, and count once.
                if is_away && self.away_until.is_none_or(|until| until <= now) {
                    self.away = self.away.saturating_add(1);
                    let pause = retry_after.unwrap_or_else(|| self.pause(self.away, number));
                    self.away_until = Some(now + pause);
                }
                for stream in streams {
                    self.failed(stream, (&error, is_away, retry_after), (now, at));
                }
                self.last_error = Some((error, at));
            }
        }
    }

    /// The first events of a stream are delivered.
    fn accepted(&mut self, stream: Stream) {
        let Some(line) = self.lines.get_mut(&stream) else { return };
        let LineState::UnderWay(taken) = line.state else { return };
        let taken: Vec<_> = line.items.drain(..taken.min(line.items.len())).collect();
        for item in taken {
            self.forget(&item);
            if item.is_redriven {
                self.redriven -= 1;
                self.exhume(&stream, item.place);
            }
        }
        self.make_ready(stream);
    }

    /// The first event of a stream failed, or an event that was sent with it.
    fn failed(
        &mut self,
        stream: Stream,
        (error, is_away, retry_after): (&str, bool, Option<Duration>),
        (now, at): (Instant, Timestamp),
    ) {
        let Some(line) = self.lines.get_mut(&stream) else { return };
        let Some(item) = line.items.front_mut() else { return };
        let first_failed = *item.first_failed.get_or_insert(now);
        if !is_away {
            item.attempts += 1;
        }
        let (attempts, number) = (item.attempts, item.number);
        let is_over = attempts >= self.retry.attempts_max
            || now.saturating_duration_since(first_failed) >= self.retry.age_max;
        let is_kept = item.is_redriven || self.dead_count < DEAD_LETTERS_MAX;
        if is_over && is_kept {
            self.give_up(stream, error, at);
            return;
        }
        // While the receiver is away, the next try is of another stream.
        let until = match self.away_until {
            Some(away_until) if is_away => away_until.max(now) + self.pause(1, number),
            _ => now + retry_after.unwrap_or_else(|| self.pause(attempts, number)),
        };
        if let Some(line) = self.lines.get_mut(&stream) {
            line.state = LineState::Waiting(until);
        }
        // Behind everything that is there, so that each has its turn.
        let turn = self.next_number;
        self.next_number += 1;
        self.waiting.insert((until, turn), stream);
    }

    /// Makes the first event of a stream a dead letter.
    fn give_up(&mut self, stream: Stream, error: &str, at: Timestamp) {
        let holds = self.retry.after_dead_letter == AfterDeadLetter::Hold;
        let Some(line) = self.lines.get_mut(&stream) else { return };
        let count = if holds { line.items.len() } else { 1 };
        let items: Vec<_> = line.items.drain(..count).collect();
        for (index, item) in items.into_iter().enumerate() {
            self.forget(&item);
            let error = if index == 0 { error } else { BEHIND };
            tracing::warn!(
                subscription = self.name,
                stream = %stream,
                version = item.event.event.version.0,
                kind = item.event.event.kind,
                attempts = item.attempts,
                error,
                "an event could not be delivered and is a dead letter"
            );
            if item.is_redriven {
                self.redriven -= 1;
                // It is kept already. Its count of attempts and its error are new.
                self.dead.push(letter(&item.event, item.place, item.attempts, error, at));
                self.refresh(&stream);
            } else {
                self.bury(&item.event, item.place, item.attempts, error, at);
            }
        }
        self.make_ready(stream);
    }

    /// Keeps a new dead letter.
    fn bury(
        &mut self,
        event: &NamedEvent,
        place: Cursor,
        attempts: u32,
        error: &str,
        at: Timestamp,
    ) {
        let stream = event.event.stream.clone();
        self.dead.push(letter(event, place, attempts, error, at));
        self.dead_count += 1;
        if !self.held.contains_key(&stream) {
            self.refresh(&stream);
        }
        self.hold(stream);
    }

    /// A stream has a dead letter that is not part of the redrive.
    fn refresh(&mut self, stream: &Stream) {
        if self.retry.after_dead_letter == AfterDeadLetter::Hold {
            self.fresh.insert(stream.clone());
        }
    }

    fn hold(&mut self, stream: Stream) {
        if self.retry.after_dead_letter == AfterDeadLetter::Hold {
            *self.held.entry(stream).or_default() += 1;
        }
    }

    /// A dead letter is delivered.
    fn exhume(&mut self, stream: &Stream, place: Cursor) {
        // What it last failed with is not written down any more.
        self.dead.retain(|letter| letter.place != place);
        self.delivered.push(place);
        self.dead_count = self.dead_count.saturating_sub(1);
        if let Some(count) = self.held.get_mut(stream) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(stream);
            }
        }
    }

    /// An event is not held any more.
    fn forget(&mut self, item: &Item) {
        self.open.remove(&item.number);
        self.events -= 1;
        self.bytes -= item.event.bytes();
    }

    fn make_ready(&mut self, stream: Stream) {
        let Some(line) = self.lines.get_mut(&stream) else { return };
        match line.items.front() {
            Some(first) => {
                line.state = LineState::Ready;
                self.ready.insert(first.number, stream);
            }
            None => drop(self.lines.remove(&stream)),
        }
    }

    /// The pause after so many failures: twice as long each time, less up to a half.
    fn pause(&self, failures: u32, salt: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let full = PAUSE_FIRST.saturating_mul(doubled).min(self.retry.pause_max);
        // Fibonacci hashing spreads numbers that follow one another.
        let spread = salt.wrapping_add(u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let part = u16::try_from(spread >> 48).unwrap_or(u16::MAX);
        full.mul_f64(1.0 - f64::from(part) / f64::from(u16::MAX) / 2.0)
    }

    /// Returns the place before the first event that is neither delivered nor a dead letter.
    pub(crate) fn cursor(&self) -> Cursor {
        self.open.first_key_value().map_or(self.tail, |(_, place)| *place)
    }

    /// Returns what has changed since the last call, to be written down.
    pub(crate) fn take_change(&mut self) -> Option<SubscriptionChange> {
        let now = (self.cursor(), self.disabled.clone());
        if self.saved == now && self.dead.is_empty() && self.delivered.is_empty() {
            return None;
        }
        self.saved.clone_from(&now);
        let (cursor, disabled) = now;
        let (dead, delivered) =
            (std::mem::take(&mut self.dead), std::mem::take(&mut self.delivered));
        Some(SubscriptionChange { name: self.name.clone(), cursor, disabled, dead, delivered })
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away > 0
    }

    pub(crate) fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    pub(crate) fn last_error(&self) -> Option<&(String, Timestamp)> {
        self.last_error.as_ref()
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_count
    }
}

fn letter(
    event: &NamedEvent,
    place: Cursor,
    attempts: u32,
    error: &str,
    at: Timestamp,
) -> DeadLetter {
    let event = &event.event;
    DeadLetter {
        place,
        stream: event.stream.clone(),
        version: event.version,
        kind: event.kind.clone(),
        at,
        attempts,
        error: error.to_owned(),
    }
}
