//! The page of the book on the config has the keys and defaults of the reader, and no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use amends_config::{Loaded, OverrideFlags, Overrides, Report, load};
use clap::Args as _;

/// Each table of the page, and a config that ends with that table.
const TABLES: [(&str, &str); 22] = [
    ("[host]", "[host]"),
    ("[auth]", "[auth]"),
    ("[auth.proxy]", "[auth.proxy]\npeers = [\"127.0.0.1\"]\nroles = { sre = [\"operator\"] }"),
    (
        "[namespace.NAME]",
        "[namespace.shop]\nsaga = [{ name = \"t\", step = [{ name = \"a\", sleep = \"1s\" }] }]",
    ),
    ("[telemetry]", "[telemetry]\notlp = \"http://127.0.0.1:4317\""),
    ("[store]", "[store]"),
    ("[plugins]", "[plugins]"),
    ("[plugin.NAME]", "[plugin.inventory]"),
    ("[plugin.NAME.secrets]", "[plugin.inventory.secrets.key]"),
    ("[service.NAME]", "[service.carrier]"),
    ("breaker", "[service.carrier.breaker]\nfailure_rate = 0.5\nopen_for = \"60s\""),
    ("[[saga]]", "[[saga]]\nname = \"t\"\nstep = [{ name = \"a\", sleep = \"1s\" }]"),
    ("[[saga.step]]", "[[saga.step]]\nname = \"b\"\nplugin = \"inventory\""),
    ("undo", "[[saga.step]]\nname = \"b\"\nplugin = \"inventory\"\n[saga.step.undo]"),
    ("retry", "[[saga.step]]\nname = \"b\"\nplugin = \"inventory\"\n[saga.step.retry]"),
    ("wait", "[[saga.step]]\nname = \"b\"\n[saga.step.wait]\nsignal = \"approved\""),
    (
        "[[subscription]]",
        "[[subscription]]\nname = \"billing\"\nurl = \"https://billing.example.com\"",
    ),
    ("[[schedule]]", "[[schedule]]\nname = \"nightly\"\ndefinition = \"s\"\ncron = \"0 2 * * *\""),
    ("[[on]]", "[[on]]\nname = \"orders\"\nevent = \"order.placed\"\nstart = \"s\""),
    (
        "from",
        "[[on]]\nname = \"orders\"\nevent = \"order.placed\"\nstart = \"s\"\n[on.from]\n\
         nats = \"tls://nats.example.com\"\nstream = \"ORDERS\"",
    ),
    (
        "batch",
        "[[subscription]]\nname = \"billing\"\nurl = \"https://billing.example.com\"\n\
         [subscription.batch]",
    ),
    (
        "each",
        "[[saga.step]]\nname = \"b\"\nplugin = \"inventory\"\n[saga.step.each]\nlist = \"input\"",
    ),
];

/// What stands before the table.
const BEFORE: &str = "[[saga]]\nname = \"s\"\n\n[[saga.step]]\nname = \"a\"\nsleep = \"1s\"\n\n";

/// A row of a table of the page.
struct Row {
    /// The name of the table, as in [`TABLES`].
    table: String,
    key: String,
    /// The column of defaults.
    default: String,
    line: String,
}

fn rows() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/config.md");
    let (mut rows, mut table) = (Vec::new(), "");
    let page = std::fs::read_to_string(page).unwrap();
    for line in page.lines() {
        let code = line.split('`').nth(1).unwrap_or_default();
        if line.starts_with("## ") || (line.starts_with('`') && line.ends_with(':')) {
            table = code;
        } else if line.starts_with("| `") && !table.is_empty() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            // Two tables have one head in common, and each row says of which it is.
            let of = ["wait", "each"].into_iter().find(|of| line.contains(&format!("of `{of}`: ")));
            rows.push(Row {
                table: of.unwrap_or(table).to_owned(),
                key: code.to_owned(),
                default: cells[3].to_owned(),
                line: line.to_owned(),
            });
        }
    }
    rows
}

/// Reads a config that ends with a table and this line in it.
fn read(table: &str, line: &str) -> Result<Loaded, Report> {
    let (_, start) = TABLES.iter().find(|(name, _)| *name == table).unwrap();
    // The same folder each time, because paths in a config count from it.
    let folder = std::env::temp_dir().join(format!("amends-config-book-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{:?}.toml", std::thread::current().id()));
    std::fs::write(&path, format!("{BEFORE}{start}\n{line}\n")).unwrap();
    let read = load(&path, &Overrides::default());
    std::fs::remove_file(&path).unwrap();
    read
}

/// The keys that the reader knows in a table. It lists them where it meets another one.
fn keys(table: &str) -> BTreeSet<String> {
    let report = read(table, "no_such_key_at_all = 1").unwrap_err();
    let told = |finding: &&amends_config::Finding| finding.message.contains("no_such_key_at_all");
    let finding = report.findings().iter().find(told).unwrap();
    let (_, list) = finding.help.split_once("the keys here are ").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_page_has_the_keys_of_the_reader() {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows() {
        assert!(shown.entry(row.table).or_default().insert(row.key), "twice: {}", row.line);
    }
    let known = TABLES.iter().map(|(table, _)| ((*table).to_owned(), keys(table)));
    assert_eq!(shown, known.collect());
}

#[test]
fn the_defaults_of_the_page_are_those_of_the_reader() {
    let mut compared = 0;
    for row in rows() {
        // A default in words, such as "the machine's name", cannot be compared.
        let Some(value) = row.default.strip_prefix('`') else { continue };
        let (value, _) = value.split_once('`').unwrap();
        if toml::from_str::<toml::Table>(&format!("key = {value}")).is_err() {
            continue;
        }
        let without = read(&row.table, "").unwrap().config;
        let with = read(&row.table, &format!("{} = {value}", row.key)).unwrap().config;
        assert_eq!(format!("{with:?}"), format!("{without:?}"), "{}", row.line);
        compared += 1;
    }
    assert!(compared > 25, "{compared} defaults: where are the others?");
    let other = read("[plugin.NAME]", "reuse = 7").unwrap().config;
    let default = read("[plugin.NAME]", "reuse = 0").unwrap().config;
    assert_ne!(format!("{other:?}"), format!("{default:?}"), "defaults are not compared at all");
}

#[test]
fn the_page_has_the_flags_and_variables_that_stand_above_the_file() {
    let rows = rows();
    let flags = OverrideFlags::augment_args(clap::Command::new("flags"));
    let shown: Vec<_> = flags.get_arguments().filter(|flag| !flag.is_hide_set()).collect();
    assert!(shown.len() > 5, "{shown:?}");
    for flag in shown {
        let help = flag.get_help().unwrap().to_string();
        let (key, variable) = help.split_once(" [env: ").unwrap();
        let (table, key) = key.split_once('.').unwrap();
        let row = rows.iter().find(|row| row.table == format!("[{table}]") && row.key == key);
        let row = row.unwrap();
        for named in [format!("--{}", flag.get_long().unwrap()), variable.replace(']', "")] {
            assert!(row.line.contains(&format!("`{named}`")), "{named} is not in {}", row.line);
        }
    }
}
