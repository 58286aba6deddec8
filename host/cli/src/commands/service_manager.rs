//! What a service manager such as systemd is told, see sd_notify(3): that the host is ready, that it stops, and that
//! it still lives. Without `NOTIFY_SOCKET` in the environment nothing is said.

use std::sync::Arc;

use amends_config::Hosts;
use amends_runtime::Host;
use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Says that the host takes sagas.
pub(crate) fn ready() {
    tell(&NotifyState::Ready);
}

/// Says that the host was told to stop.
pub(crate) fn stopping() {
    tell(&NotifyState::Stopping);
}

/// Says that the host lives, twice within each `WATCHDOG_USEC`. Says it only while every part of every namespace works
/// and answers, so that a host which hangs is started again. A database that is away does not matter: another
/// start would not help.
pub(crate) async fn keep_saying_that_it_lives(hosts: Arc<Hosts>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut every = tokio::time::interval(limit / 2);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // Every worker answers this from its memory.
        for host in hosts.all() {
            let _ = host.stuck().await;
        }
        if hosts.all().all(Host::is_healthy) {
            tell(&NotifyState::Watchdog);
        }
    }
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager cannot be told how the host is");
    }
}
