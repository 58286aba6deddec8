//! Calls to services over HTTP. Wants the service among `allow_hosts` in `[plugin.NAME]`, and the
//! feature `http` of this crate.
//!
//! The call's idempotency key goes out by itself as `idempotency-key`, unless the request has one of
//! its own, and its trace context as `traceparent`. A redirect is an answer like any other: whoever
//! follows it sends another request, which is checked like the first.
//!
//! ```
//! use amends_sdk::{Failure, http};
//!
//! fn label(order: &str) -> Result<String, Failure> {
//!     let request = http::post("https://carrier.example/labels").json(&order)?;
//!     let response = request.send()?;
//!     match response.status {
//!         200 | 201 => response.json(),
//!         // The carrier says that it did nothing.
//!         400..500 => Err(Failure::permanent("refused", response.text())),
//!         _ => Err(Failure::unknown("carrier_failed", format!("status {}", response.status))),
//!     }
//! }
//! # let answers = |_: &http::Request| Ok(http::Response::new(201, "\"L-1\""));
//! # assert_eq!(http::with(answers, || label("A-1")).ok().as_deref(), Some("L-1"));
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// `https://host:port/path?query`
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Its body; empty: none.
    pub body: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// `200`
    pub status: u16,
    /// Names, in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResponse {
    /// The request was not sent: no effect stands. It was refused, the name stands for nothing, or
    /// no connection could be made.
    NotSent(String),
    /// It was sent, and nobody knows what came of it.
    Lost(String),
}

/// A GET request.
#[must_use]
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// A POST request.
#[must_use]
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// A PUT request.
#[must_use]
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// A DELETE request.
#[must_use]
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

impl Request {
    /// A request without headers and body.
    #[must_use]
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: Vec::new() }
    }

    /// With another header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body of JSON, and the header that says so.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn json<T: Serialize>(mut self, value: &T) -> Result<Self, Failure> {
        self.body = crate::to_json(value)?.into_bytes();
        Ok(self.header("content-type", "application/json"))
    }

    /// Sends it and takes in the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer; as a [`Failure`] it is retryable when nothing was sent, and unknown
    /// when something was.
    pub fn send(self) -> Result<Response, NoResponse> {
        import::send(&self)
    }
}

impl Response {
    /// An answer without headers, for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The value of a header, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Unknown when it is not what was expected: the service did something, and this cannot tell
    /// what.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let message = format!("the answer with status {} cannot be read: {error}", self.status);
            Failure::unknown("invalid_response", message)
        })
    }
}

impl From<NoResponse> for Failure {
    fn from(none: NoResponse) -> Self {
        match none {
            NoResponse::NotSent(why) => Self::retryable("not_sent", why),
            NoResponse::Lost(why) => Self::unknown("no_response", why),
        }
    }
}

#[cfg(target_family = "wasm")]
use wasm as import;

#[cfg(target_family = "wasm")]
mod wasm {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{
        ErrorCode, Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme,
    };
    use wasip2::io::streams::StreamError;

    use super::{NoResponse, Request, Response};

    /// Bytes that a stream takes at once.
    const CHUNK_BYTES: usize = 4_096;

    pub(super) fn send(request: &Request) -> Result<Response, NoResponse> {
        let not_sent = |what: &str| NoResponse::NotSent(format!("{what} of {}", origin(request)));
        let outgoing = outgoing(request).ok_or_else(|| not_sent("the address or a header"))?;
        // A body that is taken and left empty goes out as one of unknown length, which some services
        // refuse of a GET or a DELETE.
        let body = match request.body.as_slice() {
            [] => None,
            _ => Some(outgoing.body().map_err(|()| not_sent("the body"))?),
        };
        let answer = handle(outgoing, None).map_err(|error| failed(request, &error))?;
        if let Some(body) = body {
            // What goes wrong here shows in the answer, or in that there is none.
            let _ = write(&body, &request.body);
            let _ = OutgoingBody::finish(body, None);
        }
        answer.subscribe().block();
        let response = match answer.get() {
            Some(Ok(Ok(response))) => response,
            Some(Ok(Err(error))) => return Err(failed(request, &error)),
            Some(Err(())) | None => return Err(NoResponse::Lost("no answer came".to_owned())),
        };
        let headers = response.headers().entries().into_iter();
        let headers = headers.map(|(name, value)| {
            (name.to_lowercase(), String::from_utf8_lossy(&value).into_owned())
        });
        let (status, headers) = (response.status(), headers.collect());
        let body = response.consume().map_err(|()| NoResponse::Lost("no body".to_owned()))?;
        Ok(Response { status, headers, body: read(request, &body)? })
    }

