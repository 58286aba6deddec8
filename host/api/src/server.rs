//! The HTTP server: connections, how many there are and how long each may do nothing.
//!
//! The server cuts off a client that says nothing, sends half a request or does not read its answer. Such a
//! client keeps nobody else out: when another client comes to a full host, the server closes the connection that
//! has been without a request for longest. A full host takes a few more connections, on which it only answers
//! questions about its health.
//!
//! A host with a certificate speaks TLS. The handshake is a part of the connection: it counts among the connections,
//! has its own limit of time, and holds up no other client.
//!
//! Deliberately absent: what requests ask for.

mod activity;
mod connection;
mod handshake;
mod stream;
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use axum::{Extension, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use activity::Activity;
use connection::Peer;
pub use tls::{Tls, TlsError};

use crate::encrypted::Encrypted;
use crate::network::network_of;

/// A host serves at most this many connections: as many watchers as it takes, and as many other clients.
pub const CONNECTIONS_MAX: usize = 4_096;

/// One in this many of the descriptors that the process may have is for connections. The others are for requests
/// of components (512 calls at once), the store and files.
const DESCRIPTORS_SHARE: u64 = 4;

/// A full host has at most this many connections more, on which it only answers questions about its health.
const HEALTH_CONNECTIONS_MAX: usize = 16;

/// One address may have one in this many of the served connections of a host that speaks TLS itself. Before any other
/// host is a proxy, whose address all clients share, or nobody from another machine.
const ADDRESS_SHARE: usize = 2;

/// A client waits this long for the place of a connection that was told to end.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(1);

/// A client that is not served may say nothing for this long while others want its place.
const SILENCE_MAX: Duration = Duration::from_millis(100);

/// A full host finds so many idle connections with one look at all of them. They give way one after the other, so a
/// flood of clients does not have it look for each.
const LONGEST_IDLE_MAX: usize = 64;

/// After a look at all connections that found none to close, the next one is this much later.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The listener pauses this long when the system has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// The connections that are served.
    pub served: usize,
    /// The connections beyond them, on which the host only answers questions about its health.
    pub(crate) health: usize,
}

impl ConnectionLimit {
    /// The limit of a process that may have this many descriptors. `None`: any number.
    #[must_use]
    pub fn for_descriptors(descriptors: Option<u64>) -> Self {
        let all = CONNECTIONS_MAX + HEALTH_CONNECTIONS_MAX;
        let share = descriptors.map_or(all, |descriptors| {
            usize::try_from(descriptors / DESCRIPTORS_SHARE).unwrap_or(all).min(all)
        });
        let health = (share / 8).clamp(1, HEALTH_CONNECTIONS_MAX);
        Self { served: share.saturating_sub(health).max(1), health }
    }

    /// How many connections one address may have.
    fn of_address(self) -> usize {
        (self.served / ADDRESS_SHARE).max(1)
    }
}

/// The server of a host.
#[derive(Debug)]
pub struct Server {
    router: Router,
    limit: ConnectionLimit,
    open: Arc<Open>,
    /// None: the server speaks HTTP without TLS.
    tls: Option<Tls>,
    /// True when the server has to end.
    closing: watch::Receiver<bool>,
}

/// An open connection.
#[derive(Debug)]
struct Connection {
    /// Where it comes from, as [`network_of`] says.
    network: IpAddr,
    activity: Arc<Activity>,
}

/// What looks at all connections found.
#[derive(Debug, Default)]
struct Looks {
    /// The served connections that had been without a request for longest, and since when.
    longest_idle: VecDeque<(Instant, Weak<Activity>)>,
    /// When none of them was without a request.
    none_idle_at: Option<Instant>,
    /// When silent ones were last looked for.
    silent_at: Option<Instant>,
}

/// The open connections.
#[derive(Debug)]
struct Open {
    /// The connections by their number, in the order in which they came.
    connections: Mutex<BTreeMap<u64, Connection>>,
    looks: Mutex<Looks>,
    /// The places of all connections.
    places: Arc<Semaphore>,
    /// The places of connections that are served.
    served: Arc<Semaphore>,
}

