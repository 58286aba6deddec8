//! How many clients may watch sagas or the log at once, of the host and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::ApiError;

/// Whoever follows the log and has read all of it pauses this long after the next commit. In that time a busy host
/// commits many times, and a person does not see the delay.
pub(crate) const READ_PAUSE: Duration = Duration::from_millis(50);

/// So many clients may watch sagas at once: half of the connections that a host serves, so that requests find room
/// beside them. A watcher whose saga rests costs its connection and reads nothing.
const WATCHERS_MAX: usize = 2_048;

/// One address has at most this many of the [`WATCHERS_MAX`] places, so that one client cannot take all.
const WATCHERS_OF_ADDRESS_MAX: usize = 1_024;

/// So many clients may watch the log at once. Each is sent every event that it wants, so it costs work with every
/// saga that runs.
const LOG_WATCHERS_MAX: usize = 256;

/// One address has at most this many of the [`LOG_WATCHERS_MAX`] places.
const LOG_WATCHERS_OF_ADDRESS_MAX: usize = 128;

/// Counts the watchers by address. Every watcher has a place for as long as it is connected. A clone counts the same
/// watchers.
#[derive(Debug, Clone)]
pub(crate) struct Watchers {
    places: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
    of_address_max: usize,
}

/// The place of one watcher. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place {
    watchers: Watchers,
    address: IpAddr,
}

impl Watchers {
    /// Counts those who watch sagas.
    pub(crate) fn of_sagas() -> Self {
        Self::new(WATCHERS_MAX, WATCHERS_OF_ADDRESS_MAX)
    }

    /// Counts those who watch the log.
    pub(crate) fn of_log() -> Self {
        Self::new(LOG_WATCHERS_MAX, LOG_WATCHERS_OF_ADDRESS_MAX)
    }

    fn new(most: usize, of_address_max: usize) -> Self {
        Self { places: Arc::default(), most, of_address_max }
    }

    /// Takes a place for a client of this address.
    ///
    /// # Errors
    /// 429 when all places of the host or of the address are taken.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, ApiError> {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |detail: String| {
            ApiError::new(429, "watchers_full", detail).with_remedy(
                "end a watch, or GET the saga with ?wait=30s, or the events page by page",
            )
        };
        let Self { most, of_address_max, .. } = self;
        if all.values().sum::<usize>() >= *most {
            return Err(full(format!("the host has {most} such watchers, as many as it takes")));
        }
        let of_address = all.get(&address).copied().unwrap_or_default();
        if of_address >= *of_address_max {
            let detail = format!(
                "the host has {of_address} such watchers from {address}, as many as it takes from one address"
            );
            return Err(full(detail));
        }
        all.insert(address, of_address + 1);
        Ok(Place { watchers: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.watchers.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_address) = all.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        one_cannot_take_every_place(&Watchers::of_sagas(), 2_048);
        one_cannot_take_every_place(&Watchers::of_log(), 256);
    }

    fn one_cannot_take_every_place(watchers: &Watchers, most: usize) {
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let enter = |last| watchers.enter(address(last));
        let mut of_one: Vec<_> = (0..most / 2).map(|_| enter(1).unwrap()).collect();
        assert_eq!(enter(1).unwrap_err().code(), "watchers_full");
        let of_others: Vec<_> = (most / 2..most).map(|_| enter(2).unwrap()).collect();
        assert_eq!(enter(3).unwrap_err().code(), "watchers_full");
        of_one.pop();
        drop(enter(3).unwrap());
        of_one.push(enter(1).unwrap());
        drop((of_one, of_others));
        assert!(watchers.places.lock().unwrap().is_empty());
    }
}
