//! Evidence of one saga: a file that a third party checks without a host.
//!
//! Evidence is text in UTF-8. Each line is a JSON object and ends with a line feed. The first line is an
//! [`EvidenceHead`]. Then come the events of the saga, the components that served its calls, what the audit has
//! of it, and the sagas that it has started ([`EvidenceLine`]). The last line is an [`EvidenceSeal`].
//!
//! **The chain.** Each line but the last one ends with `,"hash":"HASH"}`: 75 bytes. Put `}` in their place, and
//! the line is as it was before it had its hash. HASH is the SHA-256, in 64 hexadecimal digits, of two texts, one
//! after the other: the HASH of the line before, which is empty for the first line, and the line without its hash.
//!
//! **The signature** is one of minisign over the text `amends-evidence/1 LINES HASH`: the number of lines before
//! the last one, and the HASH of the last of these.
//!
//! Deliberately absent: keys and signing.

use serde::{Deserialize, Serialize};

use amends_engine::{Digest, PAYLOAD_BYTES_MAX, Timestamp, on_one_line};

use crate::audit::AuditView;
use crate::definitions::DefinitionView;
use crate::erasures::PersonalView;
use crate::events::EventView;

/// The format of the evidence that this version writes and reads.
pub const EVIDENCE_FORMAT: &str = "amends-evidence/1";

/// The most bytes of a line of evidence: twice the largest event of a store.
pub const EVIDENCE_LINE_BYTES_MAX: usize = 32 * PAYLOAD_BYTES_MAX;

/// What stands before the hash of a line.
const HASH_BEGIN: &str = ",\"hash\":\"";

/// What stands after the hash of a line.
const HASH_END: &str = "\"}";

/// The hexadecimal digits of a hash.
const HASH_DIGITS: usize = 64;

/// How the last line begins.
const SEAL_BEGIN: &str = "{\"signed\":";

/// The first line: what the evidence is of, and who says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceHead {
    /// The format, [`EVIDENCE_FORMAT`].
    pub format: String,
    /// The version of Amends that wrote the evidence.
    pub amends: String,
    /// The id of the key that signs.
    pub key: String,
    /// When the evidence was made, by the clock of the host.
    pub made_at: Timestamp,
    /// Who asked for it.
    pub asked_by: String,
    /// Whether the host asks callers for a token. Without that, the names of those who gave orders are claims.
    pub access_control: bool,
    /// The id of the saga.
    pub saga: String,
    /// The status of the saga, when the evidence was made.
    pub status: String,
    /// Whether the saga had ended.
    pub ended: bool,
    /// How many events it had. All of them follow.
    pub events: u64,
    /// When the saga started.
    pub started_at: Timestamp,
    /// When the saga ended; null while it has not.
    pub ended_at: Option<Timestamp>,
    /// What became of its personal values; null when it has none.
    pub personal: Option<PersonalView>,
    /// The definition that the saga is pinned to.
    pub definition: DefinitionView,
}

/// A component that served calls of the saga. The events `step.started` and `undo.started` name it by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceComponent {
    /// The plugin that it served.
    pub plugin: String,
    /// Its digest.
    pub digest: String,
    /// Its version, as its manifest says; null when the host does not know it any more.
    pub version: Option<String>,
    /// The ids of the keys that have signed it, of those that the host trusts; null when the host does not have
    /// the component any more.
    pub signed_by: Option<Vec<String>>,
    /// The ids of the keys that other signatures name, which the host cannot check; null as `signed_by`.
    pub unchecked: Option<Vec<String>>,
}

/// A line of evidence before the last one: an object with one key, which says what the line is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceLine {
    /// The first line.
    Evidence(Box<EvidenceHead>),
    /// An event of the saga, in order.
    Event(EventView),
    /// A component that served calls of the saga.
    Component(EvidenceComponent),
    /// An entry of the audit that names the saga.
    Audit(AuditView),
    /// The ids of the sagas that steps of the saga have started, if there are any.
    Children(Vec<String>),
}

/// What the last line says: who stands for the lines before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSeal {
    /// How many lines stand before the last one.
    pub lines: u64,
    /// The hash of the last of these.
    pub hash: String,
    /// The id of the key.
    pub key: String,
    /// The signature: four lines, as minisign writes them.
    pub signature: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct LastLine {
    signed: EvidenceSeal,
}

