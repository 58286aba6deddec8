//! The key with which a host signs evidence.
//!
//! It is a secret key of minisign, as those that sign components. It has no password, because nobody could type
//! it when the host starts.
//!
//! Deliberately absent: the form of evidence (`amends-api-types` has it), and making keys (the command line's).

use std::fmt;
use std::io::Cursor;

use amends_sandbox::{KeyId, TrustedKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::{ErrorKind, PError, PublicKey, SecretKey, SecretKeyBox};

/// Where the checksum of a secret key begins; it ends with it.
const CHECKSUM_AT: usize = 126;

/// What a signature of evidence says of itself. It is signed as well.
const TRUSTED_COMMENT: &str = "evidence of a saga";

/// The reason why a text is no key with which a host can sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceKeyError {
    /// It is something else.
    #[error("it is no secret key, such as `amends plugin keygen` makes")]
    NoKey,
    /// It has a password.
    #[error("it has a password, which nobody can type when the host starts")]
    Password,
    /// It is not whole, or its halves do not belong together.
    #[error("it is damaged")]
    Damaged,
}

/// The key with which a host signs evidence.
#[derive(Clone)]
pub struct EvidenceKey {
    secret: SecretKey,
    public: PublicKey,
    trusted: TrustedKey,
}

/// Which keys have signed a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// Keys that the host trusts: their signatures fit.
    pub trusted: Vec<KeyId>,
    /// Keys that other signatures name. Whether those fit can tell who has the keys.
    pub claimed: Vec<KeyId>,
}

impl EvidenceKey {
    /// Reads a secret key: the text of its file, or the second line of it alone.
    ///
    /// # Errors
    /// When it is none with which a host can sign. The error has nothing of the text in it.
    pub fn read(text: &str) -> Result<Self, EvidenceKeyError> {
        let text = if text.contains('\n') {
            text.to_owned()
        } else {
            format!("untrusted comment: minisign secret key\n{text}\n")
        };
        let secret = unencrypted_secret_key(&text).map_err(|error| reason(&text, &error))?;
        let public = PublicKey::from_secret_key(&secret).map_err(|_| EvidenceKeyError::Damaged)?;
        let trusted: TrustedKey =
            public.to_base64().parse().map_err(|_| EvidenceKeyError::Damaged)?;
        let key = Self { secret, public, trusted };
        // A key whose halves do not belong together makes no signature.
        key.sign(b"").map_err(|_| EvidenceKeyError::Damaged)?;
        Ok(key)
    }

    /// Returns the id of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.trusted.id()
    }

    /// Signs bytes. Returns the four lines that minisign writes.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn sign(&self, content: &[u8]) -> Result<String, PError> {
        let comment = format!("signature by key {}", self.id());
        let content = Cursor::new(content);
        let signature = minisign::sign(
            Some(&self.public),
            &self.secret,
            content,
            Some(TRUSTED_COMMENT),
            Some(&comment),
        )?;
        Ok(signature.into_string())
    }
}

/// Keys are the same when their public halves are.
impl PartialEq for EvidenceKey {
    fn eq(&self, other: &Self) -> bool {
        self.trusted == other.trusted
    }
}

impl Eq for EvidenceKey {}

impl fmt::Debug for EvidenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidenceKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Reads the text of the file of a secret key that has no password.
///
/// # Errors
/// When it is none, is damaged, or has a password.
pub fn unencrypted_secret_key(text: &str) -> Result<SecretKey, PError> {
    match without_checksum(text) {
        Some(key) => Ok(key),
        None => SecretKeyBox::from(text.to_owned()).into_unencrypted_secret_key(),
    }
}

/// The tool of minisign leaves the checksum of a key without a password empty, and the library takes
/// that for damage. Whether such a key is sound shows when its public half does not fit what it signs.
fn without_checksum(text: &str) -> Option<SecretKey> {
    let bytes = bytes_of(text)?;
    let is_empty = bytes.get(CHECKSUM_AT..)?.iter().all(|byte| *byte == 0);
    let key = SecretKey::from_bytes(&bytes).ok()?;
    (is_empty && !key.is_encrypted()).then_some(key)
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.lines().nth(1)?).ok()
}

/// Returns the reason for which a text is no key.
fn reason(text: &str, error: &PError) -> EvidenceKeyError {
    if matches!(error.kind(), ErrorKind::Verify) {
        return EvidenceKeyError::Damaged;
    }
    let key = bytes_of(text).and_then(|bytes| SecretKey::from_bytes(&bytes).ok());
    if key.is_some_and(|key| key.is_encrypted()) {
        EvidenceKeyError::Password
    } else {
        EvidenceKeyError::NoKey
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use minisign::KeyPair;

    use super::*;

    /// Of `minisign -G -W`, version 0.11.
    const KEY: &str = "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJ+bxyUoOxnWEtExOApUdEJdpdMcrmsa/AWlGoUdMZ6qZsj9nRjs9CWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const PUBLIC: &str = "RWQn5vHJSg7GdWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtY";

    fn file(key: &str) -> String {
        format!("untrusted comment: minisign secret key\n{key}\n")
    }

    #[test]
    fn a_key_is_read_from_its_file_or_from_its_second_line() {
        let made = KeyPair::generate_unencrypted_keypair().unwrap();
        let made = made.sk.to_box(None).unwrap().into_string();
        for text in [KEY.to_owned(), file(KEY), made.clone()] {
            let key = EvidenceKey::read(&text).unwrap();
            let signature = key.sign(b"content").unwrap();
            assert!(key.trusted.has_signed(b"content", &signature), "{signature}");
            assert!(!key.trusted.has_signed(b"contents", &signature));
            let first = format!("untrusted comment: signature by key {}\n", key.id());
            assert!(signature.starts_with(&first), "{signature}");
            assert!(!format!("{key:?}").contains(KEY.get(100..140).unwrap()));
        }
        let key = EvidenceKey::read(KEY).unwrap();
        assert_eq!(key.trusted, PUBLIC.parse::<TrustedKey>().unwrap());
        assert_ne!(key, EvidenceKey::read(&made).unwrap());
    }

    #[test]
    fn a_text_that_is_no_key_of_a_host_is_refused() {
        let locked = KeyPair::generate_encrypted_keypair(Some("secret".to_owned())).unwrap();
        let locked = locked.sk.to_box(None).unwrap().into_string();
        assert_eq!(EvidenceKey::read(&locked), Err(EvidenceKeyError::Password));
        for at in [70, 110] {
            let mut bytes = STANDARD.decode(KEY).unwrap();
            bytes[at] ^= 1;
            let changed = STANDARD.encode(bytes);
            assert_eq!(EvidenceKey::read(&changed), Err(EvidenceKeyError::Damaged));
        }
        for wrong in ["", "\n", "key", PUBLIC, &file(PUBLIC), &file(&KEY[..100])] {
            assert_eq!(EvidenceKey::read(wrong), Err(EvidenceKeyError::NoKey), "{wrong}");
        }
    }
}
