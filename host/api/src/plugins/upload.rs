//! Components that are sent to the host: one upload at a time, within limits of bytes and of time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest as _, Multipart, Request};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use amends_engine::PluginName;
use amends_sandbox::COMPONENT_BYTES_MAX;

use crate::body::{HeldBytes, broken, refuse};
use crate::error::ApiError;
use crate::ids::parse_name;

/// At most this many uploads run at once. A component is in memory as a whole, and so is a deploy.
const UPLOADS_MAX: usize = 1;

/// An upload waits this long for the one before it, whose components take seconds to compile.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(10);

/// The bytes of an upload may take this long: the largest component at a megabit a second.
const UPLOAD_TIME_MAX: Duration = Duration::from_mins(10);

/// An upload has at most this many components.
const COMPONENTS_MAX: usize = 16;

/// The header that an upload needs. A form of a page cannot send it, and a script of another site
/// has to ask the host first, which does not permit it.
const REQUEST_HEADER: &str = "amends-request";

/// Lets [`UPLOADS_MAX`] uploads run at a time.
#[derive(Debug, Clone)]
pub(crate) struct Uploads(Arc<Semaphore>);

impl Default for Uploads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(UPLOADS_MAX)))
    }
}

/// Components that were sent, at least one. The next upload waits until this one is dropped.
pub(crate) struct Upload {
    pub(crate) components: Vec<(PluginName, Vec<u8>)>,
    _place: OwnedSemaphorePermit,
}

impl Upload {
    /// Takes the components and ends the upload, so that the next one need not wait for what becomes of them.
    pub(crate) fn into_components(self) -> Vec<(PluginName, Vec<u8>)> {
        self.components
    }
}

impl Uploads {
    /// Reads the components of a form, by the names of their plugins.
    pub(crate) async fn receive(&self, mut request: Request) -> Result<Upload, ApiError> {
        if !request.headers().contains_key(REQUEST_HEADER) {
            let problem = ApiError::new(
                403,
                "request_header_missing",
                "an upload needs a header that the form of a web page cannot send",
            )
            .with_remedy(format!("send the header `{REQUEST_HEADER}: 1`"));
            return Err(refuse(request, problem).await);
        }
        let place = Arc::clone(&self.0).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(UPLOAD_WAIT_MAX, place).await else {
            let problem =
                ApiError::new(429, "upload_running", "the host takes one upload at a time")
                    .with_remedy("try again after the time in Retry-After");
            return Err(refuse(request, problem).await);
        };
        let held = request.extensions_mut().remove::<HeldBytes>().unwrap_or_default();
        let length = request.body().size_hint().upper();
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let form = Multipart::from_request(request, &()).await;
        let mut form =
            form.map_err(|error| bad_form(error.status().as_u16(), error.body_text()))?;
        let read = tokio::time::timeout(UPLOAD_TIME_MAX, read(&mut form, length, &held)).await;
        let read = read.unwrap_or_else(|_| {
            let minutes = UPLOAD_TIME_MAX.as_secs() / 60;
            let detail = format!("the components have not come within {minutes} minutes");
            Err(ApiError::new(408, "body_too_slow", detail))
        });
        match read {
            Ok(components) => Ok(Upload { components, _place: place }),
            Err(problem) => {
                drop(place);
                // A client that is still sending would not see why it is refused.
                held.throw_away();
                let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
                let _ = tokio::time::timeout(UPLOAD_WAIT_MAX, rest).await;
                Err(problem)
            }
        }
    }
}

fn bad_form(status: u16, detail: String) -> ApiError {
    ApiError::new(status, "bad_form", detail).with_remedy(format!(
        "send multipart/form-data, a component each under the name of its plugin: curl -H \
         '{REQUEST_HEADER}: 1' -F NAME=@NAME.wasm"
    ))
}

