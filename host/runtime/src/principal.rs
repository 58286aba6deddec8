//! Who asks a host for a change.

use amends_engine::SagaId;
use amends_peers::PeerPrincipal;

use crate::access::Role;

/// Who asks a host for a change. The host keeps the subject with what it records of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name that is recorded as `who`, for example `ann@127.0.0.1`.
    pub(crate) subject: String,
    /// The roles that access control gave the subject. Empty without access control.
    pub(crate) roles: Vec<String>,
    /// The way by which the request came.
    pub(crate) via: Via,
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
        Self { subject: subject.into(), roles: Vec::new(), via }
    }

    /// Makes the principal of a request that came with a token.
    #[must_use]
    pub fn of_token(subject: impl Into<String>, roles: &[Role]) -> Self {
        let roles = roles.iter().map(ToString::to_string).collect();
        Self { subject: subject.into(), roles, via: Via::Http }
    }

    /// Returns the name that is recorded as `who`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Makes the principal for which the host starts and undoes the sagas that a saga runs.
    pub(crate) fn of_saga(parent: SagaId) -> Self {
        Self { subject: format!("saga {parent}"), roles: Vec::new(), via: Via::Host }
    }

    /// Makes the principal for which the host starts the sagas of a schedule.
    pub(crate) fn of_schedule(name: &str) -> Self {
        Self { subject: format!("schedule {name}"), roles: Vec::new(), via: Via::Host }
    }

    /// Makes the principal for which the host takes the events of a rule. `sender` has shown a token with them.
    pub(crate) fn of_event_rule(name: &str, sender: Option<&Self>, via: Via) -> Self {
        let subject = match sender {
            Some(sender) => format!("on {name}, sent by {}", sender.subject),
            None => format!("on {name}"),
        };
        Self { subject, roles: Vec::new(), via }
    }

    /// Returns what another host of the store is told of it.
    pub(crate) fn of_here(&self) -> PeerPrincipal {
        PeerPrincipal {
            subject: self.subject.clone(),
            is_host: self.via == Via::Host,
            roles: self.roles.clone(),
            via: self.via.to_string(),
        }
    }

    /// Makes the principal of whom another host of the store tells.
    pub(crate) fn of_peer(told: PeerPrincipal) -> Self {
        let PeerPrincipal { subject, roles, via, is_host: _ } = told;
        let via = [Via::Http, Via::Folder, Via::CommandLine]
            .into_iter()
            .find(|one| one.to_string() == via)
            .unwrap_or(Via::Host);
        Self { subject, roles, via }
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
