#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use amends_engine::{Position, SagaId, Version};
use amends_store::StoredEvent;
use proptest::prelude::*;

use super::*;

const RETRY: RetrySettings = RetrySettings {
    pause_max: Duration::from_mins(5),
    attempts_max: 3,
    age_max: Duration::from_hours(1),
    after_dead_letter: AfterDeadLetter::GoOn,
};

/// A log of events of a few sagas, a queue that takes them in, and the clock.
struct Trial {
    queue: Queue,
    /// How many events the log has.
    length: u64,
    versions: BTreeMap<u64, u64>,
    now: Instant,
}

fn place(position: u64) -> Cursor {
    position.to_string().parse().unwrap()
}

fn at() -> Timestamp {
    Timestamp::from_millis(1)
}

fn saga(number: u64) -> Stream {
    let mut id = [0; 16];
    id[15] = u8::try_from(number).unwrap();
    Stream::Saga(SagaId::from_bytes(id))
}

impl Trial {
    fn new(events_max: u32, retry: RetrySettings) -> Self {
        let batch = BatchSettings { events_max, bytes_max: 1 << 20 };
        let queue = Queue::new("q".to_owned(), (batch, retry), place(0), None, false);
        Self { queue, length: 0, versions: BTreeMap::new(), now: Instant::now() }
    }

    fn event(&mut self, number: u64) -> Arc<NamedEvent> {
        self.length += 1;
        let version = self.versions.entry(number).or_default();
        *version += 1;
        let event = StoredEvent {
            position: Position(self.length),
            stream: saga(number),
            version: Version(*version),
            at: at(),
            kind: "step.started".to_owned(),
            data: "{}".to_owned(),
        };
        Arc::new(NamedEvent { event, definition: None })
    }

    fn push(&mut self, number: u64) {
        let event = self.event(number);
        self.queue.push(event, place(self.length - 1), at());
        self.queue.advance(place(self.length));
    }

    fn answer(&mut self, request: &Request, answer: Answer) {
        self.queue.answered(request.number, answer, (self.now, at()));
    }

    fn take(&mut self) -> Option<Request> {
        self.queue.take(self.now)
    }

    /// Waits until a request is due.
    fn wait(&mut self) -> Request {
        if let Some(request) = self.take() {
            return request;
        }
        self.now = self.queue.next_due().expect("nothing would wake the queue").max(self.now);
        self.take().expect("nothing is due when it should be")
    }
}

fn refused() -> Answer {
    Answer::Failed { error: "400".to_owned(), is_away: false, retry_after: None }
}

fn away() -> Answer {
    Answer::Failed { error: "no connection".to_owned(), is_away: true, retry_after: None }
}

fn shown(request: &Request) -> Vec<(Stream, u64)> {
    let events = request.events.iter();
    events.map(|event| (event.event.stream.clone(), event.event.version.0)).collect()
}

#[test]
fn a_failure_holds_up_one_saga() {
    let mut trial = Trial::new(1, RETRY);
    for _ in 0..3 {
        trial.push(1);
        trial.push(2);
    }
    let (first, second) = (trial.take().unwrap(), trial.take().unwrap());
    assert!(trial.take().is_none(), "both sagas are under way");
    trial.answer(&first, refused());
    trial.answer(&second, Answer::Delivered);
    for version in [2, 3] {
        let next = trial.take().unwrap();
        assert_eq!(shown(&next), [(saga(2), version)]);
        trial.answer(&next, Answer::Delivered);
    }
    assert!(trial.take().is_none());
    assert_eq!(trial.queue.cursor(), place(0), "its first event is not delivered");
    for version in [1, 2, 3] {
        let again = trial.wait();
        assert_eq!(shown(&again), [(saga(1), version)]);
        trial.answer(&again, Answer::Delivered);
    }
    assert_eq!(trial.queue.cursor(), place(6));
}

/// Many broken sagas of one rule say nothing of the host that takes their events.
#[test]
fn each_event_that_the_host_refuses_becomes_a_dead_letter() {
    let mut trial = Trial::new(1, RETRY);
    trial.queue.is_local = true;
    (1..=10).for_each(|number| trial.push(number));
    // The host is full once: that is no attempt of this event.
    let first = trial.take().unwrap();
    trial.answer(&first, away());
    for attempt in 0..10 * RETRY.attempts_max {
        assert!(trial.queue.dead_letters() < 10, "{attempt} attempts");
        let request = trial.wait();
        trial.answer(&request, refused());
    }
    assert_eq!(trial.queue.dead_letters(), 10);
    assert_eq!(trial.queue.cursor(), place(10));
}

