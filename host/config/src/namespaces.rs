//! `[namespace.NAME]`: namespaces beside `default`, each with a store of its own.
//!
//! Below it stand the tables that stand at the top for `default`. They are read by the same readers, as if each were a
//! file of its own.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use amends_engine::{DefinitionSpec, NamespaceName};
use amends_runtime::{DEFAULT_NAMESPACE, NAMESPACES_MAX, Namespaces, StartRateSettings};
use amends_sandbox::guest_memory_default;
use amends_store::ArchivePlace;

use crate::auth::{TokenRate, read_rate};
use crate::host::HOST_MEMORY_BYTES_MIN;
use crate::overrides::Overrides;
use crate::quotas::Quotas;
use crate::report::{Place, Report};
use crate::table::{Context, Item, Table, check_name};
use crate::tables::{Config, Loaded, OfHost, Tables};

const NAMESPACE_HELP: &str = "write [namespace.shop.store], [[namespace.shop.saga]] and so on: the tables that stand at \
                              the top for the namespace `default`";

const MEMORY_HELP: &str = "write a whole number and MiB or GiB, such as memory_max = \"256MiB\"";

const STARTS_HELP: &str = "write starts = { per_second = 50, burst = 100 }";

/// Memory of the guests of a namespace that does not say how much.
const MEMORY_DEFAULT: u64 = 256 << 20;

/// Calls at once of a namespace that does not say how many.
const CALLS_DEFAULT: u32 = 32;

/// The most calls at once of a namespace. Each needs room in the address space of the process, 32 GiB of 128 TiB.
const NAMESPACE_CALLS_MAX: u32 = 48;

/// Reads every `[namespace.NAME]`. `default` is what stands at the top.
pub(super) fn read_namespaces(
    item: Option<&Item<'_>>,
    default: &Config,
    of_host: &OfHost,
    context: &mut Context<'_>,
) -> BTreeMap<NamespaceName, Loaded> {
    let mut namespaces = BTreeMap::new();
    let table = item.and_then(|item| item.table(context, NAMESPACE_HELP));
    let entries = table.map(|table| table.entries(context)).unwrap_or_default();
    if let Some(item) = item.filter(|_| entries.len() > NAMESPACES_MAX) {
        let count = entries.len();
        let message = format!("there are {count} namespaces, at most {NAMESPACES_MAX} are allowed");
        item.error(context, message, "run the others on another host");
    }
    for (text, span, item) in entries.into_iter().take(NAMESPACES_MAX) {
        let place = Place::At(context.source.position(&span));
        let name = check_name::<NamespaceName>(text, &item.key, place, context);
        if text == DEFAULT_NAMESPACE {
            let message = "the tables at the top of the file are the namespace `default`";
            context.error(place, &item.key, message, "move these tables to the top");
            continue;
        }
        let (Some(name), Some(mut table)) = (name, item.table(context, NAMESPACE_HELP)) else {
            continue;
        };
        table.key = String::new();
        let home = format!("namespaces/{name}/");
        let ((config, specs), found, places) = context
            .within(&item, home, |context| read_one(name.clone(), table, of_host.clone(), context));
        let report = Report::new(&context.source.path, found);
        let loaded = Loaded { config, report, namespaces: BTreeMap::new(), specs, places };
        namespaces.insert(name, loaded);
    }
    check_own(default, &namespaces, context);
    check_memory(default, &namespaces, context);
    check_groups(default, &namespaces, context);
    namespaces
}

fn read_one(
    name: NamespaceName,
    mut table: Table<'_>,
    of_host: OfHost,
    context: &mut Context<'_>,
) -> (Config, Vec<DefinitionSpec>) {
    let memory_max = table.take("memory_max", context);
    let starts = table.take("starts", context);
    let calls = table.take("calls", context);
    let tables = Tables::take(&mut table, context);
    table.finish(context);
    let memory_max = memory_max.and_then(|item| read_memory(&item, context));
    let starts = starts.and_then(|item| read_rate(&item, STARTS_HELP, context));
    let starts =
        starts.map(|TokenRate { per_second, burst }| StartRateSettings { per_second, burst });
    let calls = calls.and_then(|item| item.whole(context, 1..=NAMESPACE_CALLS_MAX));
    let quotas = Quotas { starts, calls: Some(calls.unwrap_or(CALLS_DEFAULT)) };
    let mut of_host = OfHost { quotas, ..of_host };
    of_host.host.memory_max = memory_max.unwrap_or(MEMORY_DEFAULT);
    // What stands above the file is about `default`.
    tables.read(Some(name), of_host, &Overrides::default(), context)
}

