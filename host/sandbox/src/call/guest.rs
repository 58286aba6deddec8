//! What a component sees of the host during one call.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::PAYLOAD_BYTES_MAX;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::amends::saga::log::Level;
use crate::bindings::amends::saga::{
    config as config_import, events as events_import, log as log_import, state as state_import,
    types,
};
use crate::call::call_id::CallId;
use crate::call::call_trace::CallTrace;
use crate::call::effects::Effects;
use crate::capability::grant::{CallName, Grant};
use crate::capability::last_words::{LAST_LINES_MAX, LastWords};
use crate::capability::log_limits::LOG_LINE_BYTES_MAX;
use crate::capability::outbound::requests::{Left, Requests};
use crate::capability::standard_streams::{StandardStreams, Stream};
use crate::capability::state_view::StateView;
use crate::limits::budget::Held;
use crate::limits::call_limits::CallLimits;
use crate::limits::meter;
use crate::stopped::Stopped;

/// Bytes that a component may hand to the host in one answer or import: a payload and some words.
/// Past it the call traps, before the bytes are copied.
pub(crate) const HOST_CALL_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX + (64 << 10);

/// Bytes of one call of `wasi:random`.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Resources that a component holds of the host's: streams, requests, headers. Each costs memory of
/// the host, up to some 128 KiB of headers.
const RESOURCES_MAX: usize = 256;

/// Resources that an instance may still hold after a call and serve another one: its standard streams,
/// which the libraries of most languages open once and keep. More would be a leak.
const RESOURCES_KEPT_MAX: usize = 8;

/// The state of one call.
pub(crate) struct Guest {
    /// None while it is described.
    pub(crate) id: Option<CallId>,
    pub(crate) granted: Arc<Grant>,
    /// Where plugins' state is; none where there is no store.
    pub(crate) state_view: Option<Arc<dyn StateView>>,
    pub(crate) limits: CallLimits,
    host_calls: u32,
    pub(crate) log_lines: u32,
    /// The places where it said a secret in this call: each makes one warning.
    said_secret: Mutex<BTreeSet<&'static str>>,
    pub(crate) state_bytes: usize,
    pub(crate) emitted_bytes: usize,
    pub(crate) effects: Effects,
    /// What is told of the call in its trace, but for its requests.
    pub(crate) trace: CallTrace,
    requests: Option<Box<Requests>>,
    http: WasiHttpCtx,
    pub(crate) said: StandardStreams,
    /// Made when WASI is first used: most components never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl Guest {
    /// What is kept of a text that the component said. The first text of a call and place that had a secret
    /// in it makes a warning.
    pub(crate) fn kept(&self, clean: Cow<'_, str>, place: &'static str) -> String {
        if let (Cow::Owned(_), Some(id)) = (&clean, &self.id)
            && self.said_secret.lock().unwrap_or_else(PoisonError::into_inner).insert(place)
        {
            let CallId { plugin, saga_id, step, attempt, .. } = id;
            let named = CallName { plugin, saga_id: *saga_id, step, attempt: *attempt };
            self.granted.warn_of_secret(&named, place);
        }
        clean.into_owned()
    }

