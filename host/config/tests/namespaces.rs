//! What `load` makes of `[namespace.NAME]`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

use amends_config::{Environment, Loaded, OverrideFlags, Overrides, Place, Report, load};
use amends_runtime::{NAMESPACES_MAX, StartRateSettings};

/// The namespace `default`, whose saga is in line 1.
const TOP: &str = "saga = [{ name = \"s\", step = [{ name = \"a\", sleep = \"1s\" }] }]\n";

fn load_text(text: &str, overrides: &Overrides) -> (Result<Loaded, Report>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.toml");
    std::fs::write(&path, text).unwrap();
    (load(&path, overrides), folder.path().to_owned())
}

/// A namespace with a saga, and more below its table.
fn namespace(name: &str, more: &str) -> String {
    format!("[namespace.{name}]\n{TOP}{more}")
}

/// What is found, as `line key: message`.
fn found(text: &str) -> Vec<String> {
    let report = match load_text(text, &Overrides::default()).0 {
        Ok(loaded) => loaded.report,
        Err(report) => report,
    };
    let line = |place: &Place| match place {
        Place::At(position) => position.line,
        Place::File | Place::Flag(_) | Place::Environment(_) => 0,
    };
    let findings = report.findings().iter();
    let told = findings.map(|one| format!("{} {}: {}", line(&one.place), one.key, one.message));
    told.collect()
}

#[test]
fn a_namespace_has_the_tables_of_the_top_and_places_of_its_own() {
    let text = format!(
        "{TOP}{}{}",
        namespace(
            "shop",
            "memory_max = \"128MiB\"\nstarts = { per_second = 5 }\ncalls = 4\n\
             [namespace.shop.store]\nurl = \"sqlite:shop.db\"\nretention = \"1d\"\n\
             [namespace.shop.plugin.stock]\nstate = true\n\
             [namespace.shop.service.carrier]\nconcurrency = 3\n\
             [[namespace.shop.schedule]]\nname = \"nightly\"\ndefinition = \"s\"\ncron = \"0 2 * * *\"\n"
        ),
        namespace("billing", ""),
    );
    // What stands above the file is about `default`.
    let environment = Environment::from_iter([("AMENDS_STORE_RETENTION", "9d")]);
    let flags = OverrideFlags { cache: Some("fast".to_owned()), ..OverrideFlags::default() };
    let (loaded, folder) = load_text(&text, &Overrides { flags, environment });
    let Loaded { config, namespaces, .. } = loaded.unwrap();
    assert_eq!(config.plugins.cache, folder.join("fast"));
    assert!(config.store.retention.is_some() && config.namespace.is_none());
    assert_eq!((config.quotas.starts, config.quotas.calls), (None, None));
    let names: Vec<_> = namespaces.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["billing", "shop"]);

    let of = |name: &str| &namespaces[&name.parse().unwrap()].config;
    let shop = of("shop");
    assert_eq!(shop.namespace.as_ref().unwrap().as_str(), "shop");
    let file = |path: &str| format!("sqlite:{}", folder.join(path).display());
    assert_eq!(shop.store.url, file("shop.db"));
    assert_eq!(shop.store.retention.unwrap().as_secs(), 86_400);
    assert_eq!(shop.store.keys, folder.join("shop.db-keys"));
    assert_eq!((shop.host.memory_max, shop.plugins.memory_bytes_max), (128 << 20, 128 << 20));
    let StartRateSettings { per_second, burst } = shop.quotas.starts.unwrap();
    assert_eq!((per_second.get(), burst.get(), shop.quotas.calls), (5, 10, Some(4)));
    assert_eq!((shop.services.len(), shop.schedules.len(), shop.definitions.len()), (1, 1, 1));
    assert!(shop.plugins.plugins[&"stock".parse().unwrap()].state);
    assert!(shop.plugins.instances_max > 4 && shop.plugins.instances_max < 20);

    // What is not said is in a folder of the namespace.
    let billing = of("billing");
    let home = folder.join("namespaces/billing");
    assert_eq!(billing.store.url, file("namespaces/billing/data/amends.db"));
    assert_eq!(billing.store.archive, Some(home.join("archive").into()));
    assert_eq!(billing.store.retention, None);
    assert_eq!(billing.plugins.dir, home.join("plugins"));
    assert_eq!(billing.plugins.cache, home.join("cache"));
    assert_eq!((billing.host.memory_max, billing.quotas.calls), (256 << 20, Some(32)));
    assert_eq!(billing.host.listen, config.host.listen);
}

