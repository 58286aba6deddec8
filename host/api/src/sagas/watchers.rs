//! How many clients may watch sagas or the log at once, of the host and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::ApiError;

/// A watcher whose last read found nothing pauses this long after the next commit. In that time a busy host
/// commits events that it does not want many times, and a person does not see the delay.
pub(crate) const READ_PAUSE: Duration = Duration::from_millis(50);

/// A host serves at most this many watchers at once. Each holds a connection. One that has
/// caught up reads the store at most every [`READ_PAUSE`]: together at most 5,120 small reads a second, which leaves
/// the store's readers to the sagas.
const WATCHERS_MAX: usize = 256;

/// One address has at most this many of the [`WATCHERS_MAX`] places, so that one client cannot take all.
const WATCHERS_OF_ADDRESS_MAX: usize = 128;

/// Counts the watchers by address. Every watcher has a place for as long as it is connected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The place of one watcher. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place {
    watchers: Watchers,
    address: IpAddr,
}

impl Watchers {
    /// Takes a place for a client of this address.
    ///
    /// # Errors
    /// 429 when all places of the host or of the address are taken.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, ApiError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |detail: String| {
            ApiError::new(429, "watchers_full", detail).with_remedy(
                "end a watch, or GET the saga with ?wait=30s, or the events page by page",
            )
        };
        if all.values().sum::<usize>() >= WATCHERS_MAX {
            return Err(full(format!("the host has {WATCHERS_MAX} watchers, as many as it takes")));
        }
        let of_address = all.entry(address).or_default();
        if *of_address >= WATCHERS_OF_ADDRESS_MAX {
            let detail = format!(
                "the host has {WATCHERS_OF_ADDRESS_MAX} watchers from {address}, as many as it \
                 takes from one address"
            );
            return Err(full(detail));
        }
        *of_address += 1;
        Ok(Place { watchers: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let watchers = Watchers::default();
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let enter = |last| watchers.enter(address(last));
        let mut of_one: Vec<_> = (0..WATCHERS_OF_ADDRESS_MAX).map(|_| enter(1).unwrap()).collect();
        assert_eq!(enter(1).unwrap_err().code(), "watchers_full");
        let of_others: Vec<_> =
            (WATCHERS_OF_ADDRESS_MAX..WATCHERS_MAX).map(|_| enter(2).unwrap()).collect();
        assert_eq!(enter(3).unwrap_err().code(), "watchers_full");
        of_one.pop();
        drop(enter(3).unwrap());
        of_one.push(enter(1).unwrap());
        drop((of_one, of_others));
        assert!(watchers.0.lock().unwrap().is_empty());
    }
}
