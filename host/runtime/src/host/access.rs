//! Access control of a host.

use super::Host;
use crate::access::{Holder, NewToken, ProxySettings, Token, TokenError, TokensError};
use crate::action::{Action, authorize};
use crate::principal::Principal;

impl Host {
    /// Returns whether the host asks callers for a token.
    #[must_use]
    pub fn has_access_control(&self) -> bool {
        self.inner.access.is_some()
    }

    /// Returns who shows a token. None: the host has no access control.
    ///
    /// # Errors
    /// When the token does not count.
    #[must_use]
    pub fn holder(&self, token: &str) -> Option<Result<Holder, TokenError>> {
        self.inner.access.as_ref().map(|access| access.holder(token))
    }

    /// Returns the proxy that signs people in. None: the host believes no header.
    #[must_use]
    pub fn proxy(&self) -> Option<&ProxySettings> {
        self.inner.access.as_ref()?.proxy.as_ref()
    }

    /// Waits until a token does not count any more: it is revoked, or expires. For ever without access control.
    pub async fn until_token_ended(&self, id: &str) {
        match &self.inner.access {
            Some(access) => access.until_ended(id).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the tokens that are active or ended lately, the newest first.
    ///
    /// # Errors
    /// [`TokensError::Off`].
    pub fn tokens(&self) -> Result<Vec<Token>, TokensError> {
        Ok(self.inner.access.as_ref().ok_or(TokensError::Off)?.list())
    }

    /// Makes a token. Returns its text, which nobody can find out later.
    ///
    /// # Errors
    /// See [`TokensError`]. Nothing is made then.
    pub async fn create_token(
        &self,
        principal: &Principal,
        new: NewToken,
    ) -> Result<(String, Token), TokensError> {
        authorize(principal, &Action::CreateToken { name: &new.name });
        let access = self.inner.access.as_ref().ok_or(TokensError::Off)?;
        access.create(principal, new).await
    }

    /// Revokes an active token, which is named by its id or its name.
    ///
    /// # Errors
    /// See [`TokensError`]. Nothing is revoked then.
    pub async fn revoke_token(
        &self,
        principal: &Principal,
        named: &str,
        reason: String,
    ) -> Result<Token, TokensError> {
        authorize(principal, &Action::RevokeToken { named });
        let access = self.inner.access.as_ref().ok_or(TokensError::Off)?;
        access.revoke(principal, named, reason).await
    }
}
