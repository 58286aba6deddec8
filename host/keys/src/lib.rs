//! Personal values at rest: sealed with keys that can be deleted.
//!
//! Each saga whose definition has a subject has a data key. The key of its subject seals the data key,
//! and the saga's first event has it in that form. The keys of subjects are in a file of their own
//! ([`Keys`]), so that neither the store nor a backup of it can open a value. To erase the values of a
//! subject is to delete its key.
//!
//! [`Sealer`] makes the stored form of events, and [`open_event`] reads it. Neither knows a store.
//!
//! Deliberately absent: when a value may be erased, which the runtime decides, and ciphers of our own.

mod cipher;
mod error;
mod file;
mod json;
mod keys;
mod place;
mod schema;
mod seal;
mod texts;

pub use cipher::DataKey;
pub use error::KeyError;
pub use file::{ErasedBefore, Erasure, PendingKey, PendingSaga};
pub use keys::{FoundKey, Keys, Lease, NewSeal};
pub use seal::{Sealer, open_event};
