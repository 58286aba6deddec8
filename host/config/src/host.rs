//! `[host]`, `[store]` and `[plugins]`: single values, which flags and variables may replace.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use amends_api_types::{PublicUrl, parse_duration};
use amends_registry::PluginsConfig;
use amends_runtime::EvidenceKey;
use amends_sandbox::{TrustedKey, TrustedKeys, guest_memory_default};
use amends_store::{ArchivePlace, Durability, with_files_from};

use crate::overrides::{Environment, Overrides};
use crate::secret::read_secret;
use crate::setting::{LastSaid, Setting};
use crate::size::parse_size;
use crate::suggest::list;
use crate::table::{Context, Item, Table};
use crate::tls::{HostTls, SaidTls, TlsFiles, check_reach, read_tls};

/// A host's name is at most this many bytes: it is a label of leases, logs and metrics.
const HOST_NAME_BYTES_MAX: usize = 63;

/// Memory of all guests together: with less, not even one call of a plugin by default settings, whose
/// memories grow to a quarter of their limit, finds room.
pub(super) const HOST_MEMORY_BYTES_MIN: u64 = 64 << 20;

/// The value of `archive` with which ended sagas are deleted.
const NO_ARCHIVE: &str = "none";

/// The host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// Its name among the hosts of a store; by default the machine's.
    pub name: String,
    /// Where it serves HTTP.
    pub listen: SocketAddr,
    /// Where the other hosts of its store reach it. `None`: at the address at which it listens.
    pub address: Option<PublicUrl>,
    /// Bytes of memory that all guests may have together; by default half of what the control group
    /// of the process or the machine has.
    pub memory_max: u64,
    /// Where a proxy serves it. `None`: clients use its own address only.
    pub public_url: Option<PublicUrl>,
    /// Who has the certificates. `None`: nobody, and the host speaks plain HTTP.
    pub tls: Option<HostTls>,
    /// The key with which it signs evidence. `None`: it signs none.
    pub evidence_key: Option<Arc<EvidenceKey>>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// `sqlite:FILE`, with the file's path as it counts from the working folder.
    pub url: String,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Ended sagas older than this go to the archive; none: they stay.
    pub retention: Option<Duration>,
    /// Where the archive is; none when ended sagas are deleted instead.
    pub archive: Option<ArchivePlace>,
    /// The file of the keys of personal values. It is made when a definition has a subject.
    pub keys: PathBuf,
}

impl HostConfig {
    /// The base URL at which the other hosts of the store reach this one.
    #[must_use]
    pub fn peer_address(&self) -> String {
        let own = || {
            let scheme = if self.own_tls().is_some() { "https" } else { "http" };
            format!("{scheme}://{}", self.listen)
        };
        self.address.as_ref().map_or_else(own, |address| address.origin().to_owned())
    }

    /// Returns the files of the host's own certificate, when the host itself speaks TLS.
    #[must_use]
    pub const fn own_tls(&self) -> Option<&TlsFiles> {
        match &self.tls {
            Some(HostTls::Own(files)) => Some(files),
            Some(HostTls::Proxy) | None => None,
        }
    }
}

impl StoreSettings {
    /// Whether several hosts may use the store.
    #[must_use]
    pub(crate) fn is_shared(&self) -> bool {
        !self.url.starts_with("sqlite:")
    }

    /// The file of the key that vouches for compiled code: beside the store, `amends.db-cache-key`. A store
    /// in a database has no place here; then it is beside the folder of compiled code.
    #[must_use]
    pub(crate) fn cache_key(&self, cache: &Path) -> PathBuf {
        let (mut beside, ending) = match self.url.strip_prefix("sqlite:") {
            Some(store) => (OsString::from(store), "-cache-key"),
            None => (cache.as_os_str().to_owned(), "-key"),
        };
        beside.push(ending);
        PathBuf::from(beside)
    }
}

