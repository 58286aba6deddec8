//! Which sagas: the filters that `list` and the verbs of an operator share.

use clap::Args;

use amends_api_types::parse_duration;
use amends_api_types::{LIMIT_MAX, SagaCounts, SagaItem};
use amends_engine::Timestamp;

use crate::commands::client::{Client, Page, escape};

/// Which sagas. The host answers all but the text of `--error-like`, which is looked for here.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filter {
    /// Only these statuses, with commas between them
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only this definition
    #[arg(long, value_name = "NAME")]
    pub(crate) definition: Option<String>,
    /// Only of the definition whose digest begins with these 8 or more digits
    #[arg(long, value_name = "DIGEST")]
    pub(crate) definition_digest: Option<String>,
    /// Only with this tag, NAME=VALUE or NAME:VALUE; several must all be there; a saga that a step runs has
    /// its parent's tags
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub(crate) tag: Vec<String>,
    /// Only with such an index value: NAME=VALUE, also with <, <=, >, >=, or ^= for the beginning of a text;
    /// several must all hold; a number compares as a number
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) conditions: Vec<String>,
    /// Only the saga that was started with this idempotency key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Only started after this time: 2h, 3d (ago), 2026-03-01 or 2026-03-01T09:30:00Z, in UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) started_after: Option<String>,
    /// Only started before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) started_before: Option<String>,
    /// Only ended after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) ended_after: Option<String>,
    /// Only ended before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) ended_before: Option<String>,
    /// Only those in which a call failed with this code
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only those with all these words in a failure or in the reason of a block; WORD* is the beginning of a
    /// word
    #[arg(long, value_name = "WORDS")]
    pub(crate) text: Option<String>,
    /// Only those in which this step or its undo failed: `list` alone has it, because `--step` of other verbs is
    /// the step that they act on.
    #[arg(skip)]
    pub(crate) step: Option<String>,
    /// Only those in which a call of a component failed whose digest begins so: `list` alone has it.
    #[arg(skip)]
    pub(crate) digest: Option<String>,
    /// Only with this text in what list shows as their reason, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub(crate) error_like: Option<String>,
    /// Only those that have not moved for longer than they should
    #[arg(long)]
    pub(crate) stuck: bool,
    /// Only those that have left the store for the archive
    #[arg(long, conflicts_with_all = ["tag", "conditions", "stuck", "error_like", "code", "text", "definition_digest"])]
    pub(crate) archived: bool,
}

/// Why [`Filter::each_page`] has no more pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There are no more sagas.
    All,
    /// The limit is reached, and there are more.
    Limit,
}

impl Filter {
    /// Whether it leaves out nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            status,
            definition,
            definition_digest,
            tag,
            conditions,
            key,
            started_after,
            started_before,
            ended_after,
            ended_before,
            code,
            text,
            step,
            digest,
            error_like,
            stuck,
            archived,
        } = self;
        let words =
            [status, definition, definition_digest, key, code, text, step, digest, error_like];
        let times = [started_after, started_before, ended_after, ended_before];
        let mut all = words.into_iter().chain(times);
        all.all(Option::is_none) && tag.is_empty() && conditions.is_empty() && !stuck && !archived
    }

    /// At most `limit` sagas, the newest first, and whether there are more.
    pub(crate) async fn find(
        &self,
        client: &Client,
        limit: u32,
        says_activity: bool,
    ) -> anyhow::Result<(Vec<SagaItem>, Ended)> {
        let mut found = Vec::new();
        let ended = self
            .each_page(client, limit, says_activity, |page| {
                found.extend(page);
                Ok(())
            })
            .await?;
        Ok((found, ended))
    }

    /// As [`Self::find`], page by page, so that no more than a page is held.
    ///
    /// # Errors
    /// Also when the host has neither the definition nor a saga of it: that is a slip.
    pub(crate) async fn each_page(
        &self,
        client: &Client,
        limit: u32,
        says_activity: bool,
        mut act: impl FnMut(Vec<SagaItem>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Ended> {
        let text = self.error_like.as_ref().map(|text| text.to_lowercase());
        // The text may stand in what a saga waits for.
        let activity = if says_activity || text.is_some() { "&activity=true" } else { "" };
        let query = self.query();
        let mut left = limit as usize;
        let mut cursor = String::new();
        loop {
            // Of those that are read, nobody knows how many have the text.
            let most = if text.is_some() { usize::MAX } else { left };
            let page_limit = most.clamp(1, LIMIT_MAX as usize);
            let path = format!("/v1/sagas?limit={page_limit}{query}{activity}{cursor}");
            let Page { mut items, next_cursor } = client.get::<Page<SagaItem>>(&path).await?;
            items.retain(|item| has_text(item, text.as_deref()));
            let is_more = next_cursor.is_some() || items.len() > left;
            items.truncate(left);
            left -= items.len();
            if items.is_empty() && !is_more && left == limit as usize {
                self.check_definition(client).await?;
            }
            act(items)?;
            match next_cursor {
                Some(next) if left > 0 => cursor = format!("&cursor={}", escape(&next)),
                Some(_) => return Ok(Ended::Limit),
                None if is_more => return Ok(Ended::Limit),
                None => return Ok(Ended::All),
            }
        }
    }

    async fn check_definition(&self, client: &Client) -> anyhow::Result<()> {
        let Some(name) = &self.definition else { return Ok(()) };
        let Some(unknown) = client.unknown_definition(name).await? else { return Ok(()) };
        for archived in ["", "&archived=true"] {
            let path = format!("/v1/sagas?limit=1&definition={}{archived}", escape(name));
            if !client.get::<Page<SagaItem>>(&path).await?.items.is_empty() {
                return Ok(());
            }
        }
        Err(unknown.into())
    }

    /// Counts the sagas, in groups that have in common what the words say.
    ///
    /// # Errors
    /// As for [`Self::each_page`].
    pub(crate) async fn count(&self, client: &Client, by: &[String]) -> anyhow::Result<SagaCounts> {
        let by =
            if by.is_empty() { String::new() } else { format!("&by={}", escape(&by.join(","))) };
        let query = format!("{}{by}", self.query());
        let query = query.strip_prefix('&').unwrap_or_default();
        let counts: SagaCounts = client.get(&format!("/v1/sagas/counts?{query}")).await?;
        if counts.sagas == 0 {
            self.check_definition(client).await?;
        }
        Ok(counts)
    }

    fn query(&self) -> String {
        let filters = [
            ("status", &self.status),
            ("definition", &self.definition),
            ("definition_digest", &self.definition_digest),
            ("key", &self.key),
            ("started_after", &self.started_after),
            ("started_before", &self.started_before),
            ("ended_after", &self.ended_after),
            ("ended_before", &self.ended_before),
            ("step", &self.step),
            ("code", &self.code),
            ("digest", &self.digest),
            ("text", &self.text),
        ];
        let mut query = String::new();
        for (name, value) in filters {
            if let Some(value) = value {
                query.push_str(&["&", name, "=", &escape(value)].concat());
            }
        }
        for tag in &self.tag {
            query.push_str(&["&tag=", &escape(tag)].concat());
        }
        for condition in &self.conditions {
            query.push_str(&["&where=", &escape(condition)].concat());
        }
        for (name, is_set) in [("stuck", self.stuck), ("archived", self.archived)] {
            if is_set {
                query.push_str(&["&", name, "=true"].concat());
            }
        }
        query
    }
}

/// A tag as the host wants it.
fn tag(text: &str) -> Result<String, &'static str> {
    let (name, value) = split_tag(text)?;
    Ok(format!("{name}:{value}"))
}

