//! The locks of plugins' state: what a batch has seen or writes of it is changed by no other host until the batch is
//! committed.
//!
//! A plugin has a lock of its own, which a call that listed keys takes alone and every other call shares. So no key
//! appears in a list, or leaves it, that was seen. Keys have locks as well, of which several keys share one. They are
//! PostgreSQL's advisory locks, because a key that is absent has no row, and all are taken in one order, so hosts do not
//! wait for each other in a circle.

use std::collections::BTreeMap;

use amends_engine::{Digest, PluginName};

use crate::append::Append;

/// The locks of the keys of one plugin. A batch has as many at most, and one more, so the table of locks of the server
/// is never full.
const KEY_LOCKS: u64 = 64;

/// The locks that a batch takes, and whether alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StateLocks(BTreeMap<i64, bool>);

impl StateLocks {
    /// Takes the locks in their order, those with `true` alone.
    pub(super) const SQL: &str = "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(number)
            ELSE pg_advisory_xact_lock_shared(number) END
        FROM unnest($1::int8[], $2::bool[]) AS lock(number, alone)";

    /// Returns the locks of some appends.
    pub(super) fn of(appends: &[&Append]) -> Self {
        let mut locks = Self::default();
        for change in appends.iter().flat_map(|append| &append.state) {
            locks.add(plugin_lock(&change.plugin), !change.lists.is_empty());
            for key in change.reads.keys() {
                locks.add(key_lock(&change.plugin, key), false);
            }
            // A counter is read and written anew, whatever the call has seen of it.
            for key in change.written() {
                locks.add(key_lock(&change.plugin, key), true);
            }
        }
        locks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, lock: i64, alone: bool) {
        *self.0.entry(lock).or_default() |= alone;
    }

    /// Returns the values of [`Self::SQL`].
    pub(super) fn columns(&self) -> (Vec<i64>, Vec<bool>) {
        self.0.iter().map(|(lock, alone)| (*lock, *alone)).unzip()
    }
}

fn plugin_lock(plugin: &PluginName) -> i64 {
    number(&format!("amends/state/{plugin}"))
}

fn key_lock(plugin: &PluginName, key: &str) -> i64 {
    let lock = number(key).cast_unsigned() % KEY_LOCKS;
    number(&format!("amends/state/{plugin}/{lock}"))
}

/// Returns the first bytes of the digest of a name: the same on each host.
fn number(name: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..8]);
    i64::from_be_bytes(first)
}
