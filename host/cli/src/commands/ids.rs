//! The sagas that a verb is about: one, or those whose ids stand on standard input.
//!
//! An id may be given whole, by at least eight digits of its beginning or its end, or as `@last`.

use std::io::BufRead as _;

use anyhow::Context as _;

use amends_api::SagaItem;

use crate::commands::client::{Client, Page, escape};
use crate::commands::exit::{EXIT_AUTH, EXIT_DONE, EXIT_ERROR, EXIT_NOT_FOUND, Failed, worse};
use crate::commands::output::{complain, from_now};

/// The digits of a whole id, and the least that say which one is meant.
const DIGITS: usize = 32;
const DIGITS_MIN: usize = 8;

/// Of the sagas that an id may mean, so many are named.
const CANDIDATES_MAX: usize = 5;

/// How far back `@last-N` goes: the sagas of one page.
const LAST_MAX: u32 = amends_api::LIMIT_MAX - 1;

/// Acts on one saga, or with `-` on each of those on standard input, in their order, as they come.
///
/// Of many, one that the host refuses is told on standard error, and the others still have their
/// turn; the answer is the worst exit code of all.
///
/// # Errors
/// What would stop every other as well: the host cannot be reached or wants another token,
/// nobody reads the output any more.
pub(crate) async fn each_id(
    client: &Client,
    argument: &str,
    mut act: impl AsyncFnMut(&str) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    if argument != "-" {
        return act(&resolve(client, argument).await?).await;
    }
    let mut code = EXIT_DONE;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input cannot be read")?;
        let id = line.trim();
        if id.is_empty() {
            continue;
        }
        let one = match resolve(client, id).await {
            Ok(id) => act(&id).await,
            Err(error) => Err(error),
        };
        let one = match one {
            Ok(one) => one,
            Err(error) => match error.downcast_ref::<Failed>() {
                Some(failed) if failed.exit != EXIT_AUTH => {
                    complain!("{id}: {error:#}");
                    failed.exit
                }
                Some(_) | None => return Err(error),
            },
        };
        code = worse(code, one);
    }
    Ok(code)
}

/// The whole id of the saga that a person means.
///
/// # Errors
/// It means none, or several.
pub(crate) async fn resolve(client: &Client, text: &str) -> anyhow::Result<String> {
    if let Some(back) = text.strip_prefix("@last") {
        return last(client, text, back).await;
    }
    let digits = text.chars().filter(|digit| *digit != '-').count();
    let is_hex = text.chars().all(|digit| digit == '-' || digit.is_ascii_hexdigit());
    if is_hex && digits == DIGITS {
        // The host knows whether there is such a saga.
        return Ok(text.to_owned());
    }
    if !is_hex || !(DIGITS_MIN..DIGITS).contains(&digits) {
        return Err(failed(
            EXIT_ERROR,
            format!(
                "`{text}` is no id of a saga\n  help: give the id, or at least {DIGITS_MIN} digits \
                 of its beginning or its end; @last is the newest saga, and `amends list` lists them"
            ),
        ));
    }
    let limit = CANDIDATES_MAX + 1;
    let path = format!("/v1/sagas?limit={limit}&id={}", escape(text));
    let found = client.get::<Page<SagaItem>>(&path).await?.items;
    match found.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Err(failed(
            EXIT_NOT_FOUND,
            format!(
                "there is no saga whose id begins or ends with `{text}`\n  help: `amends list` \
                 lists the sagas of this host"
            ),
        )),
        several => Err(failed(EXIT_ERROR, ambiguous(text, several))),
    }
}

fn ambiguous(text: &str, several: &[SagaItem]) -> String {
    let now = amends_runtime::now();
    let named = several.iter().take(CANDIDATES_MAX).map(|item| {
        let SagaItem { id, definition, status, started_at, .. } = item;
        format!("\n  {id}  {definition}  {status}  {}", from_now(*started_at, now))
    });
    let more = if several.len() > CANDIDATES_MAX { "\n  and more" } else { "" };
    format!(
        "`{text}` is part of the ids of several sagas:{}{more}\n  help: the last {DIGITS_MIN} digits \
         tell sagas apart that were started together",
        named.collect::<String>()
    )
}

/// `@last` is the newest saga, `@last-1` the one before it.
async fn last(client: &Client, text: &str, back: &str) -> anyhow::Result<String> {
    let number = back.strip_prefix('-').and_then(|back| back.parse().ok());
    let back = if back.is_empty() { Some(0) } else { number.filter(|back| *back <= LAST_MAX) };
    let Some(back) = back else {
        let message = format!(
            "`{text}` is no saga\n  help: @last is the newest, @last-1 the one before it, up to \
             @last-{LAST_MAX}"
        );
        return Err(failed(EXIT_ERROR, message));
    };
    let path = format!("/v1/sagas?limit={}", back + 1);
    let page: Page<SagaItem> = client.get(&path).await?;
    let found = page.items.get(usize::try_from(back).unwrap_or(usize::MAX));
    found.map(|item| item.id.clone()).ok_or_else(|| {
        let count = page.items.len();
        failed(EXIT_NOT_FOUND, format!("there is no saga {text}: this host has {count}"))
    })
}

fn failed(exit: u8, message: String) -> anyhow::Error {
    Failed { exit, message }.into()
}
