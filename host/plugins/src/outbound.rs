//! Outbound HTTP of plugins (`wasi:http/outgoing-handler`): to the hosts of `allow_hosts`, with
//! limits, over connections that are kept.
//!
//! Deliberately absent: redirects (whoever follows one sends another request, which is checked like
//! the first), proxies and cookies.

mod address;
mod allow;
mod connect;
mod stub;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub use allow::{AllowHost, AllowHosts, Origin};
pub use stub::{StubAnswer, StubbedRequest};

use crate::config::PluginSettings;
use connect::{Connector, LOOKUPS, Lacking, Prohibited, Resolve, Unresolved};
pub(crate) use stub::Stub;

/// Connections to one host that wait for another request, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests of one call.
pub const HTTP_REQUESTS_MAX: u32 = 100;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

/// Where the requests of one plugin go.
pub(crate) struct Outbound {
    to: To,
    allow: Arc<AllowHosts>,
    /// Where that is written, for messages.
    section: String,
    timeout: Duration,
    response_bytes_max: usize,
}

enum To {
    /// A client of its own: its connections are not another plugin's.
    Network(Client<HttpsConnector<Connector>, WasiBody>),
    /// Nothing leaves the host: there is no client.
    Stub(Stub),
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Outbound {
    pub(crate) fn new(settings: &PluginSettings) -> Self {
        Self::with(settings, Arc::new(connect::system))
    }

    fn with(settings: &PluginSettings, resolve: Arc<Resolve>) -> Self {
        let allow = Arc::new(settings.allow_hosts.clone());
        let timeout = settings.connect_timeout;
        let tls = if allow.has_tls() { TLS.clone() } else { tls_without_roots() };
        let (section, lookups) = (settings.section(), LOOKUPS.share());
        let connector = Connector { allow, section, timeout, resolve, lookups };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { to: To::Network(client), ..Self::stubbed(settings, StubAnswer::NoAnswer) }
    }

    /// Sends nothing; what `allow_hosts` refuses is refused all the same.
    pub(crate) fn stubbed(settings: &PluginSettings, answer: StubAnswer) -> Self {
        Self {
            to: To::Stub(Stub::new(answer)),
            allow: Arc::new(settings.allow_hosts.clone()),
            section: settings.section(),
            timeout: settings.request_timeout,
            response_bytes_max: settings.response_bytes_max,
        }
    }

    /// What answers instead of a network, if something does.
    pub(crate) fn stub(&self) -> Option<&Stub> {
        match &self.to {
            To::Network(_) => None,
            To::Stub(stub) => Some(stub),
        }
    }

    /// Sends a request; the answer's body keeps to the limits as well.
    async fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Sent> {
        let To::Network(client) = &self.to else {
            return Err(Sent::from(Error::ConnectionTerminated));
        };
        let whole = Instant::now() + self.timeout;
        let first_byte = options.first_byte_timeout.map(|timeout| Instant::now() + timeout);
        let answer = timeout_at(
            first_byte.map_or(whole, |first_byte| first_byte.min(whole)),
            client.request(request),
        );
        let answer = match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Sent::of(&error)),
            Err(_) => return Err(Sent::from(Error::HttpResponseTimeout)),
        };
        let max = self.response_bytes_max;
        if answer.body().size_hint().lower() > max as u64 {
            return Err(Sent::from(Error::HttpResponseBodySize(Some(max as u64))));
        }
        let until = Box::pin(tokio::time::sleep_until(whole));
        Ok(answer.map(|body| Limited { body, until, left: max, max }.boxed_unsync()))
    }
}

/// The system's roots, read once; without any of them no certificate is good.
static TLS: LazyLock<rustls::ClientConfig> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates to trust cannot be read (SSL_CERT_FILE names others)");
    }
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        tracing::error!("this machine has no certificates to trust: install ca-certificates");
    }
    config(roots)
});

fn tls_without_roots() -> rustls::ClientConfig {
    config(rustls::RootCertStore::empty())
}