/// The chain of the lines of evidence, as far as it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvidenceChain {
    lines: u64,
    hash: String,
}

impl EvidenceChain {
    /// Adds a line. Returns its text, with its hash and a line feed.
    ///
    /// # Errors
    /// When the line is nothing that JSON can say.
    pub fn add(&mut self, line: &EvidenceLine) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(line)?;
        // Within a text of JSON it is written otherwise, so this one is white space.
        if text.contains('\n') {
            text = text.replace('\n', " ");
        }
        self.link(&text);
        // The brace comes back after the hash.
        text.pop();
        text.push_str(HASH_BEGIN);
        text.push_str(&self.hash);
        text.push_str(HASH_END);
        text.push('\n');
        Ok(text)
    }

    /// Returns the text that is signed.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{EVIDENCE_FORMAT} {} {}", self.lines, self.hash)
    }

    /// Returns the last line, with a line feed. `signature` is one over [`Self::message`] by the key of this id.
    ///
    /// # Errors
    /// When the line is nothing that JSON can say.
    pub fn seal(self, key: String, signature: String) -> Result<String, serde_json::Error> {
        let Self { lines, hash } = self;
        let signed = EvidenceSeal { lines, hash, key, signature };
        let mut text = serde_json::to_string(&LastLine { signed })?;
        text.push('\n');
        Ok(text)
    }

    /// Moves the end of the chain to a line without its hash.
    fn link(&mut self, text: &str) {
        self.hash = Digest::of(format!("{}{text}", self.hash).as_bytes()).hex();
        self.lines += 1;
    }
}

/// The first line of evidence that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {wrong}")]
pub struct EvidenceMisfit {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub wrong: String,
}

/// What evidence says, when its lines fit together. It proves nothing before the signature was checked, too.
#[derive(Debug, Clone)]
pub struct EvidenceFound {
    /// The first line.
    pub head: EvidenceHead,
    /// When the first event was decided.
    pub first_at: Timestamp,
    /// When the last event was decided.
    pub last_at: Timestamp,
    /// The last line.
    pub seal: EvidenceSeal,
    /// What the signature has to be over.
    pub message: String,
}

/// Reads evidence line by line, and looks for the first one that does not fit.
#[derive(Debug, Default)]
pub struct EvidenceCheck {
    chain: EvidenceChain,
    head: Option<Box<EvidenceHead>>,
    events: u64,
    /// When the first and the last event were decided.
    times: Option<(Timestamp, Timestamp)>,
    seal: Option<EvidenceSeal>,
}

impl EvidenceCheck {
    /// Takes the next line, with its line feed.
    ///
    /// # Errors
    /// When the line does not fit. Nothing after it counts.
    pub fn take(&mut self, line: &[u8]) -> Result<(), EvidenceMisfit> {
        let number = self.number();
        self.read(line).map_err(|wrong| EvidenceMisfit { line: number, wrong })
    }

    /// Ends the evidence, after its last line.
    ///
    /// # Errors
    /// When lines are missing.
    pub fn finish(self) -> Result<EvidenceFound, EvidenceMisfit> {
        let line = self.number();
        let Self { chain, head, times, seal, .. } = self;
        let (Some(head), Some((first_at, last_at)), Some(seal)) = (head, times, seal) else {
            let wrong = "the evidence is cut off: it ends before its signature".to_owned();
            return Err(EvidenceMisfit { line, wrong });
        };
        Ok(EvidenceFound { head: *head, first_at, last_at, seal, message: chain.message() })
    }

    /// Returns the number of the next line.
    fn number(&self) -> u64 {
        self.chain.lines + 1 + u64::from(self.seal.is_some())
    }

