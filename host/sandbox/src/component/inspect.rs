//! Looking at a component: checking, compiling and describing it.
//!
//! Bytes that somebody hands in can make the checks, the compiler and the component's own `describe`
//! take any time and memory, or end the process. So that is done in a child process of the same
//! program, with limits of memory, processor time and time, which is killed when nobody waits for it
//! any more. What it answers is held against limits again.
//!
//! [`inspect`] is the work itself, [`inspect_component`] what the child does around it, `child.rs`
//! what the host does.

mod child;
#[cfg(test)]
mod fuzz;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::bindings::exports::amends::saga::manifest;
use crate::call::guest::{Guest, linker};
use crate::capability::grant::Grant;
use crate::capability::outbound::allow::AllowHosts;
use crate::capability::outbound::client::Outbound;
use crate::capability::outbound::stub::StubAnswer;
use crate::component::cache;
use crate::component::check::{Exports, check};
use crate::component::manifest::Texts;
use crate::error::Rejection;
use crate::limits::engine::WasmEngine;
use crate::limits::meter::{Meter, processor_time};
use crate::settings::PluginSettings;

pub(crate) use child::look;

/// The argument by which a program is asked to be the child: its first and only one.
pub const INSPECT_COMPONENT: &str = "inspect-component";

/// How long `describe` may compute: it only hands out texts.
const DESCRIBE_COMPUTES_MAX: Duration = Duration::from_secs(5);

/// How long it may take in all: on a busy machine the child has little of the processors.
const DESCRIBE_TIMEOUT: Duration = Duration::from_mins(1);

/// Memory of the child. What componentize-js and componentize-py make is compiled in 650 MiB.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Processor time of the child, all threads together. What componentize-js makes takes twenty seconds
/// on a machine that does other things too; there are slower ones.
const PROCESSOR_SECONDS_MAX: u64 = 120;

/// Bytes of compiled code. That of a component of JavaScript or Python has 36 MiB.
const CODE_BYTES_MAX: u64 = 256 << 20;

/// How much the child gives way (`nice(2)`) when nobody waits for it: all the way. With calls on every
/// core it has a fiftieth of one, and no call waits for more than a turn of it.
const NICENESS: i32 = 19;

/// Where components are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// In a child process: this program, called with [`INSPECT_COMPONENT`] as its only argument, must
    /// do [`inspect_component`].
    Child(PathBuf),
    /// In this process, without limits of memory and time. For tests whose program cannot be the
    /// child.
    InThisProcess,
}

impl Default for Inspection {
    /// In a child process of the program that runs.
    fn default() -> Self {
        // Also when its file was replaced meanwhile: then it is the one that runs, and no other version.
        let this_program = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().unwrap_or_default()
        };
        Self::Child(this_program)
    }
}

/// What a component is told and allowed when it is asked for its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    memory_bytes_max: u64,
    table_elements_max: usize,
    instances_max: usize,
    host_calls_max: u32,
    settings: Map<String, Value>,
    state: bool,
    events: bool,
    http: bool,
}

impl Asked {
    pub(crate) fn of(settings: &PluginSettings) -> Self {
        Self {
            memory_bytes_max: settings.memory_bytes_max,
            table_elements_max: settings.table_elements_max,
            instances_max: settings.instances_max,
            host_calls_max: settings.host_calls_max,
            settings: settings.settings.clone(),
            state: settings.state,
            events: settings.events,
            http: !settings.allow_hosts.is_empty(),
        }
    }

    /// The same for those that are asked alike.
    pub(crate) fn fingerprint(&self) -> String {
        // Texts, numbers and flags: they have a JSON form.
        let json = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&json).to_hex()[..16].to_owned()
    }

    fn settings(&self) -> PluginSettings {
        let anywhere = PluginSettings::for_inspection().allow_hosts;
        PluginSettings {
            memory_bytes_max: self.memory_bytes_max,
            table_elements_max: self.table_elements_max,
            instances_max: self.instances_max,
            host_calls_max: self.host_calls_max,
            settings: self.settings.clone(),
            state: self.state,
            events: self.events,
            allow_hosts: if self.http { anywhere } else { AllowHosts::default() },
            ..PluginSettings::default()
        }
    }
}

/// What is to be done with a component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) asked: Asked,
    pub(crate) code: Code,
    pub(crate) limits: Limits,
    /// Whether nobody waits for it.
    pub(crate) is_background: bool,
    pub(crate) bytes_len: u64,
}

/// What the child may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    memory_bytes: u64,
    processor_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_BYTES_MAX, processor_seconds: PROCESSOR_SECONDS_MAX }
    }
}

/// Compiled code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Code {
    /// The code is in this file.
    In(PathBuf),
    /// It is to be made, into this file.
    To(PathBuf),
}

/// What is known of a component that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) exports: Exports,
    pub(crate) imports: Vec<String>,
    pub(crate) texts: Texts,
}

