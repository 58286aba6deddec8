//! Components that mean harm, each with its source: what it tries, what it was granted, and what
//! must become of it.

use crate::{Behaviour, Component};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Hostile {
    /// Its name.
    pub name: &'static str,
    /// What it imports, as WebAssembly text.
    pub imports: &'static str,
    /// What its `execute` does.
    pub execute: Behaviour,
    /// Its lines in `[plugin.NAME]`.
    pub config: &'static str,
    /// What must become of it.
    pub expect: Expect,
}

/// What must become of a hostile component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Its call ends with this code, and a message with these words.
    Stopped(&'static str, &'static str),
    /// It gains nothing, and its call ends as any other.
    Harmless,
    /// It is not loaded, with these words.
    Refused(&'static str),
}

use Behaviour::Text;
use Expect::{Harmless, Refused, Stopped};

impl Hostile {
    /// Its bytes.
    ///
    /// # Panics
    /// When its text is wrong, which is a mistake in this file.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let (name, execute, imports) = (self.name, self.execute, self.imports);
        Component { name, execute, imports, ..Component::default() }.build()
    }
}

const fn hostile(
    name: &'static str,
    (config, imports): (&'static str, &'static str),
    execute: Behaviour,
    expect: Expect,
) -> Hostile {
    Hostile { name, imports, execute, config, expect }
}

const STATE: &str = "state = true";
const EVENTS: &str = "events = true";
const HTTP: &str = "allow_hosts = [\"https://example.com\"]";

const SET: &str = "(import \"amends:saga/state@1.1.0\" \"set\"
    (func $set (param i32 i32 i32 i32)))";
const LIST: &str = "(import \"amends:saga/state@1.1.0\" \"list-keys\"
    (func $list (param i32 i32 i32 i32 i32 i32 i32)))";
const EMIT: &str = "(import \"amends:saga/events@1.1.0\" \"emit\"
    (func $emit (param i32 i32 i32 i32)))";
const SECRET: &str = "(import \"amends:saga/config@1.1.0\" \"secret\"
    (func $secret (param i32 i32 i32)))";
const RANDOM: &str = "(import \"wasi:random/random@0.2.0\" \"get-random-bytes\"
    (func $random (param i64 i32)))";
const SLEEP: &str = "(import \"wasi:clocks/monotonic-clock@0.2.0\" \"subscribe-duration\"
        (func $sleep (param i64) (result i32)))
    (import \"wasi:io/poll@0.2.0\" \"[method]pollable.block\" (func $block (param i32)))";
const TIMER: &str = "(import \"wasi:clocks/monotonic-clock@0.2.0\" \"subscribe-duration\"
    (func $sleep (param i64) (result i32)))";
const FIELDS: &str = "(import \"wasi:http/types@0.2.0\" \"[constructor]fields\"
    (func $fields (result i32)))";
const ENVIRONMENT: &str = "(import \"wasi:cli/environment@0.2.0\" \"get-environment\"
    (func $environment (param i32)))";
const FOLDERS: &str = "(import \"wasi:filesystem/preopens@0.2.0\" \"get-directories\"
    (func $folders (param i32)))";
const EXIT: &str = "(import \"wasi:cli/exit@0.2.0\" \"exit\" (func $exit (param i32)))";
const SOCKET: &str = "(import \"wasi:sockets/tcp-create-socket@0.2.0\" \"create-tcp-socket\"
    (func $socket (param i32 i32)))";
/// Standard error, and 4,096 bytes to write there: lines of 64 bytes.
const STDERR: &str = "(import \"wasi:cli/stderr@0.2.0\" \"get-stderr\"
        (func $stderr (result i32)))
    (import \"wasi:io/streams@0.2.0\" \"[method]output-stream.blocking-write-and-flush\"
        (func $write (param i32 i32 i32 i32)))";
