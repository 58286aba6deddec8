//! What a definition says, as the config gives it: plain data, not yet checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{DefinitionName, PluginName, ServiceName, SignalName, StepName};

/// How long a call may take when the definition does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How many elements of a step are under way at once when the definition does not say: enough to
/// gain by it, few enough that one saga does not take all the room of its plugin.
pub const EACH_CONCURRENCY_DEFAULT: usize = 16;

/// One saga definition. Its canonical form is this, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionSpec {
    /// Its name, unique in a config.
    pub name: DefinitionName,
    /// From the start to the moment when what has not completed is compensated.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub deadline: Option<Duration>,
    /// How long after its completion a saga may still be compensated; none: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub compensate_within: Option<Duration>,
    /// In the order of the config.
    pub steps: Vec<StepSpec>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Its name, unique in the definition.
    pub name: StepName,
    /// What it does.
    #[serde(flatten)]
    pub kind: StepKind,
    /// The steps that must be done before this one; empty: it starts at once.
    /// The config's default, the step before, is filled in by the config's reader.
    pub after: Vec<StepName>,
    /// Runs once for each element of a list, as so many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<EachSpec>,
    /// A CEL expression; false skips the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What `execute` is given; none: `{"input": …, "steps": {NAME: {"output": …}}}`, and for an
    /// element also `"item": …, "index": …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputSpec>,
    /// How long one call may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Attempts of `execute`.
    pub retry: RetrySpec,
    /// What undoes it; none: nothing does (`undo = false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
    /// The point of no return: after it has succeeded nothing is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
}

/// The list that a step runs over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EachSpec {
    /// A CEL expression that gives a list. The expressions of the step's input see each element
    /// of it as `item` and its number, from 0, as `index`.
    pub list: String,
    /// So many elements at most are under way at once, in one saga; one that waits to be tried
    /// again is. From 1 to [`crate::ELEMENTS_MAX`].
    pub concurrency: usize,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepKind {
    /// Calls a component.
    Call {
        /// The plugin.
        plugin: PluginName,
        /// The service that it calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceName>,
    },
    /// Waits for a signal; its output is the signal's payload.
    Wait {
        /// For which, and how long.
        wait: WaitSpec,
    },
    /// Waits for a time to pass.
    Sleep {
        /// How long.
        #[serde(with = "millis")]
        sleep: Duration,
    },
    /// Runs another saga; its output is that saga's. Undone by compensating it.
    Saga {
        /// The definition.
        saga: DefinitionName,
    },
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSpec {
    /// The signal.
    pub signal: SignalName,
    /// How long; past it the step fails. None: for ever, or until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub timeout: Option<Duration>,
}

impl StepSpec {
    /// The plugin that it calls, if it calls one.
    #[must_use]
    pub fn plugin(&self) -> Option<&PluginName> {
        match &self.kind {
            StepKind::Call { plugin, .. } => Some(plugin),
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        }
    }

    /// The service that it calls, if it names one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match &self.kind {
            StepKind::Call { service, .. } => service.as_ref(),
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        }
    }

    /// The plugin that undoes it, if one does.
    #[must_use]
    pub fn undo_plugin(&self) -> Option<&PluginName> {
        self.undo.as_ref().and_then(|undo| undo.plugin.as_ref())
    }
}

/// CEL over `input`, `steps.NAME.output` and `saga`, and of an element over `item` and `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InputSpec {
    /// One expression for the whole input: `input = "input.order"`.
    Whole(String),
    /// One expression a field: `input = { drug = "input.drug" }`.
    Fields(BTreeMap<String, String>),
}

/// The undo of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoSpec {
    /// The plugin whose `compensate` is called: the step's own or another. None for a step that
    /// runs a saga: that saga is compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginName>,
    /// How long one call may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Attempts of `compensate`.
    pub retry: RetrySpec,
}

/// How often and when to try again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrySpec {
    /// All attempts, the first included; from 1 to [`crate::ATTEMPTS_MAX`].
    pub attempts: u32,
    /// The pauses between them.
    pub backoff: BackoffSpec,
}

/// The pauses between attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffSpec {
    /// One pause after each failed attempt; the last one repeats.
    Listed(#[serde(with = "list_millis")] Vec<Duration>),
    /// `initial · factor^(attempt-1)`, at most `max`, spread by `jitter`.
    Exponential {
        /// After the first failed attempt.
        #[serde(with = "millis")]
        initial: Duration,
        /// Each pause is this many times the one before; at least 1.
        factor: f64,
        /// No pause is longer.
        #[serde(with = "millis")]
        max: Duration,
        /// 0 to 1: a pause of `p` lies between `p·(1-jitter)` and `p`, by a hash of saga, step,
        /// direction and attempt, so it is the same whenever it is computed.
        jitter: f64,
    },
}

impl Default for RetrySpec {
    /// Four attempts within some ten seconds: enough for a blip, soon enough for a person.
    fn default() -> Self {
        Self {
            attempts: 4,
            backoff: BackoffSpec::Exponential {
                initial: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_mins(1),
                jitter: 0.2,
            },
        }
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

mod list_millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|one| u64::try_from(one.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<u64>::deserialize(from)?.into_iter().map(Duration::from_millis).collect())
    }
}
