//! Signatures in a component: which bytes they are over, whose they are, and whether one is trusted.
//!
//! A signature is one of minisign (Ed25519 over the BLAKE2b hash of the bytes, and over a comment),
//! as the text that the tool writes, in a custom section `amends:signature` at the end of the
//! component. It is over all bytes before the first of these sections: so several keys sign the same
//! bytes, and none of their signatures touches another.
//!
//! Deliberately absent: secret keys and signing (the command line's), and what a signature would say
//! of a plugin's name or version: it says who stands for the bytes, and the bytes say the rest.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};
use wasmparser::{Chunk, Parser, Payload};

use crate::component::check::check_is_wasm;
use crate::component::key_id::KeyId;
use crate::error::Rejection;

/// Signatures of one component: keys change one after another, and each that is tried costs a hash
/// of all bytes.
pub(crate) const SIGNATURES_MAX: usize = 16;

/// The name of the custom section that holds one.
const SECTION: &str = "amends:signature";

/// What a signature over a hash begins with; those of old, over the bytes themselves, do not count.
const PREHASHED: &[u8] = b"ED";

/// Bytes of a secret key, which is no public one.
const SECRET_KEY_BYTES: usize = 158;

/// A public key, as its file has it in the second line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    id: KeyId,
    key: PublicKey,
}

impl TrustedKey {
    /// Returns the id of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns true when a text is a signature by this key over these bytes, as minisign writes it.
    #[must_use]
    pub fn has_signed(&self, content: &[u8], signature: &str) -> bool {
        decode(signature).is_some_and(|(id, signature)| {
            id == self.id && self.key.verify(content, &signature, false).is_ok()
        })
    }
}

impl FromStr for TrustedKey {
    type Err = &'static str;

    /// Never says the text: it may be a secret key.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let bytes = STANDARD.decode(text).unwrap_or_default();
        if bytes.len() == SECRET_KEY_BYTES {
            return Err("this is a secret key, which nobody else may see");
        }
        match (KeyId::of(&bytes), PublicKey::from_base64(text)) {
            (Some(id), Ok(key)) => Ok(Self { id, key }),
            _ => Err("this is not a minisign public key"),
        }
    }
}

/// The keys of which a component must have a signature of one; none: each component is loaded.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Arc<[TrustedKey]>);

impl FromIterator<TrustedKey> for TrustedKeys {
    fn from_iter<K: IntoIterator<Item = TrustedKey>>(keys: K) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl TrustedKeys {
    /// Whether bytes may be loaded. Nothing of them is looked at but where their sections begin.
    ///
    /// # Errors
    /// What is wrong with their signatures.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Rejection> {
        if self.0.is_empty() {
            return Ok(());
        }
        let signed = Signed::read(bytes)?;
        let mut misfit = None;
        for (id, signature) in signed.signatures.iter().filter_map(|one| one.signature.as_ref()) {
            for trusted in self.0.iter().filter(|trusted| trusted.id == *id) {
                if trusted.key.verify(signed.content, signature, false).is_ok() {
                    return Ok(());
                }
                misfit = Some(*id);
            }
        }
        let keys = signed.keys();
        Err(match misfit {
            Some(key) => Rejection::SignatureMisfit { key },
            None if signed.signatures.is_empty() => Rejection::Unsigned,
            None if keys.is_empty() => Rejection::SignatureDamaged,
            None => {
                let keys: Vec<_> = keys.iter().map(KeyId::to_string).collect();
                Rejection::Untrusted { keys: keys.join(", ") }
            }
        })
    }
}

/// A component, and the signatures at its end. Read, not believed.
pub struct Signed<'b> {
    content: &'b [u8],
    signatures: Vec<Embedded<'b>>,
}

/// One signature.
struct Embedded<'b> {
    text: &'b [u8],
    /// None of what is damaged.
    signature: Option<(KeyId, Signature)>,
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("keys", &self.keys()).finish_non_exhaustive()
    }
}

