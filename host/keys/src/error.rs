//! What can go wrong with keys, and who can act.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a key cannot be had or deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written. Operator.
    #[error("the key file {} cannot be used: {message}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: Arc<str>,
    },
    /// Another process has the file. Operator.
    #[error("the key file {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The system gives no random numbers. Operator.
    #[error("the system gives no random numbers, so no key can be made")]
    NoRandomness,
    /// The host is stopping. Caller: try again.
    #[error("the host is stopping")]
    Stopping,
}

impl KeyError {
    pub(crate) fn file(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), message: error.to_string().into() }
    }
}