#[test]
fn a_poisoned_event_fails_no_others_of_its_batch_for_long() {
    let mut trial = Trial::new(10, RETRY);
    (1..=4).for_each(|number| trial.push(number));
    let batch = trial.take().unwrap();
    assert_eq!(batch.events.len(), 4);
    trial.answer(&batch, refused());
    let mut left = 4;
    while trial.queue.dead_letters() == 0 || left > 1 {
        let alone = trial.wait();
        assert_eq!(alone.events.len(), 1, "an event that failed goes alone");
        if shown(&alone)[0].0 == saga(3) {
            trial.answer(&alone, refused());
        } else {
            left -= 1;
            trial.answer(&alone, Answer::Delivered);
        }
    }
    let change = trial.queue.take_change().unwrap();
    assert_eq!((change.cursor, change.dead.len()), (place(4), 1));
    let dead = &change.dead[0];
    assert_eq!((dead.place, &dead.stream, dead.attempts), (place(2), &saga(3), RETRY.attempts_max));
    assert_eq!(trial.queue.take_change(), None);
}

#[test]
fn a_receiver_that_is_away_gets_one_request_at_a_time_and_no_event_loses_attempts() {
    let mut trial = Trial::new(1, RETRY);
    (1..=20).for_each(|number| trial.push(number));
    let mut open: Vec<_> = std::iter::from_fn(|| trial.take()).collect();
    assert_eq!(open.len(), REQUESTS_MAX);
    open.drain(..).for_each(|request| trial.answer(&request, away()));
    let (mut tried, mut before) = (HashSet::new(), trial.now);
    let mut longest = Duration::ZERO;
    let soon = trial.queue.away_until.unwrap() - trial.now;
    assert!(soon <= PAUSE_FIRST, "requests that fail together count once: {soon:?}");
    for _ in 0..12 {
        let probe = trial.wait();
        assert!(trial.take().is_none(), "one at a time");
        tried.extend(shown(&probe));
        longest = longest.max(trial.now - before);
        before = trial.now;
        trial.answer(&probe, away());
    }
    assert!(tried.len() >= 8, "not the same event each time: {tried:?}");
    assert!(longest >= RETRY.pause_max / 2 && longest <= RETRY.pause_max, "{longest:?}");
    assert_eq!(trial.queue.dead_letters(), 0);
    assert!(trial.queue.is_away());
    let probe = trial.wait();
    trial.answer(&probe, Answer::Delivered);
    assert!(!trial.queue.is_away());
    trial.now += RETRY.pause_max;
    let mut left = 19;
    while let Some(request) = trial.take() {
        left -= request.events.len();
        trial.answer(&request, Answer::Delivered);
    }
    assert_eq!((left, trial.queue.cursor()), (0, place(20)));
}

#[test]
fn what_refuses_every_saga_is_away() {
    let mut trial = Trial::new(1, RETRY);
    (1..=12).for_each(|number| trial.push(number));
    // Within less than the age at which events are dead.
    for _ in 0..16 {
        let request = trial.wait();
        trial.answer(&request, refused());
    }
    assert!(trial.queue.is_away());
    assert_eq!(trial.queue.dead_letters(), 0, "an outage loses no attempts");
}

#[test]
fn too_old_is_dead_also_while_the_receiver_is_away() {
    let mut trial = Trial::new(1, RETRY);
    trial.push(1);
    let begun = trial.now;
    while trial.queue.dead_letters() == 0 {
        let request = trial.wait();
        trial.answer(&request, away());
    }
    let took = trial.now - begun;
    assert!(took >= RETRY.age_max && took < RETRY.age_max + 2 * RETRY.pause_max, "{took:?}");
}

#[test]
fn retry_after_is_kept_up_to_a_limit() {
    // One that asks for no pause at all gets no requests without end.
    for (asked, waited) in [(90, 90), (1_000_000, RETRY_AFTER_MAX.as_secs()), (0, 1)] {
        for is_away in [false, true] {
            let mut trial = Trial::new(1, RETRY);
            trial.push(1);
            let request = trial.take().unwrap();
            let retry_after = Some(Duration::from_secs(asked));
            let error = "429".to_owned();
            trial.answer(&request, Answer::Failed { error, is_away, retry_after });
            let begun = trial.now;
            trial.wait();
            let took = (trial.now - begun).as_secs();
            assert!((waited..=waited + 1).contains(&took), "{took} s instead of {waited}");
        }
    }
}

