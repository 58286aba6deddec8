//! The id of a key that signs components.

use std::fmt;

/// The id of a key, as minisign prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// From the bytes of a key or of a signature, which begin in the same way.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.get(2..10)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}
