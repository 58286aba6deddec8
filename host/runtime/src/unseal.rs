//! Opens the personal values of stored events. The store has them sealed; the engine and readers of one
//! saga get them as they are, or as erased.
//!
//! Deliberately absent: the log as a whole. Whoever follows it gets what is stored.

use std::borrow::Cow;

use amends_engine::{Event, SEALED_PREFIX, SagaEvent, SagaId, SealedKey, Version};
use amends_keys::{DataKey, FoundKey, KeyError, Keys, open_event};
use amends_store::{PageBudget, Store, StoredEvent, Stream};

use crate::error::RuntimeError;

/// Returns the key that the first event of a saga has, if its values are sealed.
pub(crate) fn sealed_key(first: &StoredEvent) -> Option<SealedKey> {
    if first.kind != "saga.started" || !first.data.contains("\"sealed_key\"") {
        return None;
    }
    match Event::decode(&first.kind, &first.data) {
        Ok(Event::Saga(SagaEvent::Started(started))) => started.sealed_key.map(|key| *key),
        Ok(_) | Err(_) => None,
    }
}

/// Opens the values of a whole log, or of the first page of one. Returns the key of the values, if there
/// is one.
///
/// # Errors
/// When the key file cannot be used.
pub(crate) async fn open_log<'l>(
    keys: &Keys,
    id: SagaId,
    log: &'l [StoredEvent],
) -> Result<(Cow<'l, [StoredEvent]>, Option<DataKey>), KeyError> {
    let (opened, found) = open_live_log(keys, id, log).await?;
    Ok((opened, found.and_then(FoundKey::key)))
}

/// Opens the values of a log as [`open_log`] does, and returns what was found of their key. None when the
/// values of the saga are not sealed.
///
/// # Errors
/// When the key file cannot be used.
pub(crate) async fn open_live_log<'l>(
    keys: &Keys,
    id: SagaId,
    log: &'l [StoredEvent],
) -> Result<(Cow<'l, [StoredEvent]>, Option<FoundKey>), KeyError> {
    let Some(sealed) = log.first().and_then(sealed_key) else {
        return Ok((Cow::Borrowed(log), None));
    };
    let found = keys.data_key(id, &sealed).await?;
    let key = found.clone().key();
    Ok((Cow::Owned(open_page(id, log.to_vec(), key.as_ref())), Some(found)))
}

/// Opens the values of some events of a saga whose values are sealed.
pub(crate) fn open_page(
    id: SagaId,
    mut page: Vec<StoredEvent>,
    key: Option<&DataKey>,
) -> Vec<StoredEvent> {
    for stored in &mut page {
        if let Some(data) = open_event((id, stored.version), &stored.kind, &stored.data, key) {
            stored.data = data;
        }
    }
    page
}

/// Opens the values of some events of a saga, wherever they begin.
///
/// # Errors
/// When the store fails or the key file cannot be used.
pub(crate) async fn open_events(
    (store, keys): (&dyn Store, &Keys),
    id: SagaId,
    page: Vec<StoredEvent>,
) -> Result<Vec<StoredEvent>, RuntimeError> {
    if !page.iter().any(|stored| stored.data.contains(SEALED_PREFIX)) {
        return Ok(page);
    }
    let first = match page.first() {
        Some(first) if first.version == Version(1) => Some(first.clone()),
        Some(_) | None => first_event(store, id).await?,
    };
    let Some(sealed) = first.as_ref().and_then(sealed_key) else { return Ok(page) };
    let key = keys.data_key(id, &sealed).await?.key();
    Ok(open_page(id, page, key.as_ref()))
}

/// Returns the first event of a saga, also of an archived one.
///
/// # Errors
/// When the store or the archive fails.
pub(crate) async fn first_event(
    store: &dyn Store,
    id: SagaId,
) -> Result<Option<StoredEvent>, RuntimeError> {
    let first = store.log().stream(Stream::Saga(id), Version(0), PageBudget::items(1)).await?;
    if let Some(first) = first.into_iter().next() {
        return Ok(Some(first));
    }
    Ok(store.archive().read(id).await?.and_then(|saga| saga.events.into_iter().next()))
}
