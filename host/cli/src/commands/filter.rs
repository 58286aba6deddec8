//! Which sagas: the filters that `list` and the verbs of an operator share.

use clap::Args;

use amends_api::{LIMIT_MAX, SagaItem};

use crate::commands::client::{Client, escape};
use crate::commands::sagas::Page;

/// Which sagas. The host answers all but the text of the reason, which is looked for here.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// Only these statuses, with commas between them
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only this definition
    #[arg(long, value_name = "NAME")]
    pub definition: Option<String>,
    /// Only with this tag, NAME=VALUE or NAME:VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub tag: Option<String>,
    /// Only started after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub started_after: Option<String>,
    /// Only with this text in their reason, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub error_like: Option<String>,
    /// Only those that have not moved for longer than they should
    #[arg(long)]
    pub stuck: bool,
}

impl Filter {
    /// Whether it leaves out nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { status, definition, tag, started_after, error_like, stuck } = self;
        let texts = [status, definition, tag, started_after, error_like];
        texts.into_iter().all(Option::is_none) && !stuck
    }

    /// At most `limit` sagas, the newest first, page by page; and whether there are more.
    pub(crate) async fn find(
        &self,
        client: &Client,
        limit: u32,
    ) -> anyhow::Result<(Vec<SagaItem>, bool)> {
        let text = self.error_like.as_ref().map(|text| text.to_lowercase());
        let query = self.query();
        let mut found: Vec<SagaItem> = Vec::new();
        let mut cursor = String::new();
        loop {
            let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            // Of those that are read, nobody knows how many have the text.
            let page_limit = if text.is_some() { LIMIT_MAX } else { left.clamp(1, LIMIT_MAX) };
            let path = format!("/v1/sagas?limit={page_limit}{query}{cursor}");
            let page: Page<SagaItem> = client.get(&path).await?;
            found.extend(page.items.into_iter().filter(|item| has_text(item, text.as_deref())));
            match page.next_cursor {
                Some(next) if found.len() < limit as usize => {
                    cursor = format!("&cursor={}", escape(&next));
                }
                next => {
                    let is_more = next.is_some() || found.len() > limit as usize;
                    found.truncate(limit as usize);
                    return Ok((found, is_more));
                }
            }
        }
    }

    fn query(&self) -> String {
        let filters = [
            ("status", &self.status),
            ("definition", &self.definition),
            ("tag", &self.tag),
            ("started_after", &self.started_after),
        ];
        let mut query = String::new();
        for (name, value) in filters {
            if let Some(value) = value {
                query.push_str(&["&", name, "=", &escape(value)].concat());
            }
        }
        if self.stuck {
            query.push_str("&stuck=true");
        }
        query
    }
}

/// A tag as the host wants it.
fn tag(text: &str) -> Result<String, &'static str> {
    let (name, value) = split_tag(text)?;
    Ok(format!("{name}:{value}"))
}

/// The name and the value of a tag.
///
/// # Errors
/// What would be right.
pub(crate) fn split_tag(text: &str) -> Result<(&str, &str), &'static str> {
    text.split_once(['=', ':']).ok_or("write NAME=VALUE or NAME:VALUE")
}

/// `text` is in lower case.
fn has_text(item: &SagaItem, text: Option<&str>) -> bool {
    let Some(text) = text else { return true };
    item.reason.as_ref().is_some_and(|reason| reason.to_lowercase().contains(text))
}