fn read_memory(item: &Item<'_>, context: &mut Context<'_>) -> Option<u64> {
    let bytes = item.size(context, "256MiB")?;
    if bytes < HOST_MEMORY_BYTES_MIN {
        let least = HOST_MEMORY_BYTES_MIN >> 20;
        let message = format!("this is less than guests need together: at least {least} MiB");
        item.error(context, message, MEMORY_HELP);
        return None;
    }
    Some(bytes)
}

/// Checks that no two namespaces have a place in common.
fn check_own(
    default: &Config,
    namespaces: &BTreeMap<NamespaceName, Loaded>,
    context: &mut Context<'_>,
) {
    let of_default = places_of(default).map(|place| (place, DEFAULT_NAMESPACE));
    let mut taken: BTreeMap<_, _> = of_default.into_iter().collect();
    for (name, loaded) in namespaces {
        for (key, place) in places_of(&loaded.config) {
            // Deleting is no place.
            if place.is_empty() {
                continue;
            }
            let Some(other) = taken.insert((key, place), name.as_str()) else { continue };
            let message = format!("the namespace `{other}` has this as its own");
            let help = format!(
                "give each namespace its own, or leave it out: it is then below namespaces/{name}"
            );
            let whole = format!("namespace.{name}.{key}");
            context.error(place_of(name, key, loaded, context), &whole, message, help);
        }
    }
}

/// Where a key of a namespace stands, or the table of the namespace.
fn place_of(name: &NamespaceName, key: &str, loaded: &Loaded, context: &Context<'_>) -> Place {
    match loaded.places.of(key) {
        Place::File => context.places.of(&format!("namespace.{name}")),
        place @ (Place::At(_) | Place::Flag(_) | Place::Environment(_)) => place,
    }
}

/// What belongs to one namespace alone: the key, and the place in a form that can be compared.
fn places_of(config: &Config) -> [(&'static str, String); 4] {
    let store = &config.store;
    let file = |path: &Path| real(path).display().to_string();
    let url = store.url.strip_prefix("sqlite:").map(|path| file(Path::new(path)));
    let archive = match &store.archive {
        Some(ArchivePlace::Folder(folder)) => file(folder),
        Some(bucket @ ArchivePlace::Bucket(_)) => bucket.to_string(),
        None => String::new(),
    };
    [
        ("store.url", url.unwrap_or_else(|| store.url.clone())),
        ("store.archive", archive),
        ("store.keys", file(&store.keys)),
        ("plugins.cache", file(&config.plugins.cache)),
    ]
}

/// A path without links and `..`, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => real.push(part),
        }
        if let Ok(found) = real.canonicalize() {
            real = found;
        }
    }
    real
}

/// Warns when all namespaces together may have more memory than the process.
fn check_memory(
    default: &Config,
    namespaces: &BTreeMap<NamespaceName, Loaded>,
    context: &mut Context<'_>,
) {
    let all = namespaces.values().map(|loaded| &loaded.config).chain([default]);
    let bytes = all.map(|config| config.host.memory_max).fold(0, u64::saturating_add);
    let machine = guest_memory_default().saturating_mul(2);
    if bytes > machine && !namespaces.is_empty() {
        let message = format!(
            "the guests of all namespaces may have {} MiB, and this process may use {} MiB in all",
            bytes >> 20,
            machine >> 20
        );
        let help =
            "set memory_max in [host] and in each [namespace.NAME], together some half of that";
        context.warn(context.places.of("namespace"), "namespace", message, help);
    }
}

/// Checks that the namespaces of groups exist.
fn check_groups(
    default: &Config,
    namespaces: &BTreeMap<NamespaceName, Loaded>,
    context: &mut Context<'_>,
) {
    let proxy = default.auth.as_ref().and_then(|auth| auth.proxy.as_ref());
    for (group, of_group) in proxy.iter().flat_map(|proxy| &proxy.namespaces) {
        let Namespaces::These(names) = of_group else { continue };
        let known = || namespaces.keys().map(NamespaceName::as_str).chain([DEFAULT_NAMESPACE]);
        for name in names.iter().filter(|name| !known().any(|known| known == *name)) {
            let otherwise = || format!("write [namespace.{name}] and its tables, or leave it out");
            let help = context.did_you_mean(name, known(), otherwise);
            let key = format!("auth.proxy.namespaces.{group}");
            let message = format!("there is no namespace `{name}`");
            context.error(context.places.of(&key), &key, message, help);
        }
    }
}
