//! The chain of the audit stream: each event has the SHA-256 of the one before it and of itself.
//!
//! The chain of an event is computed over the chain of the event before it, which is empty for the first one, followed
//! by the text of its own data with an empty `chain`. So whoever changes, removes, adds or moves an event has to
//! compute every chain after it anew.
//!
//! Deliberately absent: a secret. Whoever can write the database can compute a new chain. A copy of the stream in
//! another system shows that.

use amends_engine::{Digest, Version, on_one_line};
use amends_store::{EVENT_UNREADABLE, PageBudget, Store, StoreError, StoredEvent, Stream};

use super::fact::{AuditEvent, AuditFact};

/// How the text of the data of an event ends before it has its chain.
const OPEN_END: &str = ",\"chain\":\"\"}";

/// What follows the chain in the text of the data.
const CLOSING: &str = "\"}";

/// The hexadecimal digits of a chain.
const CHAIN_DIGITS: usize = 64;

/// Events that [`check_audit`] reads at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

/// The end of the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ChainEnd {
    /// The version of the last event; 0 when there is none.
    pub(super) version: Version,
    /// The chain of the last event; empty when there is none.
    pub(super) chain: String,
}

impl ChainEnd {
    /// Returns the end after an event, whether it fits or not.
    pub(super) fn of(event: &StoredEvent) -> Self {
        let chain = chain_of(&event.data).unwrap_or_default().to_owned();
        Self { version: event.version, chain }
    }

    /// Returns the text of the data of the next event, whose chain is empty yet, with its chain.
    pub(super) fn add(&mut self, open: &str) -> String {
        let chain = link(&self.chain, open);
        let before = open.strip_suffix(CLOSING).unwrap_or(open);
        let text = format!("{before}{chain}{CLOSING}");
        *self = Self { version: self.version.plus(1), chain };
        text
    }
}

fn link(before: &str, open: &str) -> String {
    Digest::of(format!("{before}{open}").as_bytes()).hex()
}

/// Returns the chain in the text of the data of an event.
fn chain_of(data: &str) -> Option<&str> {
    let before = data.strip_suffix(CLOSING)?;
    let (_, chain) = before.split_at_checked(before.len().checked_sub(CHAIN_DIGITS)?)?;
    chain.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(chain)
}

/// Returns the text of the data of an event with an empty chain.
fn opened(data: &str) -> Option<String> {
    let before = data.strip_suffix(CLOSING)?.strip_suffix(chain_of(data)?)?;
    let open = format!("{before}{CLOSING}");
    open.ends_with(OPEN_END).then_some(open)
}

/// Returns the reason in the data of an event that cannot be read.
fn why_unreadable(data: &str) -> String {
    let told: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    on_one_line(told["reason"].as_str().unwrap_or(data)).into_owned()
}

/// Looks for the first event of the audit stream that does not fit: into the chain, or into the versions.
///
/// Nothing shows that the last events are missing. Compare the number and the chain with what another system has.
#[derive(Debug, Default)]
pub struct AuditCheck {
    end: ChainEnd,
    finding: Option<String>,
}

impl AuditCheck {
    /// Takes the next event of the stream. Returns false when it does not fit: then no later one counts.
    pub fn take(&mut self, event: &StoredEvent) -> bool {
        if self.finding.is_none() {
            self.finding = self.wrong(event);
        }
        if self.finding.is_none() {
            self.end = ChainEnd::of(event);
        }
        self.finding.is_none()
    }

