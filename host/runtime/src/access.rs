//! Access control: who asks, and what they may do.
//!
//! A caller shows a token. The tokens are facts of the log, in a stream that all hosts of a store share: who
//! made which token with which roles, who revoked it, and on which day it was used last. Each host has what the
//! stream says in memory and reads on when the log has grown. So a request costs one hash, and a token that is
//! revoked at one host ends at the others within a second.
//!
//! Which permission a request needs is not known here. The OpenAPI document says it.

mod directory;
mod holder;
mod permission;
mod proxy;
mod token;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use amends_engine::{Digest, Timestamp};
use amends_registry::now;
use amends_store::{Append, Cursor, NewEvent, PageBudget, Store, StoreError, Stream};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::MissedTickBehavior;

pub use directory::{Revoked, Token, TokenState};
pub use holder::Holder;
pub use permission::{Permission, Permissions, Role};
pub use proxy::{PeerNetwork, ProxySettings};

use crate::access::directory::{
    CREATED, CREATED_IN, Created, Directory, REVOKED, RevokedBy, RevokedToken, USED, Used,
};
use crate::access::token::TokenText;
use crate::audit::Audit;
use crate::namespaces::Namespaces;
use crate::principal::Principal;

/// The most active tokens of a store.
pub const TOKENS_MAX: usize = 10_000;

/// The most bytes of the name of a token.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// The name of the token that the config has.
pub const ADMIN_TOKEN: &str = "admin_token";

/// How often the stream of tokens is read when the log has grown.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Events of the stream that are read at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

/// How often an event is appended again because another host wrote before it.
const APPEND_TRIES_MAX: u32 = 10;

/// A use is recorded when the one before it is older than this.
const USE_RECORDED_EACH: Duration = Duration::from_hours(24);

/// How a host asks callers who they are.
#[derive(Clone)]
pub struct AccessSettings {
    /// The token that the config has: it may do everything. None when there is none.
    pub admin_token: Option<String>,
    /// The proxy that signs people in. None: the host believes no header.
    pub proxy: Option<ProxySettings>,
}

impl std::fmt::Debug for AccessSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_admin_token = self.admin_token.is_some();
        f.debug_struct("AccessSettings")
            .field("has_admin_token", &has_admin_token)
            .field("proxy", &self.proxy)
            .finish()
    }
}

/// The reason why a caller is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is none of the tokens of this store.
    #[error("the token is not one of this store")]
    Unknown,
    /// The text looks like a token and is not: a letter is missing or wrong.
    #[error("the token is not whole: a part of it is missing or wrong")]
    Malformed,
    /// The token has expired.
    #[error("the token `{name}` expired at {at}")]
    Expired {
        /// The name of the token.
        name: String,
        /// When it expired.
        at: Timestamp,
    },
    /// The token was revoked.
    #[error("the token `{name}` was revoked at {at}")]
    Revoked {
        /// The name of the token.
        name: String,
        /// When it was revoked.
        at: Timestamp,
    },
}

/// The reason why a token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The host has no access control.
    #[error("this host has no access control, so a token would mean nothing")]
    Off,
    /// The name cannot be one.
    #[error("`{0}` is no name of a token")]
    Name(String),
    /// No role is given.
    #[error("the token has no role")]
    NoRole,
    /// An active token has the name.
    #[error("an active token has the name `{0}`")]
    NameTaken(String),
    /// There are too many.
    #[error("the store has {TOKENS_MAX} active tokens")]
    Full,
    /// No active token has the id or the name.
    #[error("there is no active token `{0}`")]
    NotFound(String),
    /// The system has no random numbers.
    #[error("no token can be made: {0}")]
    Random(getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The name: 1 to [`TOKEN_NAME_BYTES_MAX`] letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The roles.
    pub roles: Vec<Role>,
    /// Whether the token lets see payloads.
    pub payloads: bool,
    /// The namespaces that it is for.
    pub namespaces: Namespaces,
    /// How long the token counts; none: for ever.
    pub expires_in: Option<Duration>,
}

/// The tokens of a host, and its audit.
pub(crate) struct Access {
    /// Who asked for what.
    pub(crate) audit: Arc<Audit>,
    /// The proxy that signs people in.
    pub(crate) proxy: Option<ProxySettings>,
    store: Arc<dyn Store>,
    admin: Option<Digest>,
    directory: RwLock<Directory>,
    /// The ids of tokens whose use is to be recorded.
    used: Mutex<BTreeSet<String>>,
    /// Held by whoever reads the stream or writes to it.
    reading: AsyncMutex<()>,
    /// Changes when what the directory has may have changed.
    changes: watch::Sender<()>,
}

