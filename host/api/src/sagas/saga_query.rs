//! Which sagas a request lists.

use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::QUARANTINED;
use amends_engine::{IdError, SagaStatus, Timestamp};
use amends_runtime::{IdPart, SagaQuery};

use crate::error::ApiError;
use crate::paging::cursor;

/// Which sagas to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only sagas with this status, or with one of several with commas between them. `quarantined`, which must
    /// stand alone: the sagas that cannot be read or stepped, so that nothing touches them.
    status: Option<String>,
    /// Only sagas of the definition with this name.
    definition: Option<String>,
    /// Only sagas with this tag, as `NAME:VALUE`.
    tag: Option<String>,
    /// Only sagas that began after this time (RFC 3339).
    started_after: Option<String>,
    /// Only sagas that began before this time (RFC 3339).
    started_before: Option<String>,
    /// Only sagas whose id begins or ends with these 8 to 32 hexadecimal digits.
    id: Option<String>,
    /// Whether the answer says what sagas that have not ended do or wait for.
    activity: Option<bool>,
    /// Whether to list only sagas that have not moved for longer than they should.
    stuck: Option<bool>,
    /// How many items the page may have: 1 to 1,000, 50 when absent.
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

impl ListQuery {
    /// Whether the request asks for sagas alone that have not moved for longer than they should.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.unwrap_or(false)
    }

    /// Whether the request asks what sagas do or wait for.
    pub(crate) fn says_activity(&self) -> bool {
        self.activity.unwrap_or(false)
    }

    /// Whether the request asks for sagas alone that nothing touches.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.status.as_deref().is_some_and(|status| status.trim() == QUARANTINED)
    }

    /// How many items the page may have, when the request says so.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// The query that the store answers, for at most `limit` sagas. It asks for no status when the request
    /// asks for quarantined sagas, which no row tells.
    ///
    /// # Errors
    /// 400 when a filter cannot be read.
    pub(crate) fn into_saga_query(self, limit: u32) -> Result<SagaQuery, ApiError> {
        let status = self.status.as_deref().filter(|_| !self.is_quarantined());
        Ok(SagaQuery {
            statuses: statuses(status)?,
            definition: self
                .definition
                .map(|name| name.parse())
                .transpose()
                .map_err(ApiError::bad_query)?,
            tag: self.tag.as_deref().map(tag).transpose()?,
            started_after: time(self.started_after.as_deref())?,
            started_before: time(self.started_before.as_deref())?,
            id: self.id.as_deref().map(id_part).transpose()?,
            before: cursor(self.cursor.as_deref())?,
            limit,
        })
    }
}

fn statuses(text: Option<&str>) -> Result<Vec<SagaStatus>, ApiError> {
    let words = text.into_iter().flat_map(|text| text.split(','));
    words
        .map(|word| {
            SagaStatus::from_word(word.trim()).ok_or_else(|| {
                let all: Vec<_> = SagaStatus::ALL.iter().map(|status| status.as_str()).collect();
                ApiError::new(400, "bad_query", format!("`{word}` is not a status"))
                    .with_remedy(format!("use one of {}, or {QUARANTINED} alone", all.join(", ")))
            })
        })
        .collect()
}

fn tag(text: &str) -> Result<(String, String), ApiError> {
    text.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| {
        ApiError::new(400, "bad_query", format!("`{text}` is not a tag"))
            .with_remedy("write NAME:VALUE")
    })
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(str::parse).transpose().map_err(|error: IdError| ApiError::bad_query(error))
}

fn id_part(text: &str) -> Result<IdPart, ApiError> {
    IdPart::new(text).ok_or_else(|| {
        let detail = format!("`{text}` is no part of an id");
        let least = IdPart::DIGITS_MIN;
        ApiError::new(400, "bad_query", detail).with_remedy(format!(
            "give at least {least} hexadecimal digits of its beginning or end"
        ))
    })
}
