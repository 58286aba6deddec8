//! Requests without a token that counts: they are counted, because anybody may send as many as they like.

use std::collections::BTreeMap;
use std::net::IpAddr;

use amends_engine::Timestamp;

use super::fact::AuditRefused;

/// Addresses and codes that are counted apart.
pub(super) const REFUSED_PAIRS_MAX: usize = 1_000;

/// What stands for the addresses past that.
const OTHERS: &str = "others";

/// How many requests were refused since they were recorded last, by address and code.
#[derive(Debug, Default)]
pub(super) struct RefusedCounts {
    counts: BTreeMap<(String, String), Counted>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    count: u64,
    since: Timestamp,
}

impl RefusedCounts {
    /// Counts a request.
    pub(super) fn count(&mut self, address: IpAddr, code: &str, at: Timestamp) {
        self.add((address.to_string(), code.to_owned()), Counted { count: 1, since: at });
    }

    fn add(&mut self, mut pair: (String, String), more: Counted) {
        if self.counts.len() >= REFUSED_PAIRS_MAX && !self.counts.contains_key(&pair) {
            // There are as few of these as there are codes.
            OTHERS.clone_into(&mut pair.0);
        }
        let Counted { count, since } = more;
        let counted = self.counts.entry(pair).or_insert(Counted { count: 0, since });
        counted.count += count;
        counted.since = counted.since.min(since);
    }

    /// Takes what was counted.
    pub(super) fn take(&mut self, at: Timestamp) -> Vec<AuditRefused> {
        let counts = std::mem::take(&mut self.counts).into_iter();
        let refused = counts.map(|((address, code), Counted { count, since })| AuditRefused {
            address,
            code,
            count,
            since,
            at,
            chain: String::new(),
        });
        refused.collect()
    }

    /// Puts back what could not be recorded.
    pub(super) fn put_back(&mut self, refused: Vec<AuditRefused>) {
        for AuditRefused { address, code, count, since, .. } in refused {
            self.add((address, code), Counted { count, since });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_everywhere_is_a_few_counts() {
        let at = Timestamp::from_millis;
        let mut counts = RefusedCounts::default();
        let own = IpAddr::from([127, 0, 0, 1]);
        counts.count(own, "token_missing", at(5));
        for number in 0..20_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            counts.count(address, "token_wrong", at(i64::from(number)));
            counts.count(own, "token_missing", at(7));
        }
        let taken = counts.take(at(9));
        assert_eq!(taken.len(), REFUSED_PAIRS_MAX + 1);
        assert_eq!(taken.iter().map(|one| one.count).sum::<u64>(), 40_001);
        let find = |address: &str| taken.iter().find(|one| one.address == address);
        let own = find("127.0.0.1").map(|one| (one.count, one.since, one.at));
        assert_eq!(own, Some((20_001, at(5), at(9))));
        assert_eq!(find(OTHERS).map(|one| one.count), Some(20_000 - 999));
        // Nothing is lost when it cannot be recorded.
        counts.count(IpAddr::from([127, 0, 0, 1]), "token_missing", at(11));
        counts.put_back(taken);
        let again = counts.take(at(12));
        assert_eq!(again.iter().map(|one| one.count).sum::<u64>(), 40_002);
        assert!(again.len() <= REFUSED_PAIRS_MAX + 2, "{}", again.len());
        assert!(counts.take(at(13)).is_empty());
    }
}
