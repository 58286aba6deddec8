//! Who asks, once the host knows it.

use amends_engine::Timestamp;

use super::permission::{Permissions, Role};
use crate::namespaces::Namespaces;

/// Stands before the name of a person whom a proxy names, so that nobody is recorded under the name of a token: that
/// has no colon.
pub(super) const PROXY_PREFIX: &str = "proxy:";

/// Who showed a token, or whom a proxy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name of the token, or of the person.
    pub name: String,
    /// The id of the token; none for that of the config, and without a token.
    pub id: Option<String>,
    /// The roles of the token, or those that the groups of the person give.
    pub roles: Vec<Role>,
    /// What the holder may do.
    pub permissions: Permissions,
    /// The namespaces that the holder may see.
    pub namespaces: Namespaces,
    /// When the token expires; none: never.
    pub expires_at: Option<Timestamp>,
}

impl Holder {
    /// Returns whether it is a person whom a proxy names, and no token.
    #[must_use]
    pub fn is_of_proxy(&self) -> bool {
        self.name.starts_with(PROXY_PREFIX)
    }

    /// Returns the word for what it is: `user` or `token`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.is_of_proxy() { "user" } else { "token" }
    }
}
