//! The other hosts, as one host reaches them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amends_engine::{NamespaceName, Timestamp};
use amends_store::{HostInfo, Store, StoreError};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Answer, Client, Outgoing, PeerError};
use crate::groups::Groups;
use crate::limits::FORWARD_ANSWER_TIME_MAX;
use crate::passing::{Caller, FORWARDED, Forwarded, NotForwarded, Signed};
use crate::secrets::Secrets;

/// The header that names the namespace that a request is for.
pub const NAMESPACE: &str = "amends-namespace";

/// The header of an answer to a request that was passed on: the name of the host that answers.
pub const SERVED_BY: &str = "amends-host";

/// The value of [`FORWARDED`] in an answer with which a host says that it does not own the saga.
pub const NOT_OWNER: &str = "not-owner";

/// A request that is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path and its query.
    pub uri: &'r Uri,
    /// The headers that the other host needs.
    pub headers: &'r HeaderMap,
    /// The whole body.
    pub body: &'r Bytes,
    /// Who asks; none when the host itself does.
    pub caller: Option<&'r Caller>,
    /// How long the request has waited before.
    pub waited: Duration,
}

/// What a host has of the other hosts of its store.
#[derive(Debug)]
pub struct Peers {
    me: HostInfo,
    /// None: `default`.
    namespace: Option<NamespaceName>,
    secrets: Secrets,
    client: Client,
    pub(crate) groups: Groups,
}

impl Peers {
    /// Reads the secrets that the hosts of the store share, and makes one when there is none. Requests name the
    /// namespace that has the store; none stands for `default`.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn open(
        me: HostInfo,
        namespace: Option<NamespaceName>,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Self>, StoreError> {
        let secrets = Secrets::open(store, now()).await?;
        let (client, groups) = (Client::new(), Groups::default());
        Ok(Arc::new(Self { me, namespace, secrets, client, groups }))
    }

    /// Returns who this host is.
    #[must_use]
    pub fn me(&self) -> &HostInfo {
        &self.me
    }

    /// Checks that a host of the store has passed a request on, and returns for whom.
    ///
    /// # Errors
    /// When it has not, or the request is meant for another host, or is too old.
    pub async fn verify(
        &self,
        (method, uri): (&Method, &Uri),
        header: &str,
        body: &[u8],
    ) -> Result<Forwarded, NotForwarded> {
        let signed = Signed { method, uri, body };
        signed.verify(&self.secrets, header, &self.me.name, now()).await
    }

    /// Passes a request on to another host, and waits at most `time` for the head of the answer. May be
    /// cancelled: the other host may carry the request out.
    ///
    /// # Errors
    /// When the host does not answer it.
    pub async fn send(
        &self,
        to: &HostInfo,
        passed: Passed<'_>,
        time: Duration,
    ) -> Result<Answer, PeerError> {
        let Passed { method, uri, headers, body, caller, waited } = passed;
        let signed = Signed { method, uri, body };
        let names = (self.me.name.as_str(), to.name.as_str());
        let header = signed.header(&self.secrets, names, (caller, waited), now());
        let header = header.and_then(|header| HeaderValue::from_str(&header).ok());
        let Some(header) = header else {
            let error = "this host knows no secret of the hosts of its store".to_owned();
            return Err(PeerError::Refused(error));
        };
        let mut headers = headers.clone();
        // The client of this host writes the name of the other one.
        headers.remove(HOST);
        headers.insert(FORWARDED, header);
        // It need not be signed: each namespace has secrets of its own.
        let namespace = self.namespace.as_ref().map(NamespaceName::as_str);
        if let Some(value) = namespace.and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(NAMESPACE, value);
        }
        let outgoing = Outgoing { method, uri, headers, body: body.clone() };
        let answer = self.client.send(&to.address, outgoing, time).await?;
        let is = |name: &str, value: &str| {
            answer.head.headers.get(name).is_some_and(|one| one.as_bytes() == value.as_bytes())
        };
        if !is(SERVED_BY, &to.name) {
            let error = format!(
                "what answers at {} is not host {}: it said {}",
                to.address, to.name, answer.head.status
            );
            return Err(PeerError::NotTheHost(error));
        }
        if is(FORWARDED, NOT_OWNER) {
            return Err(PeerError::NotOwner(to.name.clone()));
        }
        if is(FORWARDED, REFUSED) {
            let said = answer.bytes().await.unwrap_or_default();
            let said: String = String::from_utf8_lossy(&said).chars().take(SAID_CHARS).collect();
            let of = namespace.map_or_else(String::new, |name| {
                format!(", or has no namespace `{name}` with the same store")
            });
            return Err(PeerError::Refused(format!(
                "host {} does not trust this host{of}: {said}",
                to.name
            )));
        }
        Ok(answer)
    }

    /// Asks another host a question of this host's own.
    ///
    /// # Errors
    /// When the host does not answer it.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        to: &HostInfo,
        path: &'static str,
        question: &impl Serialize,
    ) -> Result<A, PeerError> {
        let body = serde_json::to_vec(question)
            .map_err(|error| PeerError::Refused(format!("the question cannot be sent: {error}")))?;
        self.ask_bytes(to, path, body.into()).await
    }

    pub(crate) async fn ask_bytes<A: DeserializeOwned>(
        &self,
        to: &HostInfo,
        path: &'static str,
        body: Bytes,
    ) -> Result<A, PeerError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (uri, waited) = (Uri::from_static(path), Duration::ZERO);
        let passed = Passed {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            body: &body,
            caller: None,
            waited,
        };
        // The whole answer within the time, because nobody else watches over it.
        let answer = async {
            let answer = self.send(to, passed, FORWARD_ANSWER_TIME_MAX).await?;
            let status = answer.head.status;
            let bytes = answer.bytes().await.map_err(PeerError::Silent)?;
            if status != StatusCode::OK {
                let said = String::from_utf8_lossy(&bytes);
                let said: String = said.chars().take(SAID_CHARS).collect();
                return Err(PeerError::Refused(format!(
                    "host {} answered {status}: {said}",
                    to.name
                )));
            }
            serde_json::from_slice(&bytes).map_err(|error| {
                PeerError::Silent(format!(
                    "host {} answered what is not understood: {error}",
                    to.name
                ))
            })
        };
        let late =
            || format!("host {} has not answered within {FORWARD_ANSWER_TIME_MAX:?}", to.name);
        let answer = tokio::time::timeout(FORWARD_ANSWER_TIME_MAX, answer).await;
        answer.unwrap_or_else(|_| Err(PeerError::Silent(late())))
    }
}

/// The value of [`FORWARDED`] in an answer with which a host says that it does not believe the request.
pub const REFUSED: &str = "refused";

/// Characters of what another host says that are kept with an error.
const SAID_CHARS: usize = 300;

/// The present, by the clock of the machine.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
