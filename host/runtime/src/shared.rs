//! What a host has of a store that several hosts share: who it is, how it reaches the others, and which shards
//! it has taken up.

use std::sync::Arc;

use amends_peers::Peers;
use amends_store::ShardId;
use tokio::sync::watch;

/// What a host has of a shared store.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) peers: Arc<Peers>,
    /// The shards whose sagas are recovered and with their worker.
    pub(crate) owned: watch::Receiver<Vec<ShardId>>,
}

/// The shard of the sagas whose ids end like this.
pub(crate) fn shard_of_end(end: [u8; 2]) -> ShardId {
    let mut id = [0; 16];
    id[14..].copy_from_slice(&end);
    ShardId::of(amends_engine::SagaId::from_bytes(id))
}

impl Shared {
    /// Whether this host has taken up a shard.
    pub(crate) fn has(&self, shard: ShardId) -> bool {
        self.owned.borrow().contains(&shard)
    }

    /// Gives the id of a new saga an end that belongs to a shard of this host, so that the saga is run where
    /// it was asked for. Ids are left as they are while the host has no shard.
    pub(crate) fn place(&self, id: &mut [u8; 16]) {
        let owned = self.owned.borrow();
        if owned.is_empty() || owned.contains(&shard_of_end([id[14], id[15]])) {
            return;
        }
        // The bytes before the end are random as well.
        let random = usize::from(u16::from_be_bytes([id[12], id[13]]));
        let wanted = owned[random % owned.len()];
        let all = u16::try_from(ShardId::all().count()).unwrap_or(u16::MAX);
        let end = u16::from_be_bytes([id[14], id[15]]);
        // The largest number below has the same multiple, so nothing overflows.
        let end = end - end % all + wanted.number();
        id[14..].copy_from_slice(&end.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use amends_engine::SagaId;
    use amends_peers::Peers;
    use amends_store::{Durability, HostInfo, SqliteStore, Store};

    use super::*;

    #[tokio::test]
    async fn a_new_id_belongs_to_a_shard_of_the_host() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap_or_else(|error| panic!("{error}")));
        let me = HostInfo { name: "a".to_owned(), address: "http://127.0.0.1:1".to_owned() };
        let peers = Peers::open(me, None, Arc::clone(&store)).await;
        let peers = peers.unwrap_or_else(|error| panic!("{error}"));
        let few: Vec<_> = ShardId::all().filter(|shard| shard.number() % 7 == 3).collect();
        let (told, owned) = watch::channel(Vec::new());
        let shared = Shared { peers, owned };
        let mut met = std::collections::BTreeSet::new();
        for number in 0..=u16::MAX {
            let mut id = [9; 16];
            id[12..14].copy_from_slice(&number.to_be_bytes());
            id[14..].copy_from_slice(&number.wrapping_mul(40_503).to_be_bytes());
            let before = id;
            told.send_replace(Vec::new());
            shared.place(&mut id);
            assert_eq!(id, before);
            told.send_replace(few.clone());
            shared.place(&mut id);
            let found = ShardId::of(SagaId::from_bytes(id));
            assert!(shared.has(found), "{number}");
            assert_eq!(id[..14], before[..14]);
            met.insert(found);
        }
        assert_eq!(met.len(), few.len());
        drop(shared);
        let _ = store.close().await;
    }
}
