//! Looks the name of a receiver up, with the resolver of the system.
//!
//! Nothing ends a look-up that the system has begun, and each takes a thread of those that the store reads
//! with. So a receiver has one look-up at a time, however long the server of names is silent.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

/// The resolver of one receiver. A clone shares its place.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    place: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { place: Arc::new(Semaphore::new(1)) }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolve = move || (name.as_str(), 0).to_socket_addrs();
        look_up(Arc::clone(&self.place), resolve).boxed()
    }
}

/// Runs a look-up when its place is free. The place is taken until the look-up ends, also when nobody waits
/// for it any more.
async fn look_up<T: Send + 'static>(
    place: Arc<Semaphore>,
    resolve: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = place.acquire_owned().await.map_err(io::Error::other)?;
    let found = tokio::task::spawn_blocking(move || {
        let _place = place;
        resolve()
    });
    found.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_look_up_that_nobody_waits_for_keeps_its_place() {
        let resolver = Resolver::default();
        let begun = Arc::new(AtomicU32::new(0));
        let (answer, silent) = mpsc::channel::<()>();
        let (told, is_begun) = tokio::sync::oneshot::channel();
        let count = Arc::clone(&begun);
        let first = tokio::spawn(look_up(Arc::clone(&resolver.place), move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = told.send(());
            let _ = silent.recv();
            Ok(())
        }));
        is_begun.await.unwrap();
        first.abort();
        let _ = first.await;
        let count = Arc::clone(&begun);
        let second = look_up(resolver.place, move || Ok(count.fetch_add(1, Ordering::SeqCst)));
        let mut second = Box::pin(second);
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        drop(answer);
        assert_eq!(second.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let mut found = Resolver::default().call("localhost".parse().unwrap()).await.unwrap();
        assert!(found.any(|address| address.ip().is_loopback()));
    }
}
