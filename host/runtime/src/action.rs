//! What a principal asks a host to change, and the one place that every change passes.

use std::fmt;

use amends_engine::{PluginName, SagaId, ServiceName, SignalName, Verb};

use crate::principal::Principal;

/// A change: what is to be done, and to what.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// Start a saga of a definition.
    Start { definition: &'a str },
    /// Send a signal to a saga.
    Signal { saga: SagaId, name: &'a SignalName },
    /// Give an operator's order to a saga.
    Operate { saga: SagaId, verb: &'a Verb },
    /// Move sagas to the archive whose retention is over.
    Archive,
    /// Bring a saga back from the archive.
    BringBack { saga: SagaId },
    /// Put a saga that ended on another host into the archive.
    Import { saga: SagaId },
    /// Erase the personal values of a subject, who is not named here.
    Erase,
    /// Write the projections of the store anew where they are not what the events say.
    Rebuild,
    /// Activate components for plugins, or begin a canary; a dry run only looks.
    Deploy { plugins: Vec<&'a PluginName>, is_dry_run: bool },
    /// Run the undo of a new component on recorded outputs, without any effect.
    Rehearse { plugin: &'a PluginName },
    /// Go back to an earlier component of a plugin, or take its canary back.
    Rollback { plugin: &'a PluginName },
    /// Activate the canary of a plugin for all sagas.
    Promote { plugin: &'a PluginName },
    /// Set or remove a key of a plugin's state.
    SetState { plugin: &'a PluginName, key: &'a str },
    /// Set many keys of a plugin's state.
    ImportState { plugin: &'a PluginName },
    /// Open the circuit breaker of a service.
    OpenBreaker { service: &'a ServiceName },
    /// Close the circuit breaker of a service.
    CloseBreaker { service: &'a ServiceName },
    /// Send the dead letters of a subscription again.
    Redrive { subscription: &'a str },
    /// Make a token.
    CreateToken { name: &'a str },
    /// Revoke a token.
    RevokeToken { named: &'a str },
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { definition } => write!(f, "start {definition}"),
            Self::Signal { saga, name } => write!(f, "signal {saga} {name}"),
            Self::Operate { saga, verb } => write!(f, "operate {saga} {}", verb.word()),
            Self::Archive => f.write_str("archive"),
            Self::Rebuild => f.write_str("rebuild"),
            Self::Erase => f.write_str("erase"),
            Self::Import { saga } => write!(f, "import {saga}"),
            Self::BringBack { saga } => write!(f, "bring back {saga}"),
            Self::Deploy { plugins, is_dry_run } => {
                f.write_str(if *is_dry_run { "try to deploy" } else { "deploy" })?;
                plugins.iter().try_for_each(|plugin| write!(f, " {plugin}"))
            }
            Self::Rehearse { plugin } => write!(f, "rehearse {plugin}"),
            Self::Rollback { plugin } => write!(f, "rollback {plugin}"),
            Self::Promote { plugin } => write!(f, "promote {plugin}"),
            Self::SetState { plugin, key } => write!(f, "set state {plugin} {key}"),
            Self::ImportState { plugin } => write!(f, "import state {plugin}"),
            Self::OpenBreaker { service } => write!(f, "open breaker {service}"),
            Self::CloseBreaker { service } => write!(f, "close breaker {service}"),
            Self::Redrive { subscription } => write!(f, "redrive subscription {subscription}"),
            Self::CreateToken { name } => write!(f, "create token {name}"),
            Self::RevokeToken { named } => write!(f, "revoke token {named}"),
        }
    }
}

/// Lets a change pass. Every change that somebody asks a running host for comes through here before
/// anything of it is done. What the host activates by itself, when it opens and when a canary is over,
/// does not.
///
/// Whether the principal may do it was decided before, by the rules of the OpenAPI document. So this only logs
/// who asks for what: `AMENDS_LOG=amends::action=debug` shows it.
pub(crate) fn authorize(principal: &Principal, action: &Action<'_>) {
    let Principal { subject, via, roles } = principal;
    tracing::debug!(target: "amends::action", subject, %via, ?roles, %action, "a change is asked for");
}