    pub(crate) fn store(
        engine: &Engine,
        state_view: Option<Arc<dyn StateView>>,
        id: Option<CallId>,
        granted: Arc<Grant>,
    ) -> Store<Self> {
        let limits = CallLimits::new(&granted.settings, &granted.memory);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let guest = Self {
            id,
            granted,
            state_view,
            limits,
            host_calls: 0,
            log_lines: 0,
            said_secret: Mutex::default(),
            state_bytes: 0,
            emitted_bytes: 0,
            effects: Effects::default(),
            trace: CallTrace::default(),
            requests: None,
            http: WasiHttpCtx::new(),
            said: StandardStreams::default(),
            wasi: None,
            table,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        meter::count(&mut store, |guest| &guest.granted.settings);
        store
    }

    /// For another call in the same instance, which holds so much memory; answers whether that is
    /// enough. Its memory counts on: it is still there.
    pub(crate) fn begin(&mut self, id: CallId, granted: Arc<Grant>, held: Held) -> Option<Held> {
        if let Some(held) = self.limits.hold(held) {
            return Some(held);
        }
        (self.id, self.granted) = (Some(id), granted);
        (self.host_calls, self.log_lines) = (0, 0);
        self.said_secret = Mutex::default();
        (self.state_bytes, self.emitted_bytes) = (0, 0);
        self.effects = Effects::default();
        self.trace = CallTrace::default();
        // Requests that the last call has left behind end here.
        self.requests = None;
        (self.limits.memory_refused, self.limits.table_refused) = (None, None);
        self.limits.lacked = None;
        None
    }

    /// The call is over: what it did that is to be recorded, and what it has left outside. Requests that
    /// it left behind are broken off.
    pub(crate) fn end(&mut self) -> (Effects, Left) {
        let left = self.requests.take().map(|requests| requests.left()).unwrap_or_default();
        (std::mem::take(&mut self.effects), left)
    }

    /// Has a new call hold memory that was taken for it.
    pub(crate) fn hold_memory(&mut self, held: Held) {
        self.limits.held = held;
    }

    /// Has the instance wait to be used again; false when those that wait have enough memory.
    pub(crate) fn rest(&mut self) -> bool {
        let rest = self.granted.memory.rest(self.limits.bytes());
        rest.map(|held| self.limits.held = held).is_some()
    }

    /// Whether the instance may serve another call: no limit was met in this one, and it holds no more
    /// of the host's resources than its standard streams need.
    pub(crate) fn is_clean(&mut self) -> bool {
        let CallLimits { memory_refused, table_refused, lacked, .. } = &self.limits;
        let is_refused = memory_refused.is_some() || table_refused.is_some() || lacked.is_some();
        !is_refused && self.table.iter_mut().nth(RESOURCES_KEPT_MAX).is_none()
    }

    pub(crate) fn granted(&self) -> &Arc<Grant> {
        &self.granted
    }

    /// As [`crate::settings::PluginSettings::grants`]; state is granted to the plugin that it belongs to.
    pub(crate) fn grant(&self, capability: &str) -> Option<(bool, &'static str)> {
        let (is_granted, key) = self.granted.settings.grants(capability)?;
        let of_call = self.id.as_ref().filter(|_| capability == "state");
        Some((of_call.map_or(is_granted, |id| id.state_bytes_max.is_some()), key))
    }

    /// Refuses what is not granted.
    pub(crate) fn need(&self, capability: &'static str) -> Result<(), Stopped> {
        let Some((false, key)) = self.grant(capability) else { return Ok(()) };
        let message = format!(
            "the component uses {capability}, which is not granted; grant it by {key} in [{}]",
            self.granted.settings.section()
        );
        Err(Stopped::new("not_granted", message))
    }

    /// Counts a call of the host.
    pub(crate) fn host_call(&mut self) -> Result<(), Stopped> {
        self.host_calls += 1;
        let max = self.granted.settings.host_calls_max;
        if self.host_calls > max {
            let message = format!(
                "the component called the host more than {max} times; raise host_calls_max in [{}] or \
                 make it call less",
                self.granted.settings.section()
            );
            return Err(Stopped::new("host_call_limit", message));
        }
        Ok(())
    }
}

impl Guest {
    /// Takes what was written to the standard streams into the log: whole lines, with `all` also those
    /// that have not ended.
    pub(crate) fn hear(&mut self, all: bool) {
        let mut lines = self.said.take(all);
        if self.has_said_all() {
            // It may write on without end, and only its last words still count.
            lines.retain(|(stream, _)| *stream == Stream::Error);
            lines.drain(..lines.len().saturating_sub(LAST_LINES_MAX));
        }
        for (stream, bytes) in lines {
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            let clean = if bytes.len() > LOG_LINE_BYTES_MAX {
                // A character may be cut in two as well.
                self.granted.secrets.redact_cut(line.trim_end_matches(char::REPLACEMENT_CHARACTER))
            } else {
                self.granted.secrets.redact(line)
            };
            let line = self.kept(clean, stream.as_str());
            let level = match stream {
                Stream::Output => Level::Info,
                Stream::Error => {
                    self.said.last.add(&line);
                    Level::Warn
                }
            };
            if !line.is_empty() && !self.has_said_all() {
                let fields = vec![("stream".to_owned(), stream.as_str().to_owned())];
                self.log(level, &line, fields);
            }
        }
    }

    /// Keeps an error that the component wrote to the log, for when the call is stopped next.
    pub(crate) fn hear_error(&mut self, line: &str) {
        self.said.last.add(line);
    }

    /// What the component said last of what is wrong, in the call that is over.
    pub(crate) fn last_words(&mut self) -> LastWords {
        self.hear(true);
        std::mem::take(&mut self.said.last)
    }
}

/// Everything that a component may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, GuestData>(&mut linker, |guest| guest)?;
    config_import::add_to_linker::<_, GuestData>(&mut linker, |guest| guest)?;
    events_import::add_to_linker::<_, GuestData>(&mut linker, |guest| guest)?;
    log_import::add_to_linker::<_, GuestData>(&mut linker, |guest| guest)?;
    state_import::add_to_linker::<_, GuestData>(&mut linker, |guest| guest)?;
    Ok(linker)
}

struct GuestData;

impl HasData for GuestData {
    type Data<'a> = &'a mut Guest;
}

impl types::Host for Guest {}

impl config_import::Host for Guest {
    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.host_call()?;
        Ok(self.granted.settings.settings.get(&name).map(ToString::to_string))
    }

    fn secret(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.host_call()?;
        // What it says of itself before it is called is for everybody.
        let secret = self.id.as_ref().and_then(|_| self.granted.settings.secrets.get(&name));
        Ok(secret.map(|secret| secret.reveal().to_owned()))
    }

    fn granted(&mut self, capability: String) -> wasmtime::Result<bool> {
        self.host_call()?;
        Ok(self.grant(&capability).is_some_and(|(is_granted, _)| is_granted))
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.hear(false);
        let said = &self.said;
        // Nothing granted: no folders, no environment, no arguments, no network. Sockets are not even
        // made: each would be a file of this machine's.
        let ctx = self.wasi.get_or_insert_with(|| {
            let mut builder = WasiCtx::builder();
            builder.max_random_size(RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
            said.streams(&mut builder);
            builder.build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (granted, id) = (&self.granted, self.id.as_ref());
        let hooks = self.requests.get_or_insert_with(|| {
            let key = id.map(|id| id.idempotency_key.clone()).unwrap_or_default();
            let traceparent = id.and_then(|id| id.traceparent.clone());
            let trace = id.and_then(CallId::trace);
            Box::new(Requests::new(Arc::clone(granted), key, traceparent).below(trace))
        });
        WasiHttpCtxView { hooks: &mut **hooks, table: &mut self.table, ctx: &mut self.http }
    }
}
