//! `[auth]`: access control, the token that a host has from its config, how often tokens may be shown, and the proxy
//! that signs people in.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use amends_runtime::{Namespaces, PeerNetwork, ProxySettings, Role};
use amends_sandbox::Secret;

use crate::secret::read_secret;
use crate::suggest::list;
use crate::table::{Context, Item};

/// An admin token has at least this many bytes: one that nobody can guess.
const ADMIN_TOKEN_BYTES_MIN: usize = 32;

/// An admin token has at most this many bytes: a proxy may refuse a longer header.
const ADMIN_TOKEN_BYTES_MAX: usize = 1_024;

const AUTH_HELP: &str = "write [auth], and below it admin_token = { env = \"AMENDS_ADMIN_TOKEN\" }";

/// A rate is at most this many requests a second: more than a host answers.
const RATE_MAX: u32 = 1_000_000;

const RATE_HELP: &str = "write rate = { per_second = 200, burst = 400 }";

const ADMIN_TOKEN_HELP: &str = "make one that fits, for example with `openssl rand -hex 32`";

const PROXY_HELP: &str = "write [auth.proxy], and below it peers = [\"127.0.0.1\"]";

const PEERS_HELP: &str =
    "write the addresses of the proxy, such as [\"127.0.0.1\", \"10.0.0.0/8\"]";

const ROLES_HELP: &str = "give roles to groups: roles = { sre = [\"operator\"] }";

const PAYLOADS_HELP: &str = "name the groups that see payloads, such as [\"sre\"]";

const NAMESPACES_HELP: &str =
    "give namespaces to groups: namespaces = { shop = [\"shop\"], sre = [\"*\"] }";

const HEADER_HELP: &str =
    "write the name of a header that the proxy sets itself, such as \"x-forwarded-user\"";

/// A header's name is at most this many bytes; those of proxies have about 20.
const HEADER_BYTES_MAX: usize = 64;

/// Headers in which callers say something themselves.
const HEADERS_OF_CALLERS: [&str; 4] = ["amends-user", "authorization", "cookie", "host"];

/// Access control. A host asks its callers for a token when its config has `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// The first token. It has the role `admin` and sees payloads. None: callers need a token of the store.
    pub admin_token: Option<Secret>,
    /// How many requests may come with each token. None: any number.
    pub rate: Option<TokenRate>,
    /// The proxy that signs people in. None: the host believes no header.
    pub proxy: Option<ProxySettings>,
}

/// How many requests may come with one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRate {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// Reads `[auth]`; none when it was reported.
pub(super) fn read_auth(item: &Item<'_>, context: &mut Context<'_>) -> Option<AuthConfig> {
    let mut table = item.table(context, AUTH_HELP)?;
    let admin_token = table.take("admin_token", context);
    let rate = table.take("rate", context);
    let proxy = table.take("proxy", context);
    table.finish(context);
    let admin_token = admin_token.and_then(|item| read_admin_token(&item, context));
    let rate = rate.and_then(|item| read_rate(&item, RATE_HELP, context));
    let proxy = proxy.and_then(|item| read_proxy(&item, context));
    Some(AuthConfig { admin_token, rate, proxy })
}

/// Reads a rate, of requests or of starts. Without `burst`, twice as many may come at once as in a second.
pub(super) fn read_rate(
    item: &Item<'_>,
    help: &str,
    context: &mut Context<'_>,
) -> Option<TokenRate> {
    let mut table = item.table(context, help)?;
    let per_second = table.require("per_second", "200", context);
    let burst = table.take("burst", context);
    table.finish(context);
    let mut read = |item: Item<'_>| item.whole(context, 1..=RATE_MAX).and_then(NonZeroU32::new);
    let per_second = per_second.and_then(&mut read);
    let burst = match burst {
        Some(burst) => Some(read(burst)?),
        None => None,
    };
    let per_second = per_second?;
    let twice = NonZeroU32::MIN.saturating_add(1).saturating_mul(per_second);
    Some(TokenRate { per_second, burst: burst.unwrap_or(twice) })
}

/// Reads `[auth.proxy]`; none when it was reported.
fn read_proxy(item: &Item<'_>, context: &mut Context<'_>) -> Option<ProxySettings> {
    let mut table = item.table(context, PROXY_HELP)?;
    let peers = table.require("peers", "[\"127.0.0.1\"]", context);
    let user = table.take("user", context);
    let groups = table.take("groups", context);
    let roles = table.require("roles", "{ sre = [\"operator\"] }", context);
    let payloads = table.take("payloads", context);
    let namespaces = table.take("namespaces", context);
    table.finish(context);
    let peers = peers.and_then(|item| read_peers(&item, context));
    let user = read_header(user.as_ref(), "x-forwarded-user", context);
    let groups = read_header(groups.as_ref(), "x-forwarded-groups", context);
    let roles = roles.and_then(|item| read_roles(&item, context));
    let payloads = payloads.map(|item| read_groups(&item, context)).unwrap_or_default();
    let namespaces = namespaces.map(|item| read_namespaces(&item, context)).unwrap_or_default();
    let (user, groups) = (user?, groups?);
    if user == groups {
        let help = "the name of a person and the groups come in two headers";
        item.error(context, format!("`user` and `groups` are both {user}"), help);
        return None;
    }
    Some(ProxySettings { peers: peers?, user, groups, roles: roles?, payloads, namespaces })
}

