//! What `load` makes of a sound config.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "a test says how long something takes")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amends_config::{
    CONFIG_BYTES_MAX, Environment, HostTls, Loaded, OverrideFlags, Overrides, Report, TlsFiles,
    load,
};
use amends_engine::{BackoffSpec, InputSpec, PluginName, RetrySpec, StepSpec};
use amends_runtime::{
    CatchUp, EventEffect, EventPayload, OnOpen, Overlap, SampleRates, SignalTarget, TraceRules,
};
use amends_store::Durability;
use amends_telemetry::{Endpoint, Protocol};

fn load_text(text: &str, overrides: &Overrides) -> (Result<Loaded, Report>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("key.txt"), "from-a-file\n").unwrap();
    (load(&path, overrides), folder.path().to_owned())
}

fn load_steps(steps: &str) -> Vec<StepSpec> {
    let text = format!("[[saga]]\nname = \"s\"\n{steps}");
    let loaded = load_text(&text, &Overrides::default()).0.unwrap();
    loaded.config.definitions[0].steps().to_vec()
}

#[test]
fn the_whole_contract_becomes_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/check/contract.toml");
    let environment = Environment::from_iter([("INVENTORY_API_KEY", "hunter2")]);
    let overrides = Overrides { environment, ..Overrides::default() };
    let Loaded { config, report, .. } = load(&path, &overrides).unwrap();
    assert_eq!(report.errors(), 0);
    let folder = path.parent().unwrap();
    assert_eq!(config.host.name, "node-a");
    assert_eq!(config.host.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(config.store.url, format!("sqlite:{}", folder.join("data/amends.db").display()));
    assert_eq!(config.store.durability, Durability::Full);
    assert_eq!(config.store.retention, Some(Duration::from_hours(90 * 24)));
    assert_eq!(config.store.archive, Some(folder.join("archive").into()));
    assert_eq!(config.plugins.dir, folder.join("plugins"));
    assert_eq!(config.plugins.cache, folder.join("cache"));

    let inventory = &config.plugins.plugins[&"inventory".parse().unwrap()];
    assert_eq!(inventory.memory_bytes_max, 64 << 20);
    assert_eq!((inventory.concurrency, inventory.reuse), (64, 0));
    assert!(!inventory.allow_hosts.is_empty());
    assert_eq!(inventory.settings["warehouse"], "north");
    assert!(inventory.secrets["api_key"] == amends_sandbox::Secret::new("hunter2".to_owned()));
    assert!(inventory.state && inventory.events);
    assert!(!format!("{config:?}{overrides:?}").contains("hunter2"), "a secret is printed");

    let carrier = &config.services[&"carrier".parse().unwrap()];
    assert_eq!(carrier.concurrency, Some(16));
    let breaker = carrier.breaker.unwrap();
    assert_eq!((breaker.failures, breaker.open_for), (Some(5), Duration::from_mins(1)));
    assert_eq!((breaker.on_open, breaker.half_open), (OnOpen::Wait, 1));
    assert_eq!(breaker.rate, None);

    let [definition] = config.definitions.as_slice() else { panic!("one saga") };
    assert_eq!(definition.spec().deadline, Some(Duration::from_hours(24)));
    let [prescription, inventory, shipment] = definition.steps() else { panic!("three steps") };
    assert_eq!(prescription.after, []);
    let pauses = [1, 2, 5].map(Duration::from_mins).to_vec();
    assert_eq!(prescription.retry, RetrySpec { attempts: 4, backoff: BackoffSpec::Listed(pauses) });
    let Some(InputSpec::Fields(fields)) = &prescription.input else { panic!("fields") };
    assert_eq!(fields["drug"], "input.drug");
    assert_eq!(inventory.after, ["prescription".parse().unwrap()]);
    let undo = inventory.undo.as_ref().unwrap();
    assert_eq!(undo.plugin.as_ref().unwrap().as_str(), "inventory-release");
    assert_eq!(undo.retry.attempts, 20);
    let BackoffSpec::Exponential { initial, factor, max, .. } = undo.retry.backoff else {
        panic!("computed pauses")
    };
    assert_eq!((initial, max), (Duration::from_secs(1), Duration::from_mins(5)));
    assert!((factor - 2.0).abs() < f64::EPSILON);
    assert_eq!(shipment.when.as_deref(), Some("input.ship == true"));
    assert_eq!(shipment.service().unwrap().as_str(), "carrier");
}

#[test]
fn undo_in_all_its_forms() {
    let steps = load_steps(
        "[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n\
         [[saga.step]]\nname = \"b\"\nplugin = \"p\"\nundo = \"q\"\n\
         [[saga.step]]\nname = \"c\"\nplugin = \"p\"\ntimeout = \"10m\"\nundo = { retry = { attempts = 9 } }\n\
         [[saga.step]]\nname = \"d\"\nplugin = \"p\"\nundo = false\n",
    );
    let plugins: Vec<_> =
        steps.iter().map(|step| step.undo_plugin().map(PluginName::as_str)).collect();
    assert_eq!(plugins, [Some("p"), Some("q"), Some("p"), None]);
    let undo = steps[2].undo.as_ref().unwrap();
    assert_eq!(undo.retry.attempts, 9);
    assert_eq!(undo.timeout, Duration::from_mins(10), "an undo has the time of its step");
    assert_eq!(steps[0].undo.as_ref().unwrap().retry, RetrySpec::default());
}