/// Reads `[host]`. `has_auth` says whether the config has `[auth]`.
pub(super) fn read_host(
    table: &mut Table<'_>,
    overrides: &Overrides,
    has_auth: bool,
    context: &mut Context<'_>,
) -> HostConfig {
    let Overrides { flags, environment } = overrides;
    let name = Setting {
        name: "name",
        flag: ("--name", flags.name.as_ref()),
        variable: "AMENDS_NAME",
        example: "\"node-a\"",
    };
    let name = name.read(table, environment, context).and_then(|given| host_name(&given, context));
    let listen = Setting {
        name: "listen",
        flag: ("--listen", flags.listen.as_ref()),
        variable: "AMENDS_LISTEN",
        example: "\"127.0.0.1:7070\"",
    };
    let listen = listen.read(table, environment, context);
    let SaidTls { tls, is_said } = read_tls(table, overrides, context);
    let listen = listen.and_then(|given| {
        let address = listen_address(&given, context)?;
        check_reach(&given, address, has_auth, is_said, context);
        Some(address)
    });
    let address = Setting {
        name: "address",
        flag: ("--address", flags.address.as_ref()),
        variable: "AMENDS_ADDRESS",
        example: PEER_ADDRESS_EXAMPLE,
    };
    let address =
        address.read(table, environment, context).and_then(|given| peer_address(&given, context));
    let memory_max = Setting {
        name: "memory_max",
        flag: ("--memory-max", flags.memory_max.as_ref()),
        variable: "AMENDS_MEMORY_MAX",
        example: "\"1GiB\"",
    };
    let memory_max =
        memory_max.read(table, environment, context).and_then(|given| memory(&given, context));
    let public_url = table.take("public_url", context);
    let evidence_key = table.take("evidence_key", context);
    HostConfig {
        name: name.unwrap_or_else(|| machine_name(environment)),
        listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7070))),
        address,
        memory_max: memory_max.unwrap_or_else(guest_memory_default),
        public_url: public_url.and_then(|item| read_public_url(&item, context)),
        tls,
        evidence_key: evidence_key.and_then(|item| read_evidence_key(&item, context)),
    }
}

/// Warns of a host that the other hosts of its store cannot reach: they would use an address that means
/// their own machine, or speak HTTP where it speaks TLS.
pub(super) fn check_peer_address(
    host: &HostConfig,
    store: &StoreSettings,
    context: &mut Context<'_>,
) {
    if !store.is_shared() {
        return;
    }
    let is_plain = |address: &PublicUrl| address.origin().starts_with("http://");
    if host.own_tls().is_some() && host.address.as_ref().is_some_and(is_plain) {
        let message = "the other hosts would use HTTP without TLS, and this host takes https only";
        let help = "write https:// in the place of http://";
        context.warn(context.places.of("host.address"), "host.address", message, help);
    }
    if host.address.is_some() || !host.listen.ip().is_unspecified() {
        return;
    }
    let message = format!(
        "hosts on other machines cannot reach this one at {}, and no address is set",
        host.peer_address()
    );
    let help = format!("set address = {PEER_ADDRESS_EXAMPLE} in [host], or a name of this machine");
    context.warn(context.places.of("host.listen"), "host.address", message, help);
}

/// An address at which other hosts reach this one.
const PEER_ADDRESS_EXAMPLE: &str = "\"http://10.0.0.2:7070\"";

fn peer_address(given: &LastSaid, context: &mut Context<'_>) -> Option<PublicUrl> {
    match given.text.parse() {
        Ok(url) => Some(url),
        Err(error) => {
            let help = format!(
                "write the address at which the other hosts of the store reach this one, such as \
                 {PEER_ADDRESS_EXAMPLE}"
            );
            given.error(context, format!("{error}"), help);
            None
        }
    }
}

fn read_public_url(item: &Item<'_>, context: &mut Context<'_>) -> Option<PublicUrl> {
    let example = "\"https://amends.example.com\"";
    let text = item.text(context, example)?;
    match text.parse() {
        Ok(url) => Some(url),
        Err(error) => {
            item.error(
                context,
                format!("{error}"),
                format!("write the address by which callers reach this host, such as {example}"),
            );
            None
        }
    }
}

fn read_evidence_key(item: &Item<'_>, context: &mut Context<'_>) -> Option<Arc<EvidenceKey>> {
    let secret = read_secret(item, context)?;
    match EvidenceKey::read(secret.reveal()) {
        Ok(key) => Some(Arc::new(key)),
        Err(error) => {
            let help = "make one with `amends plugin keygen host --no-password`, and name the file host.key \
                        here; only the user of the host may read it";
            item.error(context, format!("the key cannot be used: {error}"), help);
            None
        }
    }
}

