//! One connection: its requests, one after another, and when it is closed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::door::Crowded;
use crate::server::stream::TimedStream;

/// How long the head of a request may take, from its first byte; and how long a new connection may
/// say nothing. Heads are small: a network that needs longer for one is of no use.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request. Clients and proxies keep connections for
/// about a minute, and it is better that they close them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(90);

/// Bytes of a request's head, and of what is read or written at once.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Lines of a request's head.
const HEADERS_MAX: usize = 100;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The host had as many connections as it serves.
    pub(crate) is_crowded: bool,
}

/// What a connection does.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    state: Mutex<State>,
    /// The peer has to read before the host can send more.
    is_sending: AtomicBool,
    /// It was told to end, and has not done so yet.
    is_told: AtomicBool,
    /// It has a place of those that are served, or is about to have one.
    is_served: AtomicBool,
    closed: Notify,
    /// A request is over, so that the time for the next one begins.
    rested: Notify,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It waits for a request, for as long as `time_max`.
    Idle { since: Instant, time_max: Duration },
    /// A head has begun to come.
    Head { since: Instant },
    /// A request is under way, until the end of its answer.
    Request,
}

impl Default for State {
    fn default() -> Self {
        Self::Idle { since: Instant::now(), time_max: HEAD_TIME_MAX }
    }
}

impl Activity {
    pub(crate) fn new(is_served: bool) -> Self {
        Self { is_served: AtomicBool::new(is_served), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when no request is under way; none while one is, or its answer is being sent.
    pub(crate) fn without_request_since(&self) -> Option<Instant> {
        if self.is_sending.load(Ordering::Relaxed) {
            return None;
        }
        match *self.state() {
            State::Idle { since, .. } | State::Head { since } => Some(since),
            State::Request => None,
        }
    }

    /// Until when bytes must come; none while a request is under way: bodies have their own pace.
    pub(crate) fn read_deadline(&self) -> Option<Instant> {
        match *self.state() {
            State::Idle { since, time_max } => Some(since + time_max),
            State::Head { since } => Some(since + HEAD_TIME_MAX),
            State::Request => None,
        }
    }

    /// Bytes have come.
    pub(crate) fn was_read(&self) {
        let mut state = self.state();
        if matches!(*state, State::Idle { .. }) {
            *state = State::Head { since: Instant::now() };
        }
    }

    /// Whether the peer has to read before the host can send more.
    pub(crate) fn sends(&self, is_sending: bool) {
        self.is_sending.store(is_sending, Ordering::Relaxed);
    }

    pub(crate) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    pub(crate) fn serves(&self, is_served: bool) {
        self.is_served.store(is_served, Ordering::Relaxed);
    }

    /// Ends the connection, unless a request comes first. False when it was told so before.
    pub(crate) fn close(&self) -> bool {
        let is_first = !self.is_told.swap(true, Ordering::Relaxed);
        if is_first {
            self.closed.notify_one();
        }
        is_first
    }

    pub(crate) fn is_told_to_close(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }
}

/// A request is under way for as long as this lives.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: &Arc<Activity>) -> Self {
        *activity.state() = State::Request;
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.state() = State::Idle { since: Instant::now(), time_max: IDLE_TIME_MAX };
        self.0.rested.notify_one();
    }
}

/// Serves a connection until it is closed: by its client, by a limit of time, because the server
/// ends, or because another client needs its place.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    activity: Arc<Activity>,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (router, under_way) = (router.clone(), UnderWay::new(&activity));
        async move {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer.address));
            if peer.is_crowded {
                request.extensions_mut().insert(Crowded);
            }
            let answer = router.oneshot(request).await?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _under_way: under_way }))
        }
    });
    let io = TokioIo::new(TimedStream::new(stream, Arc::clone(&activity)));
    let mut connection = pin!(
        http1::Builder::new()
            // Both are the stream's.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .keep_alive(!peer.is_crowded)
            .serve_connection(io, service)
    );
    let mut is_closing = false;
    loop {
        tokio::select! {
            // A request that has come is seen before a word to end is.
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = %peer.address, %error, "a connection broke");
                }
                return;
            }
            // hyper looks for the next request then, and the stream at its time.
            () = activity.rested.notified() => {}
            () = activity.closed.notified() => {
                if activity.without_request_since().is_some() {
                    return;
                }
                // A request came first.
                activity.is_told.store(false, Ordering::Relaxed);
            }
            _ = closing.wait_for(|closing| *closing), if !is_closing => {
                if activity.without_request_since().is_some() {
                    return;
                }
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The body of an answer. Its request is under way until it was sent.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
