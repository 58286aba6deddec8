//! Requests to a receiver: CloudEvents in the body, signed as Standard Webhooks has it.
//!
//! Deliberately absent: redirects (a receiver that has moved is an error that a person reads), cookies and
//! proxies.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Digest, Timestamp};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::answer::{Answer, with_causes};
use crate::cloud_event::{CLOUD_EVENT, CLOUD_EVENTS, CloudEvent};
use crate::event::NamedEvent;
use crate::limits::{
    ANSWER_BODY_TIME_MAX, ANSWER_BYTES_MAX, ANSWER_CHARS_SHOWN, ANSWER_HEAD_BYTES_MAX,
    CONNECT_TIMEOUT, REQUESTS_MAX,
};
use crate::resolver::Resolver;
use crate::settings::{BatchSettings, WebhookSettings};

/// How long a connection waits for another request.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The client of one receiver.
#[derive(Debug)]
pub(crate) struct Webhook {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    settings: WebhookSettings,
    source: String,
    is_batch: bool,
}

impl Webhook {
    pub(crate) fn new(settings: WebhookSettings, source: String, batch: BatchSettings) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver::default());
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(amends_sandbox::system_tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .pool_max_idle_per_host(REQUESTS_MAX)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .build(connector);
        Self { client, settings, source, is_batch: batch.events_max > 1 }
    }

    /// Sends events. Dropping the future ends the request; the receiver may have the events then.
    pub(crate) async fn send(&self, events: &[Arc<NamedEvent>], at: Timestamp) -> Answer {
        let request = match self.request(events, at) {
            Ok(request) => request,
            Err(error) => return Answer::failed(error.to_string(), false, None),
        };
        let exchange = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let retry_after = retry_after(answer.headers());
            Ok((status, retry_after, said(answer).await))
        };
        let exchange = tokio::time::timeout(self.settings.timeout, exchange);
        let answer: Result<_, hyper_util::client::legacy::Error> = match exchange.await {
            Ok(answer) => answer,
            Err(_) => return Answer::failed(self.too_slow(), true, None),
        };
        match answer {
            Ok((status, retry_after, said)) => judge(status, retry_after, &said),
            Err(error) => Answer::failed(with_causes(&error), true, None),
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {:?}", self.settings.timeout)
    }

    fn request(
        &self,
        events: &[Arc<NamedEvent>],
        at: Timestamp,
    ) -> Result<Request<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
        let shown: Vec<_> =
            events.iter().map(|event| CloudEvent::new(event, &self.source)).collect();
        let (body, kind) = match shown.as_slice() {
            [event] if !self.is_batch => (serde_json::to_vec(event)?, CLOUD_EVENT),
            _ => (serde_json::to_vec(&shown)?, CLOUD_EVENTS),
        };
        let id = message_id(events);
        let seconds = at.as_millis().div_euclid(1_000);
        let mut request = Request::post(self.settings.url.clone())
            .header(CONTENT_TYPE, kind)
            .header(USER_AGENT, concat!("amends/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds);
        if !self.settings.secrets.is_empty() {
            let sign = self.settings.secrets.iter().map(|secret| secret.sign(&id, seconds, &body));
            request = request.header("webhook-signature", sign.collect::<Vec<_>>().join(" "));
        }
        Ok(request.body(Full::new(Bytes::from(body)))?)
    }
}

/// The id of a request: that of its one event, or of the set of its events. It is the same when the same
/// events are sent again.
fn message_id(events: &[Arc<NamedEvent>]) -> String {
    match events {
        [event] => event.id(),
        events => {
            let ids: Vec<_> = events.iter().map(|event| event.id()).collect();
            Digest::of(ids.join("\n").as_bytes()).to_string()
        }
    }
}

/// Reads the answer's body, so that its connection serves again, and returns the beginning of it as text.
async fn said(answer: Response<Incoming>) -> String {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    // The status has said everything that matters.
    let Ok(body) = tokio::time::timeout(ANSWER_BODY_TIME_MAX, body).await else {
        return String::new();
    };
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
    text.unwrap_or_default().trim().chars().take(ANSWER_CHARS_SHOWN).collect()
}

/// Reads `Retry-After` in its form of seconds. As a date it is left out.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn judge(status: StatusCode, retry_after: Option<Duration>, said: &str) -> Answer {
    if status.is_success() {
        return Answer::Delivered;
    }
    let mut error = format!("the receiver answered {status}");
    if status.is_redirection() {
        error.push_str("; redirects are not followed: name the new address in the config");
    } else if !said.is_empty() {
        let _ = write!(error, ": {said}");
    }
    if status == StatusCode::GONE {
        return Answer::Gone(error);
    }
    // These say something about the receiver, and nothing about the event.
    let is_away = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    Answer::failed(error, is_away, retry_after)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn answer(status: u16) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        judge(status, Some(Duration::from_secs(7)), "no such order")
    }

    #[test]
    fn an_answer_is_about_the_event_or_about_the_receiver() {
        for status in [200, 201, 202, 204] {
            assert_eq!(answer(status), Answer::Delivered);
        }
        for (status, away) in
            [(301, false), (400, false), (404, false), (429, true), (500, false), (503, true)]
        {
            let Answer::Failed { error, is_away, retry_after } = answer(status) else {
                panic!("{status}")
            };
            assert_eq!((is_away, retry_after), (away, Some(Duration::from_secs(7))), "{error}");
            assert!(error.contains(&status.to_string()), "{error}");
        }
        let gone = "the receiver answered 410 Gone: no such order".to_owned();
        assert_eq!(answer(410), Answer::Gone(gone));
    }
}