fn memory(given: &LastSaid, context: &mut Context<'_>) -> Option<u64> {
    let right = "write a whole number and MiB or GiB, such as \"1GiB\"";
    let Some(bytes) = parse_size(&given.text) else {
        given.error(context, format!("`{}` is not a size", given.text), right);
        return None;
    };
    if bytes < HOST_MEMORY_BYTES_MIN {
        let message = format!(
            "{} is less than guests need together: at least {} MiB",
            given.text,
            HOST_MEMORY_BYTES_MIN >> 20
        );
        given.error(context, message, right);
        return None;
    }
    let machine = guest_memory_default().saturating_mul(2);
    if bytes > machine {
        context.warn(
            given.place,
            &given.key,
            format!("this process may use {} MiB in all", machine >> 20),
            "write less, such as half of that: the system ends a process that uses more",
        );
    }
    Some(bytes)
}

fn host_name(given: &LastSaid, context: &mut Context<'_>) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits =
        (1..=HOST_NAME_BYTES_MAX).contains(&given.text.len()) && given.text.chars().all(plain);
    if !fits {
        given.error(
            context,
            format!("`{}` is not a host's name", given.text),
            format!("use 1 to {HOST_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, such as \"node-a\""),
        );
    }
    fits.then(|| given.text.clone())
}

/// What the system calls this machine.
fn machine_name(environment: &Environment) -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .or_else(|| environment.get("HOSTNAME").map(str::to_owned))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

fn listen_address(given: &LastSaid, context: &mut Context<'_>) -> Option<SocketAddr> {
    let Ok(address) = given.text.parse::<SocketAddr>() else {
        let port = given.text.strip_prefix("localhost:").filter(|port| port.parse::<u16>().is_ok());
        let such = format!("127.0.0.1:{}", port.unwrap_or("7070"));
        given.error(
            context,
            format!("`{}` is not an IP address and a port", given.text),
            format!("write an IP address and a port, such as \"{such}\""),
        );
        return None;
    };
    Some(address)
}

/// Reads `[store]`.
pub(super) fn read_store(
    table: &mut Table<'_>,
    overrides: &Overrides,
    context: &mut Context<'_>,
) -> StoreSettings {
    let Overrides { flags, environment } = overrides;
    let url = Setting {
        name: "url",
        flag: ("--store-url", flags.store_url.as_ref()),
        variable: "AMENDS_STORE_URL",
        example: "\"sqlite:data/amends.db\"",
    };
    let url = url.read(table, environment, context).and_then(|given| store_url(&given, context));
    let durability = Setting {
        name: "durability",
        flag: ("--store-durability", flags.store_durability.as_ref()),
        variable: "AMENDS_STORE_DURABILITY",
        example: "\"full\"",
    };
    let durability = durability
        .read(table, environment, context)
        .and_then(|given| read_durability(&given, context));
    let retention = Setting {
        name: "retention",
        flag: ("--store-retention", flags.store_retention.as_ref()),
        variable: "AMENDS_STORE_RETENTION",
        example: "\"90d\"",
    };
    let retention = retention.read(table, environment, context).and_then(|given| {
        let Ok(duration) = parse_duration(&given.text) else {
            given.error(
                context,
                format!("`{}` is not a duration", given.text),
                "write a whole number and ms, s, m, h or d, such as \"90d\"",
            );
            return None;
        };
        if duration.is_zero() {
            let help = "write how long ended sagas stay, such as \"90d\", or leave it out";
            given.error(context, "no saga would stay in the store at all", help);
            return None;
        }
        Some(duration)
    });
    let archive = Setting {
        name: "archive",
        flag: ("--store-archive", flags.store_archive.as_ref()),
        variable: "AMENDS_STORE_ARCHIVE",
        example: "\"archive\"",
    };
    let archive = archive.read(table, environment, context).and_then(|given| {
        if given.text == NO_ARCHIVE {
            return Some(None);
        }
        match ArchivePlace::bucket(&given.text) {
            Ok(None) => {}
            Ok(bucket) => return Some(bucket),
            Err(error) => {
                let help = "write s3://, a bucket and a prefix, such as \"s3://my-bucket/amends\"";
                given.error(context, error.to_string(), help);
                return None;
            }
        }
        let folder = given.path(context)?;
        if let Err(error) = std::fs::read_dir(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            given.error(
                context,
                format!("the folder {} cannot be read: {error}", folder.display()),
                "name a folder that the host may read and write, or \"none\": sagas are then deleted",
            );
            return None;
        }
        Some(Some(folder.into()))
    });
    let keys = table.take("keys", context).and_then(|item| {
        let text = item.text(context, "\"keys/amends.keys\"")?;
        if text.is_empty() {
            let help = "write a path, such as \"keys/amends.keys\", or leave it out";
            item.error(context, "this is empty; the path of a file belongs here", help);
            return None;
        }
        Some(context.source.resolve(text))
    });
    let default_url = || format!("sqlite:{}", context.default_path("data/amends.db").display());
    let url = url.unwrap_or_else(default_url);
    let keys = keys.unwrap_or_else(|| match url.strip_prefix("sqlite:") {
        Some(file) => PathBuf::from(format!("{file}-keys")),
        // The address of a server, maybe with a password.
        None => context.default_path("amends.keys"),
    });
    StoreSettings {
        url,
        keys,
        durability: durability.unwrap_or_default(),
        retention,
        archive: archive.unwrap_or_else(|| Some(context.default_path("archive").into())),
    }
}

