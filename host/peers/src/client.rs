//! Requests to another host: one client with its pool of connections, deadlines, and bounds of what is taken.

use std::error::Error;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Method, Request, Uri, response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::time::Sleep;

use crate::limits::{
    ANSWER_BYTES_MAX, CONNECT_TIME_MAX, HEAD_BYTES_MAX, IDLE_CONNECTION_TIME_MAX,
    IDLE_CONNECTIONS_MAX, PASSED_BYTES_MAX, SILENCE_MAX,
};

/// Why another host has not answered a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It does not own the saga. Nothing was done. Look again who does.
    #[error("host {0} does not own the saga")]
    NotOwner(String),
    /// There is no connection to it. Nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The request was sent, and no answer came. It may have been carried out.
    #[error("{0}")]
    Silent(String),
    /// What answers is not this host.
    #[error("{0}")]
    NotTheHost(String),
    /// It does not take requests of this host. Operator.
    #[error("{0}")]
    Refused(String),
    /// Too many starts wait for this host. Nothing was sent.
    #[error("too many starts wait for host {0}")]
    Full(String),
}

/// The answer of another host, whose body has not come yet.
#[derive(Debug)]
pub struct Answer {
    /// The status and the headers.
    pub head: response::Parts,
    /// The body. It ends with an error when it is larger than a host passes on, or says nothing for too long.
    pub body: PassedBody,
}

impl Answer {
    /// Reads the whole body as JSON.
    ///
    /// # Errors
    /// When it breaks off, is too large or is something else.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, PeerError> {
        let status = self.head.status;
        let bytes = self.bytes().await.map_err(PeerError::Silent)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            PeerError::Silent(format!(
                "another host answered {status} and what is not understood: {error}"
            ))
        })
    }

    /// Reads the whole body, of at most some megabytes.
    pub(crate) async fn bytes(self) -> Result<Bytes, String> {
        let body = Limited::new(self.body, ANSWER_BYTES_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    }
}

/// A request to another host. The path begins with a slash.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing<'r> {
    pub(crate) method: &'r Method,
    pub(crate) uri: &'r Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The client of a host for all others.
#[derive(Debug)]
pub(crate) struct Client(HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(amends_sandbox::system_tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Self(client)
    }

    /// Sends a request to the host at `address`, and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        address: &str,
        outgoing: Outgoing<'_>,
        time: Duration,
    ) -> Result<Answer, PeerError> {
        let path = outgoing.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{}{path}", address.trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(|error| {
            PeerError::Unreachable(format!("`{address}` is no address of a host: {error}"))
        })?;
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = outgoing.headers;
        match tokio::time::timeout(time, self.0.request(request)).await {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                Ok(Answer { head, body: PassedBody::new(body) })
            }
            Ok(Err(error)) if error.is_connect() => {
                let error = with_causes(&error);
                Err(PeerError::Unreachable(format!("{address} cannot be reached: {error}")))
            }
            Ok(Err(error)) => {
                let error = with_causes(&error);
                Err(PeerError::Silent(format!("the connection to {address} has failed: {error}")))
            }
            Err(_) => Err(PeerError::Silent(format!("{address} has not answered within {time:?}"))),
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer on its way through this host.
#[derive(Debug)]
pub struct PassedBody {
    inner: Incoming,
    left: u64,
    silence: Pin<Box<Sleep>>,
}

impl PassedBody {
    fn new(inner: Incoming) -> Self {
        Self { inner, left: PASSED_BYTES_MAX, silence: Box::pin(tokio::time::sleep(SILENCE_MAX)) }
    }
}

impl Body for PassedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(bytes) else {
                    return Poll::Ready(Some(Err("another host sends too much".into())));
                };
                this.left = left;
                this.silence.as_mut().reset(tokio::time::Instant::now() + SILENCE_MAX);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => this.silence.poll_unpin(context).map(|()| {
                this.left = 0;
                Some(Err("another host has stopped in the middle of an answer".into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