impl<'b> Signed<'b> {
    /// Finds the signatures of bytes, which may have none.
    ///
    /// # Errors
    /// When they are not WebAssembly, are cut off, or have too many.
    pub fn read(bytes: &'b [u8]) -> Result<Self, Rejection> {
        check_is_wasm(bytes)?;
        let wrong = |error| Rejection::broken(bytes, &error);
        let cut_off = || Rejection::Truncated { bytes: bytes.len() };
        let mut parser = Parser::new(0);
        let (mut at, mut content_len, mut signatures) = (0, 0, Vec::new());
        loop {
            let rest = bytes.get(at..).ok_or_else(cut_off)?;
            let Chunk::Parsed { consumed, payload } = parser.parse(rest, true).map_err(wrong)?
            else {
                return Err(cut_off());
            };
            at += consumed;
            // What is nested is passed over: it has no signatures of its own.
            if let Payload::ModuleSection { unchecked_range, .. }
            | Payload::ComponentSection { unchecked_range, .. } = &payload
            {
                at = usize::try_from(unchecked_range.end).map_err(|_| cut_off())?;
            } else if let Payload::CodeSectionStart { size, .. } = &payload {
                parser.skip_section();
                at = usize::try_from(*size)
                    .ok()
                    .and_then(|size| at.checked_add(size))
                    .ok_or_else(cut_off)?;
            } else if let Payload::End(_) = &payload {
                break;
            } else if let Payload::CustomSection(section) = &payload
                && section.name() == SECTION
            {
                signatures.push(section.data());
                continue;
            }
            // A section of that name in the middle is a part of what is signed.
            signatures.clear();
            content_len = at;
        }
        if signatures.len() > SIGNATURES_MAX {
            let found = signatures.len();
            return Err(Rejection::TooManySignatures { found, max: SIGNATURES_MAX });
        }
        let signatures = signatures.into_iter().map(Embedded::read).collect();
        Ok(Self { content: bytes.get(..content_len).ok_or_else(cut_off)?, signatures })
    }

    /// Returns the bytes that are signed.
    #[must_use]
    pub fn content(&self) -> &'b [u8] {
        self.content
    }

    /// The keys that signed it, if their signatures fit; who has the keys can tell.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyId> {
        let readable = self.signatures.iter().filter_map(|one| one.signature.as_ref());
        readable.map(|(id, _)| *id).collect()
    }

    /// The keys that signed it, of those that are trusted: their signatures fit.
    #[must_use]
    pub fn signers(&self, trusted: &TrustedKeys) -> Vec<KeyId> {
        let fits = |id: KeyId, signature: &Signature| {
            let mut same = trusted.0.iter().filter(|trusted| trusted.id == id);
            same.any(|trusted| trusted.key.verify(self.content, signature, false).is_ok())
        };
        let readable = self.signatures.iter().filter_map(|one| one.signature.as_ref());
        readable.filter(|(id, signature)| fits(*id, signature)).map(|(id, _)| *id).collect()
    }

    /// Its bytes with one more signature, the text that minisign writes. It takes the place of an
    /// earlier one of the same key and of damaged ones.
    ///
    /// # Errors
    /// When the text is no signature, or there are too many.
    pub fn with(&self, signature: &str) -> Result<Vec<u8>, Rejection> {
        let new = Embedded::read(signature.as_bytes());
        let (key, _) = new.signature.as_ref().ok_or(Rejection::SignatureDamaged)?;
        let is_other = |one: &&Embedded<'_>| matches!(&one.signature, Some((id, _)) if id != key);
        let others: Vec<_> = self.signatures.iter().filter(is_other).collect();
        if others.len() >= SIGNATURES_MAX {
            let found = others.len() + 1;
            return Err(Rejection::TooManySignatures { found, max: SIGNATURES_MAX });
        }
        let mut bytes = self.content.to_vec();
        for one in others.into_iter().chain([&new]) {
            write_section(&mut bytes, one.text);
        }
        Ok(bytes)
    }
}

impl<'b> Embedded<'b> {
    fn read(text: &'b [u8]) -> Self {
        Self { text, signature: std::str::from_utf8(text).ok().and_then(decode) }
    }
}

/// A signature and its key's id, which stands in its second line.
fn decode(text: &str) -> Option<(KeyId, Signature)> {
    let bytes = STANDARD.decode(text.lines().nth(1)?).ok()?;
    let id = KeyId::of(&bytes).filter(|_| bytes.starts_with(PREHASHED))?;
    Some((id, Signature::decode(text).ok()?))
}

/// A custom section (WebAssembly core specification, 5.5.3).
fn write_section(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut content = Vec::with_capacity(text.len() + SECTION.len() + 1);
    write_length(&mut content, SECTION.len());
    content.extend(SECTION.bytes());
    content.extend(text);
    bytes.push(0);
    write_length(bytes, content.len());
    bytes.extend(content);
}

/// As LEB128: seven bits a byte, the lowest first, with a mark on all but the last.
fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(0x80 | length.to_le_bytes()[0]);
        length >>= 7;
    }
    bytes.push(length.to_le_bytes()[0]);
}