/// What an exception's name and message are followed by, in JavaScript.
const THROWN: &str = r#"(import "wasi:cli/stderr@0.2.0" "get-stderr"
        (func $stderr (result i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (data (i32.const 8192) "TypeError: order.seats is undefined\0a  execute@plugin.js:7:3\0a")"#;
const TABLE: &str = "(table $t 0 funcref)";
/// JSON by its grammar, without a value that every reader agrees on.
const SURROGATE: &str = r#"(data (i32.const 8192) "{\22qty\22:1,\22x\22:\22\5cud800\22}")"#;
const NAME_TWICE: &str = r#"(data (i32.const 8192) "{\22a\22:1,\22a\22:2}")"#;
const BEYOND_DOUBLES: &str = r#"(data (i32.const 8192) "[1e999]")"#;
const SET_SURROGATE: &str = r#"(import "amends:saga/state@1.1.0" "set"
    (func $set (param i32 i32 i32 i32)))
    (data (i32.const 8192) "\22\5cudfff\22")"#;
const EMIT_SURROGATE: &str = r#"(import "amends:saga/events@1.1.0" "emit"
    (func $emit (param i32 i32 i32 i32)))
    (data (i32.const 8192) "\22\5cudfff\22a.all")"#;

/// A code and a message that clear the screen, set the title and the clipboard, and turn the text.
const ESCAPES: &str = r#"(data (i32.const 8192)
    "Bad Code!\1b[2Jno\1b[2J\1b]0;owned\07\1b]52;c;eA==\07\0d\7f\e2\80\aez\c2\9b1m")"#;

/// A line of the log that would be two, the second one of the host.
const FORGES: &str = r#"(data (i32.const 8192)
    "one\0d\0a2026-01-01T00:00:00Z ERROR amends: forged\1b[2J")"#;

const START: &str = "(func $spin (loop $on (br $on))) (start $spin)";

/// A key of three letters that follows from the global `free`, at 8,192; `free` counts up from 0.
macro_rules! with_each_key {
    ($call:literal) => {
        concat!(
            "(global.set $free (i32.const 0))
             (loop $on
                (i32.store8 (i32.const 8192)
                    (i32.add (i32.const 65) (i32.and (global.get $free) (i32.const 31))))
                (i32.store8 (i32.const 8193) (i32.add (i32.const 65)
                    (i32.and (i32.shr_u (global.get $free) (i32.const 5)) (i32.const 31))))
                (i32.store8 (i32.const 8194) (i32.add (i32.const 65)
                    (i32.shr_u (global.get $free) (i32.const 10))))
                ",
            $call,
            "
                (global.set $free (i32.add (global.get $free) (i32.const 1)))
                (br_if $on (i32.lt_u (global.get $free) (i32.const 20000))))
             (i32.const 2048)"
        )
    };
}

