//! What stopped a component, in words.

use amends_engine::{Failure, PAYLOAD_BYTES_MAX, Payload};
use wasmtime::{Trap, WasmBacktrace};

use crate::call::guest::{Guest, HOST_CALL_BYTES_MAX};
use crate::capability::last_words::LastWords;
use crate::cut::{cut, cut_message};
use crate::stopped::Stopped;

/// Bytes that a message has of what was thrown; all of it stands in the details.
const THROWN_BYTES_MAX: usize = 400;

pub(crate) fn stopped(error: &wasmtime::Error, guest: &Guest, words: &LastWords) -> Failure {
    let settings = &guest.granted().settings;
    let frames = frames(error);
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        let message = cut_message(guest.granted().secrets.redact(&stopped.message).into_owned());
        return with_words(Failure::new(stopped.code, message), words, &frames);
    }
    let (code, message) = match guest.limits.memory_refused {
        Some(wanted) => {
            let max = guest.limits.memory_bytes_max();
            let is_of_host = (max as u64) < settings.memory_bytes_max;
            let table = if is_of_host { "host".to_owned() } else { settings.section() };
            (
                "memory_limit",
                format!(
                    "the component wanted {} MiB of memory and may have {} MiB; raise memory_max \
                     in [{table}] or make it use less ({})",
                    wanted.div_ceil(1 << 20),
                    max >> 20,
                    reason(error)
                ),
            )
        }
        None if guest.limits.table_refused.is_some() => (
            "table_limit",
            format!(
                "the component wanted {} elements of tables and may have {}; raise \
                 table_elements_max in [{}] or make it use less ({})",
                guest.limits.table_refused.unwrap_or_default(),
                settings.table_elements_max,
                settings.section(),
                reason(error)
            ),
        ),
        None if is_too_many_resources(error) => (
            "resource_limit",
            format!("the component holds too many of the host's resources ({})", reason(error)),
        ),
        None if is_too_much_data(error) => (
            "output_limit",
            format!(
                "the component handed the host more than {HOST_CALL_BYTES_MAX} bytes at once; make \
                 it answer less, a payload has at most {PAYLOAD_BYTES_MAX}"
            ),
        ),
        None => ("trap", format!("the component was stopped: {}", why(error, words))),
    };
    with_words(Failure::new(code, cut_message(message)), words, &frames)
}

/// Adds what the component said last, and the functions in which it was stopped, the innermost first, as
/// the details of a failure: `{"said": […], "in": […]}`.
pub(crate) fn with_words(failure: Failure, words: &LastWords, frames: &[String]) -> Failure {
    let mut details = serde_json::Map::new();
    for (name, texts) in [
        ("said", words.lines().collect::<Vec<_>>()),
        ("in", frames.iter().map(String::as_str).collect()),
    ] {
        if !texts.is_empty() {
            details.insert(name.to_owned(), texts.into());
        }
    }
    if details.is_empty() {
        return failure;
    }
    Failure { details: Payload::from_value(&details.into()).ok(), ..failure }
}

/// What stopped a component, in one line that a person can read: what it said of it, or else in which
/// functions it was.
pub(crate) fn why(error: &wasmtime::Error, words: &LastWords) -> String {
    // A runtime says what was thrown and aborts. What was printed before anything else stopped it says
    // nothing of that.
    let is_abort = match error.downcast_ref::<Trap>() {
        Some(trap) => *trap == Trap::UnreachableCodeReached,
        None => true,
    };
    match words.thrown().filter(|_| is_abort) {
        Some(thrown) => {
            format!("{}: {}", what_stopped(error), cut(thrown.to_owned(), THROWN_BYTES_MAX))
        }
        None => reason(error),
    }
}

/// wasmtime has no error type for it; the test of it fails when its words change.
fn is_too_much_data(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

fn is_too_many_resources(error: &wasmtime::Error) -> bool {
    matches!(
        error.downcast_ref::<wasmtime::component::ResourceTableError>(),
        Some(wasmtime::component::ResourceTableError::Full)
    )
}

/// What stopped a component, and in which functions, the innermost first.
pub(crate) fn reason(error: &wasmtime::Error) -> String {
    let (what, frames) = (what_stopped(error), frames(error));
    if frames.is_empty() { what } else { format!("{what}, in {}", frames.join(" < ")) }
}

fn what_stopped(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it called itself too deep (stack overflow)".to_owned(),
        Some(Trap::UnreachableCodeReached) => {
            "it panicked or aborted (unreachable code reached)".to_owned()
        }
        Some(Trap::MemoryOutOfBounds) => "it reached beyond its memory".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string().replace('\n', " "),
    }
}

/// Functions of a component that a failure names.
const FRAMES_MAX: usize = 3;

/// The functions in which a component was stopped, the innermost first, without those by which Rust
/// panics.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let names = trace.frames().iter().filter_map(|frame| frame.func_name()).map(demangled);
    names.skip_while(|name| is_of_panic(name)).take(FRAMES_MAX).collect()
}

/// As its author wrote it. Names of functions can be very long.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name)).chars().take(80).collect()
}

fn is_of_panic(function: &str) -> bool {
    const OF_PANIC: [&str; 6] = [
        "__rustc::",
        "std::panicking::",
        "std::sys::",
        "core::panicking::",
        "core::option::",
        "core::result::",
    ];
    OF_PANIC.iter().any(|prefix| function.trim_start_matches('<').starts_with(prefix))
}
