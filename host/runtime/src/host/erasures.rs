//! Personal values of a host: whether a saga has them, and their erasure.

use amends_engine::{Saga, Start};
use amends_keys::{Erasure, NewSeal};
use amends_registry::now;

use super::Host;
use crate::action::{Action, authorize};
use crate::erasure::WaitingSaga;
use crate::error::{RuntimeError, StartError};
use crate::marks;
use crate::principal::Principal;

/// What an erasure came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The erasure; the one that is under way when this is a second order. None when the subject has no
    /// key: no saga has a subject that is written like this, or it was erased before.
    pub erasure: Option<Erasure>,
    /// The sagas of the subject that wait until they can no longer be undone.
    pub waiting: Vec<WaitingSaga>,
}

/// What is known of the personal values of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalState {
    /// True when the key of the values is gone, so that they read as erased.
    pub is_erased: bool,
    /// The erasure of the subject's values, if there was one.
    pub erasure: Option<Erasure>,
}

impl Host {
    /// Erases the personal values of a subject. Those of sagas that may still be undone wait for that.
    /// When this fails after the erasure was begun, the host goes on with it by itself.
    ///
    /// # Errors
    /// When the store fails or the key file cannot be used.
    pub async fn erase(
        &self,
        principal: &Principal,
        subject: &str,
        reason: String,
    ) -> Result<Erased, RuntimeError> {
        authorize(principal, &Action::Erase);
        let (keys, eraser) = (&self.inner.keys, &self.inner.eraser);
        let who = principal.subject.clone();
        let Some(key) = keys.retire(subject, who, reason, now()).await? else {
            return Ok(Erased { erasure: None, waiting: Vec::new() });
        };
        let mut waiting = eraser.pass().await?;
        waiting.retain(|saga| saga.subject_key == key);
        Ok(Erased { erasure: keys.erasure(key).await?, waiting })
    }

    /// Returns the erasures of the host, the oldest first, and the sagas that wait for theirs.
    ///
    /// # Errors
    /// When the store fails or the key file cannot be used.
    pub async fn erasures(&self) -> Result<(Vec<Erasure>, Vec<WaitingSaga>), RuntimeError> {
        let waiting = self.inner.eraser.pass().await?;
        Ok((self.inner.keys.erasures().await?, waiting))
    }

    /// Returns what is known of the personal values of a saga. None when its definition has no subject.
    ///
    /// # Errors
    /// When the key file cannot be used.
    pub async fn personal_state(&self, saga: &Saga) -> Result<Option<PersonalState>, RuntimeError> {
        let Some(sealed) = &saga.started().sealed_key else { return Ok(None) };
        let subject_key = sealed.subject_key;
        let keys = &self.inner.keys;
        let is_erased = keys.data_key(saga.id(), sealed).await?.key().is_none();
        Ok(Some(PersonalState { is_erased, erasure: keys.erasure(subject_key).await? }))
    }

    /// Gives a saga that is to start the key of its personal values, if it has a subject.
    pub(super) async fn seal(&self, start: &mut Start) -> Result<Option<NewSeal>, StartError> {
        let definition = &start.definition;
        let subject = definition.subject(&start.input).map_err(|message| {
            StartError::NoSubject { definition: definition.name().to_string(), message }
        })?;
        let marked = marks::at_start(&self.inner.plugins, definition);
        let Some(subject) = subject else {
            let Some(place) = marked.into_iter().next() else { return Ok(None) };
            return Err(StartError::NeedsSubject {
                definition: definition.name().to_string(),
                place,
            });
        };
        start.personal = marked;
        let payload = start.key.as_ref().map(|_| (definition.name(), &start.input));
        let seal = self.inner.keys.begin(&subject, start.id, payload, now()).await?;
        start.sealed_key = Some(seal.sealed.clone());
        Ok(Some(seal))
    }
}