fn read_peers(item: &Item<'_>, context: &mut Context<'_>) -> Option<Vec<PeerNetwork>> {
    let items = item.list(context, PEERS_HELP)?;
    if items.is_empty() {
        item.error(context, "no address is listed, so nobody would be believed", PEERS_HELP);
    }
    let mut peers = Vec::new();
    for item in items {
        let Some(text) = item.text(context, "\"127.0.0.1\"") else { continue };
        if let Ok(peer) = text.parse::<PeerNetwork>() {
            peers.push(peer);
        } else {
            let message = format!("`{text}` is neither an address nor a network");
            item.error(context, message, PEERS_HELP);
        }
    }
    Some(peers)
}

/// Reads the name of a header, in small letters.
fn read_header(
    item: Option<&Item<'_>>,
    default: &str,
    context: &mut Context<'_>,
) -> Option<String> {
    let Some(item) = item else { return Some(default.to_owned()) };
    let name = item.text(context, &format!("\"{default}\""))?.to_ascii_lowercase();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if !(1..=HEADER_BYTES_MAX).contains(&name.len()) || !name.chars().all(is_plain) {
        item.error(context, "this cannot be the name of a header", HEADER_HELP);
        return None;
    }
    if HEADERS_OF_CALLERS.contains(&name.as_str()) {
        item.error(context, format!("callers send {name} themselves"), HEADER_HELP);
        return None;
    }
    Some(name)
}

fn read_roles(item: &Item<'_>, context: &mut Context<'_>) -> Option<BTreeMap<String, Vec<Role>>> {
    let table = item.table(context, ROLES_HELP)?;
    let mut roles = BTreeMap::new();
    for (group, _, item) in table.entries(context) {
        let mut of_group = Vec::new();
        for item in item.list(context, ROLES_HELP).unwrap_or_default() {
            let Some(word) = item.text(context, "\"operator\"") else { continue };
            if let Some(role) = Role::from_word(word) {
                of_group.push(role);
                continue;
            }
            let known = || Role::ALL.iter().map(|role| role.as_str());
            let otherwise = || format!("the roles are {}", list(known()));
            let help = context.did_you_mean(word, known(), otherwise);
            item.error(context, format!("there is no role `{word}`"), help);
        }
        roles.insert(group.to_owned(), of_group);
    }
    if roles.is_empty() {
        item.error(context, "no group has a role, so nobody may do anything", ROLES_HELP);
    }
    Some(roles)
}

fn read_groups(item: &Item<'_>, context: &mut Context<'_>) -> BTreeSet<String> {
    let items = item.list(context, PAYLOADS_HELP).unwrap_or_default();
    items.iter().filter_map(|item| item.text(context, "\"sre\"")).map(str::to_owned).collect()
}

/// Reads the namespaces of each group. Whether the config has them is checked when they are read.
fn read_namespaces(item: &Item<'_>, context: &mut Context<'_>) -> BTreeMap<String, Namespaces> {
    let Some(table) = item.table(context, NAMESPACES_HELP) else { return BTreeMap::new() };
    let mut namespaces = BTreeMap::new();
    for (group, _, item) in table.entries(context) {
        let items = item.list(context, NAMESPACES_HELP).unwrap_or_default();
        let names = items.iter().filter_map(|item| item.text(context, "\"shop\""));
        let names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() {
            item.error(context, "this group would see no namespace", NAMESPACES_HELP);
        }
        match Namespaces::read(&names) {
            Ok(of_group) => {
                namespaces.insert(group.to_owned(), of_group);
            }
            Err(wrong) => {
                let message = format!("`{wrong}` is no name of a namespace");
                item.error(context, message, NAMESPACES_HELP);
            }
        }
    }
    namespaces
}

fn read_admin_token(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let secret = read_secret(item, context)?;
    if let Some(message) = mistake(secret.reveal()) {
        item.error(context, message, ADMIN_TOKEN_HELP);
        return None;
    }
    Some(secret)
}

/// Says why a text cannot be an admin token, if it cannot. The message has nothing of the text in it.
fn mistake(text: &str) -> Option<String> {
    if text.len() < ADMIN_TOKEN_BYTES_MIN {
        let min = ADMIN_TOKEN_BYTES_MIN;
        return Some(format!("the admin token has fewer than {min} bytes, so it could be guessed"));
    }
    if text.len() > ADMIN_TOKEN_BYTES_MAX {
        return Some(format!("the admin token has more than {ADMIN_TOKEN_BYTES_MAX} bytes"));
    }
    // RFC 6750, 2.1: what the header `authorization: Bearer TOKEN` can say.
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~+/".contains(letter);
    let word = text.trim_end_matches('=');
    let fits = !word.is_empty() && word.chars().all(is_plain);
    let message = "the admin token has a character that a header cannot say: letters, digits and \
                   `-._~+/` are allowed, and `=` at the end";
    (!fits).then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_token_is_long_and_fits_into_a_header() {
        let hex = "0123456789abcdef".repeat(2);
        for good in [hex.clone(), hex.repeat(32), format!("{hex}-._~+/=="), "Z".repeat(32)] {
            assert_eq!(mistake(&good), None, "{good}");
        }
        let long = hex.repeat(33);
        for (wrong, message) in [
            ("", "fewer than 32 bytes"),
            (&hex[1..], "fewer than 32 bytes"),
            (&long, "more than 1024 bytes"),
            (&format!("{hex} {hex}"), "a header cannot say"),
            (&format!("{hex}\n{hex}"), "a header cannot say"),
            (&format!("{hex}=a"), "a header cannot say"),
            (&"=".repeat(32), "a header cannot say"),
            (&"\u{fc}".repeat(32), "a header cannot say"),
        ] {
            let told = mistake(wrong).unwrap_or_default();
            assert!(told.contains(message), "{wrong}: {told}");
        }
    }
}