    /// Returns what is wrong with the next event.
    fn wrong(&self, event: &StoredEvent) -> Option<String> {
        let (last, found) = (self.end.version.0, event.version.0);
        let of = format!("the audit entry {found}");
        if found != last + 1 {
            let missing = if found == last + 2 {
                format!("the audit entry {} is missing", last + 1)
            } else if found > last {
                format!("the audit entries {} to {} are missing", last + 1, found - 1)
            } else {
                format!("{of} stands after entry {last}")
            };
            return Some(missing);
        }
        if event.kind == EVENT_UNREADABLE {
            return Some(format!("{of} cannot be read: {}", why_unreadable(&event.data)));
        }
        let (Some(open), Some(chain)) = (opened(&event.data), chain_of(&event.data)) else {
            return Some(format!("{of} has no chain"));
        };
        if link(&self.end.chain, &open) != chain {
            return Some(format!(
                "{of} does not fit to the one before it: one of the two is not what was recorded, or does not \
                 stand in its place"
            ));
        }
        match AuditEvent::read(event.clone()).fact {
            AuditFact::Recorded(_) | AuditFact::Refused(_) => None,
            AuditFact::Unreadable => {
                Some(format!("{of} is no `{}` that this version knows", on_one_line(&event.kind)))
            }
        }
    }

    /// Returns how many events fit.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.end.version.0
    }

    /// Returns the chain of the last event that fits; empty when there is none.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.end.chain
    }

    /// Returns a sentence that names the first event that does not fit. None when all do.
    #[must_use]
    pub fn finding(&self) -> Option<&str> {
        self.finding.as_deref()
    }
}

