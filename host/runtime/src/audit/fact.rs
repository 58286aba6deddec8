//! What the events of the audit stream say.

use std::net::IpAddr;

use amends_engine::{Timestamp, Version};
use amends_store::StoredEvent;
use serde::{Deserialize, Serialize};

pub(super) const RECORDED: &str = "audit.recorded";
pub(super) const REFUSED: &str = "audit.refused";

/// A request for a change, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Who asked.
    pub who: String,
    /// The id of the token that they showed. None for the token of the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The roles of the token.
    pub roles: Vec<String>,
    /// The address that the request came from.
    pub address: IpAddr,
    /// The `operationId` of what was asked for. None when the API has no such operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The path and the query of the request, shortened when they are long.
    pub target: String,
    /// The HTTP status of the answer. None when the caller went away before it: then nobody knows what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the problem. None when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The data of `audit.recorded`. The chain is over this text: the order of the fields is part of the stored form, and
/// `chain` is the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecorded {
    /// The request.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// When it was answered.
    pub at: Timestamp,
    /// The link to the event before, in 64 hexadecimal digits.
    pub chain: String,
}

/// The data of `audit.refused`: requests that were refused because no token that counts came with them. Its order is
/// part of the stored form, as that of [`AuditRecorded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRefused {
    /// The address that they came from, or `others`.
    pub address: String,
    /// The code of the problem.
    pub code: String,
    /// How many they were.
    pub count: u64,
    /// When the first of them came.
    pub since: Timestamp,
    /// When they were recorded.
    pub at: Timestamp,
    /// The link to the event before, in 64 hexadecimal digits.
    pub chain: String,
}

/// What an event of the audit stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFact {
    /// Somebody with a token asked for a change.
    Recorded(AuditRecorded),
    /// Requests without a token that counts were refused.
    Refused(AuditRefused),
    /// It cannot be read: it is damaged, or a later version wrote it.
    Unreadable,
}

/// An event of the audit stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its place in the stream, from 1.
    pub version: Version,
    /// Its type.
    pub kind: String,
    /// When it was stored.
    pub at: Timestamp,
    /// What it says.
    pub fact: AuditFact,
}

impl AuditEvent {
    /// Reads an event of the stream.
    pub(super) fn read(event: StoredEvent) -> Self {
        let StoredEvent { version, kind, at, data, .. } = event;
        let fact = match kind.as_str() {
            RECORDED => serde_json::from_str(&data).map(AuditFact::Recorded),
            REFUSED => serde_json::from_str(&data).map(AuditFact::Refused),
            _ => Ok(AuditFact::Unreadable),
        };
        Self { version, kind, at, fact: fact.unwrap_or(AuditFact::Unreadable) }
    }
}
