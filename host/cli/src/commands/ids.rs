//! The sagas that a verb is about: one, or those whose ids stand on standard input.
//!
//! An id may be given whole, by at least eight digits of its beginning or its end, or as `@last`.

use std::io::BufRead as _;

use anyhow::Context as _;
use tokio::sync::mpsc;

use amends_api_types::{LIMIT_MAX, SagaItem, SagaView};

use crate::commands::client::{Client, Page, escape};
use crate::commands::exit::{EXIT_AUTH, EXIT_DONE, EXIT_ERROR, EXIT_NOT_FOUND, Failed, worse};
use crate::commands::output::{complain, from_now, say};

/// The digits of a whole id, and the least that say which one is meant.
const DIGITS: usize = 32;
const DIGITS_MIN: usize = 8;

/// Of the sagas that an id may mean, so many are named.
const CANDIDATES_MAX: usize = 5;

/// How far back `@last-N` goes: the sagas of one page.
const LAST_MAX: u32 = LIMIT_MAX - 1;

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
        return act(&one_id(client, argument).await?).await;
    }
    each_line(client, async |id: anyhow::Result<String>| act(&id?).await).await
}

/// Returns the id of the one saga that is meant.
///
/// # Errors
/// It means none, or several.
pub(crate) async fn one_id(client: &Client, text: &str) -> anyhow::Result<String> {
    resolve(client, text, &mut Newest::default()).await
}

/// As [`each_id`] with `-`. For a line that means no saga, `act` is given the error that says so.
///
/// # Errors
/// As [`each_id`].
pub(crate) async fn each_line(
    client: &Client,
    mut act: impl AsyncFnMut(anyhow::Result<String>) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let mut newest = Newest::default();
    let mut lines = input_lines();
    let mut code = EXIT_DONE;
    while let Some(line) = lines.recv().await {
        let line = line.context("standard input cannot be read")?;
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let id = resolve(client, text, &mut newest).await;
        let one = match act(id).await {
            Ok(one) => one,
            Err(error) => match error.downcast_ref::<Failed>() {
                Some(failed) if failed.exit != EXIT_AUTH => {
                    complain!("{text}: {error:#}");
                    failed.exit
                }
                Some(_) | None => return Err(error),
            },
        };
        code = worse(code, one);
    }
    Ok(code)
}

/// The beginning of a line about one of the sagas that `asked` means: with its id when they are many.
pub(crate) fn which(asked: &str, id: &str) -> String {
    if asked == "-" { format!("{id}  ") } else { String::new() }
}

/// As [`which`], on a line of its own above a table.
pub(crate) fn say_which(asked: &str, id: &str) -> anyhow::Result<()> {
    if asked == "-" { say!("{id}") } else { Ok(()) }
}

/// The lines of standard input. A thread reads them, so that an interrupt ends also a verb that waits
/// for the next one.
fn input_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The whole id of the saga that a person means.
///
/// # Errors
/// It means none, or several.
async fn resolve(client: &Client, text: &str, newest: &mut Newest) -> anyhow::Result<String> {
    if let Some(back) = text.strip_prefix("@last") {
        return last(client, text, back, newest).await;
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
    let mut found = client.get::<Page<SagaItem>>(&path).await?.items;
    if found.is_empty() {
        found = client.get::<Page<SagaItem>>(&format!("{path}&archived=true")).await?.items;
    }
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

/// The newest sagas, without those that another saga started. They are listed once, when `@last` is first
/// asked for, so that no two of its numbers mean one saga.
#[derive(Default)]
struct Newest {
    /// Listed, and not looked at yet.
    left: Option<std::vec::IntoIter<SagaItem>>,
    /// The ids of those that no other saga started, the newest first.
    found: Vec<String>,
}

impl Newest {
    /// The saga that so many are newer than; none: the newest sagas of a page have no such one.
    async fn get(&mut self, client: &Client, back: usize) -> anyhow::Result<Option<&str>> {
        if self.left.is_none() {
            let page: Page<SagaItem> = client.get(&format!("/v1/sagas?limit={LIMIT_MAX}")).await?;
            self.left = Some(page.items.into_iter());
        }
        while self.found.len() <= back {
            let Some(SagaItem { id, .. }) = self.left.as_mut().and_then(Iterator::next) else {
                break;
            };
            // A list does not say which saga started one.
            let saga = client.get::<SagaView>(&format!("/v1/sagas/{}", escape(&id))).await;
            if saga.with_context(|| format!("saga {id}"))?.parent.is_none() {
                self.found.push(id);
            }
        }
        Ok(self.found.get(back).map(String::as_str))
    }
}

/// `@last` is the newest saga that no other saga started, `@last-1` the one before it.
async fn last(
    client: &Client,
    text: &str,
    back: &str,
    newest: &mut Newest,
) -> anyhow::Result<String> {
    let number = back.strip_prefix('-').and_then(|back| back.parse().ok());
    let back = if back.is_empty() { Some(0) } else { number.filter(|back| *back <= LAST_MAX) };
    let Some(back) = back else {
        let message = format!(
            "`{text}` is no saga\n  help: @last is the newest, @last-1 the one before it, up to \
             @last-{LAST_MAX}"
        );
        return Err(failed(EXIT_ERROR, message));
    };
    if let Some(id) = newest.get(client, back as usize).await? {
        return Ok(id.to_owned());
    }
    let count = newest.found.len();
    let message = format!(
        "there is no saga {text}: of the newest {LIMIT_MAX} of this host, {count} were not started \
         by another saga"
    );
    Err(failed(EXIT_NOT_FOUND, message))
}

fn failed(exit: u8, message: String) -> anyhow::Error {
    Failed { exit, message }.into()
}
