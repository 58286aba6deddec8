//! The book as a whole: its pages, its links, and the blocks of commands that nobody runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use crate::page::{Page, Remark};
use crate::place::repository;

/// The source of the book, from the root of the repository.
const SOURCE: &str = "host/docs/src";

/// Pages outside of the book whose links are checked too.
const OTHER_PAGES: [&str; 6] = [
    "README.md",
    "plugins/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "host/ARCHITECTURE.md",
];

/// The blocks of commands that no test runs: the page, and the first line of the block. The reason
/// stands in the page. Whoever adds one adds it here, and so shows it to the reviewer.
const NOT_RUN: [(&str, &str); 33] = [
    ("README.md", "tests/run"),
    ("plugins/README.md", "npm install --save-dev esbuild"),
    (
        "host/docs/src/how-to/deploy.md",
        "amends plugin deploy oci://ghcr.io/acme/inventory@sha256:… --dry-run",
    ),
    ("host/docs/src/how-to/schedule.md", "amends schedule list"),
    ("host/docs/src/how-to/subscribe.md", "export BILLING_SECRET=whsec_$(openssl rand -base64 32)"),
    ("host/docs/src/how-to/subscribe.md", "amends subscription list"),
    ("host/docs/src/how-to/plugin-languages.md", "examples/polyglot/run"),
    ("host/docs/src/how-to/plugin-languages.md", "npm install --save-dev esbuild"),
    (
        "host/docs/src/how-to/clients.md",
        "amends token new shop --role service,viewer > /tmp/shop.token",
    ),
    ("host/docs/src/how-to/clients.md", "curl -s localhost:7070/v1/openapi.json > openapi.json"),
    ("host/docs/src/how-to/clients.md", "npm init --yes && npm pkg set type=module"),
    ("host/docs/src/how-to/clients.md", "npx openapi-typescript openapi.json --output amends.ts"),
    ("host/docs/src/how-to/clients.md", "pip install openapi-python-client==0.29.1 mypy==2.4.1"),
    (
        "host/docs/src/how-to/clients.md",
        "openapi-python-client generate --path openapi.json --config generator.yaml --meta none \
         --output-path amends --overwrite --fail-on-warning",
    ),
    ("host/docs/src/operations/install.md", "cargo build --profile dist --locked -p amends"),
    (
        "host/docs/src/operations/install.md",
        "install -m 755 target/dist/amends /usr/local/bin/amends",
    ),
    (
        "host/docs/src/operations/install.md",
        "sudo -u amends amends check /etc/amends/amends.toml --secrets",
    ),
    (
        "host/docs/src/operations/install.md",
        "sudo install -m 644 host/packaging/amends.service /etc/systemd/system/",
    ),
    ("host/docs/src/operations/packages.md", "cargo build --profile dist --locked -p amends"),
    ("host/docs/src/operations/packages.md", "sudo apt install /tmp/amends_0.1.0_amd64.deb"),
    ("host/docs/src/operations/packages.md", "sudo apt install /tmp/amends_0.2.0_amd64.deb"),
    (
        "host/docs/src/operations/packages.md",
        "podman build -f host/packaging/Containerfile -t amends:0.1.0 .",
    ),
    ("host/docs/src/operations/packages.md", "export AMENDS_ADMIN_TOKEN=$(openssl rand -hex 32)"),
    (
        "host/docs/src/operations/packages.md",
        "kubectl create secret generic amends --from-literal=admin-token=\"$(openssl rand -hex 32)\"",
    ),
    ("host/docs/src/operations/postgres.md", "createuser amends"),
    (
        "host/docs/src/operations/postgres.md",
        "amends store copy sqlite:data/amends.db postgres://amends@127.0.0.1/amends",
    ),
    ("host/docs/src/operations/cluster-example.md", "examples/cluster/run"),
    ("host/docs/src/operations/cluster-example.md", "export PATH=\"$PWD/target/release:$PATH\""),
    ("host/docs/src/operations/backup.md", "litestream replicate -config litestream.yml"),
    (
        "host/docs/src/operations/backup.md",
        "litestream restore -config litestream.yml -o /tmp/copy.db /var/lib/amends/amends.db",
    ),
    (
        "host/docs/src/operations/upgrade.md",
        "/tmp/amends-new check /etc/amends/amends.toml --secrets",
    ),
    ("host/docs/src/operations/sizing.md", "amends bench"),
    ("host/docs/src/operations/security.md", "ssh -N -L 7070:localhost:7070 amends-host &"),
];

/// Languages of blocks that have no commands; the empty one is an output.
const WITHOUT_COMMANDS: [&str; 9] =
    ["", "toml", "json", "text", "rust", "python", "typescript", "ini", "yaml"];

static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\]\(([^()\s]+)\)").unwrap());
static CODE: LazyLock<Regex> = LazyLock::new(|| Regex::new("`[^`]*`").unwrap());

