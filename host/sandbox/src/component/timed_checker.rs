//! Checks of payloads against a schema where nobody else waits for them.
//!
//! A schema comes from a component and a payload from somebody else: how long a check takes is
//! up to both, and it cannot be stopped. Calls begin on the thread that runs all sagas of a
//! worker, so a check stays there only while it is certainly short.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amends_engine::Payload;
use tokio::sync::Semaphore;

use crate::component::schema::{self, Checker};

/// A payload of more bytes is never checked in the caller's place.
const IN_PLACE_BYTES_MAX: usize = 4 << 10;

/// A schema whose last check took longer is checked aside the next time.
const IN_PLACE_MAX: Duration = Duration::from_micros(500);

/// Checks of one schema at once. One that nobody waits for any more goes on to its end.
const CHECKS_MAX: usize = 2;

/// Whether a payload fits a schema, or why it does not.
type Fit = Result<(), String>;

/// Why nobody can say that a payload fits a schema.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It does not: where, and why.
    Misfit(String),
    /// It could not be checked in time.
    NotChecked(String),
}

impl Unfit {
    pub(crate) fn into_words(self) -> String {
        let (Self::Misfit(words) | Self::NotChecked(words)) = self;
        words
    }
}

/// One schema of a component.
pub(crate) struct TimedChecker {
    checker: Arc<Checker>,
    /// Whether the last check was short. The first one is made aside.
    is_short: Arc<AtomicBool>,
    room: Arc<Semaphore>,
}

impl TimedChecker {
    pub(crate) fn new(checker: Checker) -> Self {
        let room = Arc::new(Semaphore::new(CHECKS_MAX));
        Self { checker: Arc::new(checker), is_short: Arc::default(), room }
    }

    /// In the caller's place, however long it takes.
    ///
    /// # Errors
    /// Where the payload does not fit, and why.
    pub(crate) fn check(&self, payload: &Payload) -> Fit {
        schema::fits(Some(&*self.checker), payload)
    }

    /// On a thread for what blocks, unless it is certainly short. Waits at most `wait_max` for its turn
    /// when this schema is being checked already, and from then on at most `time_max`. May be dropped at
    /// any time; a check that has begun goes on.
    ///
    /// # Errors
    /// Where the payload does not fit, and why; or that it took too long to say.
    pub(crate) async fn check_aside(
        &self,
        payload: &Payload,
        wait_max: Duration,
        time_max: Duration,
    ) -> Result<(), Unfit> {
        if payload.as_str().len() <= IN_PLACE_BYTES_MAX && self.is_short.load(Ordering::Relaxed) {
            return timed(&self.checker, &self.is_short, payload).map_err(Unfit::Misfit);
        }
        let turn = Arc::clone(&self.room).acquire_owned();
        let room = match tokio::time::timeout(wait_max, turn).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(Unfit::NotChecked("the host ends".to_owned())),
            Err(_) => {
                let words = format!("other checks with its schema took longer than {wait_max:?}");
                return Err(Unfit::NotChecked(words));
            }
        };
        let (checker, is_short) = (Arc::clone(&self.checker), Arc::clone(&self.is_short));
        let payload = payload.clone();
        let checking = tokio::task::spawn_blocking(move || {
            let fit = timed(&checker, &is_short, &payload);
            drop(room);
            fit
        });
        match tokio::time::timeout(time_max, checking).await {
            Ok(Ok(fit)) => fit.map_err(Unfit::Misfit),
            Ok(Err(_)) => Err(Unfit::NotChecked("the check broke off".to_owned())),
            Err(_) => {
                let words = format!("its schema took longer than {time_max:?} to check it");
                Err(Unfit::NotChecked(words))
            }
        }
    }
}

fn timed(checker: &Checker, is_short: &AtomicBool, payload: &Payload) -> Fit {
    let began = Instant::now();
    let fit = schema::fits(Some(checker), payload);
    let was_short = began.elapsed() <= IN_PLACE_MAX;
    // Written when it changes only: workers share it.
    if is_short.load(Ordering::Relaxed) != was_short {
        is_short.store(was_short, Ordering::Relaxed);
    }
    fit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_payload_that_waits_in_vain_for_its_turn_is_not_called_a_misfit() {
        let checker = schema::checker(&json!({"type": "string"}), "output").unwrap().unwrap();
        let timed = TimedChecker::new(checker);
        let misfit = Payload::parse("7").unwrap();
        let turns = u32::try_from(CHECKS_MAX).unwrap();
        let others = Arc::clone(&timed.room).acquire_many_owned(turns).await.unwrap();
        let wait_max = Duration::from_millis(10);
        let waited = timed.check_aside(&misfit, wait_max, Duration::MAX).await;
        assert!(matches!(waited, Err(Unfit::NotChecked(_))), "{waited:?}");
        // A short check waits for no turn.
        timed.is_short.store(true, Ordering::Relaxed);
        let in_place = timed.check_aside(&misfit, Duration::ZERO, Duration::ZERO).await;
        assert!(matches!(in_place, Err(Unfit::Misfit(_))), "{in_place:?}");
        drop(others);
        timed.is_short.store(false, Ordering::Relaxed);
        let fit = timed.check_aside(&misfit, wait_max, Duration::MAX).await;
        assert!(matches!(fit, Err(Unfit::Misfit(_))), "{fit:?}");
    }
}
