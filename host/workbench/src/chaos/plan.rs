//! What goes wrong, and when.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use amends_engine::{
    Call, Direction, Failure, Outcome, Saga, SagaId, SagaStatus, StepName, Target,
};
use amends_runtime::Faults;
use amends_sandbox::Answer;
use serde::{Serialize, Serializer};

/// The tag that carries a fault.
pub(super) const TAG: &str = "amends-chaos";

/// One fault of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) step: StepName,
    pub(super) direction: Direction,
    pub(super) kind: FaultKind,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The first attempt fails, with no effect.
    FailsOnce,
    /// It fails for good, with no effect.
    FailsForGood,
    /// The first attempt has its effect and nobody hears of it: it is repeated.
    ReplyLost,
    /// Every attempt has its effect and nobody hears of it: it is undone with no output.
    AlwaysLost,
    /// No attempt arrives: it is undone although nothing happened.
    NeverArrives,
}

impl FaultKind {
    /// Every kind, as it happens to the call of a step.
    pub const EXECUTE: [Self; 5] = [
        Self::FailsOnce,
        Self::FailsForGood,
        Self::ReplyLost,
        Self::AlwaysLost,
        Self::NeverArrives,
    ];

    /// An undo that is always lost, or never arrives, blocks as one that fails for good.
    pub(super) const COMPENSATE: [Self; 3] = [Self::FailsOnce, Self::ReplyLost, Self::FailsForGood];

    /// Its words.
    #[must_use]
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::FailsOnce => "fails once",
            Self::FailsForGood => "fails for good",
            Self::ReplyLost => "reply lost",
            Self::AlwaysLost => "always lost",
            Self::NeverArrives => "never arrives",
        }
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.words())
    }
}

impl Fault {
    /// Every fault of every call that a completed saga made, and of every undo that it would.
    pub(super) fn all(saga: &Saga) -> Vec<Self> {
        let mut all = Vec::new();
        for step in saga.steps() {
            let fault = |direction, kind| Self { step: step.name.clone(), direction, kind };
            if step.spec.plugin().is_some() && step.attempts > 0 {
                all.extend(FaultKind::EXECUTE.map(|kind| fault(Direction::Execute, kind)));
                if step.spec.undo.is_some() && is_undone(saga, step.name) {
                    all.extend(
                        FaultKind::COMPENSATE.map(|kind| fault(Direction::Compensate, kind)),
                    );
                }
            }
        }
        all
    }

    /// What makes a saga with a pivot come undone: it has no verb for that once it has completed. None
    /// when it has no pivot, or a pivot that calls nothing.
    pub(super) fn of_pivot(saga: &Saga) -> Option<Self> {
        let pivot = saga.definition().pivot_step().filter(|step| step.plugin().is_some())?;
        let (step, direction) = (pivot.name.clone(), Direction::Execute);
        Some(Self { step, direction, kind: FaultKind::FailsForGood })
    }

    /// How a saga with this fault must end; several where a pivot decides.
    pub(super) fn ends(&self, saga: &Saga) -> &'static [SagaStatus] {
        use Direction::{Compensate, Execute};
        use FaultKind::{AlwaysLost, FailsForGood, FailsOnce, NeverArrives, ReplyLost};
        use SagaStatus::{Blocked, Compensated, Completed};
        match (self.direction, self.kind) {
            (Execute, FailsOnce | ReplyLost) => &[Completed],
            (Execute, FailsForGood | AlwaysLost | NeverArrives) if has_pivot(saga) => {
                &[Compensated, Blocked]
            }
            (Execute, FailsForGood | AlwaysLost | NeverArrives)
            | (Compensate, FailsOnce | ReplyLost) => &[Compensated],
            (Compensate, FailsForGood | AlwaysLost | NeverArrives) => &[Blocked],
        }
    }

    pub(super) fn tag(&self) -> String {
        format!("{}/{}/{}", self.step, self.direction.as_str(), self.kind.words())
    }
}

fn has_pivot(saga: &Saga) -> bool {
    saga.definition().pivot_step().is_some()
}