/// Never says more of the address than its scheme: there may be a password in it.
fn store_url(given: &LastSaid, context: &mut Context<'_>) -> Option<String> {
    let right = "write sqlite: and a file, such as \"sqlite:data/amends.db\", or the URL of a database, such as \
                 \"postgres://amends@127.0.0.1/amends\"";
    let Some((scheme, rest)) = given.text.split_once(':') else {
        given.error(context, "this is not a store's address", right);
        return None;
    };
    match scheme {
        "postgres" | "postgresql" if !rest.starts_with("//") => {
            given.error(context, "the URL of a database has `//` after its scheme", right);
            None
        }
        // Whether it is understood is said when the store is opened: there may be a password in it.
        "postgres" | "postgresql" => {
            Some(with_files_from(&given.text, |file| context.source.resolve(file)))
        }
        "sqlite" if rest.starts_with("//") => {
            given.error(context, "a file needs no `//` after sqlite:", right);
            None
        }
        "sqlite" if rest.is_empty() || rest == ":memory:" => {
            given.error(context, "sagas must outlive the host, so a file is needed", right);
            None
        }
        "sqlite" => Some(format!("sqlite:{}", context.source.resolve(rest).display())),
        _ => {
            given.error(context, format!("`{scheme}:` is not a kind of store"), right);
            None
        }
    }
}

fn read_durability(given: &LastSaid, context: &mut Context<'_>) -> Option<Durability> {
    match given.text.as_str() {
        "full" => Some(Durability::Full),
        "relaxed" => Some(Durability::Relaxed),
        other => {
            let message = format!("`{other}` is not a durability");
            given.error(context, message, format!("write one of {}", list(["full", "relaxed"])));
            None
        }
    }
}

/// Reads `[plugins]`: the folder that is watched, that of compiled code, and whose components are
/// loaded.
pub(super) fn read_plugins(
    table: &mut Table<'_>,
    overrides: &Overrides,
    context: &mut Context<'_>,
) -> PluginsConfig {
    let Overrides { flags, environment } = overrides;
    let dir = Setting {
        name: "dir",
        flag: ("--plugins-dir", flags.plugins_dir.as_ref()),
        variable: "AMENDS_PLUGINS_DIR",
        example: "\"plugins\"",
    };
    let dir = dir.read(table, environment, context).and_then(|given| given.path(context));
    let cache = Setting {
        name: "cache",
        flag: ("--cache", flags.cache.as_ref()),
        variable: "AMENDS_CACHE",
        example: "\"cache\"",
    };
    let cache = cache.read(table, environment, context).and_then(|given| given.path(context));
    let trusted_keys = table.take("trusted_keys", context);
    PluginsConfig {
        dir: dir.unwrap_or_else(|| context.default_path("plugins")),
        cache: cache.unwrap_or_else(|| context.default_path("cache")),
        trusted_keys: trusted_keys.map(|item| read_keys(&item, context)).unwrap_or_default(),
        ..PluginsConfig::default()
    }
}

fn read_keys(item: &Item<'_>, context: &mut Context<'_>) -> TrustedKeys {
    let right = "write the second line of a key's .pub file, such as \
                 \"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"; `amends plugin \
                 keygen` makes one";
    let Some(keys) = item.list(context, "write a list of keys, such as [\"RWQ…\"]") else {
        return TrustedKeys::default();
    };
    if keys.is_empty() {
        let message = "no key is trusted, so that no component could be loaded";
        item.error(context, message, "name a key, or remove trusted_keys: then each is loaded");
    }
    let mut read = Vec::with_capacity(keys.len());
    for key in &keys {
        let Some(text) = key.text(context, "\"RWQ…\"") else { continue };
        match text.parse::<TrustedKey>() {
            Ok(trusted) => read.push(trusted),
            Err(message) => key.error(context, message, right),
        }
    }
    read.into_iter().collect()
}
