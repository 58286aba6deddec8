//! The beginning of a connection of a host that speaks TLS.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::door::guard;
use crate::error::ApiError;
use crate::server::activity::Activity;
use crate::server::stream::TimedStream;

/// A handshake may take this long: as long as the head of a request, which is of the same size.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// The first byte of each connection with TLS: its first record is of a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How a connection begins.
pub(crate) enum Beginning {
    /// With TLS. The limits of time are those of the stream below it, where each byte is seen that really moves.
    Tls(Box<TlsStream<TimedStream>>),
    /// With something else: most likely HTTP without TLS.
    Plain(TimedStream),
}

/// Waits for the handshake of a connection. When this is dropped, the connection is closed.
///
/// # Errors
/// When the client goes, is too slow, or wants what the host does not speak.
pub(crate) async fn begin(
    stream: TcpStream,
    tls: &TlsAcceptor,
    activity: &Arc<Activity>,
) -> io::Result<Beginning> {
    let handshake = async move {
        let mut first = [0];
        // A client that has gone is met by the handshake.
        if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE_RECORD] {
            return Ok::<_, io::Error>(Beginning::Plain(TimedStream::new(
                stream,
                Arc::clone(activity),
            )));
        }
        // The tickets that follow a handshake would hold up the first answer until they are acknowledged.
        stream.set_nodelay(true)?;
        let stream = TimedStream::new(stream, Arc::clone(activity));
        let stream = Box::pin(tls.accept(stream)).await?;
        Ok(Beginning::Tls(Box::new(stream)))
    };
    let late = |_| io::Error::new(ErrorKind::TimedOut, "the handshake has not ended");
    let beginning = tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await.map_err(late)?;
    activity.expects_head();
    beginning
}

/// Makes the router of connections without TLS, of a host that speaks TLS.
pub(crate) fn without_tls() -> Router {
    Router::new().fallback(https_only)
}

async fn https_only() -> Response {
    let detail = "this host takes https only, and the request came without TLS";
    let problem = ApiError::new(400, "https_only", detail).with_remedy(
        "begin the address with https://; everybody on the way could read what was sent, so revoke a token that \
         was in it",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    guard(&mut response);
    response
}
