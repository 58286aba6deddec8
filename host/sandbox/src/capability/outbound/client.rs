//! The HTTP client of one plugin, or the stub in its place.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, Sleep, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::capability::outbound::allow::AllowHosts;
use crate::capability::outbound::connect::{self, Connector, LOOKUPS, Resolve};
use crate::capability::outbound::sent::Sent;
use crate::capability::outbound::stub::{Stub, StubAnswer};
use crate::settings::PluginSettings;

/// Connections to one host that wait for another request, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the requests of one plugin go.
pub(crate) struct Outbound {
    to: To,
    pub(crate) allow: Arc<AllowHosts>,
    /// Where that is written, for messages.
    pub(crate) section: String,
    timeout: Duration,
    response_bytes_max: usize,
}

enum To {
    /// A client of its own: its connections are not another plugin's.
    Network(Box<Client<HttpsConnector<Connector>, WasiBody>>),
    /// Nothing leaves the host: there is no client.
    Stub(Stub),
}

impl Outbound {
    pub(crate) fn new(settings: &PluginSettings) -> Self {
        Self::with(settings, Arc::new(connect::system))
    }

    pub(crate) fn with(settings: &PluginSettings, resolve: Arc<Resolve>) -> Self {
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
        Self { to: To::Network(Box::new(client)), ..Self::stubbed(settings, StubAnswer::NoAnswer) }
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
    pub(crate) async fn send(
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

/// Returns the TLS of a client of the host: it trusts the certificates of the system, which are read once.
#[must_use]
pub fn system_tls() -> rustls::ClientConfig {
    TLS.clone()
}

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