impl Open {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(limit: ConnectionLimit) -> Self {
        Self {
            connections: Mutex::default(),
            looks: Mutex::default(),
            places: Arc::new(Semaphore::new(limit.served + limit.health)),
            served: Arc::new(Semaphore::new(limit.served)),
        }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the served connection that has been without a request for longest. False when there is none. A connection
    /// that was told to end already does not count: it gives its place to one other only.
    fn close_longest_idle(&self) -> bool {
        let mut looks = self.looks();
        loop {
            while let Some((since, one)) = looks.longest_idle.pop_front() {
                let Some(one) = one.upgrade() else { continue };
                // It may have had a request since the look.
                let is_idle = one.is_served() && one.without_request_since() == Some(since);
                if is_idle && one.close() {
                    return true;
                }
            }
            if looks.none_idle_at.is_some_and(|at| at.elapsed() < LOOK_PAUSE) {
                return false;
            }
            looks.longest_idle = self.longest_idle();
            if looks.longest_idle.is_empty() {
                looks.none_idle_at = Some(Instant::now());
                return false;
            }
        }
    }

    /// Looks for the served connections that have been without a request for longest.
    fn longest_idle(&self) -> VecDeque<(Instant, Weak<Activity>)> {
        let connections = self.connections();
        let served = connections.values().map(|one| &one.activity).filter(|one| one.is_served());
        let stays = served.filter(|one| !one.is_told_to_close());
        let idle = stays.filter_map(|one| Some((one.without_request_since()?, one)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(LONGEST_IDLE_MAX);
        idle.into_iter().map(|(since, one)| (since, Arc::downgrade(one))).collect()
    }

    /// Closes the served connection of a network that has been without a request for longest. False when there is
    /// none.
    fn close_idle(&self, network: IpAddr) -> bool {
        let connections = self.connections();
        let from = connections.values().filter(|one| one.network == network);
        let served = from.map(|one| &one.activity).filter(|one| one.is_served());
        let stays = served.filter(|one| !one.is_told_to_close());
        let idle = stays.filter_map(|one| Some((one.without_request_since()?, one)));
        let longest = idle.min_by_key(|(since, _)| *since);
        longest.is_some_and(|(_, one)| one.close())
    }

    /// Closes the connections that are not served and have been silent for [`SILENCE_MAX`].
    fn close_silent(&self) {
        let connections = self.connections();
        let activities = connections.values().map(|one| &one.activity);
        for one in activities.filter(|one| !one.is_served()) {
            if one.without_request_since().is_some_and(|since| since.elapsed() >= SILENCE_MAX) {
                one.close();
            }
        }
    }

    /// Whether one more connection may come from a network. One that is idle gives way to it.
    fn takes_from(&self, network: IpAddr, connections_max: usize) -> bool {
        let count = self.connections().values().filter(|one| one.network == network).count();
        count < connections_max || self.close_idle(network)
    }

    /// Waits for a place for one more connection. A client that is not served gets its answer at once. So when
    /// every place is taken, some of these clients are silent, and their connections are closed.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let place = Arc::clone(&self.places);
            if let Ok(place) = place.try_acquire_owned() {
                return Some(place);
            }
            let is_due = {
                let mut looks = self.looks();
                let is_due = looks.silent_at.is_none_or(|at| at.elapsed() >= LOOK_PAUSE);
                if is_due {
                    looks.silent_at = Some(Instant::now());
                }
                is_due
            };
            if is_due {
                self.close_silent();
            }
            let place = Arc::clone(&self.places).acquire_owned();
            if let Ok(place) = tokio::time::timeout(SILENCE_MAX, place).await {
                return place.ok();
            }
        }
    }
}

impl Server {
    /// Makes a server of the router, which ends when `closing` becomes true.
    #[must_use]
    pub fn new(router: Router, limit: ConnectionLimit, closing: watch::Receiver<bool>) -> Self {
        Self { router, limit, open: Arc::new(Open::new(limit)), tls: None, closing }
    }