#[test]
fn a_step_past_the_pivot_has_no_undo_by_default() {
    let steps = load_steps(
        "[[saga.step]]\nname = \"late\"\nplugin = \"p\"\nafter = [\"pay\"]\n\
         [[saga.step]]\nname = \"pay\"\nplugin = \"p\"\nafter = [\"early\"]\npivot = true\n\
         [[saga.step]]\nname = \"early\"\nplugin = \"p\"\nafter = []\n\
         [[saga.step]]\nname = \"last\"\nplugin = \"p\"\nafter = [\"late\"]\n",
    );
    let undone: Vec<_> = steps.iter().map(|step| step.undo.is_some()).collect();
    assert_eq!(undone, [false, true, true, false]);
}

#[test]
fn attempts_follow_from_listed_pauses() {
    let steps = load_steps(
        "[[saga.step]]\nname = \"a\"\nplugin = \"p\"\nretry = { backoff = [\"1s\", \"2s\"] }\n",
    );
    assert_eq!(steps[0].retry.attempts, 3);
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let file = format!("[plugins]\ndir = \"of-file\"\n{saga}");
    let flags =
        OverrideFlags { plugins_dir: Some("of-flag".to_owned()), ..OverrideFlags::default() };
    let environment = Environment::from_iter([("AMENDS_PLUGINS_DIR", "of-environment")]);
    let default = Overrides::default();
    let variable = Overrides { environment: environment.clone(), ..Overrides::default() };
    let both = Overrides { flags, environment };
    for (text, overrides, expected) in [
        (saga, &default, "plugins"),
        (file.as_str(), &default, "of-file"),
        (file.as_str(), &variable, "of-environment"),
        (saga, &variable, "of-environment"),
        (file.as_str(), &both, "of-flag"),
    ] {
        let (loaded, folder) = load_text(text, overrides);
        assert_eq!(loaded.unwrap().config.plugins.dir, folder.join(expected));
    }
}

#[test]
fn every_variable_has_its_key() {
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let environment = Environment::from_iter([
        ("AMENDS_NAME", "node-b"),
        ("AMENDS_LISTEN", "[::1]:9"),
        ("AMENDS_TLS", "proxy"),
        ("AMENDS_ADDRESS", "http://node-b.internal:7070"),
        ("AMENDS_MEMORY_MAX", "256MiB"),
        ("AMENDS_STORE_URL", "sqlite:/x.db"),
        ("AMENDS_STORE_DURABILITY", "relaxed"),
        ("AMENDS_STORE_RETENTION", "1d"),
        ("AMENDS_STORE_ARCHIVE", "/old"),
        ("AMENDS_CACHE", "/c"),
    ]);
    let overrides = Overrides { environment, ..Overrides::default() };
    let config = load_text(saga, &overrides).0.unwrap().config;
    assert_eq!(config.host.name, "node-b");
    assert_eq!(config.host.listen.to_string(), "[::1]:9");
    assert_eq!(config.host.tls, Some(HostTls::Proxy));
    assert_eq!(config.host.peer_address(), "http://node-b.internal:7070");
    assert_eq!((config.host.memory_max, config.plugins.memory_bytes_max), (256 << 20, 256 << 20));
    assert_eq!(config.store.url, "sqlite:/x.db");
    assert_eq!(config.store.durability, Durability::Relaxed);
    assert_eq!(config.store.retention, Some(Duration::from_hours(24)));
    assert_eq!(config.store.archive, Some(PathBuf::from("/old").into()));
    assert_eq!(config.plugins.cache, Path::new("/c"));
}

#[test]
fn other_hosts_reach_a_host_where_it_listens_unless_it_says_where() {
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let address = |text: &str| {
        let text = format!("[host]\nlisten = \"[::1]:9\"\n{text}\n{saga}");
        load_text(&text, &Overrides::default()).0
    };
    assert_eq!(address("").unwrap().config.host.peer_address(), "http://[::1]:9");
    let said = address("address = \"https://Node-B.internal\"").unwrap();
    assert_eq!(said.config.host.peer_address(), "https://node-b.internal");
    for wrong in ["10.0.0.2:7070", "ftp://node-b", "http://node-b/amends", "http://a@node-b", ""] {
        let report = address(&format!("address = \"{wrong}\"")).unwrap_err().to_string();
        assert!(report.contains("host.address"), "{report}");
        assert!(report.contains("the other hosts of the store"), "{report}");
    }
}

