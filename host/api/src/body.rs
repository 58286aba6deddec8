//! Bodies of requests: how fast they must come, how many bytes of them the host holds, and which type they
//! must have.
//!
//! The door wraps every body with [`receive`] before a handler sees it. Once a handler has all bytes, it
//! accounts for them itself.

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http_body::{Frame, SizeHint};
use serde::de::DeserializeOwned;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;

use amends_engine::{PAYLOAD_BYTES_MAX, Payload, check_json};
use amends_sandbox::COMPONENT_BYTES_MAX;

use crate::error::ApiError;
use crate::pace::{BYTES_PER_SECOND_MIN, Pace, WAITED_MAX};

/// A request body has at most this many bytes: a payload and the JSON around it.
pub(crate) const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);

/// The host holds at most this many bytes of all bodies that it receives, except uploads of components: sixty of
/// the largest payloads, or very many usual ones.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;

/// After this many bytes a body makes its reader wait once, even when more has come. Without that, the form of
/// an upload takes whatever is there before it looks at any of it.
const PAUSE_BYTES: usize = 1 << 20;

/// A body waits this long for room that other bodies have.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// The rest of a refused body is read and discarded for this long: a client that is still sending would not see
/// why it is refused.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// At most this many bytes of a refused body are read and discarded: as many as the largest body that any request may
/// have, which is a form with components. The connection of a client that sends more is closed after the answer.
const DRAIN_BYTES_MAX: usize = 4 * COMPONENT_BYTES_MAX;

/// The room for the bodies of a host. A clone is the same room.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom(Arc<Semaphore>);

impl Default for BodyRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX)))
    }
}

#[cfg(test)]
impl BodyRoom {
    pub(crate) fn left(&self) -> usize {
        self.0.available_permits()
    }
}

/// The room that the bytes of one request take. It is an extension of the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldBytes(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    room: Mutex<Option<OwnedSemaphorePermit>>,
    /// Whether the bytes that still come are discarded.
    is_thrown_away: AtomicBool,
}

impl HeldBytes {
    fn room(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, room: OwnedSemaphorePermit) {
        let mut held = self.room();
        match held.as_mut() {
            Some(held) => held.merge(room),
            None => *held = Some(room),
        }
    }

    /// Splits off the room of this many bytes, for somebody who keeps them longer.
    pub(crate) fn split(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.room().as_mut()?.split(bytes)
    }

    /// Gives all of the room back: somebody else accounts for the bytes, or nobody keeps them.
    pub(crate) fn release(&self) {
        self.room().take();
    }

    /// Gives the room back, and takes none for the bytes that still come: they are discarded.
    pub(crate) fn throw_away(&self) {
        self.0.is_thrown_away.store(true, Ordering::Relaxed);
        self.release();
    }

    fn is_thrown_away(&self) -> bool {
        self.0.is_thrown_away.load(Ordering::Relaxed)
    }
}

/// The reason why a body is not received to its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client let the host wait.
    #[error("the body did not come: the host waits {} s, and a second for each {} KiB", WAITED_MAX.as_secs(), BYTES_PER_SECOND_MIN >> 10)]
    TooSlow,
    /// The host holds as much of other bodies as it may.
    #[error("the host receives {} MiB of requests, as much as it takes", BODIES_BYTES_MAX >> 20)]
    NoRoom,
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooSlow => Self::new(408, "body_too_slow", error.to_string())
                .with_remedy("send it without a pause, a long batch in several requests"),
            BodyError::NoRoom => Self::new(429, "bodies_full", error.to_string())
                .with_remedy("try again after the time in Retry-After"),
        }
    }
}

/// The error of a body that broke off, or that this module ended.
pub(crate) fn broken(error: &(dyn Error + 'static)) -> ApiError {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(ended) = error.downcast_ref::<BodyError>() {
            return (*ended).into();
        }
        source = error.source();
    }
    ApiError::new(400, "bad_request", format!("the body broke off: {error}"))
}

/// Wraps the body of a request, so that it must come at a pace and takes room for the bytes that have come.
pub(crate) fn receive(request: Request, room: &BodyRoom) -> Request {
    let held = HeldBytes::default();
    let (mut parts, inner) = request.into_parts();
    parts.extensions.insert(held.clone());
    if inner.is_end_stream() {
        return Request::from_parts(parts, inner);
    }
    let room = Arc::clone(&room.0);
    let pace = Pace::default();
    let body = Received { inner, pace, room, held, waiting: None, since_pause: 0, is_over: false };
    Request::from_parts(parts, Body::new(body))
}

type Room = Result<Result<OwnedSemaphorePermit, AcquireError>, Elapsed>;

/// A frame that waits for its room.
struct Waiting {
    frame: Frame<Bytes>,
    room: Pin<Box<dyn Future<Output = Room> + Send>>,
}

/// A body that comes at a pace and takes room.
struct Received {
    inner: Body,
    pace: Pace,
    room: Arc<Semaphore>,
    held: HeldBytes,
    waiting: Option<Waiting>,
    /// How many bytes have come since the reader last had to wait.
    since_pause: usize,
    is_over: bool,
}

