//! Signatures of requests, as Standard Webhooks 1.0 has them: HMAC-SHA256 of the id, the time and the body.

use std::fmt;

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
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
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

    #[test]
    fn refuses_what_is_no_secret() {
        let error = |text: &str| SigningSecret::parse(text).unwrap_err();
        assert_eq!(error("whsec_short!"), SecretError::NotBase64);
        assert_eq!(error("c2hvcnQ="), SecretError::Length(5));
        assert_eq!(error(&STANDARD.encode([7; 65])), SecretError::Length(65));
        SigningSecret::parse(&format!("{}\n", STANDARD.encode([7; 64]))).unwrap();
    }
}