impl Access {
    /// Reads the tokens of a store, and begins its audit.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn open(
        settings: AccessSettings,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Self>, StoreError> {
        let admin = settings.admin_token.map(|token| Digest::of(token.as_bytes()));
        let (directory, used) = Default::default();
        let (reading, changes) = (AsyncMutex::default(), watch::Sender::new(()));
        let audit = Audit::open(Arc::clone(&store)).await?;
        let proxy = settings.proxy;
        let access = Self { audit, proxy, store, admin, directory, used, reading, changes };
        access.catch_up().await?;
        let access = Arc::new(access);
        tokio::spawn(follow(Arc::downgrade(&access)));
        Ok(access)
    }

    /// Returns whether some token may make other tokens.
    pub(crate) fn is_administered(&self) -> bool {
        if self.admin.is_some() {
            return true;
        }
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.active(now()).any(|token| token.permissions().has(Permission::Administer))
    }

    /// Returns who shows a token.
    ///
    /// # Errors
    /// When the token does not count.
    pub(crate) fn holder(&self, text: &str) -> Result<Holder, TokenError> {
        // What is compared are hashes: how long that takes tells nothing about a secret.
        if self.admin == Some(Digest::of(text.as_bytes())) {
            return Ok(Holder {
                name: ADMIN_TOKEN.to_owned(),
                id: None,
                roles: vec![Role::Admin],
                permissions: Permissions::all(),
                namespaces: Namespaces::All,
                expires_at: None,
            });
        }
        let Some(shown) = TokenText::read(text) else { return Err(TokenError::Malformed) };
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        let token = directory.get(shown.id()).filter(|token| token.digest == shown.digest());
        let token = token.ok_or(TokenError::Unknown)?;
        let at = now();
        if let Some(revoked) = &token.revoked {
            return Err(TokenError::Revoked { name: token.name.clone(), at: revoked.at });
        }
        if let (TokenState::Expired, Some(expired)) = (token.state(at), token.expires_at) {
            return Err(TokenError::Expired { name: token.name.clone(), at: expired });
        }
        let is_recorded = |last: Timestamp| at.since(last) < USE_RECORDED_EACH;
        if !token.last_used_at.is_some_and(is_recorded) {
            self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(token.id.clone());
        }
        Ok(Holder {
            name: token.name.clone(),
            id: Some(token.id.clone()),
            roles: token.roles.clone(),
            permissions: token.permissions(),
            namespaces: token.namespaces.clone(),
            expires_at: token.expires_at,
        })
    }

    /// Waits until a token does not count any more.
    pub(crate) async fn until_ended(&self, id: &str) {
        let mut changes = self.changes.subscribe();
        loop {
            let expires_at = {
                let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
                match directory.get(id) {
                    Some(token) if token.state(now()) == TokenState::Active => token.expires_at,
                    Some(_) | None => return,
                }
            };
            let expires = async {
                match expires_at {
                    // The clock may be set: looked at again after an hour at the latest.
                    Some(at) => {
                        tokio::time::sleep(at.since(now()).min(Duration::from_hours(1))).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = changes.changed() => if told.is_err() {
                    return;
                },
                () = expires => {}
            }
        }
    }

    /// Returns all tokens that are active, and those that ended lately, the newest first.
    pub(crate) fn list(&self) -> Vec<Token> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).list()
    }

    /// Makes a token. Returns its text, which nobody can find out later.
    ///
    /// # Errors
    /// See [`TokensError`]. Nothing is made then.
    pub(crate) async fn create(
        &self,
        principal: &Principal,
        new: NewToken,
    ) -> Result<(String, Token), TokensError> {
        let NewToken { name, roles, payloads, namespaces, expires_in } = new;
        if !is_name(&name) || name == ADMIN_TOKEN {
            return Err(TokensError::Name(name));
        }
        if roles.is_empty() {
            return Err(TokensError::NoRole);
        }
        let text = TokenText::generate().map_err(TokensError::Random)?;
        let at = now();
        let is_for_default = namespaces == Namespaces::default();
        // A host of a version without namespaces passes over an event of a kind that it does not know. It would
        // take a token of another namespace for one of its own.
        let kind = if is_for_default { CREATED } else { CREATED_IN };
        let data = Created {
            id: text.id().to_owned(),
            name: name.clone(),
            roles: roles.iter().map(ToString::to_string).collect(),
            payloads,
            namespaces: if is_for_default { Vec::new() } else { namespaces.words() },
            digest: text.digest(),
            expires_at: expires_in.map(|time| at.after(time)),
            who: principal.subject.clone(),
        };
        let id = data.id.clone();
        let made = self
            .write((kind, &data), at, |directory| {
                let names = directory.active(at).map(|token| &token.name);
                let (mut count, mut is_taken) = (0, false);
                for other in names {
                    count += 1;
                    is_taken |= *other == name;
                }
                match (is_taken, count) {
                    (true, _) => Err(TokensError::NameTaken(name.clone())),
                    (false, TOKENS_MAX..) => Err(TokensError::Full),
                    (false, _) => Ok(id.clone()),
                }
            })
            .await?;
        Ok((text.into_text(), made))
    }

