//! The sagas that a verb is about: one, or those whose ids stand on standard input.

use std::io::BufRead as _;

use anyhow::Context as _;

use crate::commands::exit::{EXIT_AUTH, EXIT_DONE, Failed, worse};
use crate::commands::output::complain;

/// Acts on one saga, or with `-` on each of those on standard input, in their order.
///
/// Of many, one that the host refuses is told on standard error, and the others still have their
/// turn; the answer is the worst exit code of all.
///
/// # Errors
/// What would stop every other as well: the host cannot be reached or wants another token,
/// nobody reads the output any more.
pub(crate) async fn each_id(
    argument: &str,
    mut act: impl AsyncFnMut(&str) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    if argument != "-" {
        return act(argument).await;
    }
    let mut code = EXIT_DONE;
    for id in read_ids()? {
        let one = match act(&id).await {
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

/// The lines of standard input that are not empty.
fn read_ids() -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input cannot be read")?;
        if !line.trim().is_empty() {
            ids.push(line.trim().to_owned());
        }
    }
    Ok(ids)
}
