//! Signatures of requests, as Standard Webhooks 1.0 has them: HMAC-SHA256 of the id, the time and the body.

use std::fmt;
use std::time::Duration;

use amends_engine::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The prefix of a secret in text form.
const PREFIX: &str = "whsec_";

/// How many bytes a secret has, as the standard wants.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that signs requests. Nothing prints it.
#[derive(Clone)]
pub struct SigningSecret(hmac::Key);

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is not base64.
    #[error("the secret is not base64")]
    NotBase64,
    /// It is too short or too long.
    #[error("the secret has {0} bytes; it is from 24 to 64")]
    Length(usize),
}

impl SigningSecret {
    /// Reads a secret: base64, with or without `whsec_` before it.
    ///
    /// # Errors
    /// When it is no base64, or too short or too long.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text));
        let bytes = bytes.map_err(|_| SecretError::NotBase64)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Signs a message: `v1,` and the signature in base64.
    pub(crate) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(Self::tag(&self.0, id, seconds, body)))
    }

    fn tag(key: &hmac::Key, id: &str, seconds: i64, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        context.sign()
    }
}

/// The headers with which a request is signed, as they came.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignatureHeaders<'h> {
    /// `webhook-id`.
    pub id: Option<&'h str>,
    /// `webhook-timestamp`: seconds since 1970.
    pub timestamp: Option<&'h str>,
    /// `webhook-signature`: signatures with blanks between.
    pub signature: Option<&'h str>,
}

/// How far the time of a signature and the clock of the host may be apart, as the standard's libraries
/// have it.
pub const SIGNATURE_AGE_MAX: Duration = Duration::from_mins(5);

/// Signatures of one request that are compared: a sender signs with one or two secrets.
const SIGNATURES_MAX: usize = 16;

/// Why a request is not taken for one of a sender who knows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The time is no number of seconds.
    #[error("the header webhook-timestamp is no number of seconds")]
    NoTime,
    /// The time is too far from that of the host.
    #[error("the request was signed at {at}, and the clock of the host is at {now}: more than {} minutes lie between", SIGNATURE_AGE_MAX.as_secs() / 60)]
    TooFar {
        /// When it was signed.
        at: Timestamp,
        /// The clock of the host.
        now: Timestamp,
    },
    /// No signature is one of a known secret.
    #[error("no signature in webhook-signature goes with this body and a secret of the host")]
    Wrong,
}

/// Verifies that a request was signed with one of the secrets, at most [`SIGNATURE_AGE_MAX`] from `now`.
/// The comparison takes the same time whatever the signatures are.
///
/// # Errors
/// When a header is missing, the time is too far, or no signature is right.
pub fn verify(
    secrets: &[SigningSecret],
    headers: SignatureHeaders<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    let id = headers.id.ok_or(SignatureError::Missing("webhook-id"))?;
    let seconds = headers.timestamp.ok_or(SignatureError::Missing("webhook-timestamp"))?;
    let signatures = headers.signature.ok_or(SignatureError::Missing("webhook-signature"))?;
    let seconds: i64 = seconds.parse().map_err(|_| SignatureError::NoTime)?;
    let at = Timestamp::from_millis(seconds.saturating_mul(1_000));
    if at.since(now).max(now.since(at)) > SIGNATURE_AGE_MAX {
        return Err(SignatureError::TooFar { at, now });
    }
    let signatures: Vec<_> = signatures
        .split_ascii_whitespace()
        .take(SIGNATURES_MAX)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .collect();
    let mut is_right = false;
    for SigningSecret(key) in secrets {
        let right = SigningSecret::tag(key, id, seconds, body);
        // The library compares in constant time only what it has signed itself.
        let right = hmac::sign(key, right.as_ref());
        for signature in &signatures {
            is_right |= hmac::verify(key, signature, right.as_ref()).is_ok();
        }
    }
    if is_right { Ok(()) } else { Err(SignatureError::Wrong) }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// The example of the standard.
    #[test]
    fn signs_as_the_standard_does() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(!format!("{secret:?}").contains("MfKQ"));
    }

    /// The example of the standard, and what becomes of it when something is changed.
    #[test]
    fn verifies_as_the_standard_does() {
        let secret = |text: &str| SigningSecret::parse(text).unwrap();
        let (right, other) = (
            secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            secret("whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xk"),
        );
        let body = br#"{"test": 2432232314}"#;
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let headers = SignatureHeaders {
            id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            timestamp: Some("1614265330"),
            signature: Some(signature),
        };
        let now = Timestamp::from_millis(1_614_265_330_000);
        let of = |headers, body, now| verify(&[other.clone(), right.clone()], headers, body, now);
        assert_eq!(of(headers, body, now), Ok(()));
        // A sender that replaces its secret signs with both.
        let two = format!("v1,AAAA v2,x {} {signature}", other.sign("x", 1, body));
        assert_eq!(of(SignatureHeaders { signature: Some(&two), ..headers }, body, now), Ok(()));
        for apart in [SIGNATURE_AGE_MAX, Duration::ZERO] {
            assert_eq!(of(headers, body, now.after(apart)), Ok(()));
            assert_eq!(of(headers, body, now.before(apart)), Ok(()));
        }
        let far = SIGNATURE_AGE_MAX + Duration::from_millis(1);
        for far in [now.after(far), now.before(far)] {
            assert!(matches!(of(headers, body, far), Err(SignatureError::TooFar { .. })));
        }
        let wrong = Err(SignatureError::Wrong);
        assert_eq!(of(headers, b"{}", now), wrong);
        assert_eq!(of(SignatureHeaders { id: Some("another"), ..headers }, body, now), wrong);
        assert_eq!(verify(std::slice::from_ref(&other), headers, body, now), wrong);
        let other_version = format!("v2,{}", &signature[3..]);
        for signature in ["", "v1,", "v1,AAAA", &signature[3..], &other_version] {
            let headers = SignatureHeaders { signature: Some(signature), ..headers };
            assert_eq!(of(headers, body, now), wrong, "{signature}");
        }
        // What stands behind too many others is not looked at.
        let many = format!("{}{signature}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        assert_eq!(of(SignatureHeaders { signature: Some(&many), ..headers }, body, now), wrong);
        let no_time = SignatureHeaders { timestamp: Some("soon"), ..headers };
        assert_eq!(of(no_time, body, now), Err(SignatureError::NoTime));
        let far = SignatureHeaders { timestamp: Some("9223372036854775807"), ..headers };
        assert!(matches!(of(far, body, now), Err(SignatureError::TooFar { .. })));
        for missing in [
            SignatureHeaders { id: None, ..headers },
            SignatureHeaders { timestamp: None, ..headers },
            SignatureHeaders { signature: None, ..headers },
        ] {
            assert!(matches!(of(missing, body, now), Err(SignatureError::Missing(_))));
        }
    }

    #[test]
    fn refuses_what_is_no_secret() {
        let error = |text: &str| SigningSecret::parse(text).unwrap_err();
        assert_eq!(error("whsec_short!"), SecretError::NotBase64);
        assert_eq!(error("c2hvcnQ="), SecretError::Length(5));
        assert_eq!(error(&STANDARD.encode([7; 65])), SecretError::Length(65));
        SigningSecret::parse(&format!("{}\n", STANDARD.encode([7; 64]))).unwrap();
    }
}
