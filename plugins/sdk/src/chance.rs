//! The time and random numbers, which Rust's standard library does not have in a component: there
//! `SystemTime::now` panics.
//!
//! Both differ from one attempt of a call to the next. Name an effect by [`crate::Call::effect_id`], which
//! does not.

use std::time::SystemTime;
#[cfg(target_family = "wasm")]
use std::time::{Duration, UNIX_EPOCH};

/// The time of the host.
#[must_use]
pub fn now() -> SystemTime {
    #[cfg(target_family = "wasm")]
    {
        let now = wasip2::clocks::wall_clock::now();
        UNIX_EPOCH + Duration::new(now.seconds, now.nanoseconds)
    }
    #[cfg(not(target_family = "wasm"))]
    SystemTime::now()
}

/// A random number that nobody can foresee: the host's, of cryptographic quality. In a native test it is
/// only different each time.
#[must_use]
pub fn random_u64() -> u64 {
    #[cfg(target_family = "wasm")]
    {
        wasip2::random::random::get_random_u64()
    }
    #[cfg(not(target_family = "wasm"))]
    {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one(0)
    }
}

/// As many random bytes as there is room for, of the kind of [`random_u64`]: for a crate that wants a source
/// of randomness.
pub fn random_bytes(bytes: &mut [u8]) {
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&random_u64().to_le_bytes()[..part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_fill_all_of_the_room() {
        let mut bytes = [0_u8; 21];
        random_bytes(&mut bytes);
        assert!(bytes.iter().any(|byte| *byte != 0));
        // 2^-40 that it fails for nothing.
        assert!(bytes[16..].iter().any(|byte| *byte != 0));
        assert_ne!(random_u64(), random_u64());
    }
}
