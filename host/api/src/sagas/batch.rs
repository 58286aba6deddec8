//! Many starts in one request: NDJSON in, NDJSON out, in order.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::stream::{Stream, StreamExt as _, unfold};
use tokio::sync::OwnedSemaphorePermit;

use amends_api_types::{BatchAnswer, StartBody};
use amends_engine::check_json;
use amends_runtime::Principal;

use crate::api_state::ApiState;
use crate::body::{BODY_BYTES_MAX, HeldBytes, NDJSON, broken, check_ndjson, refuse};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::lines::LineBuffer;
use crate::sagas::start_request::{request_of, traceparent};

/// At most this many starts of one batch are under way at once. They share transactions of the store.
const STARTS_AT_ONCE: usize = 256;

/// Starts a saga for each line. The body may be of any length; the host reads it as fast as it starts sagas.
#[utoipa::path(post, path = "/v1/sagas:batch", operation_id = "start_sagas", tag = "sagas",
    security(("token" = ["start"])),
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "one start on each line: {definition, input, tags?, start_at?, key?}"),
    responses(
        (status = 200, body = BatchAnswer, content_type = "application/x-ndjson",
            description = "One answer for each line, in order.")))]
pub(crate) async fn start_batch(
    State(state): State<ApiState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    if let Err(problem) = check_ndjson(request.headers()) {
        return Err(refuse(request, problem).await);
    }
    let traceparent = traceparent(request.headers());
    let caller = Arc::new(caller);
    let answers = lines(request)
        .map(move |line| {
            let (state, traceparent) = (state.clone(), traceparent.clone());
            let caller = Arc::clone(&caller);
            async move {
                let answer = match line {
                    Ok(line) => {
                        start_line(&state, caller.principal(), &line.bytes, traceparent).await
                    }
                    Err(problem) => Err(problem),
                };
                let answer = match answer {
                    Ok(id) => BatchAnswer { id: Some(id), problem: None },
                    Err(problem) => BatchAnswer { id: None, problem: Some(problem.into_problem()) },
                };
                let mut text = serde_json::to_string(&answer).unwrap_or_default();
                text.push('\n');
                Ok::<_, std::convert::Infallible>(text)
            }
        })
        .buffered(STARTS_AT_ONCE);
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(answers)).into_response())
}

async fn start_line(
    state: &ApiState,
    principal: &Principal,
    line: &[u8],
    traceparent: Option<String>,
) -> Result<String, ApiError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        ApiError::new(400, "bad_request", format!("the line cannot be read: {error}"))
    };
    let body: StartBody = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    let text = str::from_utf8(line).map_err(|error| unreadable(&error))?;
    check_json(text).map_err(|error| unreadable(&error))?;
    let started = state.host.start(principal, request_of(body, traceparent)?).await?;
    Ok(started.id.to_string())
}

/// A line that is not empty.
struct Line {
    bytes: BytesMut,
    /// The room of the bytes, until the saga is started. So a batch of large lines is not read faster than
    /// sagas are started.
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads the lines of a body.
struct LineReader {
    body: BodyDataStream,
    held: HeldBytes,
    buffer: LineBuffer,
    is_over: bool,
}

impl LineReader {
    fn line(&mut self, bytes: BytesMut) -> Option<Line> {
        let room = self.held.split(bytes.len());
        Some(Line { bytes, _room: room }).filter(|line| !line.bytes.trim_ascii().is_empty())
    }

    /// Ends a batch whose rest cannot be read. The problem is its last answer.
    fn end(&mut self, problem: ApiError) -> Result<Line, ApiError> {
        self.is_over = true;
        self.buffer.take();
        self.held.release();
        Err(problem)
    }

    async fn next(&mut self) -> Option<Result<Line, ApiError>> {
        loop {
            while let Some(bytes) = self.buffer.next() {
                if let Some(line) = self.line(bytes) {
                    return Some(Ok(line));
                }
            }
            if self.is_over {
                let rest = self.buffer.take();
                return self.line(rest).map(Ok);
            }
            if self.buffer.len() > BODY_BYTES_MAX {
                let detail = format!("a line has more than {BODY_BYTES_MAX} bytes");
                return Some(self.end(ApiError::new(413, "body_too_large", detail)));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.push(&bytes),
                Some(Err(error)) => return Some(self.end(broken(&error))),
                None => self.is_over = true,
            }
        }
    }
}

/// Reads the lines of a body that are not empty. A line that is too long ends the body with a problem, and so
/// does a body that breaks off.
fn lines(request: Request) -> impl Stream<Item = Result<Line, ApiError>> {
    let held = request.extensions().get::<HeldBytes>().cloned().unwrap_or_default();
    let body = request.into_body().into_data_stream();
    let reader = LineReader { body, held, buffer: LineBuffer::default(), is_over: false };
    unfold(reader, |mut reader| async move { reader.next().await.map(|line| (line, reader)) })
}
