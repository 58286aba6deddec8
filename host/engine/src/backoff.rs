//! Pauses between attempts. A pause is the same whenever it is computed.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::call::Direction;
use crate::definition::{BackoffSpec, RetrySpec};
use crate::ids::{SagaId, StepName};

/// Returns the pause after failed attempt number `attempt` (from 1), or none when no attempts are
/// left. `before` is the number of attempts that do not count; this one may be the last of them.
pub(crate) fn pause(
    retry: &RetrySpec,
    (saga, step): (SagaId, &StepName),
    direction: Direction,
    attempt: u32,
    before: u32,
) -> Option<Duration> {
    let count = attempt.saturating_sub(before);
    if count >= retry.attempts {
        return None;
    }
    let count = count.max(1);
    match &retry.backoff {
        BackoffSpec::Listed(pauses) => {
            let index = (count as usize - 1).min(pauses.len().saturating_sub(1));
            Some(pauses.get(index).copied().unwrap_or_default())
        }
        BackoffSpec::Exponential { initial, factor, max, jitter } => {
            let exponent = i32::try_from(count - 1).unwrap_or(i32::MAX);
            let full = (initial.as_secs_f64() * factor.powi(exponent)).min(max.as_secs_f64());
            let spread = full * jitter * fraction(saga, step, direction, attempt);
            Some(Duration::from_secs_f64(full - spread))
        }
    }
}

/// Returns a number from 0 to 1, spread evenly over sagas, steps and attempts.
fn fraction(saga: SagaId, step: &StepName, direction: Direction, attempt: u32) -> f64 {
    let mut hash = Sha256::new();
    hash.update(saga.as_bytes());
    hash.update(step.as_str().as_bytes());
    hash.update([0]);
    hash.update(direction.as_str().as_bytes());
    hash.update(attempt.to_be_bytes());
    let hash = hash.finalize();
    f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX)
}
