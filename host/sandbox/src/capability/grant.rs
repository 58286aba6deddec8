//! What one plugin is granted, and what is counted of all its calls together.

use std::sync::{Arc, OnceLock};

use amends_engine::{PluginName, SagaId, StepName};

use crate::capability::log_rate::LogRate;
use crate::capability::outbound::client::Outbound;
use crate::capability::outbound::stub::StubAnswer;
use crate::capability::redactor::Redactor;
use crate::limits::call_limits::CallLimits;
use crate::limits::memory::{Memory, PluginMemory};
use crate::settings::PluginSettings;

/// The settings of a plugin and what belongs to them.
pub struct Grant {
    /// The settings.
    pub settings: PluginSettings,
    /// Takes the plugin's secrets out of texts.
    pub(crate) secrets: Redactor,
    outbound: OnceLock<Outbound>,
    /// Log lines that its calls may write, all together.
    pub(crate) log_rate: LogRate,
    /// What its calls hold of the memory of all guests.
    pub memory: Arc<PluginMemory>,
    /// Its calls are rehearsed: nothing of them is logged or counted as if it had happened.
    pub(crate) is_rehearsal: bool,
}

/// A call, as logs name it.
pub(crate) struct CallName<'c> {
    pub(crate) plugin: &'c PluginName,
    pub(crate) saga_id: SagaId,
    pub(crate) step: &'c StepName,
    pub(crate) attempt: u32,
}

impl Grant {
    pub(crate) fn new(settings: PluginSettings) -> Self {
        let secrets = Redactor::new(&settings.secrets);
        let log_rate = LogRate::new(settings.log_rate);
        let memory = Arc::new(PluginMemory::alone());
        let outbound = OnceLock::new();
        Self { settings, secrets, outbound, log_rate, memory, is_rehearsal: false }
    }

    /// With a share of the memory that a host has for its guests.
    pub(crate) fn within(self, memory: &Memory) -> Self {
        let call_max = CallLimits::of_settings(&self.settings);
        Self { memory: Arc::new(memory.of_plugin(call_max)), ..self }
    }

    /// For a rehearsal: as granted, but that every call has a fresh instance and no request leaves.
    pub(crate) fn for_rehearsal(settings: PluginSettings, answer: StubAnswer) -> Self {
        let settings = PluginSettings { reuse: 0, ..settings };
        let outbound = Outbound::stubbed(&settings, answer);
        Self { is_rehearsal: true, ..Self::with_outbound(settings, outbound) }
    }

    /// With other ways out than the network.
    pub(crate) fn with_outbound(settings: PluginSettings, outbound: Outbound) -> Self {
        Self { outbound: OnceLock::from(outbound), ..Self::new(settings) }
    }

    /// Told to operators when a plugin says a secret of its own.
    pub(crate) fn warn_of_secret(&self, call: &CallName<'_>, place: &str) {
        if !self.is_rehearsal {
            let CallName { plugin, saga_id, step, attempt } = call;
            tracing::warn!(plugin = %plugin, %saga_id, step = %step, attempt, place, "the plugin said a secret of its own; it was taken out");
        }
    }

    /// Where its outbound calls go.
    pub(crate) fn outbound(&self) -> &Outbound {
        self.outbound.get_or_init(|| Outbound::new(&self.settings))
    }
}
