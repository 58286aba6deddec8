//! The header of a request that one host passes to another: for whom, and the proof that a host sent it.
//!
//! `amends-forwarded: TOLD.KEY.MAC`. `TOLD` is [`Told`] as JSON in base64, `KEY` the digest of the secret, `MAC`
//! the HMAC-SHA256 of the method, the path with its query, and `TOLD`. `TOLD` has the digest of the body, so
//! nothing of the request can be changed. It names the host that the request is for, and the time, so the
//! request is good for no other host, and for no other day.

use std::net::IpAddr;
use std::time::Duration;

use amends_engine::{Digest, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Uri};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::limits::SIGNATURE_AGE_MAX;
use crate::secrets::Secrets;

/// The header of a request that a host passes on.
pub const FORWARDED: &str = "amends-forwarded";

/// Who asked the host that passes a request on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The address of the client.
    pub address: IpAddr,
    /// What the client says in the header `amends-user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The token that the client showed; none without access control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ShownToken>,
}

/// A token, which the host that passes a request on has judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownToken {
    /// The name of the token.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether it lets see payloads.
    pub payloads: bool,
}

/// What a host tells the other one about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    from: String,
    to: String,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<Caller>,
    /// How long the request has waited on its way.
    waited_ms: u64,
    body: Digest,
}

/// A request that another host of the store has passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The name of the host that passed it on.
    pub from: String,
    /// Who asked that host; none when the host itself asks.
    pub caller: Option<Caller>,
    /// How long the request has waited on its way.
    pub waited: Duration,
}

/// Why a request is not taken for one that a host of the store has passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotForwarded {
    /// The header cannot be read.
    #[error("the header {FORWARDED} cannot be read")]
    Unreadable,
    /// No host of this store has made the signature.
    #[error("the signature in {FORWARDED} is none of a host of this store")]
    Forged,
    /// It is meant for another host: the address belongs to this host by now.
    #[error("the request is meant for host {to}, and this is host {me}")]
    OtherHost {
        /// The name of that host.
        to: String,
        /// The name of this host.
        me: String,
    },
    /// The clocks of the hosts differ too much.
    #[error(
        "host {from} passed the request on at {at}, and the clock of this host is at {now}: more than {} minutes \
         lie between", SIGNATURE_AGE_MAX.as_secs() / 60
    )]
    TooFar {
        /// The name of the other host.
        from: String,
        /// When it signed.
        at: Timestamp,
        /// The clock of this host.
        now: Timestamp,
    },
}

/// What a host signs of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'r> {
    pub(crate) method: &'r Method,
    pub(crate) uri: &'r Uri,
    pub(crate) body: &'r [u8],
}

