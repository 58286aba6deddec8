//! The tokens that a host knows: what the events of the stream of tokens say.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{Digest, Timestamp, Version};
use amends_store::{EVENT_UNREADABLE, StoredEvent};
use serde::{Deserialize, Serialize};

use super::permission::{Permissions, Role};
use crate::namespaces::Namespaces;

/// A token that ended so long ago is forgotten. Its events stay in the log.
pub(super) const ENDED_KEPT: Duration = Duration::from_hours(90 * 24);

pub(super) const CREATED: &str = "token.created";
/// As [`CREATED`], of a token that is for other namespaces than `default` alone.
pub(super) const CREATED_IN: &str = "token.created_in";
pub(super) const REVOKED: &str = "token.revoked";
pub(super) const USED: &str = "token.used";

/// The data of [`CREATED`] and [`CREATED_IN`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) roles: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) payloads: bool,
    /// The namespaces that the token is for, by name; empty for `default` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) namespaces: Vec<String>,
    /// The SHA-256 of the text of the token.
    pub(super) digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    pub(super) who: String,
}

/// The data of [`REVOKED`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RevokedToken {
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) by: RevokedBy,
}

/// Who revoked a token, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RevokedBy {
    #[serde(default)]
    pub(super) who: String,
    #[serde(default)]
    pub(super) reason: String,
}

/// The data of [`USED`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) id: String,
}

/// A token, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The part of the token that may be shown.
    pub id: String,
    /// The name, which is recorded as `who`.
    pub name: String,
    /// The roles. A role that a later version has given and this one does not know is not among them.
    pub roles: Vec<Role>,
    /// Whether the token lets see payloads.
    pub payloads: bool,
    /// The namespaces that the token is for.
    pub namespaces: Namespaces,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; none: never.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to within a day.
    pub last_used_at: Option<Timestamp>,
    /// Who revoked it, if somebody has.
    pub revoked: Option<Revoked>,
    /// The SHA-256 of the text.
    pub(super) digest: Digest,
}

/// The end of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Who revoked the token.
    pub who: String,
    /// When.
    pub at: Timestamp,
    /// The reason that they gave.
    pub reason: String,
}

/// Whether a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It counts.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody has revoked it.
    Revoked,
}

impl TokenState {
    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Token {
    /// Returns whether the token counts at a time.
    #[must_use]
    pub fn state(&self, at: Timestamp) -> TokenState {
        match (&self.revoked, self.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(expires_at)) if expires_at <= at => TokenState::Expired,
            (None, _) => TokenState::Active,
        }
    }

    /// Returns what the token lets its holder do.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions::of(&self.roles, self.payloads)
    }

    /// Returns when the token ended, if it has.
    fn ended_at(&self, at: Timestamp) -> Option<Timestamp> {
        match (&self.revoked, self.expires_at) {
            (Some(revoked), _) => Some(revoked.at),
            (None, expires_at) => expires_at.filter(|expires_at| *expires_at <= at),
        }
    }
}

/// The tokens of a store, by id.
#[derive(Debug, Default)]
pub(super) struct Directory {
    tokens: BTreeMap<String, Token>,
    /// The version of the last event that is taken in.
    pub(super) version: Version,
}

impl Directory {
    /// Takes in the next events of the stream.
    pub(super) fn take_in(&mut self, events: &[StoredEvent], now: Timestamp) {
        for event in events {
            self.version = event.version;
            if let Err(error) = self.take_in_one(event) {
                // A token that cannot be read does not count, and one that was revoked ends all the same.
                tracing::error!(version = event.version.0, %error, "an event of tokens cannot be read");
            }
        }
        self.tokens.retain(|_, token| {
            token.ended_at(now).is_none_or(|ended_at| now.since(ended_at) < ENDED_KEPT)
        });
    }

    fn take_in_one(&mut self, event: &StoredEvent) -> Result<(), serde_json::Error> {
        match event.kind.as_str() {
            CREATED | CREATED_IN => {
                let token = created(serde_json::from_str(&event.data)?, event.at)?;
                self.tokens.insert(token.id.clone(), token);
            }
            REVOKED => {
                let RevokedToken { id, by } = serde_json::from_str(&event.data)?;
                if let Some(token) = self.tokens.get_mut(&id) {
                    let RevokedBy { who, reason } = by;
                    token.revoked.get_or_insert(Revoked { who, at: event.at, reason });
                }
            }
            USED => {
                let Used { id } = serde_json::from_str(&event.data)?;
                if let Some(token) = self.tokens.get_mut(&id) {
                    token.last_used_at = Some(event.at);
                }
            }
            EVENT_UNREADABLE => return Err(serde::de::Error::custom("it is damaged")),
            // Of a later version.
            _ => {}
        }
        Ok(())
    }