/// Checks the audit stream of a store.
///
/// # Errors
/// When the store fails.
pub async fn check_audit(store: &dyn Store) -> Result<AuditCheck, StoreError> {
    let (mut check, mut after) = (AuditCheck::default(), Version(0));
    loop {
        let page = store.log().stream(Stream::Audit, after, EVENTS_PER_READ).await?;
        let Some(last) = page.last() else { return Ok(check) };
        after = last.version;
        if !page.iter().all(|event| check.take(event)) {
            return Ok(check);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use std::net::IpAddr;

    use amends_engine::{Position, Timestamp};

    use super::*;
    use crate::audit::fact::{AuditEntry, AuditRecorded, AuditRefused, RECORDED, REFUSED};

    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn event(version: u64, kind: &str, data: String) -> StoredEvent {
        let (stream, kind) = (Stream::Audit, kind.to_owned());
        let (position, version) = (Position(version), Version(version));
        StoredEvent { stream, version, position, at: AT, kind, data }
    }

    fn recorded(number: u16) -> AuditRecorded {
        let entry = AuditEntry {
            who: "ada@10.0.0.7".to_owned(),
            token: Some("0123456789".to_owned()),
            roles: vec!["operator".to_owned()],
            address: IpAddr::from([10, 0, 0, 7]),
            operation: Some("cancel_saga".to_owned()),
            target: format!("/v1/sagas/{number}/cancel"),
            status: Some(200),
            code: None,
        };
        AuditRecorded { entry, at: AT, chain: String::new() }
    }

    /// A stream of this many events, of which the last one is of the other type.
    fn stream(events: u16) -> Vec<StoredEvent> {
        let mut end = ChainEnd::default();
        let mut made: Vec<_> = (1..events)
            .map(|number| {
                let data = end.add(&serde_json::to_string(&recorded(number)).unwrap());
                event(u64::from(number), RECORDED, data)
            })
            .collect();
        let refused = AuditRefused {
            address: "others".to_owned(),
            code: "token_missing".to_owned(),
            count: 7,
            since: AT,
            at: AT,
            chain: String::new(),
        };
        let data = end.add(&serde_json::to_string(&refused).unwrap());
        assert_eq!(end.version, Version(u64::from(events)));
        made.push(event(u64::from(events), REFUSED, data));
        made
    }

    fn check(events: &[StoredEvent]) -> AuditCheck {
        let mut check = AuditCheck::default();
        let fit = events.iter().take_while(|event| check.take(event)).count();
        assert_eq!(fit == events.len(), check.finding().is_none());
        check
    }

    /// What is found; the events are those of [`stream`], changed.
    fn finding(change: impl FnOnce(&mut Vec<StoredEvent>)) -> String {
        let mut events = stream(5);
        change(&mut events);
        check(&events).finding().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_stored_form_is_this_one() {
        let events = stream(2);
        let first = "{\"who\":\"ada@10.0.0.7\",\"token\":\"0123456789\",\"roles\":[\"operator\"],\
                     \"address\":\"10.0.0.7\",\"operation\":\"cancel_saga\",\
                     \"target\":\"/v1/sagas/1/cancel\",\"status\":200,\
                     \"at\":\"1970-01-01T00:00:01.000Z\",\"chain\":\"";
        let chain = Digest::of(format!("{first}\"}}").as_bytes()).hex();
        assert_eq!(events[0].data, format!("{first}{chain}\"}}"));
        let second = "{\"address\":\"others\",\"code\":\"token_missing\",\"count\":7,\
                      \"since\":\"1970-01-01T00:00:01.000Z\",\"at\":\"1970-01-01T00:00:01.000Z\",\"chain\":\"";
        let chain = Digest::of(format!("{chain}{second}\"}}").as_bytes()).hex();
        assert_eq!(events[1].data, format!("{second}{chain}\"}}"));
        let AuditFact::Recorded(read) = AuditEvent::read(events[0].clone()).fact else {
            panic!("it cannot be read");
        };
        assert_eq!(AuditRecorded { chain: String::new(), ..read }, recorded(1));
    }

    #[test]
    fn a_stream_that_nobody_changed_fits() {
        let events = stream(5);
        let check = check(&events);
        assert_eq!((check.finding(), check.entries()), (None, 5));
        assert_eq!(Some(check.chain()), chain_of(&events[4].data));
        assert_eq!(AuditCheck::default().finding(), None);
        // A field that a later version has is a part of what is chained.
        let mut end = ChainEnd::default();
        let open = serde_json::to_string(&recorded(1)).unwrap();
        let data = end.add(&open.replacen('{', "{\"more\":[1],", 1));
        assert!(AuditCheck::default().take(&event(1, RECORDED, data)));
    }

    #[test]
    fn an_event_that_was_removed_changed_or_moved_is_found() {
        let removed = finding(|events| drop(events.remove(2)));
        assert_eq!(removed, "the audit entry 3 is missing");
        let first = finding(|events| drop(events.drain(..3)));
        assert_eq!(first, "the audit entries 1 to 3 are missing");
        // The ones after it were numbered anew.
        let closed = finding(|events| {
            events.remove(2);
            for (event, number) in events.iter_mut().zip(1..) {
                event.version = Version(number);
            }
        });
        assert!(closed.starts_with("the audit entry 3 does not fit"), "{closed}");
        let changed = finding(|events| {
            events[1].data = events[1].data.replace("ada@", "eve@");
        });
        assert!(changed.starts_with("the audit entry 2 does not fit"), "{changed}");
        // Its own chain was computed anew, and those after it were not.
        let chained = finding(|events| {
            let mut end = ChainEnd::of(&events[0]);
            let open = opened(&events[1].data).unwrap();
            events[1].data = end.add(&open.replace("ada@", "eve@"));
        });
        assert!(chained.starts_with("the audit entry 3 does not fit"), "{chained}");
        let moved = finding(|events| {
            let (one, other) = (events[2].data.clone(), events[3].data.clone());
            (events[2].data, events[3].data) = (other, one);
        });
        assert!(moved.starts_with("the audit entry 3 does not fit"), "{moved}");
        let twice = finding(|events| events.insert(1, events[0].clone()));
        assert_eq!(twice, "the audit entry 1 stands after entry 1");
        let renamed = finding(|events| RECORDED.clone_into(&mut events[4].kind));
        assert_eq!(renamed, "the audit entry 5 is no `audit.recorded` that this version knows");
        let damaged = finding(|events| {
            (events[0].kind, events[0].data) = (EVENT_UNREADABLE.to_owned(), "{}".to_owned());
        });
        assert_eq!(damaged, "the audit entry 1 cannot be read: {}");
        for data in ["{}", "", "\"}", "{\"chain\":\"\"}", &format!("é{}\"}}", "0".repeat(63))] {
            let without = finding(|events| data.clone_into(&mut events[0].data));
            assert_eq!(without, "the audit entry 1 has no chain", "{data}");
        }
        // What the chain cannot show: the last ones are gone.
        assert_eq!(finding(|events| events.truncate(3)), "");
    }
}
