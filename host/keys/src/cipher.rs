//! One key, and what it seals: ChaCha20-Poly1305 (RFC 8439) with a random nonce.
//!
//! A data key seals the values of one saga, at most some hundred thousand, and the key of a subject the
//! data keys of its sagas. So random nonces of 96 bits do not come twice.

use std::fmt;

use amends_engine::Digest;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroize as _;

use crate::error::KeyError;

/// The bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;

/// The key of the personal values of one saga.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(pub(crate) SecretKey);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// A key of 256 bits. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretKey([u8; KEY_BYTES]);

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// Fills bytes with random numbers of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

impl SecretKey {
    pub(crate) fn random() -> Result<Self, KeyError> {
        random().map(Self)
    }

    pub(crate) const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0).ok().map(LessSafeKey::new)
    }

    /// Seals bytes: the nonce, the ciphertext and its tag. `place` is not in them, and opens only what
    /// was sealed with it.
    pub(crate) fn seal(&self, place: &[u8], bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let cipher = self.cipher().ok_or(KeyError::NoRandomness)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + bytes.len() + CHACHA20_POLY1305.tag_len());
        sealed.extend_from_slice(&nonce);
        let mut text = bytes.to_vec();
        cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place),
                &mut text,
            )
            .map_err(|_| KeyError::NoRandomness)?;
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed in this place; none when it was not, or was changed since.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.cipher()?.open_in_place(nonce, Aad::from(place), &mut text).ok()?.len();
        text.truncate(opened);
        Some(text)
    }

    /// Returns the keyed digest of some parts (HMAC-SHA256). Each part is preceded by its length.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> Digest {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        Digest::from_bytes(bytes)
    }
}