#[test]
fn a_mistake_in_a_namespace_has_its_whole_key_and_its_place() {
    let shop = |more: &str| format!("{TOP}{}", namespace("shop", more));
    for (text, told) in [
        (
            shop("[namespace.shop.store]\nurll = 1\n"),
            "5 namespace.shop.store.urll: there is no key",
        ),
        (shop("host = {}\n"), "4 namespace.shop.host: there is no key `host`"),
        (shop("calls = 49\n"), "4 namespace.shop.calls: 49 is out of range"),
        (shop("calls = 0\n"), "4 namespace.shop.calls: 0 is out of range"),
        (shop("memory_max = \"1MiB\"\n"), "4 namespace.shop.memory_max: this is less than guests"),
        (shop("starts = { burst = 2 }\n"), "4 namespace.shop.starts.per_second: `per_second` is"),
        (
            shop(
                "[[namespace.shop.schedule]]\nname = \"n\"\ndefinition = \"t\"\ncron = \"0 2 * * *\"\n",
            ),
            "6 namespace.shop.schedule",
        ),
        (format!("{TOP}[namespace.shop]\n"), "2 namespace.shop.saga: there is no saga"),
        (format!("{TOP}namespace = 7\n"), "2 namespace: this is a whole number; a table belongs"),
        (format!("{TOP}[namespace]\nshop = 7\n"), "3 namespace.shop: this is a whole number"),
        (format!("{TOP}{}", namespace("Shop", "")), "2 namespace.Shop: `Shop` is not a name"),
        (
            format!("{TOP}{}", namespace("default", "")),
            "2 namespace.default: the tables at the top of the file are the namespace `default`",
        ),
        (
            format!(
                "{TOP}[auth.proxy]\npeers = [\"127.0.0.1\"]\nroles = {{ a = [\"admin\"] }}\n\
                 namespaces = {{ a = [\"shpo\"] }}\n{}",
                namespace("shop", "")
            ),
            "5 auth.proxy.namespaces.a: there is no namespace `shpo`",
        ),
    ] {
        let found = found(&text);
        assert!(found.iter().any(|one| one.starts_with(told)), "{told}: {found:#?}\n{text}");
    }
}

#[test]
fn two_namespaces_have_no_place_in_common() {
    let with = |one: &str, other: &str| {
        let table = |name: &str, store: &str| {
            format!("{}[namespace.{name}.store]\n{store}\n", namespace(name, ""))
        };
        found(&format!("{TOP}{}{}", table("a", one), table("b", other)))
    };
    let shares = |found: &[String], key: &str, other: &str| {
        let told = format!("{key}: the namespace `{other}` has this as its own");
        found.iter().any(|one| one.ends_with(&told))
    };
    assert_eq!(with("", ""), Vec::<String>::new());
    let file = with("url = \"sqlite:x/../data/amends.db\"", "");
    assert!(shares(&file, "namespace.a.store.url", "default"), "{file:?}");
    let database = "url = \"postgres://amends@127.0.0.1/amends\"";
    let databases = with(database, database);
    assert!(shares(&databases, "namespace.b.store.url", "a"), "{databases:?}");
    let keys = with("keys = \"k\"", "keys = \"./k\"");
    assert!(shares(&keys, "namespace.b.store.keys", "a"), "{keys:?}");
    let archive = with("archive = \"archive\"", "archive = \"s3://bucket/b\"");
    assert!(shares(&archive, "namespace.a.store.archive", "default"), "{archive:?}");
    assert_eq!(with("archive = \"none\"", "archive = \"none\""), Vec::<String>::new());
    // Never the address of a database, which may have a password in it.
    let secret = "url = \"postgres://amends:hunter2@127.0.0.1/amends\"";
    assert!(!format!("{:?}", with(secret, secret)).contains("hunter2"));
}

#[test]
fn there_are_only_so_many_namespaces() {
    let text = |count: usize| {
        let all: String = (0..count).map(|number| namespace(&format!("n{number}"), "")).collect();
        format!("{TOP}{all}")
    };
    let (loaded, _) = load_text(&text(NAMESPACES_MAX), &Overrides::default());
    assert_eq!(loaded.unwrap().namespaces.len(), NAMESPACES_MAX);
    let found = found(&text(NAMESPACES_MAX + 1));
    assert!(found.iter().any(|one| one.contains("at most 32 are allowed")), "{found:?}");
}

#[test]
fn namespaces_that_may_have_more_memory_than_the_process_are_warned_of() {
    let text = format!("{TOP}{}", namespace("shop", "memory_max = \"1000000MiB\"\n"));
    let found = found(&text);
    assert!(
        found.iter().any(|one| one.contains("may have") && one.contains("namespace")),
        "{found:?}"
    );
}
