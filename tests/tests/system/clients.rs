//! Clients that generators make from the committed OpenAPI document. The programs, the commands and what they print
//! are those of the page on clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::access::asker::{self, AUTH};
use crate::place::{Host, Place, example, repository, stderr, stdout};
use crate::python::python_with;

const PAGE: &str = "host/docs/src/how-to/clients.md";

/// Where the page has its token.
const TOKEN_FILE: &str = "/tmp/shop.token";

/// What the page has pip install.
const LIBRARIES: [&str; 2] = ["openapi-python-client==0.29.1", "mypy==2.4.1"];

/// Mistakes in the use of a client, each of which the compiler has to find.
const MISTAKES: &str = include_str!("clients/mistakes.ts");

/// The blocks of this language in a section of the page.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let text = text.split("\n## ").next().unwrap_or_default();
    let (mut blocks, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n") + "\n");
            }
        }
    }
    blocks
}

/// The only block of this language in a section of the page.
fn block(section: &str, language: &str) -> String {
    let mut blocks = blocks(section, language);
    assert_eq!(blocks.len(), 1, "blocks of `{language}` in `{section}`");
    blocks.remove(0)
}

/// A host with access control on the order example.
fn host() -> (Place, Host) {
    let place = Place::example();
    let config = place.path("amends.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + AUTH).unwrap();
    let host = asker::run(&place);
    (place, host)
}

/// Puts into a folder what the commands of the page read.
fn fill(folder: &Path, host: &Host) {
    let token = asker::make(host, "shop", &["service", "viewer"], false);
    fs::write(folder.join("shop.token"), token).unwrap();
    fs::copy(repository().join("host/api/openapi.json"), folder.join("openapi.json")).unwrap();
    fs::copy(example().join("order.json"), folder.join("order.json")).unwrap();
}

/// Runs commands in a folder, with the programs of `bin` first; what they print.
fn run(commands: &str, folder: &Path, host: &Host, bin: &Path) -> String {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-euc", &commands.replace(TOKEN_FILE, "shop.token")])
        .current_dir(folder)
        .env("PATH", path)
        .env("AMENDS_HOST", host.url(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// The folder of a project that has installed what these commands install. It stands beside the build.
fn installed(commands: &str, host: &Host) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-typescript");
    // Written last: a folder without it was cut off.
    let list = folder.join("installed");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == commands) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    run(commands, &folder, host, &folder.join("node_modules/.bin"));
    fs::write(&list, commands).unwrap();
    folder
}

#[test]
fn a_generated_client_in_typescript_compiles_and_runs_an_order() {
    const SECTION: &str = "TypeScript";
    if Command::new("npm").arg("--version").output().is_err() {
        amends_tests::skipped("a client in TypeScript", "there is no npm (Debian: npm)");
        return;
    }
    let (_place, host) = host();
    let commands = blocks(SECTION, "sh");
    let [install, use_it] = commands.as_slice() else { panic!("{commands:?}") };
    let folder = installed(install, &host);
    fill(&folder, &host);
    fs::write(folder.join("order.ts"), block(SECTION, "typescript")).unwrap();
    let bin = folder.join("node_modules/.bin");
    let printed = run(use_it, &folder, &host, &bin);
    assert!(printed.ends_with(&block(SECTION, "")), "{printed}");

    fs::write(folder.join("mistakes.ts"), MISTAKES).unwrap();
    let check = "tsc --strict --noEmit --target es2022 --module nodenext mistakes.ts";
    run(check, &folder, &host, &bin);
}

#[test]
fn a_generated_client_in_python_is_sound_and_runs_an_order() {
    const SECTION: &str = "Python";
    let (place, host) = host();
    let commands = blocks(SECTION, "sh");
    let [install, use_it] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(*install, format!("pip install {}\n", LIBRARIES.join(" ")));
    let bin = python_with("clients", &LIBRARIES);
    let folder = place.path("client");
    fs::create_dir(&folder).unwrap();
    fill(&folder, &host);
    fs::write(folder.join("generator.yaml"), block(SECTION, "yaml")).unwrap();
    fs::write(folder.join("order.py"), block(SECTION, "python")).unwrap();
    // It fails when the generator leaves out an operation.
    let printed = run(use_it, &folder, &host, &bin);
    assert_eq!(printed, block(SECTION, ""));
}
