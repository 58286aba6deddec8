//! How tasks learn that the subscriptions stop: by a word, or because the host is gone.

use tokio::sync::watch;

/// Resolves when the tasks are to end.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone with the host.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns true when the tasks are to end.
pub(crate) fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}
