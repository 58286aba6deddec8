//! Where a value is sealed, and its text there.

use amends_engine::{SEALED_PREFIX, SagaId, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::cipher::DataKey;

/// The version of the sealed form.
const FORM: &str = "1:";

/// The place of a value: an event of a saga, and the path in its data. A value opens only there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) saga: SagaId,
    pub(crate) version: Version,
    pub(crate) path: &'p str,
}

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"amends:1\0".to_vec();
        bytes.extend_from_slice(self.saga.as_bytes());
        bytes.extend_from_slice(&self.version.0.to_be_bytes());
        bytes.extend_from_slice(self.path.as_bytes());
        bytes
    }
}

/// Returns the JSON string that stands for a JSON text in the store.
///
/// Without a key the text is lost: it must not be stored as it is.
pub(crate) fn seal(key: Option<&DataKey>, place: Place<'_>, json: &str) -> String {
    let erased = || format!("\"{}\"", amends_engine::ERASED);
    let Some(DataKey(key)) = key else { return erased() };
    match key.seal(&place.bytes(), json.as_bytes()) {
        Ok(sealed) => format!("\"{SEALED_PREFIX}{FORM}{}\"", STANDARD_NO_PAD.encode(sealed)),
        Err(error) => {
            tracing::error!(saga_id = %place.saga, %error, "a personal value is not kept");
            erased()
        }
    }
}

/// Returns the JSON text that a JSON string stands for; none when it was not sealed in this place.
pub(crate) fn open(key: &DataKey, place: Place<'_>, token: &str) -> Option<String> {
    let text = token.strip_prefix('"')?.strip_suffix('"')?;
    let text = text.strip_prefix(SEALED_PREFIX)?.strip_prefix(FORM)?;
    let sealed = STANDARD_NO_PAD.decode(text).ok()?;
    String::from_utf8(key.0.open(&place.bytes(), &sealed)?).ok()
}