/// A JSON text of so many bytes at 131,072, then what is done with it.
macro_rules! with_text {
    ($bytes:literal, $last:literal, $call:literal) => {
        concat!(
            "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
             (memory.fill (i32.const 131072) (i32.const 97) (i32.const ",
            $bytes,
            "))
             (i32.store8 (i32.const 131072) (i32.const 34))
             (i32.store8 (i32.const ",
            $last,
            ") (i32.const 34)) ",
            $call,
            " (i32.const 2048)"
        )
    };
}

/// All of them.
pub const HOSTILE: &[Hostile] = &[
    // Time.
    hostile("spin", ("", ""), Behaviour::Spin, Stopped("timeout", "did not answer within")),
    hostile(
        "spin-cpu",
        ("cpu_max = \"50ms\"", ""),
        Behaviour::Spin,
        Stopped("cpu_limit", "computed for longer than 50ms; raise cpu_max"),
    ),
    hostile(
        "sleep",
        ("", SLEEP),
        Text("(call $block (call $sleep (i64.const 3600000000000))) unreachable"),
        Stopped("timeout", "did not answer within"),
    ),
    hostile("spin-at-start", ("", START), Behaviour::Done, Refused("describe took longer than 5s")),
    // Memory and tables.
    hostile("allocate", ("", ""), Behaviour::Allocate, Stopped("memory_limit", "may have 64 MiB")),
    hostile(
        "allocate-little",
        ("memory_max = \"1MiB\"", ""),
        Behaviour::Allocate,
        Stopped("memory_limit", "may have 1 MiB; raise memory_max"),
    ),
    hostile(
        "table",
        ("", TABLE),
        Text(
            "(loop $on (br_if $on
                (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
             unreachable",
        ),
        Stopped("table_limit", "may have 100000; raise table_elements_max"),
    ),
    hostile("recurse", ("", ""), Behaviour::Recurse, Stopped("trap", "stack overflow")),
    // Answers.
    hostile("trap", ("", ""), Behaviour::Trap, Stopped("trap", "panicked or aborted")),
    hostile(
        "huge",
        ("memory_max = \"256MiB\"", ""),
        Behaviour::Huge,
        Stopped("output_limit", "make it answer less"),
    ),
    hostile(
        "large",
        ("payload_max = \"1KiB\"", ""),
        Text(
            "(i32.store offset=8 (i32.const 2048) (i32.const 131072))
             (i32.store offset=12 (i32.const 2048) (i32.const 2000))
             (i32.const 2048)",
        ),
        Stopped("output_limit", "has 2000 bytes and may have 1024; raise payload_max"),
    ),
    hostile("beyond", ("", ""), Behaviour::OutOfBounds, Stopped("trap", "out of bounds")),
    hostile("not-text", ("", ""), Behaviour::NotUtf8, Stopped("trap", "utf-8")),
    hostile("not-json", ("", ""), Behaviour::NotJson, Stopped("invalid_output", "not JSON")),
    hostile(
        "lone-surrogate",
        ("", SURROGATE),
        Text(
            "(i32.store offset=8 (i32.const 2048) (i32.const 8192))
             (i32.store offset=12 (i32.const 2048) (i32.const 22))
             (i32.const 2048)",
        ),
        Stopped("invalid_output", "not every reader understands the same"),
    ),
    hostile(
        "name-twice",
        ("", NAME_TWICE),
        Text(
            "(i32.store offset=8 (i32.const 2048) (i32.const 8192))
             (i32.store offset=12 (i32.const 2048) (i32.const 13))
             (i32.const 2048)",
        ),
        Stopped("invalid_output", "the name \"a\" stands twice"),
    ),
    hostile(
        "beyond-doubles",
        ("", BEYOND_DOUBLES),
        Text(
            "(i32.store offset=8 (i32.const 2048) (i32.const 8192))
             (i32.store offset=12 (i32.const 2048) (i32.const 7))
             (i32.const 2048)",
        ),
        Stopped("invalid_output", "number out of range"),
    ),
    hostile(
        "escapes",
        ("", ESCAPES),
        Text(
            "(i32.store8 (i32.const 2048) (i32.const 1))
             (i32.store8 offset=8 (i32.const 2048) (i32.const 2))
             (i32.store offset=16 (i32.const 2048) (i32.const 8192))
             (i32.store offset=20 (i32.const 2048) (i32.const 13))
             (i32.store offset=24 (i32.const 2048) (i32.const 8205))
             (i32.store offset=28 (i32.const 2048) (i32.const 38))
             (i32.const 2048)",
        ),
        Stopped("invalid_code", "own code is \"Bad Code!\\u{1b}[2J\""),
    ),
    hostile("unaligned", ("", ""), Text("(i32.const 2049)"), Stopped("trap", "not aligned")),
    hostile(
        "no-variant",
        ("", ""),
        Text("(i32.store8 (i32.const 2048) (i32.const 7)) (i32.const 2048)"),
        Stopped("trap", "discriminant"),
    ),
    // Logs.
    hostile("chatty", ("", ""), Behaviour::Chatty, Harmless),
    hostile("long-line", ("", ""), Behaviour::LongLine, Harmless),
    hostile(
        "forges-lines",
        ("", FORGES),
        Text(
            "(call $log (i32.const 1) (i32.const 8192) (i32.const 50) (i32.const 0) (i32.const 0))
             (i32.const 2048)",
        ),
        Harmless,
    ),
    hostile(
        "long-log",
        ("", ""),
        Text(
            "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))
             (call $log (i32.const 1) (i32.const 131072) (i32.const 5000000) (i32.const 0)
                (i32.const 0))
             (i32.const 2048)",
        ),
        Stopped("output_limit", "handed the host more than"),
    ),
    // Calls of the host.
    hostile(
        "asks-for-ever",
        ("host_calls_max = 500", SECRET),
        Text(
            "(loop $on (call $secret (i32.const 8192) (i32.const 4) (i32.const 9000)) (br $on))
             unreachable",
        ),
        Stopped("host_call_limit", "more than 500 times; raise host_calls_max"),
    ),
    hostile(
        "random-bomb",
        ("", RANDOM),
        Text("(call $random (i64.const 1099511627776) (i32.const 9000)) (i32.const 2048)"),
        Stopped("trap", "exceeds limit 65536"),
    ),
    hostile(
        "timers",
        ("", TIMER),
        Text("(loop $on (drop (call $sleep (i64.const 3600000000000))) (br $on)) unreachable"),
        Stopped("resource_limit", "too many of the host's resources"),
    ),
    hostile(
        "headers",
        (HTTP, FIELDS),
        Text("(loop $on (drop (call $fields)) (br $on)) unreachable"),
        Stopped("resource_limit", "too many of the host's resources"),
    ),
    hostile(
        "exits",
        ("", EXIT),
        Text("(call $exit (i32.const 1)) unreachable"),
        Stopped("trap", "exit"),
    ),
    // What is not there to be found: an answer that is not empty would trap.
    hostile(
        "environment",
        ("", ENVIRONMENT),
        Text(
            "(call $environment (i32.const 9000))
             (if (i32.load (i32.const 9004)) (then unreachable))
             (i32.const 2048)",
        ),
        Harmless,
    ),
    hostile(
        "folders",
        ("", FOLDERS),
        Text(
            "(call $folders (i32.const 9000))
             (if (i32.load (i32.const 9004)) (then unreachable))
             (i32.const 2048)",
        ),
        Harmless,
    ),
    hostile(
        "secret-of-others",
        ("", SECRET),
        Text(
            "(i64.store (i32.const 8192) (i64.const 0x79656b5f697061))
             (call $secret (i32.const 8192) (i32.const 7) (i32.const 9000))
             (if (i32.load8_u (i32.const 9000)) (then unreachable))
             (i32.const 2048)",
        ),
        Harmless,
    ),
    // State.
    hostile(
        "state-many-keys",
        (STATE, SET),
        Text(with_each_key!(
            "(call $set (i32.const 8192) (i32.const 3) (i32.const 3000) (i32.const 11))"
        )),
        Stopped("state_refused", "writes at most 1000 keys"),
    ),
    hostile(
        "state-large-value",
        (STATE, SET),
        Text(with_text!(
            "300000",
            "431071",
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 131072) (i32.const 300000))"
        )),
        Stopped("state_refused", "has 300000 bytes, at most 262144"),
    ),
    hostile(
        "state-much",
        (STATE, SET),
        Text(with_text!(
            "200000",
            "331071",
            "(loop $on
                (call $set (i32.const 3060) (i32.const 2) (i32.const 131072) (i32.const 200000))
                (br $on))"
        )),
        Stopped("state_refused", "at most 8388608 bytes of state"),
    ),
    hostile(
        "state-full",
        ("state = true\nstate_max = \"1KiB\"", SET),
        Text(with_text!(
            "2000",
            "133071",
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 131072) (i32.const 2000))"
        )),
        Stopped("state_full", "raise state_max"),
    ),
    hostile(
        "state-no-key",
        (STATE, SET),
        Text(
            "(call $set (i32.const 3060) (i32.const 0) (i32.const 3000) (i32.const 11))
             (i32.const 2048)",
        ),
        Stopped("state_refused", "is not a key of state"),
    ),
    hostile(
        "state-not-json",
        (STATE, SET),
        Text(
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 3020) (i32.const 8))
             (i32.const 2048)",
        ),
        Stopped("state_refused", "not JSON"),
    ),
    hostile(
        "state-lone-surrogate",
        (STATE, SET_SURROGATE),
        Text(
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 8192) (i32.const 8))
             (i32.const 2048)",
        ),
        Stopped("state_refused", "not every reader understands the same"),
    ),
    hostile(
        "state-lists",
        ("state = true\nhost_calls_max = 100", LIST),
        Text(
            "(loop $on
                (call $list (i32.const 3060) (i32.const 2) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 4000000000) (i32.const 9000))
                (br $on))
             unreachable",
        ),
        Stopped("host_call_limit", "more than 100 times; raise host_calls_max"),
    ),
    hostile(
        "state-not-granted",
        ("", SET),
        Text(
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 3000) (i32.const 11))
             (i32.const 2048)",
        ),
        Stopped("not_granted", "grant it by state = true in [plugin."),
    ),
    // Events.
    hostile(
        "events-many",
        (EVENTS, EMIT),
        Text(
            "(i64.store (i32.const 8192) (i64.const 0x6c6c612e61))
             (loop $on
                (call $emit (i32.const 8192) (i32.const 5) (i32.const 3000) (i32.const 11))
                (br $on))
             unreachable",
        ),
        Stopped("event_refused", "at most 100 events"),
    ),
    hostile(
        "events-of-the-host",
        (EVENTS, EMIT),
        Text(
            // `saga.all`
            "(i64.store (i32.const 8192) (i64.const 0x6c6c612e61676173))
             (call $emit (i32.const 8192) (i32.const 8) (i32.const 3000) (i32.const 11))
             (i32.const 2048)",
        ),
        Stopped("event_refused", "begins with a word of this host's own"),
    ),
    hostile(
        "events-not-json",
        (EVENTS, EMIT),
        Text(
            "(i64.store (i32.const 8192) (i64.const 0x6c6c612e61))
             (call $emit (i32.const 8192) (i32.const 5) (i32.const 3020) (i32.const 8))
             (i32.const 2048)",
        ),
        Stopped("event_refused", "not JSON"),
    ),
    hostile(
        "events-lone-surrogate",
        (EVENTS, EMIT_SURROGATE),
        Text(
            "(call $emit (i32.const 8200) (i32.const 5) (i32.const 8192) (i32.const 8))
             (i32.const 2048)",
        ),
        Stopped("event_refused", "not every reader understands the same"),
    ),
    hostile(
        "events-large",
        (EVENTS, EMIT),
        Text(with_text!(
            "1200000",
            "1331071",
            "(i64.store (i32.const 8192) (i64.const 0x6c6c612e61))
             (call $emit (i32.const 8192) (i32.const 5) (i32.const 131072) (i32.const 1200000))"
        )),
        Stopped("event_refused", "1048576"),
    ),
    hostile(
        "events-much",
        (EVENTS, EMIT),
        Text(with_text!(
            "200000",
            "331071",
            "(i64.store (i32.const 8192) (i64.const 0x6c6c612e61))
             (loop $on
                (call $emit (i32.const 8192) (i32.const 5) (i32.const 131072) (i32.const 200000))
                (br $on))"
        )),
        Stopped("event_refused", "at most 1048576 bytes together"),
    ),
    hostile(
        "events-not-granted",
        ("", EMIT),
        Text(
            "(call $emit (i32.const 3060) (i32.const 2) (i32.const 3000) (i32.const 11))
             (i32.const 2048)",
        ),
        Stopped("not_granted", "grant it by events = true in [plugin."),
    ),
    // What it says when it is stopped stands in the failure, and no more of it than has room.
    hostile(
        "thrown",
        ("", THROWN),
        Text("(call $write (call $stderr) (i32.const 8192) (i32.const 60) (i32.const 9000)) unreachable"),
        Stopped("trap", "(unreachable code reached): TypeError: order.seats is undefined"),
    ),
    hostile(
        "stderr-flood",
        ("cpu_max = \"50ms\"", STDERR),
        Text(
            "(memory.fill (i32.const 131072) (i32.const 120) (i32.const 4096))
             (global.set $free (call $stderr))
             (loop $on
                (call $write (global.get $free) (i32.const 131072) (i32.const 4096) (i32.const 9000))
                (br $on))
             unreachable",
        ),
        Stopped("cpu_limit", "raise cpu_max"),
    ),
    // What nobody gets, or not without a grant: a socket is not made, with `access-denied`.
    hostile(
        "socket",
        ("", SOCKET),
        Text(
            "(call $socket (i32.const 0) (i32.const 9000))
             (if (i32.ne (i32.load8_u (i32.const 9000)) (i32.const 1)) (then unreachable))
             (if (i32.ne (i32.load8_u (i32.const 9004)) (i32.const 1)) (then unreachable))
             (i32.const 2048)",
        ),
        Harmless,
    ),
];