    fn outgoing(request: &Request) -> Option<OutgoingRequest> {
        let (scheme, rest) = request.url.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let path = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let headers = request.headers.iter();
        let mut headers: Vec<_> =
            headers.map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        // RFC 9110, 8.6: a method that has a body usually says that it has none.
        let may_have_body = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH");
        if may_have_body || !request.body.is_empty() {
            let length = request.body.len().to_string();
            headers.push(("content-length".to_owned(), length.into_bytes()));
        }
        let outgoing = OutgoingRequest::new(Fields::from_list(&headers).ok()?);
        outgoing.set_method(&method(&request.method)).ok()?;
        outgoing.set_scheme(Some(&scheme)).ok()?;
        outgoing.set_authority(Some(authority)).ok()?;
        outgoing.set_path_with_query(Some(&path)).ok()?;
        Some(outgoing)
    }

    fn method(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "HEAD" => Method::Head,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            other => Method::Other(other.to_owned()),
        }
    }

    fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
        let Ok(stream) = body.write() else { return Ok(()) };
        bytes.chunks(CHUNK_BYTES).try_for_each(|chunk| stream.blocking_write_and_flush(chunk))
    }

    fn read(request: &Request, body: &IncomingBody) -> Result<Vec<u8>, NoResponse> {
        let lost = || {
            NoResponse::Lost(format!("the answer of {} broke off or is too large", origin(request)))
        };
        let stream = body.stream().map_err(|()| lost())?;
        let mut bytes = Vec::new();
        loop {
            match stream.blocking_read(1 << 16) {
                Ok(more) => bytes.extend(more),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(StreamError::LastOperationFailed(_)) => return Err(lost()),
            }
        }
    }

    /// What is known of these: the request did not go out.
    fn failed(request: &Request, error: &ErrorCode) -> NoResponse {
        let why = format!("{} of {}: {}", request.method, origin(request), words(error));
        match error {
            ErrorCode::DnsTimeout
            | ErrorCode::DnsError(_)
            | ErrorCode::DestinationNotFound
            | ErrorCode::DestinationUnavailable
            | ErrorCode::DestinationIpProhibited
            | ErrorCode::DestinationIpUnroutable
            | ErrorCode::ConnectionRefused
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionLimitReached
            | ErrorCode::TlsProtocolError
            | ErrorCode::TlsCertificateError
            | ErrorCode::HttpRequestDenied
            | ErrorCode::HttpRequestUriInvalid
            | ErrorCode::HttpRequestMethodInvalid => NoResponse::NotSent(why),
            _ => NoResponse::Lost(why),
        }
    }

    /// `connection refused` of `ErrorCode::ConnectionRefused`; what is in it stays as it is.
    fn words(error: &ErrorCode) -> String {
        let text = format!("{error:?}");
        let name = text.strip_prefix("ErrorCode::").unwrap_or(&text);
        let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        let mut words = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !words.is_empty() {
                words.push(' ');
            }
            words.push(letter.to_ascii_lowercase());
        }
        words + rest
    }

    /// Without path and query: there may be something in them that is nobody's business.
    fn origin(request: &Request) -> &str {
        let start = request.url.find("://").map_or(0, |at| at + 3);
        let end = request.url[start..].find(['/', '?']).map_or(request.url.len(), |at| start + at);
        &request.url[..end]
    }
}

#[cfg(not(target_family = "wasm"))]
use native as import;

#[cfg(not(target_family = "wasm"))]
pub use native::with;

/// In a native test the test answers.
#[cfg(not(target_family = "wasm"))]
mod native {
    use std::cell::RefCell;

    use super::{NoResponse, Request, Response};

    type Service = Box<dyn FnMut(&Request) -> Result<Response, NoResponse>>;

    thread_local! {
        static SERVICE: RefCell<Option<Service>> = RefCell::default();
    }

    /// Runs a native test with a service that answers what it sends.
    pub fn with<T>(
        service: impl FnMut(&Request) -> Result<Response, NoResponse> + 'static,
        test: impl FnOnce() -> T,
    ) -> T {
        SERVICE.set(Some(Box::new(service)));
        let result = test();
        SERVICE.take();
        result
    }

    pub(super) fn send(request: &Request) -> Result<Response, NoResponse> {
        SERVICE.with_borrow_mut(|service| match service {
            Some(service) => service(request),
            None => Err(NoResponse::NotSent("this test answers no requests".to_owned())),
        })
    }
}
