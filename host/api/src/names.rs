//! The addresses of a host.

use amends_api_types::PublicUrl;

/// The addresses beside its own at which a host is reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Names<'n> {
    /// The address at which a proxy serves it to clients.
    pub(crate) public_url: Option<&'n PublicUrl>,
    /// The address at which the other hosts of its store reach it.
    pub(crate) address: Option<&'n PublicUrl>,
    /// Whether any other name is as good: callers show a token, which no page of another site has.
    pub(crate) is_any_taken: bool,
}
