//! Which labels there are, and which never may be: pure logic, without HTTP, faults or a clock.
//!
//! A label is issued once for an idempotency key and once for a reference. A cancellation leaves
//! a tombstone for its reference, whether or not there was a label. Nothing is ever forgotten, so
//! everything here is counted against a limit.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

/// At most this many labels, tombstones and keys of cancellations, each: a service that runs for
/// weeks beside a load test stays within about a gigabyte, and no test needs more.
pub(crate) const ENTRIES_MAX: usize = 1_000_000;

/// What the caller wants a label for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Parcel {
    /// The caller's name for the label.
    pub(crate) reference: String,
    /// The shop's number.
    pub(crate) order_id: String,
    /// Who is to carry it.
    pub(crate) carrier: String,
    /// With packing.
    pub(crate) weight_g: u32,
}

/// Whether a label is good for a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Issued,
    Cancelled,
}

/// A label in the ledger, as `GET /ledger` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The idempotency key that it was issued for.
    pub(crate) key: String,
    pub(crate) reference: String,
    pub(crate) order_id: String,
    /// Its number, such as `CP-000001`.
    pub(crate) label: String,
    pub(crate) status: Status,
    /// Requests for a label that came with this key, the refused ones too.
    pub(crate) requests: u64,
    /// The trace of the first of them.
    pub(crate) traceparent: Option<String>,
    #[serde(skip)]
    pub(crate) carrier: String,
    #[serde(skip)]
    pub(crate) weight_g: u32,
}

/// What the caller gets for its parcel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Issued<'ledger> {
    pub(crate) label: &'ledger str,
    pub(crate) reference: &'ledger str,
    pub(crate) carrier: &'ledger str,
    /// Whether this request issued it; an earlier one did otherwise.
    pub(crate) first: bool,
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The key came with another reference before: the caller's mistake.
    KeyReused,
    /// The reference was cancelled, so that there never will be a label for it.
    Cancelled,
    /// Another key has a label for this reference: a second one would be an effect doubled.
    ReferenceTaken,
    /// There is no room for more.
    Full,
}

/// All labels since the start.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries_max: usize,
    /// In order of issue.
    entries: Vec<Entry>,
    /// Indices into `entries`.
    by_key: HashMap<String, usize>,
    by_reference: HashMap<String, usize>,
    /// References that were cancelled, with or without a label.
    tombstones: HashSet<String>,
    /// What each key of a cancellation was answered.
    cancellations: HashMap<String, Cancellation>,
    cancelled: usize,
}

#[derive(Debug)]
struct Cancellation {
    reference: String,
    cancelled: bool,
}

