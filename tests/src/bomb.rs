//! Components that a compiler, a validator of schemas or a reader of manifests cannot cope with: each
//! is refused when it is loaded.

use std::fmt::Write as _;

use crate::Component;

/// One of them.
#[derive(Debug)]
pub struct Bomb {
    /// What it is.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Words of the reason for which it is refused.
    pub words: &'static str,
}

/// Those that are refused in no time, because a look at them is enough.
#[must_use]
pub fn bombs() -> Vec<Bomb> {
    let bomb = |name, bytes, words| Bomb { name, bytes, words };
    vec![
        bomb(
            "nested loops",
            nested_loops(5_000, 1),
            "5000 blocks within one another, at most 2000",
        ),
        bomb(
            "deeper loops",
            nested_loops(20_000, 1),
            "20000 blocks within one another, at most 2000",
        ),
        bomb("branch tables", branch_tables(6_000, 1_000), "bytes, at most 1048576 are allowed"),
        bomb("fewer branch tables", branch_tables(150, 1_000), "targets of branch tables, at most"),
        bomb(
            "locals",
            with_function(&format!("(local {})", "i32 ".repeat(6_000))),
            "6000 local var",
        ),
        bomb("functions", with_function(&")(func ".repeat(200_000)), "functions, at most 200000"),
        bomb(
            "patterns",
            schema(&patterns(400, r"[\\p{L}\\p{N}]{200}N")),
            "has 400 patterns, at most 64",
        ),
        bomb("fewer patterns", schema(&patterns(64, r"[\\p{L}\\p{N}]{200}N")), "repeat less of it"),
        bomb(
            "pattern that goes back",
            schema(&patterns(1, r"^(a|a)*\\1b0")),
            "leave out what looks",
        ),
        bomb(
            "long version",
            long_version(),
            "its version has 1900000 bytes, at most 64 are allowed",
        ),
    ]
}

/// More memory to compile than anybody gives: many branches, over all of which many variables live.
#[must_use]
pub fn live_locals() -> Vec<u8> {
    const LOCALS: usize = 4_000;
    let mut text = format!("(local {})", "i32 ".repeat(LOCALS));
    for at in 0..40_000 {
        let (one, other) = (at % LOCALS, (at * 7 + 1) % LOCALS);
        let _ = write!(
            text,
            "local.get {one} if local.get {other} i32.const {at} i32.add local.set {one} end "
        );
    }
    for at in 0..LOCALS {
        let _ = write!(text, "local.get {at} drop ");
    }
    with_function(&text)
}

/// More processor time to compile than anybody gives: each function is within the limits.
#[must_use]
pub fn many_nested_loops() -> Vec<u8> {
    nested_loops(1_900, 200)
}

fn nested_loops(depth: usize, functions: usize) -> Vec<u8> {
    let body = format!("{}{}", "loop ".repeat(depth), "end ".repeat(depth));
    with_function(&vec![body; functions].join(")(func "))
}

fn branch_tables(count: usize, targets: usize) -> Vec<u8> {
    let table = format!("block local.get 0 br_table {} end ", "0 ".repeat(targets));
    with_function(&format!("(param i32) {}", table.repeat(count)))
}

/// A component with one more function.
fn with_function(body: &str) -> Vec<u8> {
    let imports = format!("(func {body})");
    Component { imports: &imports, ..Component::default() }.build()
}

fn schema(schema: &str) -> Vec<u8> {
    Component { schema, ..Component::default() }.build()
}

/// A schema that checks one text by so many patterns, none of them like another.
fn patterns(count: usize, pattern: &str) -> String {
    let all: Vec<_> = (0..count)
        .map(|number| format!("{{\"not\":{{\"pattern\":\"{pattern}{number}\"}}}}"))
        .collect();
    format!("{{\"properties\":{{\"s\":{{\"allOf\":[{}]}}}}}}", all.join(","))
}

fn long_version() -> Vec<u8> {
    let describe = "
        (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
        (memory.fill (i32.const 262144) (i32.const 49) (i32.const 1900000))
        (i32.store offset=8 (i32.const 1024) (i32.const 262144))
        (i32.store offset=12 (i32.const 1024) (i32.const 1900000))
        (i32.const 1024)";
    Component { describe: Some(describe), ..Component::default() }.build()
}