/// A time as the host wants it: RFC 3339. What is said in part is in UTC.
fn time(text: &str) -> Result<String, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let now = amends_runtime::now().as_millis();
        return Ok(Timestamp::from_millis(now.saturating_sub(ago).max(0)).to_string());
    }
    written_time(text).map(|time| time.to_string()).ok_or_else(|| {
        "write how long ago, such as 30m, 2h or 3d, or a date or time, such as 2026-03-01 or \
         2026-03-01T09:30:00Z"
            .to_owned()
    })
}

/// A date or a time in UTC, or a time with its offset.
fn written_time(text: &str) -> Option<Timestamp> {
    let rests = ["", "Z", ":00Z", "T00:00:00Z"];
    rests.iter().find_map(|rest| format!("{text}{rest}").parse().ok())
}

/// A time to come: how long from now, or a date or time.
///
/// # Errors
/// What would be right.
pub(crate) fn time_ahead(text: &str) -> Result<Timestamp, &'static str> {
    if let Ok(ahead) = parse_duration(text) {
        return Ok(amends_runtime::now().after(ahead));
    }
    written_time(text).ok_or(
        "write how long from now, such as 30m, 2h or 3d, or a date or time, such as 2026-03-01 or \
         2026-03-01T09:30:00Z",
    )
}

/// The name and the value of a tag.
///
/// # Errors
/// What would be right.
pub(crate) fn split_tag(text: &str) -> Result<(&str, &str), &'static str> {
    text.split_once(['=', ':']).ok_or("write NAME=VALUE or NAME:VALUE")
}

/// Whether the text is in what a list shows as the reason: that, and what the saga does or waits for.
/// `text` is in lower case.
fn has_text(item: &SagaItem, text: Option<&str>) -> bool {
    let Some(text) = text else { return true };
    let mut shown = [&item.reason, &item.activity].into_iter().flatten();
    shown.any(|shown| shown.to_lowercase().contains(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn times_are_taken_as_people_write_them() {
        for (text, told) in [
            ("2026-03-01", "2026-03-01T00:00:00.000Z"),
            ("2026-03-01T09:30", "2026-03-01T09:30:00.000Z"),
            ("2026-03-01T09:30:07", "2026-03-01T09:30:07.000Z"),
            ("2026-03-01T09:30:07.5+02:00", "2026-03-01T07:30:07.500Z"),
        ] {
            assert_eq!(time(text).as_deref(), Ok(told));
        }
        let hour: Timestamp = time("1h").unwrap().parse().unwrap();
        let ago = amends_runtime::now().since(hour).as_secs();
        assert!((3_600..3_660).contains(&ago), "{ago}");
        for wrong in ["yesterday", "1w", "2026-13-01", "", "09:30"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
