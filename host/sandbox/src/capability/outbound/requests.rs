//! The requests of one call: what may be sent, with which idempotency key, and what is known of each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use amends_engine::TraceContext;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::sync::watch;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::call::call_trace::TracedRequest;
use crate::capability::grant::Grant;
use crate::capability::outbound::limits::HTTP_REQUESTS_MAX;
use crate::capability::outbound::sent::Sent;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// What one call sends.
pub(crate) struct Requests {
    pub(crate) granted: Arc<Grant>,
    idempotency_key: String,
    traceparent: Option<String>,
    /// Each request has a span of its own below this one; none when the call is not traced.
    trace: Option<TraceContext>,
    pub(crate) count: u32,
    /// Requests end with the call: what is dropped here breaks them off.
    _alive: watch::Sender<()>,
    ended: watch::Receiver<()>,
    traffic: Arc<Mutex<Traffic>>,
}

/// What the host knows of the requests of one call.
#[derive(Default)]
struct Traffic {
    /// Why one was refused, for people: the last.
    refused: Option<String>,
    /// What this machine lacked, so that one was not sent: the last.
    lacked: Option<String>,
    /// Those that have left the host, as far as is known: one under way counts.
    sent: u32,
    /// Those without an answer so far, by their number.
    open: Vec<(u32, Method, Uri)>,
    /// Those that were given an idempotency key, in order.
    keyed: Vec<Keyed>,
    /// Those that have spans, in order, by their number.
    traced: Vec<(u32, TracedRequest)>,
}

/// A request that was given an idempotency key.
struct Keyed {
    method: Method,
    uri: Uri,
    /// It came back without an answer that says what was done.
    is_unanswered: bool,
}

/// What a call has left outside the sandbox.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Why the host refused a request, if it did: the last one.
    pub(crate) refused: Option<String>,
    /// What this machine lacked, so that a request was not sent.
    pub(crate) lacked: Option<String>,
    /// Whether a request may have left the host.
    pub(crate) has_sent: bool,
    /// The method and the origin of a request without an answer so far: of the first.
    pub(crate) unanswered: Option<String>,
    /// The requests that have spans, in order.
    pub(crate) requests: Vec<TracedRequest>,
}