impl Received {
    /// Waits until the frame that has come has its room.
    fn poll_room(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(waiting) = self.waiting.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(room) = waiting.room.as_mut().poll(context) else { return Poll::Pending };
        let waiting = self.waiting.take();
        let (Ok(Ok(room)), Some(Waiting { frame, .. })) = (room, waiting) else {
            self.is_over = true;
            return Poll::Ready(Some(Err(BodyError::NoRoom.into())));
        };
        self.held.add(room);
        Poll::Ready(Some(Ok(frame)))
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut();
        if body.is_over {
            return Poll::Ready(None);
        }
        if body.waiting.is_some() {
            return body.poll_room(context);
        }
        if body.since_pause >= PAUSE_BYTES {
            body.since_pause = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut body.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                body.pace.moved(bytes);
                body.since_pause += bytes;
                if body.held.is_thrown_away() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
                let room = Arc::clone(&body.room).acquire_many_owned(permits);
                let room = Box::pin(tokio::time::timeout(ROOM_WAIT_MAX, room));
                body.waiting = Some(Waiting { frame, room });
                body.poll_room(context)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                body.since_pause = 0;
                body.pace.poll_used_up(context).map(|()| {
                    body.is_over = true;
                    Some(Err(BodyError::TooSlow.into()))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.waiting.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.waiting.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}

/// Reads and discards what a refused request still sends, unless it says that it sends more than that.
pub(crate) async fn drain(held: Option<&HeldBytes>, mut body: BodyDataStream) {
    held.into_iter().for_each(HeldBytes::throw_away);
    let mut left = DRAIN_BYTES_MAX;
    if HttpBody::size_hint(&body).lower() > left as u64 {
        return;
    }
    let drained = async {
        while let Some(Ok(bytes)) = body.next().await {
            match left.checked_sub(bytes.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, drained).await;
}

/// Refuses a request, after its client has sent all of it: a client that is still sending reads no answer.
pub(crate) async fn refuse(request: Request, problem: ApiError) -> ApiError {
    let held = request.extensions().get::<HeldBytes>().cloned();
    drain(held.as_ref(), request.into_body().into_data_stream()).await;
    problem
}

/// Reads a whole body, of at most `bytes_max` bytes.
pub(crate) async fn read(request: Request, bytes_max: usize) -> Result<Bytes, ApiError> {
    let held = request.extensions().get::<HeldBytes>().cloned();
    let mut body = request.into_body().into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if bytes.len() + chunk.len() > bytes_max {
            drop(bytes);
            drain(held.as_ref(), body).await;
            let detail = format!("the body has more than {bytes_max} bytes");
            return Err(ApiError::new(413, "body_too_large", detail)
                .with_remedy(format!("send at most {bytes_max} bytes")));
        }
        // Copied, because a chunk of a single byte would keep the buffer that it came in.
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Whether a request says that its body has a type. Parameters such as a charset do not count.
fn is_of_type(headers: &HeaderMap, is_type: impl FnOnce(&str) -> bool) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        is_type(&value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    })
}

/// The type of a body with a JSON text on each line. The form of a web page cannot send it.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Refuses a body that does not say that it is NDJSON.
pub(crate) fn check_ndjson(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_of_type(headers, |kind| kind == NDJSON) {
        return Ok(());
    }
    Err(ApiError::new(415, "not_ndjson", "this takes NDJSON: a JSON text a line")
        .with_remedy(format!("send the header `content-type: {NDJSON}`")))
}

/// The value of a body that is a JSON object. It refuses with a problem, also a text that not every reader
/// understands the same (see [`check_json`]).
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_json(request).await?;
        // serde takes a list of the values of a struct for the struct.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            let detail = "the body is a list, it has to be a JSON object";
            return Err(ApiError::new(400, "bad_request", detail));
        }
        axum::Json::from_bytes(&bytes).map(|axum::Json(value)| Self(value)).map_err(ApiError::from)
    }
}

/// A body that is any JSON. It refuses with a problem, as [`JsonBody`] does.
pub(crate) struct AnyJson(pub(crate) Payload);

impl<S: Send + Sync> FromRequest<S> for AnyJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_json(request).await?;
        axum::Json::from_bytes(&bytes).map(|axum::Json(value)| Self(value)).map_err(ApiError::from)
    }
}

/// Reads a body of JSON, whose text is checked.
async fn read_json(request: Request) -> Result<Bytes, ApiError> {
    let is_json = |kind: &str| {
        let suffix = |rest: &str| rest.ends_with("+json");
        kind == "application/json" || kind.strip_prefix("application/").is_some_and(suffix)
    };
    if !is_of_type(request.headers(), is_json) {
        let problem = ApiError::new(415, "not_json", "this takes JSON")
            .with_remedy("send the header `content-type: application/json`");
        return Err(refuse(request, problem).await);
    }
    let bytes = read(request, BODY_BYTES_MAX).await?;
    let wrong = |error: String| {
        ApiError::new(400, "bad_request", format!("the body is not valid JSON: {error}"))
    };
    let text = str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
    check_json(text).map_err(|error| wrong(error.to_string()))?;
    Ok(bytes)
}
