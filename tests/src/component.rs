//! Components in text form: one for each world, and one for each bad behaviour.
//!
//! The core module is written by hand against the canonical ABI (the Component Model's
//! `CanonicalABI.md`), so that it can do what no compiler would let through.

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers `{"ok":true}`; undoes with no receipt.
    Done,
    /// Answers its input.
    Echo,
    /// Fails for good, with code `no` and message `it is not possible`.
    Permanent,
    /// Fails with code `no` and message `it is not possible`, and says that another attempt may help.
    Retryable,
    /// Never ends.
    Spin,
    /// Wants 4 GiB of memory, page by page, and aborts when it is refused.
    Allocate,
    /// Traps.
    Trap,
    /// Calls itself without end.
    Recurse,
    /// Answers 100 MiB of zeros, in memory that it has.
    Huge,
    /// Answers text that is outside of its memory.
    OutOfBounds,
    /// Answers bytes that are not UTF-8.
    NotUtf8,
    /// Answers text that is not JSON.
    NotJson,
    /// Writes 10,000 log lines, then is done.
    Chatty,
    /// Writes one log line of 100,000 bytes, then is done.
    LongLine,
    /// Of `execute`: answers the number of its attempt, so never the same.
    Attempt,
    /// Of `execute`: answers how many calls its instance has served, up to 9.
    Count,
    /// Has an effect, which is a log line, then is done: `done effect=KEY` of `execute`,
    /// `undone effect=KEY` of `compensate`, with the idempotency key that it was given. An undo
    /// whose step never happened writes its line and is done all the same.
    Effect,
    /// Of `execute`: these instructions, which leave the address of the answer: `{"ok":true}` stands
    /// at 2,048.
    Text(&'static str),
    /// Goes wrong in its first attempts; later ones are as [`Behaviour::Effect`].
    Fault(Fault),
}

/// How the first attempts of a call go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// In which way.
    pub kind: FaultKind,
    /// How many, by the number of the attempt that the call is given; `u32::MAX`: all.
    pub attempts: u32,
    /// Whether they have their effect before.
    pub has_effect: bool,
    /// Only of the element of this number, from 0 to 9, of a step over a list.
    pub element: Option<u8>,
}

/// In which way an attempt goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// As [`Behaviour::Retryable`].
    Retryable,
    /// As [`Behaviour::Permanent`].
    Permanent,
    /// As [`Behaviour::Spin`].
    Spin,
    /// As [`Behaviour::Trap`].
    Trap,
}

/// A component to be made.
#[derive(Debug, Clone, Copy)]
pub struct Component<'a> {
    /// Its world: `step`, `step-only`, `undo-only`, or `step-probe`, whose probe finds that no call
    /// happened.
    pub world: &'a str,
    /// The name in its manifest.
    pub name: &'a str,
    /// The version in its manifest.
    pub version: &'a str,
    /// The JSON Schema of its input, and of its output when `output_schema` is none.
    pub schema: &'a str,
    /// The JSON Schema of its output.
    pub output_schema: Option<&'a str>,
    /// What `execute` does.
    pub execute: Behaviour,
    /// What `compensate` does.
    pub compensate: Behaviour,
    /// What `describe` does instead of answering its manifest, which stands at 1,024.
    pub describe: Option<&'a str>,
    /// What it says that it cannot do without.
    pub needs: &'a [&'a str],
    /// What it imports beside a log, and what else stands before its code: WebAssembly text.
    pub imports: &'a str,
    /// The version of `amends:saga` that it is built for: that of `wit/saga.wit`, or an earlier one.
    pub saga: &'a str,
}

/// The version of `amends:saga` in `wit/saga.wit`.
const SAGA_VERSION: &str = "1.1.0";

impl Default for Component<'_> {
    fn default() -> Self {
        Self {
            world: "step",
            name: "test",
            version: "1.2.3",
            schema: "{}",
            output_schema: None,
            execute: Behaviour::Done,
            compensate: Behaviour::Done,
            describe: None,
            needs: &[],
            imports: "",
            saga: SAGA_VERSION,
        }
    }
}