#[test]
fn a_redrive_tries_a_receiver_that_is_away_at_once() {
    let mut trial = Trial::new(1, RETRY);
    (1..=3).for_each(|number| trial.push(number));
    for _ in 0..5 {
        let request = trial.take().unwrap_or_else(|| trial.wait());
        trial.answer(&request, away());
    }
    assert!(trial.take().is_none());
    trial.queue.begin_redrive();
    let probe = trial.take().unwrap();
    assert!(trial.take().is_none(), "one at a time");
    trial.answer(&probe, Answer::Delivered);
    assert_eq!(std::iter::from_fn(|| trial.take()).count(), 2);
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_until_a_redrive() {
    let mut trial = Trial::new(1, RETRY);
    trial.push(1);
    let request = trial.take().unwrap();
    trial.answer(&request, Answer::Gone("410".to_owned()));
    trial.now += Duration::from_hours(24);
    assert!(trial.take().is_none() && !trial.queue.has_room());
    let change = trial.queue.take_change().unwrap();
    assert_eq!((change.cursor, change.disabled.as_deref()), (place(0), Some("410")));
    trial.queue.begin_redrive();
    assert_eq!(shown(&trial.take().unwrap()), [(saga(1), 1)]);
    assert_eq!(trial.queue.take_change().unwrap().disabled, None);
}

/// Fails the first event of saga 1 until it is a dead letter.
fn with_dead_letter(after_dead_letter: AfterDeadLetter) -> Trial {
    let mut trial = Trial::new(1, RetrySettings { after_dead_letter, ..RETRY });
    trial.push(1);
    trial.push(1);
    while trial.queue.dead_letters() == 0 {
        let request = trial.wait();
        trial.answer(&request, refused());
    }
    trial
}

#[test]
fn later_events_go_on_or_wait() {
    let mut trial = with_dead_letter(AfterDeadLetter::GoOn);
    let next = trial.take().unwrap();
    assert_eq!(shown(&next), [(saga(1), 2)]);

    let mut trial = with_dead_letter(AfterDeadLetter::Hold);
    trial.push(1);
    trial.push(2);
    let next = trial.take().unwrap();
    assert_eq!(shown(&next), [(saga(2), 1)], "the others go on");
    trial.answer(&next, Answer::Delivered);
    let change = trial.queue.take_change().unwrap();
    let dead: Vec<_> = change.dead.iter().map(|dead| (dead.version.0, dead.attempts)).collect();
    assert_eq!(dead, [(1, RETRY.attempts_max), (2, 0), (3, 0)]);
    assert_eq!(change.cursor, place(4), "the cursor waits for no dead letter");

    // They are sent again in order, and what comes meanwhile waits behind them.
    trial.queue.begin_redrive();
    let mut events = Trial::new(1, RETRY);
    for letter in &change.dead {
        let event = events.event(1);
        assert!(!trial.queue.is_behind_another(&letter.stream));
        trial.queue.push_redriven(event, letter.place);
    }
    trial.push(1);
    for version in 1..=3 {
        let request = trial.take().unwrap();
        assert_eq!(shown(&request), [(saga(1), version)]);
        trial.answer(&request, Answer::Delivered);
    }
    let change = trial.queue.take_change().unwrap();
    assert_eq!(change.delivered, [place(0), place(1), place(2)]);
    assert_eq!(change.dead.len(), 1, "what came meanwhile is read by the same redrive");
    assert_eq!((trial.queue.redriven(), trial.queue.dead_letters()), (0, 1));
}

#[test]
fn a_redrive_that_fails_again_keeps_the_dead_letter() {
    let mut trial = with_dead_letter(AfterDeadLetter::Hold);
    trial.queue.take_change().unwrap();
    trial.queue.begin_redrive();
    let mut events = Trial::new(1, RETRY);
    let (first, second) = (events.event(1), events.event(1));
    trial.queue.push_redriven(first, place(0));
    trial.queue.push_redriven(second, place(1));
    while trial.queue.redriven() > 0 {
        let request = trial.wait();
        assert_eq!(shown(&request), [(saga(1), 1)], "the second waits for the first");
        trial.answer(&request, refused());
    }
    let change = trial.queue.take_change().unwrap();
    assert_eq!((change.dead.len(), change.delivered.len()), (2, 0));
    assert_eq!(trial.queue.dead_letters(), 2);
    assert!(trial.queue.is_behind_another(&saga(1)), "the rest of it waits for another redrive");
    assert_eq!(trial.queue.cursor(), place(2));
}

/// The log is read again from the first event that is not settled, and the dead letter lies after it.
#[test]
fn a_dead_letter_is_counted_once_after_a_restart() {
    for after_dead_letter in [AfterDeadLetter::GoOn, AfterDeadLetter::Hold] {
        let retry = RetrySettings { after_dead_letter, ..RETRY };
        let mut trial = Trial::new(1, retry);
        let events = [trial.event(2), trial.event(1)];
        let take_in = |queue: &mut Queue| {
            for (position, event) in (0..).zip(&events) {
                queue.push(Arc::clone(event), place(position), at());
                queue.advance(place(position + 1));
            }
        };
        take_in(&mut trial.queue);
        let first = trial.take().unwrap();
        assert_eq!(shown(&first), [(saga(2), 1)]);
        while trial.queue.dead_letters() == 0 {
            let request = trial.wait();
            trial.answer(&request, refused());
        }
        let change = trial.queue.take_change().unwrap();
        assert_eq!((change.cursor, change.dead.len()), (place(0), 1));

        let rules = (trial.queue.batch, retry);
        trial.queue = Queue::new("q".to_owned(), rules, change.cursor, None, false);
        let dead = &change.dead[0];
        trial.queue.knows_dead(dead.stream.clone(), dead.place);
        take_in(&mut trial.queue);
        assert_eq!(trial.queue.dead_letters(), 1);
        assert!(trial.queue.take_change().is_none_or(|change| change.dead.is_empty()));
        let again = trial.take().unwrap();
        assert_eq!(shown(&again), [(saga(2), 1)]);
        assert!(trial.take().is_none(), "the dead letter is sent again");
        trial.answer(&again, Answer::Delivered);
        assert_eq!(trial.queue.cursor(), place(2));
    }
}

/// What a random run does next.
#[derive(Debug, Clone)]
enum Act {
    Push(u64),
    Send,
    /// Answers one of the open requests: which, and how.
    Answer(usize, u8),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1_u64..6).prop_map(Act::Push),
        3 => Just(Act::Send),
        3 => (0_usize..16, 0_u8..6).prop_map(|(which, how)| Act::Answer(which, how)),
        1 => (0_u64..400).prop_map(Act::Wait),
    ];
    proptest::collection::vec(act, 1..200)
}

