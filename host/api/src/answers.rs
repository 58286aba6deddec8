//! Answers that their clients have not taken yet: how many bytes of them the host holds.
//!
//! A connection takes over a small answer at once. A large one waits in memory until its client has read it, and many
//! clients may be slow at once. So a large answer, and each large part of an answer that is made while it is sent,
//! takes room from when it is made until its last byte is written. Nobody waits for that room: an answer without it is
//! dropped, and its memory with it.
//!
//! Deliberately absent: how slow a client may be, which [`crate::pace`] says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse as _, Response};
use futures::future::ready;
use futures::stream::once;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// The host holds at most this many bytes of large answers: two of the largest, which are components, or sixteen
/// of the largest pages.
const ANSWERS_BYTES_MAX: usize = 128 << 20;

/// An answer, or a part of one, of at most this many bytes takes no room: a connection buffers as much of what it
/// writes anyway.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// A stream that finds no room for its next event looks again after this long. What it has read is dropped
/// meanwhile.
pub(crate) const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// The room for the large answers of a host. A clone is the same room.
#[derive(Debug, Clone)]
pub(crate) struct AnswerRoom(Arc<Semaphore>);

impl Default for AnswerRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ANSWERS_BYTES_MAX)))
    }
}

impl AnswerRoom {
    /// Takes room for so many bytes. None when other answers have it. A small answer always has room.
    pub(crate) fn take(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(Room::default());
        }
        let permits = u32::try_from(bytes.min(ANSWERS_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).try_acquire_many_owned(permits).ok()?;
        Some(Room(Some(room)))
    }

    /// Takes room for an answer whose length is known, until its client has taken it. An answer that finds no room is
    /// replaced: by 429 `answers_full` when it is one to a read (`is_read`). The answer to an order breaks off,
    /// because the order was carried out, and 429 would say that it was not.
    pub(crate) fn hold(&self, response: Response, is_read: bool) -> Response {
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        match self.take(usize::try_from(bytes).unwrap_or(usize::MAX)) {
            Some(Room(None)) => response,
            Some(room) => response.map(|body| Body::new(Kept { body, room })),
            None if is_read => answers_full().into_response(),
            None => {
                let broken = io::Error::other("there is no room for the answer");
                response.map(|_| Body::from_stream(once(ready(Err::<Bytes, _>(broken)))))
            }
        }
    }
}

/// The room of an answer, or of a part of one. Dropping it makes room for others.
#[derive(Debug, Default)]
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Keeps the room until the last of these bytes is written.
    pub(crate) fn with(self, bytes: Bytes) -> Bytes {
        match self.0 {
            None => bytes,
            Some(room) => Bytes::from_owner(Held { bytes, _room: room }),
        }
    }

    /// Splits off the room of so many bytes.
    fn split(&mut self, bytes: usize) -> Self {
        Self(self.0.as_mut().and_then(|room| room.split(bytes)))
    }
}

/// Bytes and their room.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of an answer, and the room of what was not taken of it.
struct Kept {
    body: Body,
    room: Room,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, room } = self.get_mut();
        // The connection drops the body before it has written all of it, and the bytes after that.
        Pin::new(body).poll_frame(context).map_ok(|frame| {
            frame.map_data(|bytes| {
                let room = room.split(bytes.len());
                room.with(bytes)
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error of a read whose answer has no room.
pub(crate) fn answers_full() -> ApiError {
    let detail = format!(
        "the host holds {} MiB of answers that their clients have not read, as much as it takes",
        ANSWERS_BYTES_MAX >> 20
    );
    ApiError::new(429, "answers_full", detail)
        .with_remedy("try again after the time in Retry-After, or ask for fewer items")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use axum::http::StatusCode;
    use futures::StreamExt as _;

    use super::*;

    const HALF: usize = ANSWERS_BYTES_MAX / 2;

    fn answer(bytes: usize) -> Response {
        vec![b'x'; bytes].into_response()
    }

    #[tokio::test]
    async fn an_answer_has_room_until_its_last_byte_is_written() {
        let room = AnswerRoom::default();
        let first = room.hold(answer(HALF), true);
        let mut body = first.into_body().into_data_stream();
        let bytes = body.next().await.unwrap().unwrap();
        drop(body);
        assert_eq!((bytes.len(), room.0.available_permits()), (HALF, HALF), "it is being written");
        let (written, rest) = (bytes.slice(..9), bytes.slice(9..));
        drop((bytes, written));
        assert_eq!(room.0.available_permits(), HALF);
        drop(rest);
        assert_eq!(room.0.available_permits(), ANSWERS_BYTES_MAX);
    }

    #[tokio::test]
    async fn an_answer_without_room_says_so_and_one_to_an_order_breaks_off() {
        let room = AnswerRoom::default();
        let held = [room.hold(answer(HALF), true), room.hold(answer(HALF), true)];
        let refused = room.hold(answer(SMALL_BYTES_MAX + 1), true);
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        let order = room.hold(answer(SMALL_BYTES_MAX + 1), false);
        assert_eq!(order.status(), StatusCode::OK);
        assert!(order.into_body().into_data_stream().next().await.unwrap().is_err());
        // Small ones go on.
        assert_eq!(room.hold(answer(SMALL_BYTES_MAX), true).status(), StatusCode::OK);
        drop(held);
        assert_eq!(room.hold(answer(HALF), true).status(), StatusCode::OK);
        // One that is larger than all the room is sent when there is no other.
        assert!(room.take(2 * ANSWERS_BYTES_MAX).is_some());
    }
}
