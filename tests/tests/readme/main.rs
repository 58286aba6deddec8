//! The README, the guide for authors and the book are true: a reader who pastes the commands of a
//! page, block after block, into a fresh clone gets what the page shows. CONTRIBUTING.md says how a
//! block tells that it is not run, or that its numbers vary.
//!
//! `AMENDS_PAGES=how-to/deploy` walks the pages whose path contains this text, and no others.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod book;
mod clone;
mod compare;
mod page;
#[path = "../system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod reference;
mod snippets;
mod terminal;
mod walk;

use std::path::Path;

use crate::page::{Block, Page};
use crate::walk::Walk;

#[test]
fn the_commands_of_the_guide_for_authors_print_what_it_shows() {
    walk_all(vec![Page::read("plugins/README.md")], "author");
}

/// One after the other in one clone, so that what is compiled for one page is there for the next.
#[test]
fn the_commands_of_pages_that_compile_print_what_the_pages_show() {
    let mut pages = vec![Page::read("README.md")];
    pages.extend(book::pages().into_iter().filter(compiles));
    walk_all(pages, "host");
}

#[test]
fn the_commands_of_all_other_pages_print_what_the_pages_show() {
    let pages = book::pages().into_iter().filter(|page| !compiles(page)).collect();
    walk_all(pages, "book");
}

/// Whether the page compiles components of this repository.
fn compiles(page: &Page) -> bool {
    page.blocks.iter().any(|block| block.is_run() && block.text.contains("plugins/build "))
}

/// Walks the pages that have commands, one after the other.
fn walk_all(pages: Vec<Page>, clone: &str) {
    let wanted = std::env::var("AMENDS_PAGES").unwrap_or_default();
    let mut told = Vec::new();
    for page in pages {
        if !page.name.contains(&wanted) || !page.blocks.iter().any(Block::is_run) {
            continue;
        }
        if let Some(missing) = missing_tool() {
            amends_tests::skipped(&format!("the commands of {}", page.name), &missing);
            continue;
        }
        told.extend(Walk::new(&page, clone).all().iter().map(ToString::to_string));
    }
    assert!(told.is_empty(), "{} differences:\n\n{}", told.len(), told.join("\n"));
}

/// What the commands need and this machine lacks.
fn missing_tool() -> Option<String> {
    if !place::repository().join(".git").exists() {
        return Some("this folder is no clone of the repository".to_owned());
    }
    let path = std::env::var("PATH").unwrap();
    let is_there = |name: &str| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    let program =
        ["git", "curl", "clang", "openssl", "zstd"].into_iter().find(|name| !is_there(name));
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