proptest! {
    /// The cursor is the place before the first event that is neither delivered nor dead, each event is
    /// one or the other in the end, and the events of a saga are delivered in order.
    #[test]
    fn the_cursor_passes_nothing(acts in acts(), events_max in 1_u32..5, holds in any::<bool>()) {
        let after_dead_letter = if holds { AfterDeadLetter::Hold } else { AfterDeadLetter::GoOn };
        let mut trial = Trial::new(events_max, RetrySettings { after_dead_letter, ..RETRY });
        let mut open: Vec<Request> = Vec::new();
        let mut settled: BTreeSet<u64> = BTreeSet::new();
        let mut delivered: HashMap<Stream, u64> = HashMap::new();
        let mut all = acts;
        // In the end the receiver takes everything.
        for turn in 0..2_000 {
            all.extend([Act::Send, Act::Answer(0, 0)]);
            if turn % 10 == 0 { all.push(Act::Wait(400)); }
        }
        for act in all {
            match act {
                Act::Push(number) => trial.push(number),
                Act::Send => open.extend(trial.take()),
                Act::Wait(seconds) => trial.now += Duration::from_secs(seconds),
                Act::Answer(..) if open.is_empty() => {}
                Act::Answer(which, how) => {
                    let request = open.remove(which % open.len());
                    let answer = match how { 0..=2 => Answer::Delivered, 3 | 4 => refused(), _ => away() };
                    if answer == Answer::Delivered {
                        for event in &request.events {
                            let version = delivered.entry(event.event.stream.clone()).or_default();
                            prop_assert!(event.event.version.0 > *version, "out of order, or twice");
                            *version = event.event.version.0;
                            settled.insert(event.event.position.0);
                        }
                    }
                    trial.answer(&request, answer);
                }
            }
            let mut streams: Vec<_> = open.iter()
                .flat_map(|request| {
                    request.events.iter().map(|event| &event.event.stream).collect::<HashSet<_>>()
                })
                .collect();
            let count = streams.len();
            streams.sort_unstable();
            streams.dedup();
            prop_assert_eq!(streams.len(), count, "two requests with one saga");
            if let Some(change) = trial.queue.take_change() {
                for dead in &change.dead {
                    let position: u64 = dead.place.to_string().parse().unwrap();
                    prop_assert!(settled.insert(position + 1), "dead and delivered");
                }
                let first = (1..=trial.length + 1).find(|position| !settled.contains(position)).unwrap();
                prop_assert_eq!(change.cursor, place(first - 1));
            }
        }
        prop_assert_eq!(trial.queue.cursor(), place(trial.length), "something was forgotten");
        prop_assert_eq!((trial.queue.events, trial.queue.bytes), (0, 0));
    }
}