    /// Revokes an active token, which is named by its id or its name.
    ///
    /// # Errors
    /// See [`TokensError`]. Nothing is revoked then.
    pub(crate) async fn revoke(
        &self,
        principal: &Principal,
        named: &str,
        reason: String,
    ) -> Result<Token, TokensError> {
        let at = now();
        self.catch_up().await?;
        let id = self.find(named, at)?;
        let by = RevokedBy { who: principal.subject.clone(), reason };
        let data = RevokedToken { id: id.clone(), by };
        let is_active = |directory: &Directory| {
            let token = directory.get(&id).filter(|token| token.state(at) == TokenState::Active);
            token.map(|_| id.clone()).ok_or_else(|| TokensError::NotFound(named.to_owned()))
        };
        self.write((REVOKED, &data), at, is_active).await
    }

    fn find(&self, named: &str, at: Timestamp) -> Result<String, TokensError> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        let mut active = directory.active(at);
        let found = active.find(|token| token.id == named || token.name == named);
        found.map(|token| token.id.clone()).ok_or_else(|| TokensError::NotFound(named.to_owned()))
    }

    /// Appends an event once `check` has seen all events before it, and returns the token that `check` names.
    async fn write(
        &self,
        (kind, data): (&'static str, &impl Serialize),
        at: Timestamp,
        check: impl Fn(&Directory) -> Result<String, TokensError>,
    ) -> Result<Token, TokensError> {
        let data = serde_json::to_string(data).unwrap_or_default();
        let _alone = self.reading.lock().await;
        let mut tries = 0;
        loop {
            self.read_on().await?;
            let (id, version) = {
                let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
                (check(&directory)?, directory.version)
            };
            let event = NewEvent { kind: kind.into(), data: data.clone() };
            let append = Append::shared(Stream::Tokens, version, at, vec![event]);
            match self.store.log().append_shared(append).await {
                Ok(_) => {
                    self.read_on().await?;
                    let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
                    return directory.get(&id).cloned().ok_or(TokensError::NotFound(id));
                }
                Err(StoreError::Conflict { .. }) if tries < APPEND_TRIES_MAX => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what any host has written.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let _alone = self.reading.lock().await;
        self.read_on().await
    }

    /// As [`Self::catch_up`], for whoever holds `reading`.
    async fn read_on(&self) -> Result<(), StoreError> {
        loop {
            let after = self.directory.read().unwrap_or_else(PoisonError::into_inner).version;
            let page = self.store.log().stream(Stream::Tokens, after, EVENTS_PER_READ).await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
            directory.take_in(&page, now());
            drop(directory);
            self.changes.send_replace(());
        }
    }

    /// Records the uses of the last moments.
    async fn record_uses(&self) -> Result<(), TokensError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        for id in used {
            let at = now();
            let data = Used { id: id.clone() };
            let recorded = self.write((USED, &data), at, |directory| {
                let is_recorded = |last: Timestamp| at.since(last) < USE_RECORDED_EACH;
                let token = directory.get(&id);
                let token = token.filter(|token| !token.last_used_at.is_some_and(is_recorded));
                token.map(|_| id.clone()).ok_or_else(|| TokensError::NotFound(id.clone()))
            });
            match recorded.await {
                // Another host was first, or the token is forgotten.
                Ok(_) | Err(TokensError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads the stream of tokens when the log has grown, and records uses, until the host is gone.
async fn follow(access: Weak<Access>) {
    let mut tick = tokio::time::interval(FOLLOW_PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read_at: Option<Cursor> = None;
    loop {
        tick.tick().await;
        let Some(access) = access.upgrade() else { return };
        let head = access.store.log().head();
        let head = *head.borrow();
        let read = async {
            if read_at != Some(head) {
                access.catch_up().await?;
                read_at = Some(head);
            }
            access.record_uses().await
        };
        match read.await {
            Ok(()) => {}
            Err(TokensError::Store(StoreError::Closed)) => return,
            Err(TokensError::Store(error)) if error.is_fatal() => return,
            // Tried again at the next tick. A use that is not recorded is recorded with the next one.
            Err(error) => tracing::debug!(%error, "tokens cannot be read"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    (1..=TOKEN_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain)
}
