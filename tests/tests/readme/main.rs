//! The README and the guide for authors are true: who pastes its commands, block after block, into a fresh clone gets what the page
//! shows. CONTRIBUTING.md says how a block tells that it is not run, or that its numbers vary.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod clone;
mod compare;
mod page;
#[path = "../system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod snippets;
mod terminal;
mod walk;

use std::io::Write as _;
use std::path::Path;

use crate::page::Page;
use crate::walk::Walk;

#[test]
fn who_pastes_the_page_gets_what_it_shows() {
    walks("README.md", "host");
}

#[test]
fn who_pastes_the_guide_for_authors_gets_what_it_shows() {
    walks("plugins/README.md", "author");
}

fn walks(name: &'static str, clone: &str) {
    if let Some(missing) = missing_tool() {
        // Not by `println!`, which is shown of tests only that fail.
        let told = format!("SKIPPED: the commands of {name}: {missing}\n");
        std::io::stderr().write_all(told.as_bytes()).unwrap();
        return;
    }
    let page = Page::read(name);
    let mismatches = Walk::new(&page, clone).all();
    let told: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} of {name}:\n\n{}", told.len(), told.join("\n"));
}

/// What the commands need and this machine lacks.
fn missing_tool() -> Option<String> {
    if !place::repository().join(".git").exists() {
        return Some("this folder is no clone of the repository".to_owned());
    }
    let path = std::env::var("PATH").unwrap();
    let is_there = |name: &str| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    let program = ["git", "curl", "clang"].into_iter().find(|name| !is_there(name));
    // As tests/install.sh sees it: rustup's, or Debian's.
    let target = ["--print", "target-libdir", "--target", "wasm32-unknown-unknown"];
    let rustup = std::process::Command::new("rustc").args(target).output().unwrap();
    let rustup = place::stdout(&rustup);
    let debian = ["/usr/bin/cargo", "/usr/bin/wasm-ld", "/usr/lib/rustlib/src"];
    let has_rust = (!rustup.is_empty() && Path::new(rustup.trim()).is_dir())
        || debian.iter().all(|path| Path::new(path).exists());
    let rust = (!has_rust).then_some("Rust for WebAssembly");
    let has_c = Path::new("/usr/include/wasm32-wasi").is_dir();
    let c = (!has_c).then_some("a C library for WebAssembly");
    program.or(rust).or(c).map(|missing| format!("{missing} is not installed"))
}
