//! `[service.NAME]`: limits that the steps of a service share.

use amends_runtime::{BreakerSettings, OnOpen};

use crate::config::table::{Context, Item};

/// A breaker trips after at most this many failures: more would never trip in practice.
const FAILURES_MAX: u32 = 10_000;

/// Calls of a service at once: more than a host can hold open.
const CONCURRENCY_MAX: u32 = 10_000;

/// The limits of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

fn read_breaker(item: &Item<'_>, context: &mut Context<'_>) -> Option<BreakerSettings> {
    let help = "write such as { failures = 5, open_for = \"60s\", on_open = \"wait\" }";
    let mut table = item.table(context, help)?;
    let failures = table
        .require("failures", "5", context)
        .and_then(|item| item.whole(context, 1..=FAILURES_MAX));
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
    let on_open = table
        .take("on_open", context)
        .map(|item| item.word(context, &[("wait", OnOpen::Wait), ("fail", OnOpen::Fail)]));
    let on_open = on_open.unwrap_or(Some(OnOpen::default()));
    table.finish(context);
    Some(BreakerSettings { failures: failures?, open_for: open_for?, on_open: on_open? })
}
