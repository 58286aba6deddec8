//! Serves one connection: its requests, one after another, until it is closed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::crowded::Crowded;
use crate::head::HEAD_BYTES_MAX;
use crate::server::activity::{Activity, UnderWay};
use crate::server::handshake::{Beginning, begin, without_tls};
use crate::server::stream::TimedStream;

/// A request's head has at most this many lines.
const HEADERS_MAX: usize = 100;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether the host had as many connections as it serves.
    pub(crate) is_crowded: bool,
}

/// Serves a connection until it is closed: by its client, by a limit of time, because the server
/// ends, or because another client needs its place. `tls`: the host speaks TLS.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    tls: Option<TlsAcceptor>,
    activity: Arc<Activity>,
    mut closing: watch::Receiver<bool>,
) {
    let Some(tls) = tls else {
        let stream = TimedStream::new(stream, Arc::clone(&activity));
        serve_requests(stream, peer, router, activity, closing).await;
        return;
    };
    let beginning = tokio::select! {
        biased;
        beginning = begin(stream, &tls, &activity) => beginning,
        () = activity.told_to_close() => return,
        _ = closing.wait_for(|closing| *closing) => return,
    };
    match beginning {
        Ok(Beginning::Tls(stream)) => {
            serve_requests(stream, peer, router, activity, closing).await;
        }
        Ok(Beginning::Plain(stream)) => {
            serve_requests(stream, peer, without_tls(), activity, closing).await;
        }
        Err(error) => {
            tracing::debug!(peer = %peer.address, %error, "a connection has not begun");
        }
    }
}

/// Serves the requests of a connection.
async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
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
    let io = TokioIo::new(stream);
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
            () = activity.request_over() => {}
            () = activity.told_to_close() => {
                if activity.without_request_since().is_some() {
                    return;
                }
                // A request came first.
                activity.goes_on();
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

/// The body of an answer. The request is under way until the answer is sent.
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
