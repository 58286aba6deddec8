//! Answers a component's requests in a rehearsal. It records them, and nothing of them leaves the
//! host.
//!
//! Deliberately absent: what the name of a host stands for. Finding out would ask the network.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use amends_engine::Digest;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use sha2::{Digest as _, Sha256};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::capability::outbound::limits::HTTP_REQUESTS_MAX;
use crate::capability::outbound::sent::Sent;
use crate::capability::redactor::Redactor;

/// A longer body is recorded as its size and digest, because the record of a call is held until it is
/// compared.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a body may take to come before the answer does: a component that writes it only after
/// the answer would wait for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Headers that say who asks. Their values are secrets also where the component has made something
/// else of the secret that it was given.
const CREDENTIALS: [header::HeaderName; 3] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// Headers that say nothing of their own: the address and the body say it.
const IMPLIED: [header::HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

/// What every request of a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StubAnswer {
    /// This status, with the body `{}`.
    Status(u16),
    /// Nothing: the connection breaks, and what was sent may have arrived.
    NoAnswer,
}

impl StubAnswer {
    /// What an undo must know how to deal with: that it is done, that there is nothing to undo, that
    /// the service is not there now, and that nobody knows whether it was done.
    pub const ALL: [Self; 4] =
        [Self::Status(200), Self::Status(404), Self::Status(503), Self::NoAnswer];
}

/// `200`, `no answer`.
impl fmt::Display for StubAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::NoAnswer => f.write_str("no answer"),
        }
    }
}

/// A request that a component would have sent, without the secrets of its plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubbedRequest {
    /// The method, such as `DELETE`.
    pub method: String,
    /// The address that the request was for.
    pub url: String,
    /// What the component itself set, by name, but for the host and the length of the body.
    /// Credentials are not shown; two that differ look different.
    pub headers: BTreeMap<String, String>,
    /// As text, or its size and digest.
    pub body: String,
    /// Why the host refused it, if it did.
    pub refused: Option<String>,
}

/// Answers all requests of one call, and records them.
pub(crate) struct Stub {
    answer: StubAnswer,
    noted: Mutex<Vec<Noted>>,
}

/// A request that is recorded; its body comes later.
#[derive(Clone)]
pub(crate) struct Noted {
    answer: StubAnswer,
    request: Arc<Mutex<Raw>>,
}

struct Raw {
    method: String,
    url: String,
    headers: HeaderMap,
    body: Body,
    refused: Option<String>,
}

/// A body as far as it has come.
#[derive(Default)]
struct Body {
    /// The first [`BODY_BYTES_MAX`].
    kept: Vec<u8>,
    bytes: usize,
    digest: Sha256,
}

impl Stub {
    pub(crate) fn new(answer: StubAnswer) -> Self {
        Self { answer, noted: Mutex::default() }
    }

    /// `refused`: why it would not be sent.
    pub(crate) fn note(&self, request: &Request<WasiBody>, refused: Option<&Sent>) -> Noted {
        let refused =
            refused.map(|sent| sent.why.clone().unwrap_or_else(|| sent.error.to_string()));
        let raw = Raw {
            method: request.method().to_string(),
            url: request.uri().to_string(),
            headers: request.headers().clone(),
            body: Body::default(),
            refused,
        };
        let noted = Noted { answer: self.answer, request: Arc::new(Mutex::new(raw)) };
        let mut all = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        // One more than may be sent shows that it wanted more.
        if all.len() <= HTTP_REQUESTS_MAX as usize {
            all.push(noted.clone());
        }
        noted
    }

    /// Returns the requests that were recorded so far, in order.
    pub(crate) fn requests(&self, secrets: &Redactor) -> Vec<StubbedRequest> {
        let all = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |noted: &Noted| {
            noted.request.lock().unwrap_or_else(PoisonError::into_inner).clean(secrets)
        };
        all.iter().map(one).collect()
    }
}

impl Noted {
    pub(crate) async fn answer(
        &self,
        request: Request<WasiBody>,
    ) -> Result<Response<WasiBody>, Sent> {
        let mut body = request.into_body();
        let whole = async {
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(bytes) = frame.data_ref() {
                    let mut raw = self.request.lock().unwrap_or_else(PoisonError::into_inner);
                    raw.body.add(bytes);
                }
            }
        };
        let _ = tokio::time::timeout(BODY_TIMEOUT, whole).await;
        let StubAnswer::Status(status) = self.answer else {
            return Err(Sent::from(Error::ConnectionTerminated));
        };
        let body = Full::new(Bytes::from_static(b"{}"));
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_err(|never| match never {}).boxed_unsync())
            .map_err(|_| Sent::from(Error::HttpProtocolError))
    }
}

impl Body {
    fn add(&mut self, bytes: &[u8]) {
        let room = BODY_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.bytes += bytes.len();
        self.digest.update(bytes);
    }
}

impl Raw {
    fn clean(&self, secrets: &Redactor) -> StubbedRequest {
        let headers = self.headers.iter().filter(|(name, _)| !IMPLIED.contains(name));
        let headers = headers.fold(BTreeMap::<String, String>::new(), |mut all, (name, value)| {
            let value = if CREDENTIALS.contains(name) {
                format!("not shown ({:08x})", mark(value.as_bytes()))
            } else {
                secrets.redact(&String::from_utf8_lossy(value.as_bytes())).into_owned()
            };
            let known = all.entry(name.to_string()).or_default();
            let separator = if known.is_empty() { "" } else { ", " };
            *known += &[separator, &value].concat();
            all
        });
        let body = match std::str::from_utf8(&self.body.kept) {
            Ok(text) if self.body.bytes <= BODY_BYTES_MAX => {
                secrets.redact(&secrets.redact_json(text)).into_owned()
            }
            Ok(_) | Err(_) => {
                let digest = Digest::from_bytes(self.body.digest.clone().finalize().into());
                format!("{} bytes, {digest}", self.body.bytes)
            }
        };
        StubbedRequest {
            method: self.method.clone(),
            url: secrets.redact(&self.url).into_owned(),
            headers,
            body,
            refused: self.refused.as_ref().map(|why| secrets.redact(why).into_owned()),
        }
    }
}

/// Tells two values apart, and nobody what they are: its key is this process's alone.
fn mark(value: &[u8]) -> u32 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let bytes = KEY.hash_one(value).to_be_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
