//! What is wrong with a component of a registry.

/// Why a component of a registry cannot be had: what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{wrong}\n  help: {right}")]
pub struct OciError {
    /// Who can act.
    pub kind: OciErrorKind,
    wrong: String,
    right: String,
}

/// Who can act on an error of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciErrorKind {
    /// The registry wants a login, or another one.
    Login,
    /// The registry has nothing by this name: the name is to be corrected.
    NotFound,
    /// Anything else, which the message says.
    Other,
}

impl OciError {
    pub(super) fn new(kind: OciErrorKind, wrong: &str, right: &str) -> Self {
        Self { kind, wrong: wrong.to_owned(), right: right.to_owned() }
    }
}
