//! `allow_hosts`: where a plugin may send requests to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use ipnet::IpNet;

use crate::capability::outbound::address::{canonical, is_public};

/// What `allow_hosts` says, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowHosts {
    origins: Vec<Origin>,
    /// Addresses that names of `origins` may stand for though they are not public.
    networks: Vec<IpNet>,
}

/// One entry of `allow_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowHost {
    /// `https://api.example.com:8443`: scheme, host, port.
    Origin(Origin),
    /// `10.0.0.0/8` or `10.1.2.3`: addresses that a name may stand for.
    Network(IpNet),
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    is_tls: bool,
    host: Pattern,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Address(IpAddr),
    Name(String),
    /// `*.example.com`: every name below, not `example.com` itself.
    Below(String),
}

/// A host that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In small letters, without a dot at its end.
    Name(String),
}

impl FromStr for AllowHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a host: write http:// or https://, a host and perhaps a port, and \
                 nothing else (\"https://api.example.com:8443\", \"https://*.example.com\"), or a \
                 network that names may lead to (\"10.0.0.0/8\")"
            )
        };
        if let Some(network) = network(text) {
            return Ok(Self::Network(network));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let (host, port) = split_port(rest).ok_or_else(wrong)?;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        if host == "*" || host.starts_with("*.") && !host[2..].contains('.') {
            return Err(format!(
                "`{text}` would allow hosts of anybody: a wildcard stands for the leftmost label \
                 of a name with at least two more, such as \"https://*.example.com\""
            ));
        }
        let pattern = match host.strip_prefix("*.") {
            Some(rest) => match Host::parse(rest) {
                Some(Host::Name(name)) => Pattern::Below(name),
                Some(Host::Address(_)) | None => return Err(wrong()),
            },
            None => match Host::parse(host).ok_or_else(wrong)? {
                Host::Address(address) => Pattern::Address(address),
                Host::Name(name) => Pattern::Name(name),
            },
        };
        Ok(Self::Origin(Origin { is_tls, host: pattern, port }))
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().ok().map(canonical).map(IpNet::from);
    address.or_else(|| text.parse().ok())
}

/// Of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').map(|end| end + 2).filter(|at| *at < text.len()),
        None => text.find(':'),
    };
    let Some(colon) = colon else { return Some((text, None)) };
    let port = text[colon..].strip_prefix(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port > 0)?;
    Some((&text[..colon], Some(port)))
}

impl Host {
    /// None when it is neither a name nor an address in their usual forms. A last label that is a
    /// number would be taken for an address of some other form (`2130706433`, `0x7f.1`) by whoever
    /// resolves it: such a host is none (as in the URL standard, "ends in a number").
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(canonical(address.into())));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        let is_name = name.len() <= 253 && name.split('.').all(is_label) && !is_number;
        is_name.then_some(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Origin {
    fn allows(&self, is_tls: bool, host: &Host, port: u16) -> bool {
        let is_host = match (&self.host, host) {
            (Pattern::Address(allowed), Host::Address(address)) => allowed == address,
            (Pattern::Name(allowed), Host::Name(name)) => allowed == name,
            (Pattern::Below(above), Host::Name(name)) => name
                .strip_suffix(above.as_str())
                .is_some_and(|left| left.strip_suffix('.').is_some_and(|label| !label.is_empty())),
            (Pattern::Address(_), Host::Name(_))
            | (Pattern::Name(_) | Pattern::Below(_), Host::Address(_)) => false,
        };
        is_host && self.is_tls == is_tls && self.port == port
    }
}

impl FromIterator<AllowHost> for AllowHosts {
    fn from_iter<I: IntoIterator<Item = AllowHost>>(entries: I) -> Self {
        let mut all = Self::default();
        for entry in entries {
            match entry {
                AllowHost::Origin(origin) => all.origins.push(origin),
                AllowHost::Network(network) => all.networks.push(network),
            }
        }
        all
    }
}

impl AllowHosts {
    /// Whether no request may be sent at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.origins.iter().any(|origin| origin.is_tls)
    }

    /// Whether a request to this URI may be sent; where it goes is asked again for each address.
    ///
    /// # Errors
    /// Why not, and what would allow it. Nothing of its path or query is told: there may be a
    /// secret in them.
    pub(crate) fn allows(&self, uri: &Uri, section: &str) -> Result<(), String> {
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if authority.contains('@') {
            return Err("a request names a user in its address, which is never allowed: send \
                        credentials in a header"
                .to_owned());
        }
        let (scheme, is_tls) = match uri.scheme_str() {
            Some("https") => ("https", true),
            Some("http") => ("http", false),
            Some(_) | None => return Err("a request goes over http or https".to_owned()),
        };
        let read = split_port(authority).and_then(|(host, port)| Some((Host::parse(host)?, port)));
        let Some((host, port)) = read else {
            let shown: String = authority.chars().take(100).collect();
            return Err(format!(
                "`{shown}` is not a host: write a name or an address in its usual form"
            ));
        };
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        if self.origins.iter().any(|origin| origin.allows(is_tls, &host, port)) {
            return Ok(());
        }
        Err(format!(
            "{scheme}://{host}:{port} is not among the hosts that it may call: add \
             \"{scheme}://{host}:{port}\" to allow_hosts in [{section}]"
        ))
    }

    /// Whether a connection to this address may be made for a host that is allowed.
    ///
    /// # Errors
    /// Why not, and what would allow it.
    pub(crate) fn allows_address(
        &self,
        host: &Host,
        address: IpAddr,
        section: &str,
    ) -> Result<(), String> {
        let address = canonical(address);
        let is_named = match host {
            // It is what the config says, letter by letter.
            Host::Address(named) => *named == address,
            // RFC 6761: it stands for this machine and for nothing else.
            Host::Name(name) if name == "localhost" => address.is_loopback(),
            Host::Name(_) => false,
        };
        let in_network = || self.networks.iter().any(|network| network.contains(&address));
        if is_named || is_public(address) || in_network() {
            return Ok(());
        }
        Err(format!(
            "{host} stands for {address}, which is not a public address: if that is right, add \
             \"{address}\" or its network to allow_hosts in [{section}]"
        ))
    }
}