/// Reads a config that begins with this, with an admin token in the environment.
fn load_auth(head: &str, flags: OverrideFlags) -> Result<Loaded, Report> {
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let environment = Environment::from_iter([
        ("ADMIN_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("SHORT_TOKEN", "hunter2"),
    ]);
    let overrides = Overrides { flags, environment };
    load_text(&format!("{head}\n{saga}"), &overrides).0
}

/// Reads a config with this table in this environment.
fn load_telemetry(table: &str, environment: &[(&str, &str)]) -> Result<Loaded, Report> {
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let environment = environment.iter().copied().collect();
    let overrides = Overrides { environment, ..Overrides::default() };
    load_text(&format!("{table}\n{saga}"), &overrides).0
}

#[test]
fn spans_go_where_the_table_says_or_else_the_environment() {
    let (grpc, http) = (Protocol::Grpc, Protocol::Http);
    let generic = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://generic:4318");
    let exact = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://exact:4318/spans");
    let protobuf = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let file = "[telemetry]\notlp = \"http://file:4317\"";
    let at = |address: &str, protocol| Some(Endpoint::exact(address, protocol).unwrap());
    for (table, environment, endpoint) in [
        ("", &[][..], None),
        ("", &[protobuf][..], None),
        (file, &[][..], at("http://file:4317", grpc)),
        (file, &[generic, exact][..], at("http://file:4317", grpc)),
        (file, &[protobuf][..], at("http://file:4317/v1/traces", http)),
        ("", &[generic][..], at("http://generic:4318", grpc)),
        ("", &[generic, protobuf][..], at("http://generic:4318/v1/traces", http)),
        (
            "[telemetry]\nprotocol = \"grpc\"",
            &[generic, protobuf][..],
            at("http://generic:4318", grpc),
        ),
        ("", &[generic, exact, protobuf][..], at("http://exact:4318/spans", http)),
        (file, &[("OTEL_SDK_DISABLED", "true")][..], None),
        (file, &[("OTEL_SDK_DISABLED", "false")][..], at("http://file:4317", grpc)),
        (file, &[("OTEL_TRACES_EXPORTER", "none")][..], None),
        (
            "",
            &[generic, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_SDK_DISABLED", "true")],
            None,
        ),
    ] {
        let telemetry = load_telemetry(table, environment).unwrap().config.telemetry;
        let told = telemetry.map(|telemetry| telemetry.endpoint);
        assert_eq!(told, endpoint, "{table} {environment:?}");
    }
    let nowhere = load_telemetry("[telemetry]", &[]).unwrap();
    assert_eq!(nowhere.config.telemetry, None);
    assert_eq!(nowhere.report.warnings(), 1);
    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ada:hunter2@collector")];
    let report = load_telemetry("", &wrong).unwrap_err().to_string();
    assert!(report.contains("has no name and password"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    let json = [generic, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
    let report = load_telemetry("", &json).unwrap_err().to_string();
    assert!(report.contains("this is no protocol that the host speaks"), "{report}");
}

#[test]
fn the_parts_of_spans_that_are_kept_are_each_a_setting() {
    let file = "[telemetry]\notlp = \"http://file:4317\"\n";
    let rules =
        |more: &str| load_telemetry(&format!("{file}{more}"), &[]).unwrap().config.telemetry;
    assert_eq!(rules("").unwrap().rules, TraceRules::default());
    let rules = rules("sample = { success = 1, undo = 0.5 }\nlink_after = \"1h\"").unwrap().rules;
    let sample = SampleRates { success: 1.0, failed: 1.0, undo: 0.5 };
    assert_eq!(rules, TraceRules { sample, link_after: Duration::from_hours(1) });
}

#[test]
fn a_proxy_is_believed_as_the_config_says() {
    let text = "[auth.proxy]\npeers = [\"127.0.0.1\", \"10.0.0.0/8\"]\nuser = \"X-User\"\n\
                roles = { sre = [\"operator\", \"deployer\"] }\npayloads = [\"sre\"]";
    let auth = load_auth(text, OverrideFlags::default()).unwrap().config.auth.unwrap();
    let proxy = auth.proxy.unwrap();
    assert_eq!((proxy.user.as_str(), proxy.groups.as_str()), ("x-user", "x-forwarded-groups"));
    assert!(
        proxy.trusts("10.7.0.1".parse().unwrap()) && !proxy.trusts("11.0.0.1".parse().unwrap())
    );
    assert_eq!(proxy.holder("ada", &["sre"]).roles.len(), 2);
    assert!(proxy.holder("ada", &["other"]).permissions.is_empty());
}

#[test]
fn access_control_is_on_when_its_table_is_there() {
    let none = load_auth("", OverrideFlags::default()).unwrap().config;
    assert_eq!(none.auth, None);
    let empty = load_auth("[auth]", OverrideFlags::default()).unwrap().config;
    assert_eq!(empty.auth.unwrap().admin_token, None);
    let text = "[auth]\nadmin_token = { env = \"ADMIN_TOKEN\" }";
    let loaded = load_auth(text, OverrideFlags::default()).unwrap();
    assert!(!format!("{loaded:?}").contains("0123456789abcdef"), "a secret is printed");
    assert_eq!(loaded.report.findings(), []);
    let token = loaded.config.auth.unwrap().admin_token.unwrap();
    assert_eq!(token.reveal(), "0123456789abcdef0123456789abcdef");
    for (wrong, message) in [
        ("[auth]\nadmin_token = { env = \"SHORT_TOKEN\" }", "fewer than 32 bytes"),
        ("[auth]\nadmin_token = \"hunter2\"", "this is text; a table belongs here"),
        ("[auth]\nadmin_token = { file = \"no.txt\" }", "there is no file"),
        ("[auth]\nadmin_token = { env = \"NO_TOKEN\" }", "is not set"),
        ("auth = true", "this is true or false; a table belongs here"),
        ("[auth]\ntokens = 1", "there is no key `tokens`"),
        ("[auth.proxy]\nroles = { a = [\"admin\"] }", "`peers` is missing"),
        ("[auth.proxy]\npeers = [\"127.0.0.1\"]", "`roles` is missing"),
        ("[auth.proxy]\npeers = []", "nobody would be believed"),
        ("[auth.proxy]\npeers = [\"proxy\"]", "`proxy` is neither an address nor a network"),
        ("[auth.proxy]\nroles = {}", "no group has a role"),
        ("[auth.proxy]\nroles = { a = [\"operater\"] }", "did you mean `operator`?"),
        ("[auth.proxy]\nuser = \"Amends-User\"", "callers send amends-user themselves"),
        ("[auth.proxy]\nuser = \"a b\"", "cannot be the name of a header"),
        ("[auth.proxy]\nuser = \"x-forwarded-groups\"", "are both x-forwarded-groups"),
    ] {
        let report = load_auth(wrong, OverrideFlags::default()).unwrap_err().to_string();
        assert!(report.contains(message) && !report.contains("hunter2"), "{wrong}: {report}");
    }
}

#[test]
fn the_key_of_evidence_is_one_that_a_host_can_use() {
    /// Of `minisign -G -W`, version 0.11.
    const KEY: &str = "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJ+bxyUoOxnWEtExOApUdEJdpdMcrmsa/AWlGoUdMZ6qZsj9nRjs9CWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let saga = "[[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let environment = Environment::from_iter([("HOST_KEY", KEY), ("NO_KEY", "hunter2")]);
    let overrides = Overrides { environment, ..Overrides::default() };
    let read = |line: &str| load_text(&format!("[host]\n{line}\n{saga}"), &overrides).0;
    assert_eq!(read("").unwrap().config.host.evidence_key, None);
    let loaded = read("evidence_key = { env = \"HOST_KEY\" }").unwrap();
    assert!(!format!("{loaded:?}").contains(&KEY[100..140]), "a secret is printed");
    let key = loaded.config.host.evidence_key.unwrap();
    assert_eq!(key.id().to_string(), "75C60E4AC9F1E627");
    for (wrong, message) in [
        ("{ env = \"NO_KEY\" }", "the key cannot be used: it is no secret key"),
        ("\"hunter2\"", "this is text; a table belongs here"),
        ("{ file = \"no.key\" }", "there is no file"),
    ] {
        let report = read(&format!("evidence_key = {wrong}")).unwrap_err().to_string();
        assert!(report.contains(message) && !report.contains("hunter2"), "{wrong}: {report}");
    }
}

#[test]
fn an_address_that_others_reach_needs_access_control_and_tls() {
    let auth = "[auth]\nadmin_token = { env = \"ADMIN_TOKEN\" }\n";
    let (no_auth, no_tls) = ("there is no [auth]", "tls is not set");
    let open = "listen = \"0.0.0.0:7070\"";
    let proxy = format!("{open}\ntls = \"proxy\"");
    for (text, missing) in [
        (format!("[host]\n{open}"), vec![no_tls, no_auth]),
        (format!("[host]\n{proxy}"), vec![no_auth]),
        (format!("{auth}[host]\n{open}"), vec![no_tls]),
        (format!("{auth}[host]\n{proxy}"), vec![]),
        (format!("{auth}[host]\nlisten = \"[::1]:7070\""), vec![]),
        ("[host]\ntls = \"proxy\"".to_owned(), vec![]),
    ] {
        let read = load_auth(&text, OverrideFlags::default());
        let Err(report) = read else {
            assert_eq!(missing, Vec::<&str>::new(), "{text}");
            continue;
        };
        assert_eq!(report.errors(), missing.len(), "{report}");
        for (finding, missing) in report.findings().iter().zip(missing) {
            assert_eq!(finding.key, "host.listen");
            assert!(finding.message.contains(missing), "{report}");
            assert!(finding.help.ends_with("or listen on 127.0.0.1:7070"), "{report}");
        }
    }
    let config = load_auth(&format!("{auth}[host]\n{proxy}"), OverrideFlags::default());
    let host = config.unwrap().config.host;
    assert!(host.tls == Some(HostTls::Proxy) && host.listen.ip().is_unspecified());
}

#[test]
fn a_flag_with_an_address_that_others_reach_is_no_exception() {
    let auth = "[auth]\nadmin_token = { env = \"ADMIN_TOKEN\" }\n";
    let flags = |tls: Option<&str>| OverrideFlags {
        listen: Some("10.0.0.1:80".to_owned()),
        tls: tls.map(str::to_owned),
        ..OverrideFlags::default()
    };
    let report = load_auth("", flags(None)).unwrap_err().to_string();
    assert_eq!(report.matches("--listen: error: host.listen: 10.0.0.1:80 can be").count(), 2);
    let report = load_auth(auth, flags(Some("certificate"))).unwrap_err();
    assert_eq!(report.errors(), 1, "{report}");
    let told = report.to_string();
    assert!(told.starts_with("--tls: error: host.tls: `certificate` is not allowed"), "{told}");
    assert!(load_auth(auth, flags(Some("proxy"))).is_ok());
    let typed = format!("{auth}[host]\nlisten = \"10.0.0.1:80\"\ntls = true");
    assert_eq!(load_auth(&typed, OverrideFlags::default()).unwrap_err().errors(), 1);
}

#[test]
fn a_host_may_have_a_certificate_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["host.pem", "host.key"].map(|name| folder.path().join(name));
    for file in [&certificate, &key] {
        std::fs::write(file, "").unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let tls = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("[host]\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n")
    };
    let own = tls(&certificate, &key);
    let open =
        format!("[auth]\nadmin_token = {{ env = \"ADMIN_TOKEN\" }}\n{own}listen = \"10.0.0.1:80\"");
    let loaded = load_auth(&open, OverrideFlags::default()).unwrap();
    assert_eq!(loaded.report.findings(), []);
    let host = loaded.config.host;
    assert_eq!(host.own_tls(), Some(&TlsFiles { certificate, key: key.clone() }));
    assert_eq!(host.peer_address(), "https://10.0.0.1:80");
    // What stands above the file says that there is a proxy.
    let proxy = OverrideFlags { tls: Some("proxy".to_owned()), ..OverrideFlags::default() };
    let host = load_auth(&own, proxy).unwrap().config.host;
    assert_eq!((host.own_tls(), host.peer_address().as_str()), (None, "http://127.0.0.1:7070"));

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warned = load_auth(&own, OverrideFlags::default()).unwrap().report.to_string();
    assert!(warned.contains("every user of this machine may read the file"), "{warned}");
    let plain = "[store]\nurl = \"postgres://amends@127.0.0.1/amends\"\n";
    let plain = format!("{plain}{own}address = \"http://10.0.0.2:7070\"");
    let warned = load_auth(&plain, OverrideFlags::default()).unwrap().report.to_string();
    assert!(warned.contains("this host takes https only"), "{warned}");

    for (wrong, message) in [
        ("{ certificate = \"a.pem\", key = \"no.key\" }", "there is no file"),
        ("{ certificate = \"a.pem\" }", "`key` is missing"),
        ("{ certificate = \"\", key = \"a.key\" }", "this is not the path of a file"),
        ("{ certificate = 1, key = \"a.key\" }", "this is a whole number; text belongs here"),
        ("{ certificate = \"a\", key = \"a\", keys = 1 }", "there is no key `keys`"),
        ("true", "this is true or false; text belongs here"),
    ] {
        let text = format!("[host]\ntls = {wrong}");
        let report = load_auth(&text, OverrideFlags::default()).unwrap_err().to_string();
        assert!(report.contains(message), "{wrong}: {report}");
    }
}

#[test]
fn a_rate_of_tokens_has_a_burst() {
    let rate = |text: &str| {
        let text = format!("[auth]\nrate = {text}");
        let loaded = load_auth(&text, OverrideFlags::default())?;
        let rate = loaded.config.auth.unwrap().rate.unwrap();
        Ok::<_, Report>((rate.per_second.get(), rate.burst.get()))
    };
    assert_eq!(rate("{ per_second = 200, burst = 1000 }").unwrap(), (200, 1_000));
    assert_eq!(rate("{ per_second = 200 }").unwrap(), (200, 400));
    for (wrong, message) in [
        ("{ burst = 7 }", "`per_second` is missing"),
        ("{ per_second = 0 }", "0 is out of range"),
        ("{ per_second = 1, burst = 0 }", "0 is out of range"),
        ("200", "this is a whole number; a table belongs here"),
        ("{ per_second = 1, per_minute = 1 }", "there is no key `per_minute`"),
    ] {
        let report = rate(wrong).unwrap_err().to_string();
        assert!(report.contains(message), "{wrong}: {report}");
    }
}

#[test]
fn a_host_that_other_machines_cannot_reach_is_warned_of() {
    let head = "[auth]\nadmin_token = { env = \"ADMIN_TOKEN\" }\n\
                [store]\nurl = \"postgres://amends@127.0.0.1/amends\"\n\
                [host]\ntls = \"proxy\"\nlisten = \"0.0.0.0:7070\"\n";
    let warned = load_auth(head, OverrideFlags::default()).unwrap().report.to_string();
    assert!(warned.contains("cannot reach this one at http://0.0.0.0:7070"), "{warned}");
    let said = format!("{head}address = \"http://10.0.0.2:7070\"");
    let warnings = load_auth(&said, OverrideFlags::default()).unwrap().report;
    assert_eq!(warnings.findings(), []);
}

/// Without a signature, a request with events needs a token.
#[test]
fn a_rule_without_secrets_is_warned_of_without_access_control() {
    let rule = "[[on]]\nname = \"o\"\nevent = \"order.*\"\nstart = \"s\"";
    let warned = load_auth(rule, OverrideFlags::default()).unwrap().report.to_string();
    assert!(warned.contains("nothing signs the requests"), "{warned}");
    let loaded = load_auth(&format!("[auth]\n{rule}"), OverrideFlags::default()).unwrap();
    assert_eq!(loaded.report.findings(), []);
}

#[test]
fn a_secret_in_a_file_loses_its_last_newline() {
    let text = "[plugin.p]\nsecrets = { key = { file = \"key.txt\" } }\n\
                [[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let config = load_text(text, &Overrides::default()).0.unwrap().config;
    let secret = &config.plugins.plugins[&"p".parse().unwrap()].secrets["key"];
    assert!(*secret == amends_sandbox::Secret::new("from-a-file".to_owned()));
}

/// The file is read all the same: who may read it is for its owner to say.
#[test]
fn a_secret_in_a_file_that_everybody_may_read_is_warned_of() {
    for (mode, is_warned) in [(0o644, true), (0o604, true), (0o640, false), (0o600, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("amends.toml"), folder.path().join("key.txt"));
        let text = "[plugin.p]\nsecrets = { key = { file = \"key.txt\" } }\n\
                    [[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
        std::fs::write(&path, text).unwrap();
        std::fs::write(&file, "from-a-file").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = load(&path, &Overrides::default()).unwrap().report.to_string();
        let warned = warnings.contains("every user of this machine may read the file")
            && warnings.contains(&format!("chmod o-rwx {}", file.display()));
        assert_eq!(warned, is_warned, "{mode:o}: {warnings}");
    }
}

/// So many of something that a config has its largest size.
fn filled(head: &str, item: impl Fn(usize) -> String) -> String {
    filled_to(CONFIG_BYTES_MAX, head, item)
}

fn filled_to(bytes_max: usize, head: &str, item: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let item = item(number);
        if text.len() + item.len() > bytes_max {
            break;
        }
        text.push_str(&item);
    }
    text
}

/// What costs more than its length shows. Each was minutes or hours.
#[test]
fn the_largest_configs_are_read_in_no_time() {
    let child = |number: usize, children: &str| {
        format!("[[saga]]\nname = \"s{number}\"\ndeadline = \"1s\"\n{children}")
    };
    let runs = |step: &str, number: usize| {
        format!("[[saga.step]]\nname = \"{step}\"\nsaga = \"s{number}\"\n")
    };
    let calls = "[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n";
    let saga = format!("[[saga]]\nname = \"s\"\n{calls}");
    let ladder: String = (0..40)
        .map(|number| child(number, &(runs("a", number + 1) + &runs("b", number + 1))))
        .collect();
    let fields = format!(
        "{saga}input = {{ a = \"1\" }}\n[[saga]]\nname = \"t\"\n{calls}[saga.step.input]\n"
    );
    let cases = [
        ("lines that are not TOML", filled("", |_| "=\n".to_owned())),
        ("tables that are left open", filled("", |_| "a = { b = 1\n".to_owned())),
        ("lists that are left open", filled("a = ", |_| "[\n".to_owned())),
        ("sagas that run one another", filled("", |n| child(n, &runs("a", n + 1)))),
        ("sagas that run the next one twice", ladder + &child(40, calls)),
        ("sagas in circles", filled("", |n| child(n, &(runs("a", n + 1) + &runs("b", n / 2))))),
        (
            "steps of a service that is not there",
            filled(&filled_to(500_000, "", |n| format!("[service.name-{n}]\n")), |n| {
                format!("[[saga]]\nname = \"s{n}\"\n{calls}service = \"nome-{n}\"\n")
            }),
        ),
        ("services that no step names", filled(&saga, |n| format!("[service.name-{n}]\n"))),
        ("keys that there are not", filled("", |n| format!("nome{n} = 1\n"))),
        ("one long key", format!("{saga}{} = 1\n", "n".repeat(CONFIG_BYTES_MAX - 100))),
        (
            "variables that are not set",
            filled(&format!("{saga}[plugin.p.secrets]\n"), |n| {
                format!("a{n} = {{ env = \"K{n}\" }}\n")
            }),
        ),
        ("expressions that are none", filled(&fields, |n| format!("f{n} = \"input.\"\n"))),
        ("expressions of what is not there", filled(&fields, |n| format!("f{n} = \"x{n}\"\n"))),
        (
            "steps",
            filled("[[saga]]\nname = \"s\"\n", |n| {
                format!("[[saga.step]]\nname = \"a{n}\"\nplugin = \"p\"\n")
            }),
        ),
        (
            "names of steps before it",
            filled_to(CONFIG_BYTES_MAX - 8, &format!("{saga}after = [\n"), |n| {
                format!("\"a{n}\",\n")
            }) + "]\n",
        ),
        (
            "one long line",
            filled_to(CONFIG_BYTES_MAX - 8, "plugins.trusted_keys = [", |_| "1,".to_owned()) + "]",
        ),
        (
            "keys in a table of a long name",
            filled(&format!("[plugin.{}]\n", "n".repeat(500_000)), |n| format!("a{n}=1\n")),
        ),
        (
            "settings of a plugin of a long name",
            filled(&format!("[plugin.{}.settings]\n", "n".repeat(500_000)), |n| {
                format!("a{n}=1\n")
            }),
        ),
        ("lists in lists", "a = ".to_owned() + &"[".repeat(CONFIG_BYTES_MAX - 100)),
        ("tables in tables", filled_to(CONFIG_BYTES_MAX - 8, "a", |_| ".a".to_owned()) + " = 1"),
    ];
    for (what, text) in cases {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let overrides = Overrides {
                environment: (0..200).map(|n| (format!("L{n}"), "x")).collect(),
                ..Overrides::default()
            };
            let report = match load_text(&text, &overrides).0 {
                Ok(loaded) => loaded.report,
                Err(report) => report,
            };
            // It is told in two forms.
            tell.send(report.to_string().len() + report.to_json().to_string().len()).unwrap();
        });
        let began = Instant::now();
        let told = told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what}"));
        println!("{what}: {:?}, {told} bytes", began.elapsed());
        assert!(told > 0, "{what}");
    }
}

/// A text of several lines must not look like findings of its own.
#[test]
fn a_finding_is_two_lines_whatever_it_is_about() {
    let text = "[host]\nname = \"a\\n    help: do nothing\\nb.toml:1:1: error: c: d\\u001b[2J\"\n\
                [\"x\\ny\"]\n";
    let report = load_text(text, &Overrides::default()).0.unwrap_err();
    let shown = report.to_string();
    assert_eq!(shown.lines().count(), 2 * report.findings().len(), "{shown}");
    assert!(
        shown.contains("`a\\n    help: do nothing\\nb.toml:1:1: error: c: d\\u001b[2J`"),
        "{shown}"
    );
    let told = report.to_json();
    let message = told[1]["message"].as_str().unwrap();
    assert!(message.contains("\nb.toml"), "programs get it as it is: {told}");
}

/// Neither has an end.
#[test]
fn a_secret_is_read_from_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [Path::new("/dev/zero"), &pipe] {
        let text = format!(
            "[plugin.p]\nsecrets = {{ key = {{ file = \"{}\" }} }}\n\
             [[saga]]\nname = \"s\"\n[[saga.step]]\nname = \"a\"\nplugin = \"p\"\n",
            path.display()
        );
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let report = load_text(&text, &Overrides::default()).0.unwrap_err();
            tell.send(report.to_string()).unwrap();
        });
        let report = told.recv_timeout(Duration::from_secs(20));
        let report = report.unwrap_or_else(|_| panic!("{} is read without end", path.display()));
        assert!(report.contains("is not a file"), "{report}");
    }
}