/// Whether a trial comes to the undo of a step: where there is a pivot, of a step before it.
pub(super) fn is_undone(saga: &Saga, step: &StepName) -> bool {
    !has_pivot(saga) || Fault::of_pivot(saga).is_some() && saga.definition().is_before_pivot(step)
}

/// Does what a saga's tag says, and keeps what calls really ended with.
#[derive(Debug, Default)]
pub(super) struct ByTag {
    ended: Mutex<HashMap<SagaId, Vec<Ended>>>,
}

/// What a call really ended with.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) step: StepName,
    pub(super) direction: Direction,
    pub(super) outcome: Outcome,
    /// What it did is thrown away with a lost reply, and nothing of it stands: it wrote to its plugin's
    /// state, and sent nothing. Another attempt may do something else.
    pub(super) is_thrown_away: bool,
}

impl ByTag {
    /// The calls of a saga that were run, in the order in which they ended.
    pub(super) fn ended(&self, id: SagaId) -> Vec<Ended> {
        let mut all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id).unwrap_or_default()
    }

    /// The tag that says the fault of a saga. A child has the tags of its parent, and may have steps of the
    /// same names: it gets no fault. Its definition is tried by itself.
    fn tag(saga: &Saga) -> Option<&String> {
        saga.started().tags.get(TAG).filter(|_| saga.started().parent.is_none())
    }

    /// Whether a call is that of the pivot, in a saga that is to try an undo before it.
    fn fails_pivot(saga: &Saga, call: &Call) -> bool {
        let is_of_undo = Self::tag(saga).is_some_and(|tag| tag.contains("/compensate/"));
        let pivot = saga.definition().pivot_step().map(|step| &step.name);
        is_of_undo && call.direction == Direction::Execute && pivot == Some(&call.step)
    }

    fn kind(saga: &Saga, call: &Call) -> Option<FaultKind> {
        let rest = Self::tag(saga)?.strip_prefix(call.step.as_str())?.strip_prefix('/')?;
        let words = rest.strip_prefix(call.direction.as_str())?.strip_prefix('/')?;
        FaultKind::EXECUTE.into_iter().find(|kind| kind.words() == words)
    }
}

impl Faults for ByTag {
    fn instead(&self, saga: &Saga, call: &Call) -> Option<Outcome> {
        if matches!(call.target, Target::Saga { .. }) {
            return None;
        }
        let failure = |what: &str| Failure::new("chaos", format!("on purpose: {what}"));
        if Self::fails_pivot(saga, call) {
            return Some(Outcome::Permanent(failure("the pivot fails, so that undos are made")));
        }
        match Self::kind(saga, call)? {
            FaultKind::FailsOnce if call.attempt == 1 => {
                Some(Outcome::Retryable(failure("the first attempt fails")))
            }
            FaultKind::FailsForGood => Some(Outcome::Permanent(failure("it fails for good"))),
            FaultKind::NeverArrives => Some(Outcome::Unknown(failure("the call never arrives"))),
            FaultKind::FailsOnce | FaultKind::ReplyLost | FaultKind::AlwaysLost => None,
        }
    }

    fn told(&self, saga: &Saga, call: &Call, answer: &Answer) -> Outcome {
        let outcome = answer.outcome.clone();
        let kind = Self::kind(saga, call);
        let is_run = !matches!(kind, Some(FaultKind::NeverArrives | FaultKind::FailsForGood));
        if is_run && Self::tag(saga).is_some() {
            let (step, direction) = (call.step.clone(), call.direction);
            let wrote = answer.effects.state.as_ref().is_some_and(|state| state.writes_any());
            let is_thrown_away = wrote && !answer.has_sent;
            let ended = Ended { step, direction, outcome: outcome.clone(), is_thrown_away };
            let mut all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(saga.id()).or_default().push(ended);
        }
        let is_lost = match kind {
            Some(FaultKind::ReplyLost) => call.attempt == 1,
            Some(FaultKind::AlwaysLost) => true,
            Some(FaultKind::FailsOnce | FaultKind::FailsForGood | FaultKind::NeverArrives)
            | None => false,
        };
        if is_lost {
            return Outcome::Unknown(Failure::new("chaos", "on purpose: the reply is lost"));
        }
        outcome
    }
}
