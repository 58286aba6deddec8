//! Which sagas a request lists.

use std::collections::BTreeSet;

use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::QUARANTINED;
use amends_engine::{IdError, IndexName, SagaStatus, Timestamp};
use amends_runtime::{DigestPart, FailureQuery, FailureText, IdPart, IndexCondition, SagaQuery};

use crate::error::ApiError;
use crate::extract::Repeated;
use crate::paging::cursor;
use crate::sagas::start_request::TAGS_MAX;

/// A request has at most this many conditions on index values: a saga has as many values.
const CONDITIONS_MAX: usize = amends_engine::INDEX_NAMES_MAX;

/// Which sagas to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only sagas with this status, or with one of several with commas between them. `quarantined`, which must
    /// stand alone: the sagas that cannot be read or stepped, so that nothing touches them.
    status: Option<String>,
    /// Only sagas of the definition with this name.
    definition: Option<String>,
    /// Only sagas that are pinned to the definition whose digest begins with these 8 to 64 hexadecimal digits.
    definition_digest: Option<String>,
    /// Only sagas with this tag, as `NAME:VALUE`. It may be given several times; a saga has all of them.
    #[serde(default)]
    tag: Vec<String>,
    /// Only sagas with such an index value, as `NAME=VALUE`, `NAME<VALUE`, `NAME<=VALUE`, `NAME>VALUE`,
    /// `NAME>=VALUE`, or `NAME^=BEGINNING` of a text. A value that is a number compares as a number; one in double
    /// quotes is a text. It may be given several times; a saga fulfils all of them.
    #[serde(default, rename = "where")]
    conditions: Vec<String>,
    /// Only the saga that was started with this idempotency key.
    key: Option<String>,
    /// Only sagas that began after this time (RFC 3339).
    #[param(format = DateTime)]
    started_after: Option<String>,
    /// Only sagas that began before this time (RFC 3339).
    #[param(format = DateTime)]
    started_before: Option<String>,
    /// Only sagas that ended after this time.
    #[param(format = DateTime)]
    ended_after: Option<String>,
    /// Only sagas that ended before this time.
    #[param(format = DateTime)]
    ended_before: Option<String>,
    /// Only sagas in which this step or its undo failed; the name of a step over a list matches each of its
    /// elements, `NAME[3]` one. `step`, `code`, `digest` and `text` are about one failure, and about the last one
    /// of each step and undo.
    step: Option<String>,
    /// Only sagas in which a call failed with this code.
    code: Option<String>,
    /// Only sagas in which a call of a component failed whose digest begins with these 8 to 64 hexadecimal
    /// digits.
    digest: Option<String>,
    /// Only sagas with all of these words in a failure, or in the reason why they are or were blocked; `WORD*`
    /// is the beginning of a word. At most 512 bytes.
    text: Option<String>,
    /// Only sagas whose id begins or ends with these 8 to 32 hexadecimal digits.
    id: Option<String>,
    /// Whether the answer says what sagas that have not ended do or wait for.
    activity: Option<bool>,
    /// Whether to list only sagas that have not moved for longer than they should.
    stuck: Option<bool>,
    /// Whether to list the archived sagas, and only those. They have no tags and are not `stuck`.
    archived: Option<bool>,
    /// How many items the page may have: 1 to 1,000, 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

