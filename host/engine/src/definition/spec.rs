//! A definition as the config gives it: plain data, not yet checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;
use crate::ids::{DefinitionName, IndexName, PluginName, ServiceName, SignalName, StepName};

/// The timeout of a call, unless the definition says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The most elements of a step that are under way at once, unless the definition says otherwise. It
/// is enough to be faster, and few enough that one saga does not take all the room of its plugin.
pub const EACH_CONCURRENCY_DEFAULT: usize = 16;

/// The most elements of all lists of one saga. Each is a step of its own to recover, to show and to
/// undo, and each decision looks at every step.
pub const ELEMENTS_MAX: usize = 1_000;

/// One saga definition. Its canonical form is this struct as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionSpec {
    /// The name of the definition, unique in a config.
    pub name: DefinitionName,
    /// How long after its start a saga is compensated unless it has completed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis::optional")]
    pub deadline: Option<Duration>,
    /// How long after its completion a saga may still be compensated; none for ever.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis::optional")]
    pub compensate_within: Option<Duration>,
    /// The values by which a saga is found: CEL over `input`, computed once when the saga starts. At
    /// most [`crate::INDEX_NAMES_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub index: BTreeMap<IndexName, String>,
    /// The person whose personal values a saga has: CEL over `input` that gives a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The places of personal values: paths such as `input.address` and `steps.NAME.output.account`.
    /// At most [`crate::PERSONAL_PATHS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub personal: Vec<String>,
    /// The steps, in the order of the config.
    pub steps: Vec<StepSpec>,
}

/// One step of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// The name of the step, unique in the definition.
    pub name: StepName,
    /// What the step does.
    #[serde(flatten)]
    pub kind: StepKind,
    /// The steps that must be done before this one. A step without any starts at once. The reader
    /// of the config fills in its default, the step before.
    pub after: Vec<StepName>,
    /// The list that the step runs over: one call for each element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<EachSpec>,
    /// A CEL expression; when it is false, the step is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The input of `execute`. The default is `{"input": …, "steps": {NAME: {"output": …}}}`; an
    /// element also has `"item": …, "index": …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputSpec>,
    /// The timeout of one call.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// The retries of `execute`.
    pub retry: RetrySpec,
    /// The undo of the step; none when it has none (`undo = false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
    /// True for the pivot, the point of no return: once it has succeeded, nothing is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
}

/// The list that a step runs over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EachSpec {
    /// A CEL expression that gives a list. The expressions of the step's input see one element of
    /// it as `item`, and its number, from 0, as `index`.
    pub list: String,
    /// The most elements of one saga that are under way at once, from 1 to [`crate::ELEMENTS_MAX`].
    /// An element that waits for its next attempt counts.
    pub concurrency: usize,
}

/// The kind of a step: what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepKind {
    /// The step calls a component.
    Call {
        /// The plugin.
        plugin: PluginName,
        /// The service that the component calls, if the config names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceName>,
    },
    /// The step waits for a signal. Its output is the payload of the signal.
    Wait {
        /// The signal, and how long the step waits.
        wait: WaitSpec,
    },
    /// The step waits for a time to pass.
    Sleep {
        /// The length of the wait.
        #[serde(with = "millis")]
        sleep: Duration,
    },
    /// The step runs another saga, and has its output. Its undo compensates that saga.
    Saga {
        /// The definition of that saga.
        saga: DefinitionName,
    },
}

/// The signal that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSpec {
    /// The signal.
    pub signal: SignalName,
    /// How long the step waits before it fails; none for ever, or until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis::optional")]
    pub timeout: Option<Duration>,
}

impl StepSpec {
    /// Returns the plugin that the step calls, if it calls one.
    #[must_use]
    pub fn plugin(&self) -> Option<&PluginName> {
        match &self.kind {
            StepKind::Call { plugin, .. } => Some(plugin),
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        }
    }

    /// Returns the service that the step calls, if the config names one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match &self.kind {
            StepKind::Call { service, .. } => service.as_ref(),
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        }
    }

    /// Returns the plugin that undoes the step, if one does.
    #[must_use]
    pub fn undo_plugin(&self) -> Option<&PluginName> {
        self.undo.as_ref().and_then(|undo| undo.plugin.as_ref())
    }
}

/// The input of a step, as CEL over `input`, `steps.NAME.output` and `saga`. For an element, also
/// over `item` and `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InputSpec {
    /// One expression gives the whole input: `input = "input.order"`.
    Whole(String),
    /// One expression gives each field: `input = { drug = "input.drug" }`.
    Fields(BTreeMap<String, String>),
}

/// The undo of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoSpec {
    /// The plugin whose `compensate` is called: that of the step, or another. None for a step that
    /// runs a saga, because that saga is compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginName>,
    /// The timeout of one call.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// The retries of `compensate`.
    pub retry: RetrySpec,
}

/// How often and when a call is retried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrySpec {
    /// The number of attempts, including the first; from 1 to [`crate::ATTEMPTS_MAX`].
    pub attempts: u32,
    /// The pauses between attempts.
    pub backoff: BackoffSpec,
}

/// The pauses between attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffSpec {
    /// The list has one pause for each failed attempt; the last one repeats.
    Listed(#[serde(with = "millis::list")] Vec<Duration>),
    /// A pause is `initial · factor^(attempt-1)`, at most `max`, spread by `jitter`.
    Exponential {
        /// The pause after the first failed attempt.
        #[serde(with = "millis")]
        initial: Duration,
        /// Each pause is this many times as long as the one before; at least 1.
        factor: f64,
        /// The longest pause.
        #[serde(with = "millis")]
        max: Duration,
        /// The spread, from 0 to 1: a pause of `p` becomes one between `p·(1-jitter)` and `p`. It
        /// follows from a hash of saga, step, direction and attempt, so it is always the same.
        jitter: f64,
    },
}

impl Default for RetrySpec {
    /// Four attempts within some ten seconds: enough for a short outage, and a person hears soon
    /// enough.
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
