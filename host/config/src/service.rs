//! `[service.NAME]`: limits that the steps of a service share.

use std::ops::RangeInclusive;
use std::time::Duration;

use amends_runtime::{BreakerSettings, OnOpen, RateSettings};

use crate::table::{Context, Item};

/// A breaker trips after at most this many failures: more would never trip in practice.
const FAILURES_MAX: u32 = 10_000;

/// How long the window of a failure rate may be: below, it holds no calls; above, it tells of a
/// service that is long well again.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// Calls before a failure rate counts: more would be a day of a busy service.
const CALLS_MIN_MAX: u32 = 1_000_000;

/// Calls that try a service which may still fail: more would be no try.
const HALF_OPEN_MAX: u32 = 100;

/// Calls of a service at once: more than a host can hold open.
const CONCURRENCY_MAX: u32 = 10_000;

/// The limits of a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceSettings {
    /// Stops calls for a while when the service fails.
    pub breaker: Option<BreakerSettings>,
    /// Calls at once; none: no limit of its own.
    pub concurrency: Option<u32>,
}

/// Reads one `[service.NAME]`.
pub(super) fn read_service(item: &Item<'_>, context: &mut Context<'_>) -> Option<ServiceSettings> {
    let mut table = item.table(context, "write [service.NAME] and its keys below")?;
    let breaker = table.take("breaker", context).and_then(|item| read_breaker(&item, context));
    let concurrency = table
        .take("concurrency", context)
        .and_then(|item| item.whole(context, 1..=CONCURRENCY_MAX));
    table.finish(context);
    Some(ServiceSettings { breaker, concurrency })
}

/// What a breaker may be told, for who wrote something else.
const HELP: &str = "write such as { failures = 5, open_for = \"60s\", on_open = \"wait\" }, or \
                    { failure_rate = 0.5, window = \"10s\", calls_min = 20, open_for = \"60s\" }";

fn read_breaker(item: &Item<'_>, context: &mut Context<'_>) -> Option<BreakerSettings> {
    let mut table = item.table(context, HELP)?;
    let failures = table.take("failures", context);
    let failures = failures.map(|item| item.whole(context, 1..=FAILURES_MAX));
    let failure_rate = table.take("failure_rate", context);
    let of_rate = (table.take("window", context), table.take("calls_min", context));
    let rate = if let Some(failure_rate) = &failure_rate {
        read_rate(failure_rate, of_rate, context).map(Some)
    } else {
        for item in [of_rate.0, of_rate.1].into_iter().flatten() {
            let message = "this belongs to a failure rate, and `failure_rate` is missing";
            item.error(context, message, "add failure_rate = 0.5");
        }
        Some(None)
    };
    let open_for = table.require("open_for", "\"60s\"", context).and_then(|item| {
        let open_for = item.duration(context, "60s")?;
        if open_for.is_zero() {
            item.error(
                context,
                "a breaker that opens for no time does nothing",
                "write a duration such as \"60s\"",
            );
        }
        Some(open_for)
    });
    let half_open = table.take("half_open", context);
    let half_open = half_open.map_or(Some(1), |item| item.whole(context, 1..=HALF_OPEN_MAX));
    let on_open = table
        .take("on_open", context)
        .map(|item| item.word(context, &[("wait", OnOpen::Wait), ("fail", OnOpen::Fail)]));
    let on_open = on_open.unwrap_or(Some(OnOpen::default()));
    table.finish(context);
    // Of each: what is not there is none, what is wrong is told.
    let failures = failures.map_or(Some(None), |failures| failures.map(Some));
    let (failures, rate) = (failures?, rate?);
    if failures.is_none() && rate.is_none() {
        item.error(
            context,
            "nothing opens this breaker: it has neither `failures` nor `failure_rate`",
            HELP,
        );
        return None;
    }
    Some(BreakerSettings {
        failures,
        rate,
        open_for: open_for?,
        half_open: half_open?,
        on_open: on_open?,
    })
}

fn read_rate(
    failure_rate: &Item<'_>,
    (window, calls_min): (Option<Item<'_>>, Option<Item<'_>>),
    context: &mut Context<'_>,
) -> Option<RateSettings> {
    let rate = failure_rate.number(context, "0.5").filter(|rate| {
        let fits = *rate > 0.0 && *rate <= 1.0;
        if !fits {
            failure_rate.error(
                context,
                format!("{rate} is no part of the calls"),
                "write a number above 0 and up to 1: 0.5 opens it when half of the calls failed",
            );
        }
        fits
    });
    let window = window.map_or(Some(RateSettings::WINDOW_DEFAULT), |item| {
        let window = item.duration(context, "10s")?;
        let fits = WINDOW.contains(&window);
        if !fits {
            let help = "write a duration from \"1s\" to \"1h\"";
            item.error(context, "the window is too short or too long", help);
        }
        fits.then_some(window)
    });
    let calls_min = calls_min.map_or(Some(RateSettings::CALLS_MIN_DEFAULT), |item| {
        item.whole(context, 1..=CALLS_MIN_MAX)
    });
    Some(RateSettings { failure_rate: rate?, window: window?, calls_min: calls_min? })
}
