//! Why the host stopped a call, where that is not a trap of the component's own.

/// A host function refuses, and the call ends with it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stopped {
    /// For programs: `host_call_limit`.
    pub(crate) code: &'static str,
    /// For people, with what would be right.
    pub(crate) message: String,
}

impl Stopped {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
