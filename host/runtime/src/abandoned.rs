//! The sums of what sagas left standing, and the abandoned sagas that were counted.

use std::collections::{BTreeMap, HashSet};

use amends_engine::{DefinitionName, Saga, SagaId, SagaStatus, StepName, exposure};
use tokio::sync::Mutex;

/// What stands of one step of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Sagas in which its effect stands.
    pub standing: u64,
    /// Sagas in which it may stand.
    pub unknown: u64,
    /// Of both, those of sagas that are blocked.
    pub blocked: u64,
    /// Of both, those of sagas that were abandoned.
    pub abandoned: u64,
}

pub(crate) type Sums = BTreeMap<(DefinitionName, StepName), Exposure>;

/// The abandoned sagas that were counted.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(pub(crate) Mutex<Counted>);

/// The abandoned sagas whose effects are in the sums.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) ids: HashSet<SagaId>,
    pub(crate) sums: Sums,
}

impl Exposure {
    pub(crate) fn add(&mut self, more: Self) {
        self.standing += more.standing;
        self.unknown += more.unknown;
        self.blocked += more.blocked;
        self.abandoned += more.abandoned;
    }
}

/// Adds what stands of one saga.
pub(crate) fn add(sums: &mut Sums, saga: &Saga) {
    let status = saga.status();
    for effect in exposure(saga) {
        let key = (saga.definition().name().clone(), effect.step.clone());
        sums.entry(key).or_default().add(Exposure {
            standing: u64::from(effect.is_certain),
            unknown: u64::from(!effect.is_certain),
            blocked: u64::from(status == SagaStatus::Blocked),
            abandoned: u64::from(status == SagaStatus::Abandoned),
        });
    }
}
