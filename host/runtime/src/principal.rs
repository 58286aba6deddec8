//! Who asks a host for a change.

use amends_engine::SagaId;
use amends_peers::PeerPrincipal;

/// Who asks a host for a change. The host keeps the subject with what it records of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name that is recorded as `who`, for example `ann@127.0.0.1`.
    pub(crate) subject: String,
    /// How the host knows the subject.
    pub(crate) kind: PrincipalKind,
    /// The roles that access control gave the subject. Empty without access control.
    pub(crate) roles: Vec<String>,
    /// The way by which the request came.
    pub(crate) via: Via,
}

/// How a host knows who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrincipalKind {
    /// The host has no access control: whoever reaches it may do everything, and nobody checks the name.
    Local,
    /// The host itself asks: for a saga that runs or undoes another one, for a schedule, or for an event.
    Host,
}

/// The way by which a request for a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A request to the HTTP API.
    Http,
    /// A file in the plugin folder.
    Folder,
    /// A command that runs a host of its own, for example `amends bench`.
    CommandLine,
    /// The host itself.
    Host,
}

impl Principal {
    /// Makes the principal of a request to a host without access control.
    #[must_use]
    pub fn local(subject: impl Into<String>, via: Via) -> Self {
        Self { subject: subject.into(), kind: PrincipalKind::Local, roles: Vec::new(), via }
    }

    /// Makes the principal for which the host starts and undoes the sagas that a saga runs.
    pub(crate) fn of_saga(parent: SagaId) -> Self {
        Self {
            subject: format!("saga {parent}"),
            kind: PrincipalKind::Host,
            roles: Vec::new(),
            via: Via::Host,
        }
    }
}

impl Principal {
    /// Makes the principal for which the host starts the sagas of a schedule.
    pub(crate) fn of_schedule(name: &str) -> Self {
        Self {
            subject: format!("schedule {name}"),
            kind: PrincipalKind::Host,
            roles: Vec::new(),
            via: Via::Host,
        }
    }
}

impl Principal {
    /// Makes the principal for which the host takes the events of a rule.
    pub(crate) fn of_event_rule(name: &str, via: Via) -> Self {
        Self { subject: format!("on {name}"), kind: PrincipalKind::Host, roles: Vec::new(), via }
    }
}

impl Principal {
    /// Returns what another host of the store is told of it.
    pub(crate) fn of_here(&self) -> PeerPrincipal {
        PeerPrincipal {
            subject: self.subject.clone(),
            is_host: self.kind == PrincipalKind::Host,
            roles: self.roles.clone(),
            via: self.via.to_string(),
        }
    }

    /// Makes the principal of whom another host of the store tells.
    pub(crate) fn of_peer(told: PeerPrincipal) -> Self {
        let PeerPrincipal { subject, is_host, roles, via } = told;
        let kind = if is_host { PrincipalKind::Host } else { PrincipalKind::Local };
        let via = [Via::Http, Via::Folder, Via::CommandLine]
            .into_iter()
            .find(|one| one.to_string() == via)
            .unwrap_or(Via::Host);
        Self { subject, kind, roles, via }
    }
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Folder => "folder",
            Self::CommandLine => "command line",
            Self::Host => "host",
        })
    }
}
