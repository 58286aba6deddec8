//! A proxy that signs people in: whom it names, and what the groups of a person let them do.
//!
//! The proxy names a person in headers. The host believes headers of listed addresses and of no others. Nobody has a
//! role by default: the config gives roles to groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::holder::{Holder, PROXY_PREFIX};
use super::permission::{Permissions, Role};
use crate::namespaces::Namespaces;

/// What a host believes of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Where the proxy sends from.
    pub peers: Vec<PeerNetwork>,
    /// The header with the name of the person, in small letters.
    pub user: String,
    /// The header with the groups of the person, in small letters. Commas separate them.
    pub groups: String,
    /// The roles of each group. Several groups add up.
    pub roles: BTreeMap<String, Vec<Role>>,
    /// The groups that see payloads.
    pub payloads: BTreeSet<String>,
    /// The namespaces that each group sees. Several groups add up. A person of no such group sees `default`.
    pub namespaces: BTreeMap<String, Namespaces>,
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerNetwork(IpNet);

impl FromStr for PeerNetwork {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        let network = address.or_else(|_| text.parse::<IpNet>().map(canonical));
        network.map(Self).map_err(|_| ())
    }
}

/// A network of addresses of IPv4 that are written in the form of IPv6 (RFC 4291, 2.5.5.2), as one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(96);
    let address = mapped.addr().to_ipv4_mapped();
    let of_ipv4 =
        prefix.zip(address).and_then(|(prefix, address)| Ipv4Net::new(address, prefix).ok());
    of_ipv4.map_or(network, IpNet::V4)
}

impl ProxySettings {
    /// Returns whether headers from this address are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        // A socket of IPv6 shows the addresses of IPv4 in its own form.
        let peer = peer.to_canonical();
        self.peers.iter().any(|PeerNetwork(network)| network.contains(&peer))
    }

    /// Returns what a person of these groups may do. Without a role it is nothing.
    #[must_use]
    pub fn holder(&self, user: &str, groups: &[&str]) -> Holder {
        let of_groups = groups.iter().filter_map(|group| self.roles.get(*group)).flatten();
        let roles: BTreeSet<_> = of_groups.copied().collect();
        let roles: Vec<_> = roles.into_iter().collect();
        let payloads = groups.iter().any(|group| self.payloads.contains(*group));
        let permissions = Permissions::of(&roles, payloads);
        let of_groups = groups.iter().filter_map(|group| self.namespaces.get(*group)).cloned();
        let namespaces = of_groups.reduce(Namespaces::with).unwrap_or_default();
        Holder {
            name: format!("{PROXY_PREFIX}{user}"),
            id: None,
            roles,
            permissions,
            namespaces,
            expires_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::access::Permission;

    fn settings() -> ProxySettings {
        let peers = ["127.0.0.1", "10.1.0.0/16", "fd00::/8"];
        ProxySettings {
            peers: peers.map(|peer| peer.parse::<PeerNetwork>().unwrap()).to_vec(),
            user: "x-forwarded-user".to_owned(),
            groups: "x-forwarded-groups".to_owned(),
            roles: BTreeMap::from([
                ("sre".to_owned(), vec![Role::Operator]),
                ("release".to_owned(), vec![Role::Deployer, Role::Operator]),
            ]),
            payloads: BTreeSet::from(["support".to_owned()]),
            namespaces: BTreeMap::from([
                ("sre".to_owned(), Namespaces::All),
                ("shop".to_owned(), Namespaces::read(&["shop".to_owned()]).unwrap()),
            ]),
        }
    }

    #[test]
    fn listed_addresses_are_believed_and_no_others() {
        let settings = settings();
        for peer in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.255.7", "::ffff:10.1.0.1", "fd12::1"] {
            assert!(settings.trusts(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["127.0.0.2", "10.2.0.1", "::1", "fe80::1", "::ffff:10.2.0.1"] {
            assert!(!settings.trusts(peer.parse().unwrap()), "{peer}");
        }
        let mapped: PeerNetwork = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(mapped, "10.0.0.0/8".parse().unwrap());
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0", "127.0.0.1:7070"] {
            assert_eq!(wrong.parse::<PeerNetwork>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn groups_give_roles_and_payloads() {
        let settings = settings();
        let both = settings.holder("ada", &["sre", "other", "release"]);
        assert_eq!((both.name.as_str(), &both.id), ("proxy:ada", &None));
        assert_eq!(both.roles, [Role::Operator, Role::Deployer]);
        assert!(both.permissions.has(Permission::Deploy) && both.is_of_proxy());
        assert!(!both.permissions.has(Permission::Payloads));
        let seeing = settings.holder("ada", &["support", "sre"]);
        assert!(seeing.permissions.has(Permission::Payloads));
        let namespaces = |groups: &[&str]| settings.holder("ada", groups).namespaces.to_string();
        let told = [&["release"][..], &["release", "shop"], &["shop", "sre"]].map(namespaces);
        assert_eq!(told, ["default", "shop", "*"]);
        for none in [&["other"][..], &[], &["SRE"], &["support"]] {
            assert!(settings.holder("ada", none).roles.is_empty(), "{none:?}");
        }
    }
}
