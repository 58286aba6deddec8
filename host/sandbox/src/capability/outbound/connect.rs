//! Makes connections, to addresses that are allowed and to no other.
//!
//! A name is resolved, each of its addresses is checked, and the connection is made to one that
//! was checked: a name that stands for another address the next time gains nothing.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use amends_engine::Direction;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use crate::capability::outbound::allow::{AllowHosts, Host};
use crate::limits::budget::{Budget, Held, Share};

/// Resolves names: the system's way, or a test's. It holds the place until the name is looked up.
pub(crate) type Resolve = dyn Fn(String, u16, Held) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>
    + Send
    + Sync;

/// Makes TCP connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) allow: Arc<AllowHosts>,
    /// Where it is written, for messages.
    pub(crate) section: String,
    pub(crate) timeout: Duration,
    pub(crate) resolve: Arc<Resolve>,
    /// The plugin's share of [`LOOKUPS`].
    pub(crate) lookups: Arc<Share>,
}

/// Why no connection is made: the address is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Prohibited(pub(crate) String);

/// The name cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be resolved: {1}")]
pub(crate) struct Unresolved(String, io::Error);

/// This machine lacks what a connection needs; nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lacking(pub(crate) String);

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Names that are looked up at once: each holds a thread, and a server of names may be silent.
pub(crate) const LOOKUPS_MAX: usize = 32;

/// Of which each plugin may hold as many as it leaves to others.
pub(crate) static LOOKUPS: LazyLock<Arc<Budget>> = LazyLock::new(|| Budget::new(LOOKUPS_MAX, 0));

/// As `getaddrinfo` says.
pub(crate) fn system(
    name: String,
    port: u16,
    place: Held,
) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
    let found = move || {
        let found = (name.as_str(), port).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    };
    Box::pin(look_up(found, place))
}

/// Blocks a thread of its own.
pub(crate) async fn look_up(
    blocking: impl FnOnce() -> io::Result<Vec<IpAddr>> + Send + 'static,
    place: Held,
) -> io::Result<Vec<IpAddr>> {
    let lookup = move || {
        // One goes on when nobody waits for it any more, and holds its place for as long.
        let _place = place;
        // `getaddrinfo` does not say that it could open no socket: then nobody can.
        blocking().map_err(|error| File::open("/dev/null").err().unwrap_or(error))
    };
    tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
}

/// What this machine lacks, if that is why something failed.
#[cfg(target_os = "linux")]
fn lacking(error: &io::Error) -> Option<Lacking> {
    use rustix::io::Errno;
    let words = match Errno::from_io_error(error)? {
        Errno::MFILE => {
            "the host has no file descriptors left: raise its limit (ulimit -n, LimitNOFILE)"
        }
        Errno::NFILE => "this machine has no file descriptors left: raise fs.file-max",
        Errno::NOMEM | Errno::NOBUFS => "this machine has no memory left for a connection",
        _ => return None,
    };
    Some(Lacking(format!("{words} ({error})")))
}

/// Elsewhere nobody can tell.
#[cfg(not(target_os = "linux"))]
fn lacking(_: &io::Error) -> Option<Lacking> {
    None
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
            let until = Instant::now() + this.timeout;
            match timeout_at(until, this.connect(&uri, until)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri, until: Instant) -> Result<TokioIo<TcpStream>, Failed> {
        let host = uri.host().and_then(Host::parse).ok_or_else(|| {
            Prohibited("the request's host is not a name or an address".to_owned())
        })?;
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let addresses = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.addresses(name, port, until).await?,
        };
        let mut last: Failed = Box::new(Unresolved(
            host.to_string(),
            io::Error::new(io::ErrorKind::NotFound, "it has no address"),
        ));
        for address in addresses {
            if let Err(why) = self.allow.allows_address(&host, address, &self.section) {
                last = Box::new(Prohibited(why));
                continue;
            }
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => match lacking(&error) {
                    Some(lacking) => return Err(lacking.into()),
                    None => last = error.into(),
                },
            }
        }
        Err(last)
    }

    /// What a name stands for, once there is a place for looking it up.
    async fn addresses(
        &self,
        name: &str,
        port: u16,
        until: Instant,
    ) -> Result<Vec<IpAddr>, Failed> {
        let unresolved = |error| Unresolved(name.to_owned(), error);
        let Ok(place) = timeout_at(until, self.lookups.take(Direction::Execute, 1)).await else {
            let words = format!("{name} waited for {:?} to be looked up", self.timeout);
            if self.lookups.is_free() {
                let words = format!("{words}: the host looks up {LOOKUPS_MAX} names at once");
                return Err(Lacking(words).into());
            }
            let words = format!("{words}: the plugin looks up as many names as others may");
            return Err(unresolved(io::Error::new(io::ErrorKind::TimedOut, words)).into());
        };
        match (self.resolve)(name.to_owned(), port, place).await {
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(match lacking(&error) {
                Some(lacking) => lacking.into(),
                None => unresolved(error).into(),
            }),
        }
    }
}
