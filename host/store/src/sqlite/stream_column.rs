//! The column `stream`: the 16 bytes of a saga's id, or text for every other stream.

use amends_engine::SagaId;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

use super::column::{parse, unreadable};
use crate::stream::Stream;

/// The prefix of the stream of a service; its name follows.
const SERVICE_PREFIX: &str = "service/";

/// The stream of deploys. No plugin has this name, because names contain no slash.
const DEPLOYS: &str = "deploys/";

/// The stream of erasures.
const ERASURES: &str = "erasures/";

/// The stream of tokens.
const TOKENS: &str = "tokens/";

/// The audit stream.
const AUDIT: &str = "audit/";

impl ToSql for Stream {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Saga(id) => id.as_bytes().as_slice().into(),
            Self::Plugin(name) => name.as_str().into(),
            // No plugin has such a name, because names contain no slash.
            Self::Service(name) => format!("{SERVICE_PREFIX}{name}").into(),
            Self::Deploys => DEPLOYS.into(),
            Self::Erasures => ERASURES.into(),
            Self::Tokens => TOKENS.into(),
            Self::Audit => AUDIT.into(),
        })
    }
}

/// Reads a column as a stream.
pub(super) fn stream(row: &Row<'_>, column: usize) -> rusqlite::Result<Stream> {
    if let ValueRef::Text(text) = row.get_ref(column)? {
        if text == DEPLOYS.as_bytes() {
            return Ok(Stream::Deploys);
        }
        if text == ERASURES.as_bytes() {
            return Ok(Stream::Erasures);
        }
        if text == TOKENS.as_bytes() {
            return Ok(Stream::Tokens);
        }
        if text == AUDIT.as_bytes() {
            return Ok(Stream::Audit);
        }
        let service = text.strip_prefix(SERVICE_PREFIX.as_bytes());
        let service = service.and_then(|name| std::str::from_utf8(name).ok());
        return match service {
            Some(name) => {
                name.parse().map(Stream::Service).map_err(|error| unreadable(column, error))
            }
            None => Ok(Stream::Plugin(parse(row, column)?)),
        };
    }
    Ok(Stream::Saga(SagaId::from_bytes(row.get(column)?)))
}