impl Signed<'_> {
    /// The bytes that are signed, with what is told.
    fn message(&self, told: &str) -> Vec<u8> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        format!("{}\n{path}\n{told}", self.method).into_bytes()
    }

    /// Makes the header for a request of host `from` to host `to`. None when this host knows no secret.
    pub(crate) fn header(
        &self,
        secrets: &Secrets,
        (from, to): (&str, &str),
        (caller, waited): (Option<&Caller>, Duration),
        at: Timestamp,
    ) -> Option<String> {
        let (name, key) = secrets.signing()?;
        let told = Told {
            from: from.to_owned(),
            to: to.to_owned(),
            at: at.as_millis(),
            caller: caller.cloned(),
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            body: Digest::of(self.body),
        };
        let told = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&told).ok()?);
        let mac = hmac::sign(&key, &self.message(&told));
        let mac = URL_SAFE_NO_PAD.encode(mac);
        Some(format!("{told}.{}.{mac}", name.hex()))
    }

    /// Checks the header of a request that has come to host `me`. Nothing of it is believed before the
    /// signature is verified.
    pub(crate) async fn verify(
        &self,
        secrets: &Secrets,
        header: &str,
        me: &str,
        now: Timestamp,
    ) -> Result<Forwarded, NotForwarded> {
        let mut parts = header.split('.');
        let (Some(text), Some(name), Some(mac), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotForwarded::Unreadable);
        };
        let name = format!("sha256:{name}").parse().map_err(|_| NotForwarded::Unreadable)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| NotForwarded::Unreadable)?;
        let key = secrets.named(name).await.ok_or(NotForwarded::Forged)?;
        hmac::verify(&key, &self.message(text), &mac).map_err(|_| NotForwarded::Forged)?;
        let told = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotForwarded::Unreadable)?;
        let told: Told = serde_json::from_slice(&told).map_err(|_| NotForwarded::Unreadable)?;
        if told.body != Digest::of(self.body) {
            return Err(NotForwarded::Forged);
        }
        if told.to != me {
            return Err(NotForwarded::OtherHost { to: told.to, me: me.to_owned() });
        }
        let at = Timestamp::from_millis(told.at);
        if at.since(now).max(now.since(at)) > SIGNATURE_AGE_MAX {
            return Err(NotForwarded::TooFar { from: told.from, at, now });
        }
        let waited = Duration::from_millis(told.waited_ms);
        Ok(Forwarded { from: told.from, caller: told.caller, waited })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::Arc;

    use amends_store::{Durability, SqliteStore, Store};

    use super::*;

    #[tokio::test]
    async fn nothing_of_a_request_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let store = SqliteStore::open(&folder.path().join(name), Durability::Relaxed);
            Arc::new(store.unwrap()) as Arc<dyn Store>
        };
        let (store, other) = (open("a.db"), open("b.db"));
        let at = Timestamp::from_millis(1_800_000_000_000);
        let secrets = Secrets::open(Arc::clone(&store), at).await.unwrap();
        let (method, uri) = (Method::POST, Uri::from_static("/v1/sagas/1/cancel?a=b"));
        let signed = Signed { method: &method, uri: &uri, body: b"{}" };
        let caller = Caller {
            address: IpAddr::from([10, 0, 0, 9]),
            user: Some("Ännchen".to_owned()),
            token: None,
        };
        let waited = Duration::from_secs(3);
        let header = signed.header(&secrets, ("a", "b"), (Some(&caller), waited), at).unwrap();
        let verify = |signed: Signed<'_>, header: &str, me: &str, now: Timestamp| {
            let (header, me) = (header.to_owned(), me.to_owned());
            let (method, uri, body) =
                (signed.method.clone(), signed.uri.clone(), signed.body.to_vec());
            let secrets = &secrets;
            async move {
                let signed = Signed { method: &method, uri: &uri, body: &body };
                signed.verify(secrets, &header, &me, now).await
            }
        };
        let right = Forwarded { from: "a".to_owned(), caller: Some(caller.clone()), waited };
        assert_eq!(verify(signed, &header, "b", at).await, Ok(right.clone()));
        let late = at.after(SIGNATURE_AGE_MAX);
        assert_eq!(verify(signed, &header, "b", late).await, Ok(right));

        let (get, path) = (Method::GET, Uri::from_static("/v1/sagas/2/cancel?a=b"));
        let query = Uri::from_static("/v1/sagas/1/cancel?a=c");
        for changed in [
            Signed { method: &get, ..signed },
            Signed { uri: &path, ..signed },
            Signed { uri: &query, ..signed },
            Signed { body: b"{ }", ..signed },
        ] {
            assert_eq!(verify(changed, &header, "b", at).await, Err(NotForwarded::Forged));
        }
        // Another caller in it, with the signature of before.
        let mut parts = header.split('.');
        let told = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        let forged = String::from_utf8(told).unwrap().replace("10.0.0.9", "10.0.0.1");
        let rest: Vec<_> = parts.collect();
        let forged = format!("{}.{}", URL_SAFE_NO_PAD.encode(forged), rest.join("."));
        assert_eq!(verify(signed, &forged, "b", at).await, Err(NotForwarded::Forged));
        // By a host of another store.
        let others = Secrets::open(Arc::clone(&other), at).await.unwrap();
        let foreign = signed.header(&others, ("a", "b"), (Some(&caller), waited), at).unwrap();
        assert_eq!(verify(signed, &foreign, "b", at).await, Err(NotForwarded::Forged));
        for unreadable in ["", "a", "a.b.c", "a.b.c.d", &header[1..]] {
            let refused = verify(signed, unreadable, "b", at).await;
            assert!(refused.is_err(), "{unreadable}: {refused:?}");
        }
        let elsewhere = verify(signed, &header, "c", at).await;
        assert!(matches!(elsewhere, Err(NotForwarded::OtherHost { .. })), "{elsewhere:?}");
        for far in [late.after(Duration::from_millis(1)), at.before(Duration::from_secs(301))] {
            let refused = verify(signed, &header, "b", far).await;
            assert!(matches!(refused, Err(NotForwarded::TooFar { .. })), "{refused:?}");
        }
        store.close().await.unwrap();
        other.close().await.unwrap();
    }
}