impl Repeated for ListQuery {
    const KEYS: &'static [&'static str] = &["tag", "where"];

    fn push(&mut self, key: &str, value: String) {
        if key == "where" {
            self.conditions.push(value);
        } else {
            self.tag.push(value);
        }
    }
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

    /// Whether the request asks for archived sagas alone.
    ///
    /// # Errors
    /// 400 when it asks for what archived sagas do not have.
    pub(crate) fn is_archived(&self) -> Result<bool, ApiError> {
        let is_archived = self.archived.unwrap_or(false);
        let has_more = !self.tag.is_empty()
            || !self.conditions.is_empty()
            || self.definition_digest.is_some()
            || self.asks_for_failures()
            || self.is_stuck()
            || self.is_quarantined();
        if is_archived && has_more {
            let detail =
                "an archived saga is found by its id, definition, status, key, start and end alone";
            return Err(ApiError::new(400, "bad_query", detail).with_remedy(
                "leave out tag, where, definition_digest, step, code, digest, text, stuck and \
                 status=quarantined",
            ));
        }
        Ok(is_archived)
    }

    /// Whether the request asks for sagas with some failure alone.
    fn asks_for_failures(&self) -> bool {
        let Self { step, code, digest, text, .. } = self;
        [step, code, digest, text].into_iter().any(Option::is_some)
    }

    /// Refuses conditions on failures together with `stuck` and `status=quarantined`, which the workers answer:
    /// they do not look for failures.
    ///
    /// # Errors
    /// 400 when the request has both.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.asks_for_failures() && (self.is_stuck() || self.is_quarantined()) {
            let detail = "stuck and quarantined sagas are not found by their failures";
            return Err(ApiError::new(400, "bad_query", detail)
                .with_remedy("leave out step, code, digest and text"));
        }
        Ok(())
    }

    /// Refuses what a count does not look at.
    ///
    /// # Errors
    /// 400 when the request asks for pages, or for sagas that only the workers or the archive know.
    pub(crate) fn check_count(&self) -> Result<(), ApiError> {
        let Self { activity, stuck, archived, limit, cursor, .. } = self;
        let is_other = [activity, stuck, archived].into_iter().any(Option::is_some)
            || limit.is_some()
            || cursor.is_some()
            || self.is_quarantined();
        if is_other {
            let detail = "sagas are counted as the store has them, all that the filters find";
            let others = "limit, cursor, activity, stuck, archived and status=quarantined";
            return Err(
                ApiError::new(400, "bad_query", detail).with_remedy(format!("leave out {others}"))
            );
        }
        Ok(())
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
    /// asks for quarantined sagas, which no row tells. `known` are the names of index values.
    ///
    /// # Errors
    /// 400 when a filter cannot be read, or names an index value that no definition has.
    pub(crate) fn into_saga_query(
        self,
        limit: u32,
        known: &BTreeSet<IndexName>,
    ) -> Result<SagaQuery, ApiError> {
        let status = self.status.as_deref().filter(|_| !self.is_quarantined());
        if self.tag.len() > TAGS_MAX {
            let detail = format!("{} tags, and a saga has at most {TAGS_MAX}", self.tag.len());
            return Err(ApiError::new(400, "bad_query", detail));
        }
        if self.conditions.len() > CONDITIONS_MAX {
            let detail = format!(
                "{} conditions, at most {CONDITIONS_MAX} are allowed",
                self.conditions.len()
            );
            return Err(ApiError::new(400, "bad_query", detail));
        }
        let condition = |text: &String| condition(text, known);
        Ok(SagaQuery {
            index: self.conditions.iter().map(condition).collect::<Result<_, _>>()?,
            statuses: statuses(status)?,
            definition: self
                .definition
                .map(|name| name.parse())
                .transpose()
                .map_err(ApiError::bad_query)?,
            definition_digest: self.definition_digest.as_deref().map(digest_part).transpose()?,
            tags: self.tag.iter().map(|text| tag(text)).collect::<Result<_, _>>()?,
            key: self.key,
            started_after: time(self.started_after.as_deref())?,
            started_before: time(self.started_before.as_deref())?,
            ended_after: time(self.ended_after.as_deref())?,
            ended_before: time(self.ended_before.as_deref())?,
            failure: FailureQuery {
                step: self
                    .step
                    .map(|name| name.parse())
                    .transpose()
                    .map_err(ApiError::bad_query)?,
                code: self.code,
                digest: self.digest.as_deref().map(digest_part).transpose()?,
                text: self.text.as_deref().map(failure_text).transpose()?,
            },
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

fn condition(text: &str, known: &BTreeSet<IndexName>) -> Result<IndexCondition, ApiError> {
    let condition = IndexCondition::parse(text).map_err(|detail| {
        ApiError::new(400, "bad_query", detail).with_remedy(IndexCondition::FORM)
    })?;
    if known.contains(&condition.name) {
        return Ok(condition);
    }
    let detail = format!("no definition of this host has an index value `{}`", condition.name);
    Err(ApiError::new(400, "bad_query", detail).with_remedy(known_names(known)))
}

/// Says which names of index values there are, or how there come to be some.
pub(crate) fn known_names(known: &BTreeSet<IndexName>) -> String {
    if known.is_empty() {
        return "declare some in the config, such as [[saga]] index = { customer = \
                \"input.customer_id\" }; they are computed when a saga starts"
            .to_owned();
    }
    let names: Vec<_> = known.iter().map(IndexName::as_str).collect();
    format!("there are {}", names.join(", "))
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(str::parse).transpose().map_err(|error: IdError| ApiError::bad_query(error))
}

fn digest_part(text: &str) -> Result<DigestPart, ApiError> {
    DigestPart::new(text).ok_or_else(|| {
        let detail = format!("`{text}` is no beginning of a digest");
        let least = DigestPart::DIGITS_MIN;
        ApiError::new(400, "bad_query", detail)
            .with_remedy(format!("give {least} to 64 hexadecimal digits"))
    })
}

fn failure_text(text: &str) -> Result<FailureText, ApiError> {
    FailureText::new(text).ok_or_else(|| {
        let most = FailureText::BYTES_MAX;
        let detail = format!("the text has no word, or more than {most} bytes");
        ApiError::new(400, "bad_query", detail).with_remedy("give some words of the message")
    })
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