/// Looks at a component, and compiles it where that is to be done. Blocks, for up to some ten seconds
/// of a large one; of a hostile one for as long and with as much memory as it is given.
///
/// # Errors
/// Why it cannot serve, in words for its author.
pub(crate) fn inspect(request: &Request, bytes: &[u8]) -> Result<Description, Rejection> {
    let (exports, imports) = check(bytes)?;
    let sandbox = WasmEngine::for_inspection().map_err(|error| failed(&error))?;
    let component = match &request.code {
        Code::In(file) => cache::map(&sandbox.engine, file)?,
        Code::To(file) => {
            compile(&sandbox.engine, bytes, file)?;
            cache::map(&sandbox.engine, file)?
        }
    };
    let texts = describe(&sandbox, &component, &request.asked)?;
    texts.read()?;
    Ok(Description { exports, imports, texts })
}

fn compile(engine: &Engine, bytes: &[u8], file: &std::path::Path) -> Result<(), Rejection> {
    let code = engine
        .precompile_component(bytes)
        .map_err(|error| Rejection::Compile(format!("{error:#}")))?;
    cache::open_for_code(file).and_then(|mut file| file.write_all(&code)).map_err(|error| {
        Rejection::Failed(format!(
            "its compiled code cannot be written: {error}; make room on the disk"
        ))
    })
}

fn describe(
    sandbox: &WasmEngine,
    component: &Component,
    asked: &Asked,
) -> Result<Texts, Rejection> {
    let invalid = |error: wasmtime::Error| Rejection::Invalid(format!("{error:#}"));
    let linker = linker(&sandbox.engine).map_err(invalid)?;
    let pre = linker.instantiate_pre(component).map_err(invalid)?;
    // Whoever only looks at a component must not have it send anything.
    let settings = asked.settings();
    let no_network = Outbound::stubbed(&settings, StubAnswer::NoAnswer);
    let granted = Arc::new(Grant::with_outbound(settings, no_network));
    let mut store = Guest::store(&sandbox.engine, None, None, granted);
    let asked = Box::pin(async move {
        let answer = async {
            let indices = manifest::GuestIndices::new(&pre)?;
            let instance = pre.instantiate_async(&mut store).await?;
            indices.load(&mut store, &instance)?.call_describe(&mut store).await
        };
        answer.await.map_err(|error| {
            let why = crate::call::trap::why(&error, &store.data_mut().last_words());
            Rejection::Manifest(format!("describe failed: {why}"))
        })
    });
    let meter = Meter::new(&sandbox.clock);
    let began = processor_time();
    let computes_too_long = async {
        while processor_time().saturating_sub(began) < DESCRIBE_COMPUTES_MAX {
            tokio::time::sleep(DESCRIBE_COMPUTES_MAX / 100).await;
        }
    };
    let too_long =
        |max: Duration| Err(Rejection::Manifest(format!("describe took longer than {max:?}")));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = meter.metered(asked) => answer,
            () = computes_too_long => too_long(DESCRIBE_COMPUTES_MAX),
            () = tokio::time::sleep(DESCRIBE_TIMEOUT) => too_long(DESCRIBE_TIMEOUT),
        }
    })?;
    Ok(Texts {
        name: answer.name,
        version: answer.version,
        summary: answer.summary,
        input_schema: answer.input_schema,
        output_schema: answer.output_schema,
        service: answer.service,
        needs: answer.needs,
    })
}

fn failed(error: &dyn std::fmt::Display) -> Rejection {
    Rejection::Failed(error.to_string())
}

/// What a child process does, from its first moment to its last: it reads a request and a component
/// from its standard input, limits itself, looks at the component, and writes the answer to its
/// standard output. It ends when its input does, because then nobody waits any more.
#[must_use]
pub fn inspect_component() -> ExitCode {
    let answer = read_request().map(|(request, bytes)| {
        limit_this_process(request.limits);
        if request.is_background {
            give_way();
        }
        let watched = std::thread::Builder::new().name("amends-watch".to_owned()).spawn(|| {
            // Whoever asked holds it open.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::abort();
        });
        watched.map_err(|error| failed(&error)).and_then(|_| inspect(&request, &bytes))
    });
    let answer = answer.unwrap_or_else(|error| Err(failed(&error))).map_err(Rejection::cut);
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|json| io::stdout().write_all(&json));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line of JSON, then the bytes of the component.
fn read_request() -> io::Result<(Request, Vec<u8>)> {
    let (mut input, mut line) = (io::stdin().lock(), String::new());
    input.read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let mut bytes = Vec::new();
    input.take(request.bytes_len).read_to_end(&mut bytes)?;
    Ok((request, bytes))
}

#[cfg(target_os = "linux")]
fn limit_this_process(limits: Limits) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // What is only reserved, such as the memories of a sandbox, does not count as data.
    let limits = [
        (Resource::Data, limits.memory_bytes),
        (Resource::Cpu, limits.processor_seconds),
        (Resource::Fsize, CODE_BYTES_MAX),
        (Resource::Core, 0),
    ];
    for (resource, max) in limits {
        // At the first a signal says which limit it was, at the second the kernel just kills. It can only
        // fail where a lower limit is set already.
        let _ = setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max + 1) });
    }
    // When the machine has no memory left, this process is what it can do without.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

#[cfg(target_os = "linux")]
fn give_way() {
    // Threads that are made from here on inherit it.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Elsewhere the host's own limit of time is what there is.
#[cfg(not(target_os = "linux"))]
fn limit_this_process(_limits: Limits) {}

#[cfg(not(target_os = "linux"))]
fn give_way() {}
