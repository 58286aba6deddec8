//! Makes connections, to addresses that are allowed and to no other.
//!
//! A name is resolved, each of its addresses is checked, and the connection is made to one that
//! was checked: a name that stands for another address the next time gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::allow::{AllowHosts, Host};

/// Resolves names: the system's way, or a test's.
pub(crate) type Resolve = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>
    + Send
    + Sync;

/// Makes TCP connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) allow: Arc<AllowHosts>,
    pub(crate) timeout: Duration,
    pub(crate) resolve: Arc<Resolve>,
}

/// Why no connection is made: the address is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Prohibited(pub(crate) String);

/// The name cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be resolved: {1}")]
pub(crate) struct Unresolved(String, io::Error);

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Names that are looked up at once: each holds a thread, and a server of names may be silent.
pub(super) const LOOKUPS_MAX: usize = 32;

static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// As `getaddrinfo` says.
pub(crate) fn system(
    name: String,
    port: u16,
) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
    Box::pin(look_up(move || {
        let found = (name.as_str(), port).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    }))
}

/// Blocks a thread of its own, when one of so many is free.
pub(super) async fn look_up(
    blocking: impl FnOnce() -> io::Result<Vec<IpAddr>> + Send + 'static,
) -> io::Result<Vec<IpAddr>> {
    let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let lookup = move || {
        // One goes on when nobody waits for it any more, and holds its place for as long.
        let _place = place;
        blocking()
    };
    tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let timeout = this.timeout;
            match tokio::time::timeout(timeout, this.connect(&uri)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<TokioIo<TcpStream>, Failed> {
        let host = uri.host().and_then(Host::parse).ok_or_else(|| {
            Prohibited("the request's host is not a name or an address".to_owned())
        })?;
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let addresses = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => (self.resolve)(name.clone(), port)
                .await
                .map_err(|error| Unresolved(name.clone(), error))?,
        };
        let mut last: Failed = Box::new(Unresolved(
            host.to_string(),
            io::Error::new(io::ErrorKind::NotFound, "it has no address"),
        ));
        for address in addresses {
            if let Err(why) = self.allow.allows_address(&host, address) {
                last = Box::new(Prohibited(why));
                continue;
            }
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}