    fn read(&mut self, line: &[u8]) -> Result<(), String> {
        if self.seal.is_some() {
            return Err("it follows the signature, which is the last line".to_owned());
        }
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err("the evidence is cut off: the line has no end".to_owned());
        };
        let line = str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
        if line.starts_with(SEAL_BEGIN) {
            self.seal = Some(self.read_seal(line)?);
            return Ok(());
        }
        let (text, hash) =
            split(line).ok_or("it is no line of evidence: it does not end with a hash")?;
        let mut chain = self.chain.clone();
        chain.link(&text);
        if chain.hash != hash {
            return Err(if chain.lines == 1 {
                "it is not the first line of the evidence, or not as it was written".to_owned()
            } else {
                "it does not fit to the line before it: one of the two is not as it was written, or does not \
                 stand in its place"
                    .to_owned()
            });
        }
        let line = serde_json::from_str(&text)
            .map_err(|error| format!("this version cannot read it: {error}"))?;
        self.check(line)?;
        self.chain = chain;
        Ok(())
    }

    fn read_seal(&self, line: &str) -> Result<EvidenceSeal, String> {
        let last: LastLine = serde_json::from_str(line)
            .map_err(|error| format!("the signature cannot be read: {error}"))?;
        // No other text says the same, so that a single changed byte is found.
        if serde_json::to_string(&last).ok().as_deref() != Some(line) {
            return Err("the signature is not as it was written".to_owned());
        }
        let LastLine { signed } = last;
        let Some(head) = &self.head else {
            return Err("there is nothing before the signature".to_owned());
        };
        if self.events != head.events {
            return Err(format!(
                "the saga had {} events when the evidence was made, and {} stand before the signature",
                head.events, self.events
            ));
        }
        if (signed.lines, &signed.hash) != (self.chain.lines, &self.chain.hash) {
            return Err(format!(
                "the signature is over {} lines, and not over the {} before it",
                signed.lines, self.chain.lines
            ));
        }
        if signed.key != head.key {
            return Err(format!(
                "it is signed by key {}, and line 1 names key {}",
                on_one_line(&signed.key),
                on_one_line(&head.key)
            ));
        }
        Ok(signed)
    }

    /// Checks what a line says against the lines before it.
    fn check(&mut self, line: EvidenceLine) -> Result<(), String> {
        match line {
            EvidenceLine::Evidence(head) => self.begin(head),
            EvidenceLine::Event(event) => self.event(&event),
            EvidenceLine::Audit(entry) => {
                let saga = self.saga()?;
                let target = entry.target.unwrap_or_default().to_ascii_lowercase();
                let wrong =
                    || format!("it is an entry of the audit that does not name saga {saga}");
                target.contains(saga).then_some(()).ok_or_else(wrong)
            }
            EvidenceLine::Component(_) | EvidenceLine::Children(_) => self.saga().map(|_| ()),
        }
    }

    fn begin(&mut self, head: Box<EvidenceHead>) -> Result<(), String> {
        if self.head.is_some() {
            return Err("other evidence begins here".to_owned());
        }
        if head.format != EVIDENCE_FORMAT {
            let format = on_one_line(&head.format);
            return Err(format!(
                "its format is {format}, and this version reads {EVIDENCE_FORMAT}"
            ));
        }
        self.head = Some(head);
        Ok(())
    }

    fn event(&mut self, event: &EventView) -> Result<(), String> {
        let saga = self.saga()?;
        let of = event.saga.as_deref().unwrap_or_default();
        if of != saga {
            return Err(format!("it is an event of saga {}, and not of {saga}", on_one_line(of)));
        }
        let next = self.events + 1;
        if event.version != next {
            return Err(format!("event {next} is missing; this one is {}", event.version));
        }
        self.events = next;
        let first_at = self.times.map_or(event.at, |(first_at, _)| first_at);
        self.times = Some((first_at, event.at));
        Ok(())
    }

    /// Returns the saga that the first line names.
    fn saga(&self) -> Result<&str, String> {
        let saga = self.head.as_ref().map(|head| head.saga.as_str());
        saga.ok_or_else(|| "it stands before the line that says what the evidence is of".to_owned())
    }
}

/// Splits a line into the line as it was before it had its hash, and the hash.
fn split(line: &str) -> Option<(String, &str)> {
    let rest = line.strip_suffix(HASH_END)?;
    let (before, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
    let text = before.strip_suffix(HASH_BEGIN)?;
    Some((format!("{text}}}"), hash))
}

#[cfg(test)]
mod tests;