/// Reads the components of a form. `length` is how many bytes the form has; 0 when the request does not say.
async fn read(
    form: &mut Multipart,
    length: usize,
    held: &HeldBytes,
) -> Result<Vec<(PluginName, Vec<u8>)>, ApiError> {
    let mut components: Vec<(PluginName, Vec<u8>)> = Vec::new();
    let mut left = length;
    while let Some(part) = form.next_field().await.map_err(|error| wrong(&error))? {
        let name = parse_name(part.name().unwrap_or_default())?;
        let bad = |detail: String| Err(ApiError::new(400, "bad_form", detail));
        if components.iter().any(|(other, _)| *other == name) {
            return bad(format!("there are two components for plugin `{name}`"));
        }
        if components.len() == COMPONENTS_MAX {
            return bad(format!("an upload has at most {COMPONENTS_MAX} components"));
        }
        let bytes = component(part, &name, left.min(COMPONENT_BYTES_MAX), held).await?;
        left = left.saturating_sub(bytes.len());
        components.push((name, bytes));
    }
    if components.is_empty() {
        return Err(ApiError::new(400, "bad_form", "there is no component in the form"));
    }
    Ok(components)
}

/// Reads one component. Reserves `bytes_about` bytes: pages that nothing is written to take no memory, while a
/// list that grows is copied each time.
async fn component(
    mut part: Field<'_>,
    name: &PluginName,
    bytes_about: usize,
    held: &HeldBytes,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::with_capacity(bytes_about);
    while let Some(chunk) = part.chunk().await.map_err(|error| wrong(&error))? {
        if bytes.len() + chunk.len() > COMPONENT_BYTES_MAX {
            let mib = COMPONENT_BYTES_MAX >> 20;
            let detail = format!("the component for plugin `{name}` has more than {mib} MiB");
            return Err(ApiError::new(413, "body_too_large", detail));
        }
        bytes.extend_from_slice(&chunk);
        held.release();
    }
    Ok(bytes)
}

fn wrong(error: &MultipartError) -> ApiError {
    match broken(error) {
        problem if problem.code() == "bad_request" => {
            bad_form(error.status().as_u16(), error.body_text())
        }
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::DefaultBodyLimit;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::*;
    use crate::body::{BODIES_BYTES_MAX, BodyRoom, receive};

    const CHUNK: usize = 1 << 20;

    /// Uploads a component of so many chunks, all of which have come; `seen` is told when one is read.
    async fn upload(
        chunks: usize,
        room: &BodyRoom,
        seen: impl Fn() + Send + 'static,
    ) -> StatusCode {
        let head = "--x\r\ncontent-disposition: form-data; name=\"good\"\r\n\r\n";
        let chunk = Bytes::from(vec![b'.'; CHUNK]);
        let content = (0..chunks).map(move |_| {
            seen();
            chunk.clone()
        });
        let tail = Bytes::from_static(b"\r\n--x--\r\n");
        let all = std::iter::once(Bytes::from_static(head.as_bytes())).chain(content).chain([tail]);
        let body = Body::from_stream(futures::stream::iter(all.map(Ok::<_, Infallible>)));
        let request = Request::post("/v1/plugins:deploy")
            .header("content-type", "multipart/form-data; boundary=x")
            .header(REQUEST_HEADER, "1")
            .body(body)
            .unwrap();
        let upload = async |request| Uploads::default().receive(request).await.map(|_| ());
        let router = Router::new().route("/v1/plugins:deploy", post(upload));
        let router = router.layer(DefaultBodyLimit::disable());
        router.oneshot(receive(request, room)).await.unwrap().status()
    }

    /// The rest of a component that is too large takes no room: all of it is read.
    #[tokio::test]
    async fn what_a_refused_upload_still_sends_takes_no_room() {
        let chunks = (COMPONENT_BYTES_MAX + 2 * BODIES_BYTES_MAX) / CHUNK;
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let seen = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(upload(chunks, &BodyRoom::default(), seen).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read.load(Ordering::Relaxed), chunks, "chunks that were read");
    }

    /// Of an upload the host holds the component and a little of what has come of it, not all of that
    /// a second time.
    #[tokio::test]
    async fn an_upload_is_looked_at_as_it_comes() {
        let room = BodyRoom::default();
        let least = Arc::new(AtomicUsize::new(BODIES_BYTES_MAX));
        let (seen_room, seen_least) = (room.clone(), Arc::clone(&least));
        let seen = move || {
            seen_least.fetch_min(seen_room.left(), Ordering::Relaxed);
        };
        assert_eq!(upload(COMPONENT_BYTES_MAX / CHUNK, &room, seen).await, StatusCode::OK);
        let held = BODIES_BYTES_MAX - least.load(Ordering::Relaxed);
        assert!(held <= 4 * CHUNK, "{held} bytes");
    }
}