/// Reads a config with this schedule.
fn load_schedule(schedule: &str) -> Result<Loaded, Report> {
    let saga = "[[saga]]\nname = \"report\"\n[[saga.step]]\nname = \"a\"\nsleep = \"1s\"\n";
    let text = format!("{saga}\n[[schedule]]\n{schedule}");
    load_text(&text, &Overrides::default()).0
}

#[test]
fn a_schedule_becomes_settings() {
    let text = "name = \"nightly\"\ndefinition = \"report\"\ncron = \"30 2 * * *\"\n\
                timezone = \"Europe/Vienna\"\ncatch_up = \"all\"\noverlap = \"skip\"\n\
                tags = { team = \"a\" }\n\
                input = { shop = \"north\", sizes = [1, 2.5], deep = { yes = true } }\n";
    let config = load_schedule(text).unwrap().config;
    let schedule = &config.schedules[0];
    assert_eq!((schedule.name.as_str(), schedule.definition.as_str()), ("nightly", "report"));
    assert_eq!(schedule.pattern.to_string(), "30 2 * * * Europe/Vienna");
    assert_eq!((schedule.catch_up, schedule.overlap), (CatchUp::All, Overlap::Skip));
    assert_eq!(schedule.tags["team"], "a");
    let input = serde_json::to_string(&schedule.input).unwrap();
    assert_eq!(input, r#"{"deep":{"yes":true},"shop":"north","sizes":[1,2.5]}"#);
}

#[test]
fn a_schedule_that_is_wrong_says_what_and_where() {
    let base = "name = \"n\"\ndefinition = \"report\"\ncron = \"0 2 * * *\"\n";
    let cases = [
        (
            "name = \"n\"\ndefinition = \"repotr\"\ncron = \"@daily\"",
            "definition",
            "there is no saga `repotr`",
        ),
        (
            "name = \"n\"\ndefinition = \"report\"\ncron = \"0 2 * *\"",
            "cron",
            "`0 2 * *` is no cron pattern: it has 4 of the 5 fields",
        ),
        (
            "name = \"n\"\ndefinition = \"report\"\ncron = \"0 25 * * MON\"",
            "cron",
            "`0 25 * * MON` is no cron pattern: its hour is `25`, and that field takes 0 to 23",
        ),
        (
            "name = \"n\"\ndefinition = \"report\"\ncron = \"@dayly\"",
            "cron",
            "`@dayly` is no cron pattern",
        ),
        ("name = \"n\"\ndefinition = \"report\"\ncron = \"0 0 31 2 *\"", "cron", "no time fits it"),
        (
            &format!("{base}timezone = \"Europe/Wien\""),
            "timezone",
            "there is no time zone `Europe/Wien`",
        ),
        (&format!("{base}input = {{ day = 2026-03-01 }}"), "input", "JSON has no dates"),
        (&format!("{base}input = {{ scheduled_at = 1 }}"), "input", "the host adds `scheduled_at`"),
        (&format!("{base}input = [1]"), "input", "this is a list"),
        (&format!("{base}tags = {{ schedule = \"x\" }}"), "schedule", "the host sets the tag"),
        (&format!("{base}catch_up = \"some\""), "catch_up", "none of the words"),
        (&format!("{base}[[schedule]]\n{base}"), "name", "two schedules are named `n`"),
    ];
    for (text, key, message) in cases {
        let report = load_schedule(text).unwrap_err();
        let is_it = |finding: &amends_config::Finding| {
            finding.key.ends_with(key) && finding.message.contains(message)
        };
        assert!(report.findings().iter().any(is_it), "{text}: {:?}", report.findings());
    }
    let many = |count: usize| {
        let one = |number: usize| base.replace("\"n\"", &format!("\"n{number}\""));
        (0..count).map(one).collect::<Vec<_>>().join("[[schedule]]\n")
    };
    assert_eq!(load_schedule(&many(256)).unwrap().config.schedules.len(), 256);
    let report = load_schedule(&many(257)).unwrap_err();
    assert!(report.findings()[0].message.contains("at most 256"), "{:?}", report.findings());
}

/// Reads a config with this rule for events.
fn load_rule(rule: &str) -> Result<Loaded, Report> {
    let saga = "[[saga]]\nname = \"purchase\"\n[[saga.step]]\nname = \"a\"\nwait = \"paid\"\n";
    load_text(&format!("{saga}\n[[on]]\n{rule}"), &Overrides::default()).0
}

#[test]
fn a_rule_for_events_becomes_settings() {
    let text = "name = \"orders\"\nevent = \"order.*\"\nstart = \"purchase\"\n\
                key = \"'o-' + event.data.id\"\ninput = { id = \"event.data.id\" }\n\
                tags = { shop = \"event.source\" }\n\
                [[on]]\nname = \"paid\"\nevent = \"payment.received\"\nsignal = \"paid\"\n\
                saga = \"event.subject\"\n";
    let config = load_rule(text).unwrap().config;
    let [orders, paid] = config.event_rules.as_slice() else { panic!("{config:?}") };
    assert_eq!((orders.name.as_str(), orders.event.to_string().as_str()), ("orders", "order.*"));
    let EventEffect::Start(start) = &orders.effect else { panic!("{orders:?}") };
    assert_eq!(start.definition.as_str(), "purchase");
    assert_eq!(start.key.as_ref().unwrap().source(), "'o-' + event.data.id");
    assert_eq!(start.tags["shop"].source(), "event.source");
    let EventPayload::Fields(fields) = &start.input else { panic!("{start:?}") };
    assert_eq!(fields["id"].source(), "event.data.id");
    let EventEffect::Signal(signal) = &paid.effect else { panic!("{paid:?}") };
    assert!(matches!(&signal.to, SignalTarget::Saga(saga) if saga.source() == "event.subject"));
    assert!(matches!(signal.payload, EventPayload::Data));
    let rule =
        |number: usize| format!("name = \"n{number}\"\nevent = \"*\"\nstart = \"purchase\"\n");
    let many = |count| (0..count).map(rule).collect::<Vec<_>>().join("[[on]]\n");
    assert_eq!(load_rule(&many(64)).unwrap().config.event_rules.len(), 64);
    let report = load_rule(&many(65)).unwrap_err();
    assert!(report.to_string().contains("65 rules, at most 64 are allowed"), "{report}");
}

/// Reads a config with this index.
fn load_index(index: &str) -> Result<Loaded, Report> {
    let text = format!(
        "[[saga]]\nname = \"order\"\nindex = {index}\n[[saga.step]]\nname = \"a\"\nsleep = \"1s\"\n"
    );
    load_text(&text, &Overrides::default()).0
}

#[test]
fn an_index_becomes_a_part_of_the_definition() {
    let index = "{ customer = \"input.customer_id\", total = \"double(input.total)\" }";
    let config = load_index(index).unwrap().config;
    let names: Vec<_> = config.definitions[0].index_names().map(ToString::to_string).collect();
    assert_eq!(names, ["customer", "total"]);
    let none = load_index("{}").unwrap().config;
    assert_ne!(none.definitions[0].digest(), config.definitions[0].digest());
}

#[test]
fn an_index_that_is_wrong_says_what_and_where() {
    let cases = [
        ("\"input.a\"", "index", "a table of expressions"),
        ("{ a = 7 }", "index.a", "an expression"),
        ("{ Customer = \"input.a\" }", "index.Customer", "is not a name"),
        ("{ a = \"input.a +\" }", "index.a", "is not a CEL expression"),
        ("{ a = \"inptu.a\" }", "index.a", "uses `inptu`"),
        ("{ a = \"steps.a.output\" }", "index.a", "uses `steps`"),
        ("{ a = \"saga.id\" }", "index.a", "uses `saga`"),
        ("{ a = \"[input.a]\" }", "index.a", "which is not indexed"),
        ("{ a = \"upper(input.a)\" }", "index.a", "upper"),
    ];
    for (index, key, message) in cases {
        let report = load_index(index).unwrap_err();
        let key = format!("saga.order.{key}");
        let is_it = |finding: &amends_config::Finding| {
            finding.key == key && finding.message.contains(message)
        };
        assert!(report.findings().iter().any(is_it), "{index}: {:?}", report.findings());
    }
    let many = |count: usize| {
        let one = |number: usize| format!("n{number} = \"input.a\"");
        format!("{{ {} }}", (0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    assert!(load_index(&many(16)).is_ok());
    let report = load_index(&many(17)).unwrap_err();
    assert!(report.findings()[0].message.contains("at most 16"), "{:?}", report.findings());
}
