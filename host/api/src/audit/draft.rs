//! What the audit is to have of a request, from its arrival to its answer.

use std::net::IpAddr;

use axum::extract::Request;
use axum::response::Response;

use amends_peers::Forwarded;
use amends_runtime::{AuditEntry, Host};
use tokio::runtime::Handle;

use crate::caller::{Caller, peer_of};
use crate::error::ProblemCode;

/// When the audit has a request for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Never: it changes nothing.
    Never,
    /// When it was refused or has failed. When it was accepted, the log of the saga has it.
    WhenNotDone,
    /// Always.
    Always,
}

/// The entry of a request that is not answered yet. When it is dropped before the answer, the caller has gone away:
/// then the entry is recorded without a status, because what was asked for may be done all the same.
pub(crate) struct Draft {
    host: Host,
    recorded: Recorded,
    /// None once it is recorded.
    entry: Option<AuditEntry>,
}

impl Draft {
    /// Begins the entry of a request for an operation. None when the audit does not have it: the host has no access
    /// control, no token that counts came with the request, or another host has passed it on and records it.
    pub(crate) fn new(
        host: &Host,
        request: &Request,
        caller: Option<&Caller>,
        operation: Option<&str>,
        recorded: Recorded,
    ) -> Option<Self> {
        if recorded == Recorded::Never || !is_asked_here(host, request) {
            return None;
        }
        let caller = caller?;
        let holder = caller.holder.as_ref()?;
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let entry = AuditEntry {
            who: caller.principal().subject().to_owned(),
            token: holder.id.clone(),
            roles: holder.roles.iter().map(ToString::to_string).collect(),
            address: peer_of(request),
            operation: operation.map(str::to_owned),
            target: target.to_owned(),
            status: None,
            code: None,
        };
        Some(Self { host: host.clone(), recorded, entry: Some(entry) })
    }

    /// Records what the request was answered. Resolves when the entry is durable. When the store fails, that is
    /// logged. The entry is recorded also when the future is dropped.
    pub(crate) fn record(
        mut self,
        status: u16,
        code: Option<&str>,
    ) -> impl Future<Output = ()> + use<> {
        let is_wanted = match self.recorded {
            Recorded::Never => false,
            Recorded::WhenNotDone => status >= 400,
            Recorded::Always => true,
        };
        let entry = self.entry.take().filter(|_| is_wanted);
        let code = code.map(str::to_owned);
        let task = entry.map(|entry| {
            let entry = AuditEntry { status: Some(status), code, ..entry };
            tokio::spawn(record(self.host.clone(), entry))
        });
        async move {
            if let Some(task) = task {
                let _ = task.await;
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        // Outside of a runtime the process ends.
        if let (Recorded::Always, Ok(runtime)) = (self.recorded, Handle::try_current()) {
            runtime.spawn(record(self.host.clone(), entry));
        }
    }
}

async fn record(host: Host, entry: AuditEntry) {
    let (who, target) = (entry.who.clone(), entry.target.clone());
    if let Err(error) = host.audit(entry).await {
        tracing::error!(%error, who, target, "a request is not in the audit");
    }
}

/// Returns where a request comes from that is counted when it is refused: no token that counts came with it, and this
/// host has an audit.
pub(crate) fn stranger(host: &Host, request: &Request, caller: Option<&Caller>) -> Option<IpAddr> {
    let is_stranger = caller.is_none_or(|caller| caller.holder.is_none());
    (is_stranger && is_asked_here(host, request)).then(|| peer_of(request))
}

/// Whether the host has an audit, and no other host has passed the request on.
fn is_asked_here(host: &Host, request: &Request) -> bool {
    host.has_access_control() && request.extensions().get::<Forwarded>().is_none()
}

/// Returns the code of the problem that an answer is.
pub(crate) fn code_of(response: &Response) -> Option<&str> {
    response.extensions().get::<ProblemCode>().map(|ProblemCode(code)| code.as_str())
}
