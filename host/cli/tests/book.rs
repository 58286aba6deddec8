//! The page of the book on the command line is what the binary prints.
//!
//! When a help text changes, this writes the page anew:
//!
//! ```sh
//! AMENDS_BOOK_UPDATE=1 cargo test --release -p amends --test book
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The first heading of what is generated; what stands before it is written by hand.
const FIRST_VERB: &str = "\n### ";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/cli.md")
}

fn help(verb: &[String]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    let output = command.args(verb).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{verb:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs that a help text lists, but `help` itself.
fn verbs(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    // Of a description that goes on below, no line begins a verb.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The sections of a verb and of the verbs below it.
fn sections(verb: &[String]) -> String {
    let help = help(verb);
    let level = "#".repeat(2 + verb.len());
    // Lines that end with blanks are not for a file.
    let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
    let own = format!("\n{level} {}\n\n```text\n{}\n```\n", verb.join(" "), lines.join("\n"));
    let below = verbs(&help).into_iter().map(|name| sections(&[verb, &[name]].concat()));
    std::iter::once(own).chain(below).collect()
}

#[test]
fn the_reference_is_what_the_binary_prints() {
    let text = std::fs::read_to_string(page()).unwrap();
    let (by_hand, _) = text.split_once(FIRST_VERB).unwrap();
    let verbs = verbs(&help(&[]));
    assert!(verbs.len() > 20, "{verbs:?}");
    let mut generated = by_hand.to_owned();
    for verb in &verbs {
        generated += &sections(std::slice::from_ref(verb));
        assert!(by_hand.contains(&format!("(#{verb})")), "the first table of cli.md has no {verb}");
    }
    if std::env::var_os("AMENDS_BOOK_UPDATE").is_some() {
        std::fs::write(page(), &generated).unwrap();
        return;
    }
    let differs = text.lines().zip(generated.lines()).position(|(shown, printed)| shown != printed);
    let line = differs.unwrap_or_else(|| text.lines().count().min(generated.lines().count()));
    assert!(
        text == generated,
        "cli.md:{}: not what the binary prints; AMENDS_BOOK_UPDATE=1 writes the page anew\n\
         shown:   {:?}\nprinted: {:?}",
        line + 1,
        text.lines().nth(line),
        generated.lines().nth(line)
    );
}