impl Traffic {
    /// The number of the key that a request goes out with, from 0. It is the same whenever the call is
    /// made again, as long as the component sends the same requests in the same order. A request that
    /// is sent once more because nobody knows what came of it has the key that it had.
    fn number(&mut self, request: &Request<WasiBody>) -> usize {
        let is_again = |keyed: &Keyed| {
            keyed.is_unanswered && keyed.method == *request.method() && keyed.uri == *request.uri()
        };
        if let Some(number) = self.keyed.iter().position(is_again) {
            self.keyed[number].is_unanswered = false;
            return number;
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        self.keyed.push(Keyed { method, uri, is_unanswered: false });
        self.keyed.len() - 1
    }

    /// Records what came of a request; `number` is that of its key.
    fn came(&mut self, count: u32, number: Option<usize>, came: &Result<Response<WasiBody>, Sent>) {
        self.open.retain(|(open, ..)| *open != count);
        if let Some((_, traced)) = self.traced.iter_mut().find(|(traced, _)| *traced == count) {
            traced.ended = Some(SystemTime::now());
            traced.status = came.as_ref().ok().map(|answer| answer.status().as_u16());
        }
        let is_unanswered = match came {
            Ok(answer) => tells_nothing(answer.status()),
            Err(Sent { why, is_unsent, lacked, .. }) => {
                self.sent -= u32::from(*is_unsent);
                if why.is_some() {
                    self.refused.clone_from(why);
                }
                if lacked.is_some() {
                    self.lacked.clone_from(lacked);
                }
                true
            }
        };
        if let Some(keyed) = number.and_then(|number| self.keyed.get_mut(number)) {
            keyed.is_unanswered = is_unanswered;
        }
    }
}

/// Whether whoever gets this answer has to send the request again to learn what is done.
fn tells_nothing(status: StatusCode) -> bool {
    let again = [
        StatusCode::REQUEST_TIMEOUT,
        // Of one with the same key that is under way (draft-ietf-httpapi-idempotency-key-header).
        StatusCode::CONFLICT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_server_error() || again.contains(&status)
}

impl Requests {
    pub(crate) fn new(
        granted: Arc<Grant>,
        idempotency_key: String,
        traceparent: Option<String>,
    ) -> Self {
        let (alive, ended) = watch::channel(());
        let (traffic, trace) = (Arc::default(), None);
        Self {
            granted,
            idempotency_key,
            traceparent,
            trace,
            count: 0,
            _alive: alive,
            ended,
            traffic,
        }
    }

    /// Has each request go out with a span of its own below `trace` as the parent.
    pub(crate) fn below(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// What is known of its requests.
    pub(crate) fn left(&self) -> Left {
        let traffic = lock(&self.traffic);
        let (refused, lacked) = (traffic.refused.clone(), traffic.lacked.clone());
        let unanswered = traffic.open.first().map(|(_, method, uri)| named(method, uri));
        let requests = traffic.traced.iter().map(|(_, request)| request.clone()).collect();
        Left { refused, lacked, has_sent: traffic.sent > 0, unanswered, requests }
    }

    /// Whether it may be sent; with what goes out by itself. Answers the number of the key that it
    /// was given.
    fn prepare(&mut self, request: &mut Request<WasiBody>) -> Result<Option<usize>, Sent> {
        self.count += 1;
        if self.count > HTTP_REQUESTS_MAX {
            let why = format!("a call sends at most {HTTP_REQUESTS_MAX} requests");
            return Err(Sent::because(Error::ConnectionLimitReached, why));
        }
        let outbound = self.granted.outbound();
        outbound
            .allow
            .allows(request.uri(), &outbound.section)
            .map_err(|why| Sent::because(Error::HttpRequestDenied, why))?;
        if outbound.stub().is_some() {
            // What the host adds says nothing of the component.
            return Ok(None);
        }
        let span = self.trace.map(|trace| trace.child(&span_name(self.count)).to_string());
        let traceparent = span.as_deref().or(self.traceparent.as_deref());
        if let Some(traceparent) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
            request.headers_mut().insert(TRACEPARENT, traceparent);
        }
        // One that only reads needs none, and a component may name its effects by keys of its own.
        if request.method().is_safe() || request.headers().contains_key(IDEMPOTENCY_KEY) {
            return Ok(None);
        }
        let number = lock(&self.traffic).number(request);
        let key = match number {
            0 => self.idempotency_key.clone(),
            number => format!("{}-{}", self.idempotency_key, number + 1),
        };
        if let Ok(key) = HeaderValue::from_str(&key) {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        Ok(Some(number))
    }
}

/// `POST http://carrier.example:8080`. Path and query are left out: they may hold a secret.
fn named(method: &Method, uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{method} {scheme}://{authority}")
}

/// The name by which the id of a request's span follows from the span of its call.
fn span_name(count: u32) -> String {
    format!("request {count}")
}

/// The word for a method in a trace. A plugin may make up others than HTTP defines, and put anything into them.
fn method_word(method: &Method) -> &'static str {
    let known = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("_OTHER")
}

/// What is told in a trace of a request that is about to be sent.
fn traced(granted: &Grant, count: u32, request: &Request<WasiBody>) -> TracedRequest {
    TracedRequest {
        name: span_name(count),
        method: method_word(request.method()).to_owned(),
        server: granted.secrets.redact(request.uri().host().unwrap_or_default()).into_owned(),
        port: request.uri().port_u16(),
        began: SystemTime::now(),
        ended: None,
        status: None,
    }
}

fn lock(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = wasmtime_wasi_http::Result<(Response<WasiBody>, Io)>> + Send> {
        let prepared = self.prepare(&mut request);
        let granted = Arc::clone(&self.granted);
        // Now, so that requests are recorded in their order and also when nobody waits for an answer.
        let refused_now = prepared.as_ref().err();
        let noted = granted.outbound().stub().map(|stub| stub.note(&request, refused_now));
        let traffic = Arc::clone(&self.traffic);
        let count = self.count;
        if prepared.is_ok() && noted.is_none() {
            let mut traffic = lock(&traffic);
            traffic.sent += 1;
            traffic.open.push((count, request.method().clone(), request.uri().clone()));
            if self.trace.is_some() {
                traffic.traced.push((count, traced(&granted, count, &request)));
            }
        }
        let mut ended = self.ended.clone();
        Box::new(async move {
            let (number, prepared) = (prepared.as_ref().ok().copied().flatten(), prepared);
            let sent = async {
                prepared?;
                match noted {
                    Some(noted) => noted.answer(request).await,
                    None => granted.outbound().send(request, options.unwrap_or_default()).await,
                }
            };
            let answer = tokio::select! {
                answer = sent => answer,
                _ = ended.changed() => Err(Sent::from(Error::ConnectionTerminated)),
            };
            lock(&traffic).came(count, number, &answer);
            match answer {
                Ok(answer) => Ok((answer, Box::new(std::future::ready(Ok(()))) as Io)),
                Err(Sent { error, .. }) => Err(error),
            }
        })
    }

    fn p2_error_from_hyper(
        &mut self,
        _: &hyper::Error,
    ) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::HttpProtocolError
    }
}