    /// Returns a token, also one that has ended.
    pub(super) fn get(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// Returns the active tokens.
    pub(super) fn active(&self, now: Timestamp) -> impl Iterator<Item = &Token> {
        self.tokens.values().filter(move |token| token.state(now) == TokenState::Active)
    }

    /// Returns all tokens, the newest first.
    pub(super) fn list(&self) -> Vec<Token> {
        let mut tokens: Vec<_> = self.tokens.values().cloned().collect();
        tokens.sort_by(|one, other| {
            (other.created_at, &one.name).cmp(&(one.created_at, &other.name))
        });
        tokens
    }
}

fn created(data: Created, at: Timestamp) -> Result<Token, serde_json::Error> {
    let Created { id, name, roles, payloads, namespaces, digest, expires_at, who } = data;
    let namespaces = Namespaces::read(&namespaces).map_err(|wrong| {
        <serde_json::Error as serde::de::Error>::custom(format!("`{wrong}` is no namespace"))
    })?;
    Ok(Token {
        id,
        name,
        roles: roles.iter().filter_map(|role| Role::from_word(role)).collect(),
        payloads,
        namespaces,
        created_by: who,
        created_at: at,
        expires_at,
        last_used_at: None,
        revoked: None,
        digest,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use amends_engine::Position;
    use amends_store::Stream;
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn event(version: u64, kind: &str, data: &serde_json::Value, at: Timestamp) -> StoredEvent {
        StoredEvent {
            stream: Stream::Tokens,
            version: Version(version),
            position: Position(version),
            at,
            kind: kind.to_owned(),
            data: data.to_string(),
        }
    }

    #[test]
    fn what_the_events_say_counts_and_the_rest_does_not() {
        let start = Timestamp::from_millis(1_000_000);
        let made = |version, id: &str, role: &str, expires_at: Option<Timestamp>| {
            let data = json!({
                "id": id, "name": format!("of-{id}"), "roles": [role, "of-later"],
                "digest": Digest::of(id.as_bytes()), "expires_at": expires_at, "who": "ada",
            });
            event(version, CREATED, &data, start)
        };
        let mut directory = Directory::default();
        let events = [
            made(1, "a", "viewer", None),
            made(2, "b", "admin", Some(start.after(DAY))),
            made(3, "c", "admin", None),
            event(4, REVOKED, &json!({"id": "c", "of": "a later version"}), start),
            event(5, USED, &json!({"id": "a"}), start.after(DAY)),
            event(6, "token.of_later", &json!(7), start),
            event(7, CREATED, &json!({"id": "d", "name": "no digest"}), start),
            event(
                8,
                CREATED_IN,
                &json!({
                    "id": "e", "name": "of-e", "roles": ["viewer"], "namespaces": ["shop"],
                    "digest": Digest::of(b"e"), "expires_at": start.after(DAY), "who": "ada",
                }),
                start,
            ),
        ];
        directory.take_in(&events, start);
        assert_eq!(directory.version, Version(8));
        let namespaces = |id: &str| directory.get(id).unwrap().namespaces.to_string();
        assert_eq!([namespaces("a"), namespaces("e")], ["default", "shop"]);
        let state = |directory: &Directory, id: &str, at| directory.get(id).map(|it| it.state(at));
        assert_eq!(state(&directory, "a", start), Some(TokenState::Active));
        assert_eq!(state(&directory, "b", start), Some(TokenState::Active));
        assert_eq!(state(&directory, "b", start.after(DAY)), Some(TokenState::Expired));
        assert_eq!(state(&directory, "c", start), Some(TokenState::Revoked));
        assert_eq!(state(&directory, "d", start), None);
        let a = directory.get("a").unwrap();
        assert_eq!(
            (a.last_used_at, a.roles.as_slice()),
            (Some(start.after(DAY)), &[Role::Viewer][..])
        );
        assert_eq!(directory.active(start).count(), 3);
        // What ended is forgotten in the end.
        directory.take_in(&[], start.after(DAY + ENDED_KEPT));
        let left: Vec<_> = directory.list().into_iter().map(|token| token.id).collect();
        assert_eq!(left, ["a"]);
    }
}