impl Ledger {
    /// An empty one with room for `entries_max` labels, as many tombstones and as many keys of
    /// cancellations.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            entries: Vec::new(),
            by_key: HashMap::new(),
            by_reference: HashMap::new(),
            tombstones: HashSet::new(),
            cancellations: HashMap::new(),
            cancelled: 0,
        }
    }

    /// Issues a label, or finds the one that the key has.
    ///
    /// # Errors
    /// As [`Refusal`] says; then there is no label that was not there before.
    pub(crate) fn issue(
        &mut self,
        key: &str,
        parcel: &Parcel,
        traceparent: Option<&str>,
    ) -> Result<Issued<'_>, Refusal> {
        let known = self.by_key.get(key).copied();
        if let Some(index) = known {
            let entry = &mut self.entries[index];
            entry.requests += 1;
            if entry.reference != parcel.reference {
                return Err(Refusal::KeyReused);
            }
        }
        // The "suspension" hazard of compensations: a request is stalled in the network, its
        // caller gives up and cancels, and only then does the request arrive. It must not issue a
        // label, for nobody is left who would cancel it. So a cancellation holds for a reference
        // and not for a label, and goes before the answer that the key had.
        if self.tombstones.contains(&parcel.reference) {
            return Err(Refusal::Cancelled);
        }
        let index = match known {
            Some(index) => index,
            None => self.add(key, parcel, traceparent)?,
        };
        let entry = &self.entries[index];
        Ok(Issued {
            label: &entry.label,
            reference: &entry.reference,
            carrier: &entry.carrier,
            first: known.is_none(),
        })
    }

    /// Cancels what `reference` names and refuses it from now on. True when there was a label to
    /// cancel; a `key` that was here before gets the answer that it got then.
    ///
    /// # Errors
    /// When the key came with another reference before, or there is no room for more.
    pub(crate) fn cancel(&mut self, reference: &str, key: Option<&str>) -> Result<bool, Refusal> {
        if let Some(before) = key.and_then(|key| self.cancellations.get(key)) {
            let same = before.reference == reference;
            return if same { Ok(before.cancelled) } else { Err(Refusal::KeyReused) };
        }
        let new = !self.tombstones.contains(reference);
        let no_tombstone_left = new && self.tombstones.len() >= self.entries_max;
        let no_key_left = key.is_some() && self.cancellations.len() >= self.entries_max;
        if no_tombstone_left || no_key_left {
            return Err(Refusal::Full);
        }
        let cancelled = new && self.by_reference.contains_key(reference);
        if new {
            self.tombstones.insert(reference.to_owned());
        }
        if cancelled {
            self.entries[self.by_reference[reference]].status = Status::Cancelled;
            self.cancelled += 1;
        }
        if let Some(key) = key {
            let cancellation = Cancellation { reference: reference.to_owned(), cancelled };
            self.cancellations.insert(key.to_owned(), cancellation);
        }
        Ok(cancelled)
    }

    /// The label that `reference` names, cancelled or not.
    pub(crate) fn find(&self, reference: &str) -> Option<&Entry> {
        self.by_reference.get(reference).map(|index| &self.entries[*index])
    }

    /// In order of issue.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many of the labels are cancelled.
    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled
    }

    fn add(
        &mut self,
        key: &str,
        parcel: &Parcel,
        traceparent: Option<&str>,
    ) -> Result<usize, Refusal> {
        if self.by_reference.contains_key(&parcel.reference) {
            return Err(Refusal::ReferenceTaken);
        }
        if self.entries.len() >= self.entries_max {
            return Err(Refusal::Full);
        }
        let index = self.entries.len();
        self.entries.push(Entry {
            key: key.to_owned(),
            reference: parcel.reference.clone(),
            order_id: parcel.order_id.clone(),
            label: format!("CP-{:06}", index + 1),
            status: Status::Issued,
            requests: 1,
            traceparent: traceparent.map(str::to_owned),
            carrier: parcel.carrier.clone(),
            weight_g: parcel.weight_g,
        });
        self.by_key.insert(key.to_owned(), index);
        self.by_reference.insert(parcel.reference.clone(), index);
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(reference: &str) -> Parcel {
        Parcel {
            reference: reference.to_owned(),
            order_id: "ORD-1".to_owned(),
            carrier: "letter-mail".to_owned(),
            weight_g: 140,
        }
    }

    /// The number of the label, and whether it is new.
    fn issue(ledger: &mut Ledger, key: &str, reference: &str) -> Result<(String, bool), Refusal> {
        let issued = ledger.issue(key, &parcel(reference), None)?;
        Ok((issued.label.to_owned(), issued.first))
    }

    #[test]
    fn a_key_has_one_label() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert_eq!(issue(&mut ledger, "k1", "LBL-1"), Ok(("CP-000001".to_owned(), true)));
        assert_eq!(issue(&mut ledger, "k1", "LBL-1"), Ok(("CP-000001".to_owned(), false)));
        assert_eq!(issue(&mut ledger, "k2", "LBL-2"), Ok(("CP-000002".to_owned(), true)));
        let requests: Vec<_> = ledger.entries().iter().map(|entry| entry.requests).collect();
        assert_eq!(requests, [2, 1]);
    }

    #[test]
    fn the_first_request_gives_the_trace() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        for trace in ["00-first", "00-second"] {
            assert!(ledger.issue("k1", &parcel("LBL-1"), Some(trace)).is_ok());
        }
        assert_eq!(ledger.entries()[0].traceparent.as_deref(), Some("00-first"));
    }

    #[test]
    fn a_key_has_one_reference() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok());
        assert_eq!(issue(&mut ledger, "k1", "LBL-2"), Err(Refusal::KeyReused));
        assert_eq!(ledger.entries().len(), 1);
        assert_eq!(ledger.entries()[0].requests, 2);
        assert_eq!(ledger.cancel("LBL-1", Some("k3")), Ok(true));
        assert_eq!(ledger.cancel("LBL-2", Some("k3")), Err(Refusal::KeyReused));
        assert!(issue(&mut ledger, "k2", "LBL-2").is_ok(), "what was refused left no tombstone");
    }

    #[test]
    fn a_reference_has_one_label() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok());
        assert_eq!(issue(&mut ledger, "k2", "LBL-1"), Err(Refusal::ReferenceTaken));
        assert_eq!(ledger.entries().len(), 1);
    }

    #[test]
    fn a_late_request_finds_the_tombstone() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert_eq!(ledger.cancel("LBL-1", Some("undo")), Ok(false), "there was nothing to cancel");
        assert_eq!(issue(&mut ledger, "k1", "LBL-1"), Err(Refusal::Cancelled));
        assert_eq!(ledger.cancel("LBL-1", Some("undo-2")), Ok(false));
        assert!(ledger.entries().is_empty());
        assert!(ledger.find("LBL-1").is_none());
    }

    #[test]
    fn a_repeated_request_does_not_bring_a_cancelled_label_back() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok());
        assert_eq!(ledger.cancel("LBL-1", None), Ok(true));
        assert_eq!(issue(&mut ledger, "k1", "LBL-1"), Err(Refusal::Cancelled));
        assert_eq!(issue(&mut ledger, "k2", "LBL-1"), Err(Refusal::Cancelled));
        assert_eq!(ledger.find("LBL-1").map(|entry| entry.status), Some(Status::Cancelled));
        assert_eq!(ledger.entries()[0].requests, 2);
    }

    #[test]
    fn a_repeated_cancellation_answers_as_the_first() {
        let mut ledger = Ledger::new(ENTRIES_MAX);
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok());
        assert_eq!(ledger.cancel("LBL-1", Some("undo")), Ok(true));
        assert_eq!(ledger.cancel("LBL-1", Some("undo")), Ok(true));
        assert_eq!(ledger.cancel("LBL-1", Some("another")), Ok(false));
        assert_eq!(ledger.cancel("LBL-1", None), Ok(false));
        assert_eq!(ledger.cancelled(), 1);
    }

    #[test]
    fn is_full_at_its_limit() {
        let mut ledger = Ledger::new(1);
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok());
        assert_eq!(issue(&mut ledger, "k2", "LBL-2"), Err(Refusal::Full));
        assert!(issue(&mut ledger, "k1", "LBL-1").is_ok(), "what is there needs no room");
        assert_eq!(ledger.cancel("LBL-1", None), Ok(true));
        assert_eq!(ledger.cancel("LBL-2", None), Err(Refusal::Full), "tombstones");
        assert_eq!(ledger.cancel("LBL-1", Some("undo")), Ok(false));
        assert_eq!(ledger.cancel("LBL-1", Some("undo-2")), Err(Refusal::Full), "keys");
        assert_eq!(ledger.cancel("LBL-1", Some("undo")), Ok(false));
    }
}