impl Component<'_> {
    /// Its bytes.
    ///
    /// # Panics
    /// When the text form is wrong, which is a mistake in this file.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let component = ComponentEncoder::default()
            .module(&self.core_module())
            .map(|encoder| encoder.validate(true))
            .and_then(ComponentEncoder::encode);
        component.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The core module that the component is made of, with its component types: what a compiler
    /// leaves before the last step.
    ///
    /// # Panics
    /// As [`Self::build`].
    #[must_use]
    pub fn core_module(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/saga.wit");
        let wit = std::fs::read_to_string(wit).unwrap_or_else(|error| panic!("{error:#}"));
        let push = |resolve: &mut Resolve, name: &str, text: &str| {
            let package = resolve.push_str(name, &self.for_saga(text));
            package.unwrap_or_else(|error| panic!("{error:#}"))
        };
        let mut package = push(&mut resolve, "saga.wit", &wit);
        if !self.imports.is_empty() {
            package = push(&mut resolve, "hostile.wit", HOSTILE_WIT);
        }
        let world = resolve.select_world(&[package], Some(self.world));
        let world = world.unwrap_or_else(|error| panic!("{error:#}"));
        let mut module =
            wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .unwrap_or_else(|error| panic!("{error:#}"));
        module
    }

    /// Returns a text with the version of `amends:saga` that the component is built for.
    fn for_saga(&self, text: &str) -> String {
        text.replace(&format!("@{SAGA_VERSION}"), &format!("@{}", self.saga))
    }

    fn text(&self) -> String {
        let (data, description) = self.description();
        let execute = if self.world == "undo-only" {
            String::new()
        } else {
            // The record of the call is twelve values, the input a pointer and a length.
            format!(
                "(func (export \"amends:saga/action@1.1.0#execute\")
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $at i32)
                    (param $length i32) (result i32)
                    {})",
                body(self.execute, &EXECUTE)
            )
        };
        let compensate = if self.world == "step-only" {
            String::new()
        } else {
            format!(
                "(func (export \"amends:saga/undo@1.1.0#compensate\") (param $arguments i32)
                    (result i32)
                    (local $at i32) (local $length i32)
                    {})",
                body(self.compensate, &COMPENSATE)
            )
        };
        let probe = if self.world == "step-probe" {
            // The record of the call, the direction, the input.
            format!(
                "(func (export \"amends:saga/probe@1.1.0#probe\") (param {}) (result i32)
                    (i32.const 2176))",
                "i32 ".repeat(15)
            )
        } else {
            String::new()
        };
        let imports = self.imports;
        let describe = self.describe.unwrap_or(&description);
        let text = format!(
            "(module
                (import \"amends:saga/log@1.1.0\" \"write\"
                    (func $log (param i32 i32 i32 i32 i32)))
                {imports}
                (memory (export \"memory\") 4)
                (global $free (mut i32) (i32.const 65536))
                (global $served (mut i32) (i32.const 0))
                {data}
                (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                    (global.get $free)
                    (global.set $free (i32.add (global.get $free)
                        (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
                (func $recurse (param i64) (result i64)
                    (i64.add (local.get 0) (call $recurse (i64.add (local.get 0) (i64.const 1)))))
                (func (export \"amends:saga/manifest@1.1.0#describe\") (result i32) {describe})
                {execute}
                {compensate}
                {probe})"
        );
        self.for_saga(&text)
    }

    /// The data of the module and the address of the manifest: five texts, no service, its needs.
    fn description(&self) -> (String, String) {
        let texts = [
            self.name,
            self.version,
            "For tests.",
            self.schema,
            self.output_schema.unwrap_or(self.schema),
        ];
        let (mut at, mut record, mut data) = (4_096, Vec::new(), String::new());
        for text in texts {
            record.extend(pointer(at, text.len()));
            write_data(&mut data, at, text.as_bytes());
            at += u32::try_from(text.len()).unwrap_or(u32::MAX);
        }
        // No service: twelve zeros. Then the list of what it needs.
        record.extend([0; 12]);
        let (mut list, mut need_at) = (Vec::new(), 1_400);
        for need in self.needs {
            list.extend(pointer(need_at, need.len()));
            write_data(&mut data, need_at, need.as_bytes());
            need_at += u32::try_from(need.len()).unwrap_or(u32::MAX);
        }
        write_data(&mut data, 1_200, &list);
        record.extend(pointer(1_200, self.needs.len()));
        write_data(&mut data, 1_024, &record);
        // The answer of execute stands at 2,048, that of compensate (all zeros) at 2,112, that of
        // probe at 2,176: `did-not-happen` is the second of the fates.
        write_data(&mut data, 2_048, &[vec![0; 8], pointer(3_000, 11)].concat());
        write_data(&mut data, 2_184, &[1]);
        write_data(&mut data, 3_000, b"{\"ok\":true}");
        write_data(&mut data, 3_020, b"{\"cut\": ");
        write_data(&mut data, 3_040, b"\"\xff\xfe\"");
        write_data(&mut data, 3_100, b"{\"n\":0}");
        write_data(&mut data, 3_060, b"no");
        write_data(&mut data, 3_064, b"it is not possible");
        for call in [EXECUTE, COMPENSATE] {
            write_data(&mut data, call.line, call.word.as_bytes());
        }
        (data, "(i32.const 1024)".to_owned())
    }
}

/// The world `step` with all that a component might want to import: what it does not is left out of
/// it. The packages have those parts of WASI 0.2 that are tried.
const HOSTILE_WIT: &str = "
    package amends:hostile;
    world step {
        include amends:saga/step@1.1.0;
        import amends:saga/state@1.1.0;
        import amends:saga/events@1.1.0;
        import wasi:random/random@0.2.0;
        import wasi:io/poll@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:http/outgoing-handler@0.2.0;
        import wasi:cli/environment@0.2.0;
        import wasi:cli/exit@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        import wasi:cli/stderr@0.2.0;
        import wasi:io/streams@0.2.0;
        import wasi:sockets/tcp-create-socket@0.2.0;
    }
    package wasi:random@0.2.0 {
        interface random { get-random-bytes: func(len: u64) -> list<u8>; }
    }
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:http@0.2.0 {
        interface types {
            resource fields { constructor(); }
            variant scheme { HTTP, HTTPS, other(string) }
            resource outgoing-request {
                constructor(headers: fields);
                set-scheme: func(scheme: option<scheme>) -> result;
                set-authority: func(authority: option<string>) -> result;
                set-path-with-query: func(path-with-query: option<string>) -> result;
            }
            resource request-options;
            resource future-incoming-response;
            record DNS-error-payload { rcode: option<string>, info-code: option<u16> }
            record TLS-alert-received-payload { alert-id: option<u8>, alert-message: option<string> }
            record field-size-payload { field-name: option<string>, field-size: option<u32> }
            variant error-code {
                DNS-timeout,
                DNS-error(DNS-error-payload),
                destination-not-found,
                destination-unavailable,
                destination-IP-prohibited,
                destination-IP-unroutable,
                connection-refused,
                connection-terminated,
                connection-timeout,
                connection-read-timeout,
                connection-write-timeout,
                connection-limit-reached,
                TLS-protocol-error,
                TLS-certificate-error,
                TLS-alert-received(TLS-alert-received-payload),
                HTTP-request-denied,
                HTTP-request-length-required,
                HTTP-request-body-size(option<u64>),
                HTTP-request-method-invalid,
                HTTP-request-URI-invalid,
                HTTP-request-URI-too-long,
                HTTP-request-header-section-size(option<u32>),
                HTTP-request-header-size(option<field-size-payload>),
                HTTP-request-trailer-section-size(option<u32>),
                HTTP-request-trailer-size(field-size-payload),
                HTTP-response-incomplete,
                HTTP-response-header-section-size(option<u32>),
                HTTP-response-header-size(field-size-payload),
                HTTP-response-body-size(option<u64>),
                HTTP-response-trailer-section-size(option<u32>),
                HTTP-response-trailer-size(field-size-payload),
                HTTP-response-transfer-coding(option<string>),
                HTTP-response-content-coding(option<string>),
                HTTP-response-timeout,
                HTTP-upgrade-failed,
                HTTP-protocol-error,
                loop-detected,
                configuration-error,
                internal-error(option<string>),
            }
        }
        interface outgoing-handler {
            use types.{outgoing-request, request-options, future-incoming-response, error-code};
            handle: func(request: outgoing-request, options: option<request-options>)
                -> result<future-incoming-response, error-code>;
        }
    }
    package wasi:cli@0.2.0 {
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
        interface exit { exit: func(status: result); }
        interface stderr {
            use wasi:io/streams@0.2.0.{output-stream};
            get-stderr: func() -> output-stream;
        }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }
    package wasi:sockets@0.2.0 {
        interface network {
            enum error-code {
                unknown,
                access-denied,
                not-supported,
                invalid-argument,
                out-of-memory,
                timeout,
                concurrency-conflict,
                not-in-progress,
                would-block,
                invalid-state,
                new-socket-limit,
                address-not-bindable,
                address-in-use,
                remote-unreachable,
                connection-refused,
                connection-reset,
                connection-aborted,
                datagram-too-large,
                name-unresolvable,
                temporary-resolver-failure,
                permanent-resolver-failure,
            }
            enum ip-address-family { ipv4, ipv6 }
        }
        interface tcp { resource tcp-socket; }
        interface tcp-create-socket {
            use network.{error-code, ip-address-family};
            use tcp.{tcp-socket};
            create-tcp-socket: func(address-family: ip-address-family)
                -> result<tcp-socket, error-code>;
        }
    }
";

/// What is different in the two ways that a call can go.
struct Way {
    /// Where its answer stands.
    answer: u32,
    /// What the line of its effect begins with, and where that stands; the key is put behind it.
    word: &'static str,
    line: u32,
    /// The address and length of the step's name.
    step: [&'static str; 2],
    /// The attempt, and the address and length of the idempotency key.
    attempt: &'static str,
    key: [&'static str; 2],
}

/// The record of the call is in the parameters.
const EXECUTE: Way = Way {
    answer: 2_048,
    word: "done effect=",
    line: 3_200,
    step: ["(local.get 4)", "(local.get 5)"],
    attempt: "(local.get 6)",
    key: ["(local.get 7)", "(local.get 8)"],
};

/// The arguments are more than fit into parameters, so they are in memory, the record of the call
/// first: three texts, the attempt, the key.
const COMPENSATE: Way = Way {
    answer: 2_112,
    word: "undone effect=",
    line: 3_600,
    step: [
        "(i32.load offset=16 (local.get $arguments))",
        "(i32.load offset=20 (local.get $arguments))",
    ],
    attempt: "(i32.load offset=24 (local.get $arguments))",
    key: [
        "(i32.load offset=28 (local.get $arguments))",
        "(i32.load offset=32 (local.get $arguments))",
    ],
};

/// What a call does, leaving the address of its answer.
fn body(behaviour: Behaviour, way: &Way) -> String {
    let answer = way.answer;
    // `result<string, failure>`: a discriminant, then at 8 the text or the failure.
    let text = |at: &str, length: &str| {
        format!(
            "(i32.store offset=8 (i32.const {answer}) {at})
             (i32.store offset=12 (i32.const {answer}) {length})
             (i32.const {answer})"
        )
    };
    let constant =
        |at: u32, length: u32| text(&format!("(i32.const {at})"), &format!("(i32.const {length})"));
    let log = |length: u32| {
        format!(
            "(call $log (i32.const 1) (i32.const 8192) (i32.const {length}) (i32.const 0)
                (i32.const 0))"
        )
    };
    // The failure is a variant, then its error: two texts and two options, both none.
    let failure = |variant: u32| {
        format!(
            "(i32.store8 (i32.const {answer}) (i32.const 1))
             (i32.store8 offset=8 (i32.const {answer}) (i32.const {variant}))
             (i32.store offset=16 (i32.const {answer}) (i32.const 3060))
             (i32.store offset=20 (i32.const {answer}) (i32.const 2))
             (i32.store offset=24 (i32.const {answer}) (i32.const 3064))
             (i32.store offset=28 (i32.const {answer}) (i32.const 18))
             (i32.const {answer})"
        )
    };
    let spin = "(loop $on (br $on)) unreachable";
    match behaviour {
        Behaviour::Done => format!("(i32.const {answer})"),
        Behaviour::Echo => text("(local.get $at)", "(local.get $length)"),
        Behaviour::Permanent => failure(0),
        Behaviour::Retryable => failure(1),
        Behaviour::Spin => spin.to_owned(),
        Behaviour::Allocate => "(loop $on
                (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            unreachable"
            .to_owned(),
        Behaviour::Trap => "unreachable".to_owned(),
        Behaviour::Recurse => "(i32.wrap_i64 (call $recurse (i64.const 0)))".to_owned(),
        Behaviour::Huge => format!(
            "(if (i32.eq (memory.grow (i32.const 1602)) (i32.const -1)) (then unreachable))
             {}",
            constant(131_072, 100 << 20)
        ),
        Behaviour::OutOfBounds => constant(u32::MAX - 100, 90),
        Behaviour::NotUtf8 => constant(3_040, 4),
        Behaviour::NotJson => constant(3_020, 8),
        Behaviour::Chatty => format!(
            "(global.set $free (i32.const 10000))
             (loop $on
                {}
                (global.set $free (i32.sub (global.get $free) (i32.const 1)))
                (br_if $on (global.get $free)))
             (i32.const {answer})",
            log(5)
        ),
        // The attempt is the seventh value of the call's record.
        Behaviour::Attempt => format!(
            "(i32.store8 (i32.const 3105) (i32.add (i32.const 48) (local.get 6)))
             {}",
            constant(3_100, 7)
        ),
        Behaviour::Count => format!(
            "(global.set $served (i32.add (i32.const 1) (global.get $served)))
             (i32.store8 (i32.const 3105) (i32.add (i32.const 48) (global.get $served)))
             {}",
            constant(3_100, 7)
        ),
        Behaviour::LongLine => format!("{} (i32.const {answer})", log(100_000)),
        Behaviour::Text(text) => text.to_owned(),
        Behaviour::Effect => format!("{} (i32.const {answer})", effect(way)),
        Behaviour::Fault(Fault { kind, attempts, has_effect, element }) => {
            let fails = match kind {
                FaultKind::Retryable => format!("{} return", failure(1)),
                FaultKind::Permanent => format!("{} return", failure(0)),
                FaultKind::Spin => spin.to_owned(),
                FaultKind::Trap => "unreachable".to_owned(),
            };
            let effect = effect(way);
            // `NAME[7]`: the digit is the last byte but one.
            let [at, length] = way.step;
            let is_meant = element.map_or_else(
                || "(i32.const 1)".to_owned(),
                |element| {
                    let digit = b'0' + element;
                    let last = format!("(i32.sub (i32.add {at} {length}) (i32.const 2))");
                    format!("(i32.eq (i32.load8_u {last}) (i32.const {digit}))")
                },
            );
            format!(
                "(if (i32.and {is_meant} (i32.le_u {} (i32.const {attempts})))
                    (then {} {fails}))
                 {effect}
                 (i32.const {answer})",
                way.attempt,
                if has_effect { &effect } else { "" }
            )
        }
    }
}

/// Writes the line that is the effect of a call.
fn effect(way: &Way) -> String {
    let Way { line, word, key: [at, length], .. } = way;
    let (key, bytes) = (*line as usize + word.len(), word.len());
    format!(
        "(memory.copy (i32.const {key}) {at} {length})
         (call $log (i32.const 1) (i32.const {line}) (i32.add (i32.const {bytes}) {length})
            (i32.const 0) (i32.const 0))"
    )
}

fn pointer(at: u32, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    [at.to_le_bytes(), length.to_le_bytes()].concat()
}

fn write_data(data: &mut String, at: u32, bytes: &[u8]) {
    let escaped = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    });
    let _ = writeln!(data, "(data (i32.const {at}) \"{escaped}\")");
}
