//! `retry = { … }`, in both its forms.

use std::time::Duration;

use amends_engine::{ATTEMPTS_MAX, BackoffSpec, RetrySpec};

use crate::suggest::list;
use crate::table::{Context, Item};

const HELP: &str = "write { attempts = 4, backoff = [\"60s\", \"120s\", \"300s\"] }, or \
                    { attempts = 5, initial = \"1s\", factor = 2.0, max = \"5m\", jitter = 0.2 }";

/// Reads a policy; none when it was reported.
pub(super) fn read_retry(item: &Item<'_>, context: &mut Context<'_>) -> Option<RetrySpec> {
    let mut table = item.table(context, HELP)?;
    let attempts = table.take("attempts", context);
    let backoff = table.take("backoff", context);
    let initial = table.take("initial", context);
    let factor = table.take("factor", context);
    let max = table.take("max", context);
    let jitter = table.take("jitter", context);
    table.finish(context);

    let formula: Vec<&Item<'_>> =
        [&initial, &factor, &max, &jitter].into_iter().flatten().collect();
    if let (Some(backoff), false) = (&backoff, formula.is_empty()) {
        let names: Vec<_> = formula.iter().map(|item| last(&item.key)).collect();
        backoff.error(
            context,
            format!("pauses are listed here, and computed by {} as well", list(names)),
            format!("keep one form: {HELP}"),
        );
    }
    let mut sound = true;
    let attempts = attempts.map(|item| item.whole(context, 1..=ATTEMPTS_MAX));
    sound &= attempts != Some(None);
    let attempts = attempts.flatten();
    if let Some(item) = backoff {
        let pauses = read_pauses(&item, context)?;
        if !formula.is_empty() {
            return None;
        }
        let all = u32::try_from(pauses.len() + 1).unwrap_or(u32::MAX);
        let retry =
            RetrySpec { attempts: attempts.unwrap_or(all), backoff: BackoffSpec::Listed(pauses) };
        return sound.then_some(retry);
    }

    let default = RetrySpec::default();
    let BackoffSpec::Exponential {
        initial: initial_default,
        factor: factor_default,
        max: max_default,
        jitter: jitter_default,
    } = default.backoff
    else {
        return None;
    };
    let initial = initial.map(|item| item.duration(context, "1s"));
    let factor = factor.map(|item| item.number(context, "2.0"));
    let max = max.map(|item| item.duration(context, "5m"));
    let jitter = jitter.map(|item| item.number(context, "0.2"));
    let initial = initial.unwrap_or(Some(initial_default))?;
    let backoff = BackoffSpec::Exponential {
        initial,
        factor: factor.unwrap_or(Some(factor_default))?,
        // A first pause that is longer than the default's longest is meant.
        max: max.unwrap_or(Some(max_default.max(initial)))?,
        jitter: jitter.unwrap_or(Some(jitter_default))?,
    };
    sound.then_some(RetrySpec { attempts: attempts.unwrap_or(default.attempts), backoff })
}

fn read_pauses(item: &Item<'_>, context: &mut Context<'_>) -> Option<Vec<Duration>> {
    let pauses =
        item.list(context, "write one pause after each failed attempt: [\"60s\", \"120s\"]")?;
    let mut read = Vec::with_capacity(pauses.len());
    for pause in &pauses {
        read.push(pause.duration(context, "60s"));
    }
    read.into_iter().collect()
}

fn last(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, last)| last)
}