    /// Lets the server speak TLS with this certificate, and nothing else. `None`: HTTP without TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        if tls.is_none() {
            return self;
        }
        // Seen before the first one is refused.
        metrics::counter!("amends_connections_refused_total").increment(0);
        let router = self.router.layer(Extension(Encrypted));
        Self { router, tls, ..self }
    }

    /// Takes connections until the server has to end, and then waits for the open ones: a request under way is
    /// answered. When this is dropped, the server takes no more connections.
    pub async fn run(mut self, listener: TcpListener) {
        let mut number = 0;
        loop {
            let (stream, peer) = tokio::select! {
                accepted = accept(&listener) => accepted,
                _ = self.closing.wait_for(|closing| *closing) => break,
            };
            let network = network_of(peer.ip());
            if self.tls.is_some() && !self.open.takes_from(network, self.limit.of_address()) {
                metrics::counter!("amends_connections_refused_total").increment(1);
                tracing::debug!(%peer, "a connection is closed: its address has as many as one may have");
                continue;
            }
            // Without a place the connections that come wait with the system.
            let place = tokio::select! {
                place = self.open.place() => place,
                _ = self.closing.wait_for(|closing| *closing) => break,
            };
            let Some(place) = place else { break };
            number += 1;
            let mut seat = Arc::clone(&self.open.served).try_acquire_owned().ok();
            let mut promised = None;
            if seat.is_none() && self.open.close_longest_idle() {
                // In line from now on, before any that comes after it.
                let mut next = Box::pin(Arc::clone(&self.open.served).acquire_owned());
                match futures::poll!(&mut next) {
                    Poll::Ready(next) => seat = next.ok(),
                    Poll::Pending => promised = Some(next),
                }
            }
            let activity = Arc::new(Activity::new(seat.is_some() || promised.is_some()));
            let connection = Connection { network, activity: Arc::clone(&activity) };
            self.open.connections().insert(number, connection);
            let (router, closing) = (self.router.clone(), self.closing.clone());
            let tls = self.tls.as_ref().map(Tls::acceptor);
            let open = Arc::clone(&self.open);
            tokio::spawn(async move {
                let entry = Entry { open, number };
                if let Some(next) = promised {
                    let next = tokio::time::timeout(PLACE_WAIT_MAX, next).await;
                    seat = next.ok().and_then(Result::ok);
                }
                activity.serves(seat.is_some());
                let peer = Peer { address: peer, is_crowded: seat.is_none() };
                connection::serve(stream, peer, router, tls, activity, closing).await;
                drop((entry, seat, place));
            });
            // Others may have waited while this took a connection: sagas, and the requests of those that came before.
            tokio::task::yield_now().await;
        }
        drop(listener);
        let all = u32::try_from(self.limit.served + self.limit.health).unwrap_or(u32::MAX);
        let _ = self.open.places.acquire_many(all).await;
    }
}

/// Keeps a connection among the open ones for as long as this lives, also when a handler panics.
struct Entry {
    open: Arc<Open>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.connections().remove(&self.number);
    }
}