fn config(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    #[expect(clippy::expect_used, reason = "the provider is a constant, and has these versions")]
    let builder = versions.expect("ring has the default versions of TLS");
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Why nothing came back: for the component in the words of `wasi:http`, for people in ours.
struct Sent {
    error: Error,
    why: Option<String>,
    /// Nothing of the request has left the host.
    is_unsent: bool,
    /// What this machine lacked, where that is why.
    lacked: Option<String>,
}

impl From<Error> for Sent {
    fn from(error: Error) -> Self {
        Self { error, why: None, is_unsent: false, lacked: None }
    }
}

impl Sent {
    fn because(error: Error, why: String) -> Self {
        Self { why: Some(why), ..Self::from(error) }
    }

    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        Self { is_unsent: error.is_connect(), ..Self::why(error) }
    }

    fn why(error: &hyper_util::client::legacy::Error) -> Self {
        for cause in causes(error) {
            if let Some(lacking) = cause.downcast_ref::<Lacking>() {
                let lacked = Some(lacking.0.clone());
                let why = lacking.0.clone();
                return Self { lacked, ..Self::because(Error::ConnectionLimitReached, why) };
            }
            if let Some(prohibited) = cause.downcast_ref::<Prohibited>() {
                return Self::because(Error::DestinationIpProhibited, prohibited.0.clone());
            }
            if let Some(unresolved) = cause.downcast_ref::<Unresolved>() {
                let rcode = Some(unresolved.to_string());
                return Self::from(Error::DnsError { rcode, info_code: None });
            }
            if let Some(failed) = cause.downcast_ref::<rustls::Error>() {
                let told = if error.is_connect() {
                    Error::TlsCertificateError
                } else {
                    // What was sent may have arrived.
                    Error::ConnectionTerminated
                };
                return Self::because(told, format!("TLS failed: {failed}"));
            }
            if !error.is_connect() {
                continue;
            }
            // One that says more comes after it.
            if let Some(failed) = cause.downcast_ref::<io::Error>()
                && failed.get_ref().is_none()
            {
                let kind = failed.kind();
                return Self::from(if kind == io::ErrorKind::ConnectionRefused {
                    Error::ConnectionRefused
                } else if kind == io::ErrorKind::TimedOut {
                    Error::ConnectionTimeout
                } else {
                    Error::DestinationUnavailable
                });
            }
        }
        Self::from(if error.is_connect() {
            Error::DestinationUnavailable
        } else {
            // What was sent may have arrived.
            Error::ConnectionTerminated
        })
    }
}

/// What it comes from, and what that comes from. `source` of an error of I/O skips the error that it
/// wraps.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| {
        let made_of = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        made_of.map_or_else(|| cause.source(), |made_of| Some(made_of as &dyn std::error::Error))
    })
}

/// A body that ends at a time and a size.
struct Limited {
    body: Incoming,
    until: Pin<Box<Sleep>>,
    left: usize,
    max: usize,
}

impl Body for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Error::HttpResponseTimeout)));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = self.left.checked_sub(bytes) else {
            let max = Some(self.max as u64);
            return Poll::Ready(Some(Err(Error::HttpResponseBodySize(max))));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What one call sends.
pub(crate) struct Requests {
    granted: Arc<crate::granted::Granted>,
    idempotency_key: String,
    traceparent: Option<String>,
    count: u32,
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

    /// Notes what came of a request; `number` is that of its key.
    fn came(&mut self, count: u32, number: Option<usize>, came: &Result<Response<WasiBody>, Sent>) {
        self.open.retain(|(open, ..)| *open != count);
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
        granted: Arc<crate::granted::Granted>,
        idempotency_key: String,
        traceparent: Option<String>,
    ) -> Self {
        let (alive, ended) = watch::channel(());
        let traffic = Arc::default();
        Self { granted, idempotency_key, traceparent, count: 0, _alive: alive, ended, traffic }
    }

    /// What is known of its requests.
    pub(crate) fn left(&self) -> Left {
        let traffic = lock(&self.traffic);
        let (refused, lacked) = (traffic.refused.clone(), traffic.lacked.clone());
        let unanswered = traffic.open.first().map(|(_, method, uri)| named(method, uri));
        Left { refused, lacked, has_sent: traffic.sent > 0, unanswered }
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
        if let Some(traceparent) =
            self.traceparent.as_deref().and_then(|text| HeaderValue::from_str(text).ok())
        {
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
        // Now, so that requests are noted in their order and also when nobody waits for an answer.
        let refused_now = prepared.as_ref().err();
        let noted = granted.outbound().stub().map(|stub| stub.note(&request, refused_now));
        let traffic = Arc::clone(&self.traffic);
        let count = self.count;
        if prepared.is_ok() && noted.is_none() {
            let mut traffic = lock(&traffic);
            traffic.sent += 1;
            traffic.open.push((count, request.method().clone(), request.uri().clone()));
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