/// Every page of the book, in the order of its table of contents.
pub(crate) fn pages() -> Vec<Page> {
    let contents = Page::read(&format!("{SOURCE}/SUMMARY.md"));
    let links = LINK.captures_iter(&contents.text);
    links.map(|link| Page::read(&format!("{SOURCE}/{}", &link[1]))).collect()
}

/// Every page whose commands are those of this version.
pub(crate) fn all_pages() -> Vec<Page> {
    let others = ["README.md", "plugins/README.md"].map(Page::read);
    others.into_iter().chain(pages()).collect()
}

/// The text outside of blocks.
fn prose(page: &Page) -> impl Iterator<Item = (usize, &str)> {
    let mut is_block = false;
    (1..).zip(page.text.lines()).filter(move |(_, line)| {
        let is_fence = line.starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    })
}

/// The anchors of a page's headings, as mdBook and forges make them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(page).filter(|(_, line)| line.starts_with('#')) {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let text = text.replace(' ', "-");
        let anchor: String =
            text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let time = times.entry(anchor.clone()).or_default();
        anchors.insert(if *time == 0 { anchor } else { format!("{anchor}-{time}") });
        *time += 1;
    }
    anchors
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// Everything that is wrong with the links of a page.
fn dead_links(page: &Page) -> Vec<String> {
    let mut dead = Vec::new();
    for (number, line) in prose(page) {
        let line = CODE.replace_all(line, "");
        for link in LINK.captures_iter(&line) {
            let target = &link[1];
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let name = if file.is_empty() {
                PathBuf::from(&page.name)
            } else {
                plain(&Path::new(&page.name).parent().unwrap().join(file))
            };
            let has_heading = || {
                if file.is_empty() {
                    return anchors(page).contains(anchor);
                }
                anchors(&Page::read(name.to_str().unwrap())).contains(anchor)
            };
            let wrong = if !repository().join(&name).exists() {
                Some("there is no such file")
            } else if page.name.starts_with(SOURCE) && !name.starts_with(SOURCE) {
                Some("it leads out of the book")
            } else if !anchor.is_empty() && !has_heading() {
                Some("the page has no such heading")
            } else {
                None
            };
            dead.extend(wrong.map(|wrong| format!("{}: {target}: {wrong}", page.at(number))));
        }
    }
    dead
}

#[test]
fn no_link_of_a_page_is_dead() {
    let others = OTHER_PAGES.into_iter().map(Page::read);
    let dead: Vec<_> = others.chain(pages()).flat_map(|page| dead_links(&page)).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn a_dead_link_is_found() {
    let text = "[a](SUMMARY.md) [b](nowhere.md) `[c](code.md)` [d](troubleshooting.md#no-such) \
                [e](https://example.com/x) [f](../../../README.md)\n# A `b` c\n[g](#a-b-c)\n";
    let name = format!("{SOURCE}/introduction.md");
    let page = Page { name, text: text.to_owned(), blocks: Vec::new() };
    let dead = dead_links(&page);
    let is_told = |part: &str| dead.iter().any(|dead| dead.contains(part));
    assert!(is_told("nowhere.md: there is no such file"), "{dead:?}");
    assert!(is_told("troubleshooting.md#no-such: the page has no such heading"), "{dead:?}");
    assert!(is_told("README.md: it leads out of the book"), "{dead:?}");
    assert_eq!(dead.len(), 3, "{dead:?}");
}

/// Each file is in the table of contents, or it would not be in the book.
#[test]
fn every_page_is_in_the_table_of_contents() {
    let root = repository().join(SOURCE);
    let (mut folders, mut found) = (vec![root.clone()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                found.insert(format!("{SOURCE}/{name}"));
            }
        }
    }
    found.remove(&format!("{SOURCE}/SUMMARY.md"));
    let listed: BTreeSet<_> = pages().into_iter().map(|page| page.name).collect();
    assert_eq!(listed, found);
}

#[test]
fn the_blocks_that_no_test_runs_are_known() {
    let mut found = Vec::new();
    for page in all_pages() {
        for block in &page.blocks {
            let is_known = block.language == "sh" || WITHOUT_COMMANDS.contains(&&*block.language);
            assert!(is_known, "{}: commands are in blocks of `sh`", page.at(block.line));
            let is_command = |line: &str| line.starts_with("amends ") || line.starts_with("$ ");
            let has_command = block.language == "text" && block.text.lines().any(is_command);
            assert!(!has_command, "{}: a command that is not run", page.at(block.line));
            if matches!(block.remark, Some(Remark::NotRun(_))) {
                let first = block.text.lines().next().unwrap_or_default();
                let first = first.split("  #").next().unwrap_or_default().trim_end();
                found.push((page.name.clone(), first.to_owned()));
            }
        }
    }
    let found: Vec<_> = found.iter().map(|(page, first)| (page.as_str(), first.as_str())).collect();
    assert_eq!(found, NOT_RUN);
}

/// The first page is one that a newcomer reads to its end.
#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= 180, "{lines} lines; move what is beyond 180 to the book");
}