/// Waits for the next connection. One that its client has closed already is ignored.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::server::activity::UnderWay;

    /// Clients that come together, before a connection that gives way has ended.
    #[test]
    fn an_idle_connection_gives_its_place_to_one_client() {
        let open = Open::new(ConnectionLimit { served: 8, health: 1 });
        let come = |number, is_served| {
            let (network, activity) = (IpAddr::from([10, 0, 0, 7]), Activity::new(is_served));
            let connection = Connection { network, activity: Arc::new(activity) };
            open.connections().insert(number, connection);
        };
        come(0, true);
        come(1, true);
        come(9, false);
        assert_eq!([(); 3].map(|()| open.close_longest_idle()), [true, true, false]);
        // One that has ended makes place, and one that comes may be idle.
        open.connections().remove(&0);
        come(2, true);
        std::thread::sleep(LOOK_PAUSE);
        assert_eq!([(); 2].map(|()| open.close_longest_idle()), [true, false]);
        // One that is not served has a moment to say something.
        let is_told = || open.connections()[&9].activity.is_told_to_close();
        open.close_silent();
        assert!(!is_told());
        std::thread::sleep(SILENCE_MAX);
        open.close_silent();
        assert!(is_told());
    }

    #[test]
    fn idle_connections_give_way_in_the_order_in_which_they_became_idle() {
        let open = Open::new(ConnectionLimit { served: 200, health: 1 });
        let come = |number: u64| {
            let (network, activity) = (IpAddr::from([10, 0, 0, 7]), Activity::new(true));
            let activity = Arc::new(activity);
            let connection = Connection { network, activity: Arc::clone(&activity) };
            open.connections().insert(number, connection);
            std::thread::sleep(Duration::from_micros(1));
            (number, activity)
        };
        let mut all: BTreeMap<_, _> = (0..200).map(come).collect();
        assert!(open.close_longest_idle() && all[&0].is_told_to_close());
        // These were found with the first: one has a request, one had one, and one has ended.
        let busy = UnderWay::new(&all[&1]);
        drop(UnderWay::new(&all[&2]));
        open.connections().remove(&3);
        all.remove(&3);
        for number in 4..200 {
            assert!(open.close_longest_idle());
            assert!(all[&number].is_told_to_close(), "{number}");
        }
        assert!(!all[&2].is_told_to_close());
        assert!(open.close_longest_idle() && all[&2].is_told_to_close(), "it is the last one");
        assert!(!open.close_longest_idle() && !all[&1].is_told_to_close());
        drop(busy);
    }

    #[test]
    fn an_address_has_a_share_and_its_own_idle_connections_give_way() {
        let limit = ConnectionLimit { served: 4, health: 1 };
        let open = Open::new(limit);
        let [own, other] = [[10, 0, 0, 7], [10, 0, 0, 8]].map(IpAddr::from);
        let come = |number, network| {
            let activity = Arc::new(Activity::new(true));
            let connection = Connection { network, activity: Arc::clone(&activity) };
            open.connections().insert(number, connection);
            activity
        };
        let takes = |network| open.takes_from(network, limit.of_address());
        let first = come(0, own);
        assert!(takes(own));
        let busy = [UnderWay::new(&first), UnderWay::new(&come(1, own))];
        assert!(!takes(own), "both have a request under way");
        come(2, other);
        assert!(takes(other));
        drop(busy);
        assert!(takes(own) && first.is_told_to_close());
    }

    /// Two requests that are not answered have all that one address may have of four connections.
    #[tokio::test]
    async fn an_address_does_not_keep_others_out_of_a_host_with_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["host.pem", "host.key"].map(|name| folder.path().join(name));
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signed = params.self_signed(&pair).unwrap();
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let (entered, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let never = move || {
            let entered = entered.clone();
            async move {
                entered.send(()).unwrap();
                std::future::pending::<()>().await;
            }
        };
        let router = Router::new()
            .route("/never", axum::routing::get(never))
            .route("/", axum::routing::get(async || "it is answered"));
        let (_close, closing) = watch::channel(false);
        let server = Server::new(router, ConnectionLimit { served: 4, health: 1 }, closing)
            .with_tls(Some(Tls::open(certificate, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.run(listener));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(signed.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let connect = async |from: [u8; 4]| {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((from, 0)))?;
            let stream = socket.connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            connector.connect(name, stream).await
        };
        let request =
            |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut stream = connect([127, 0, 0, 1]).await.unwrap();
            stream.write_all(request("/never").as_bytes()).await.unwrap();
            busy.push(stream);
            asked.recv().await.unwrap();
        }
        assert!(connect([127, 0, 0, 1]).await.is_err(), "it has more than its share");
        let mut other = connect([127, 0, 0, 2]).await.unwrap();
        other.write_all(request("/").as_bytes()).await.unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("it is answered"), "{answer}");
    }

    #[tokio::test]
    async fn a_handler_that_panics_leaves_no_connection_behind() {
        let handler = async || -> &'static str { panic!("on purpose") };
        let router = Router::new().route("/", axum::routing::get(handler));
        let (_close, closing) = watch::channel(false);
        let server = Server::new(router, ConnectionLimit { served: 1, health: 1 }, closing);
        let open = Arc::clone(&server.open);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.run(listener));
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        }
        // The last task may not have ended yet.
        while !open.connections().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn connections_leave_descriptors_to_everything_else() {
        for descriptors in [16, 64, 256, 1_024, 4_096, 1 << 20] {
            let ConnectionLimit { served, health } =
                ConnectionLimit::for_descriptors(Some(descriptors));
            assert!(served >= 1 && health >= 1, "{descriptors}");
            assert!((served + health) as u64 <= descriptors / DESCRIPTORS_SHARE, "{descriptors}");
        }
        let most = ConnectionLimit { served: CONNECTIONS_MAX, health: HEALTH_CONNECTIONS_MAX };
        assert_eq!(ConnectionLimit::for_descriptors(None), most);
        assert_eq!(ConnectionLimit::for_descriptors(Some(1 << 20)), most);
    }
}
