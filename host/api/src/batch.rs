//! Many starts in one request: NDJSON in, NDJSON out, in order.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::stream::{Stream, StreamExt as _, unfold};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::check_json;

use crate::problem::Problem;
use crate::sagas::{StartBody, request_of, traceparent};
use crate::{ApiState, BODY_BYTES_MAX};

/// Starts of one batch that are under way at once; they share transactions of the store.
const STARTS_AT_ONCE: usize = 256;

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// The saga that was started, now or earlier with the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<Problem>,
}

/// Starts a saga a line. The body may be of any length; it is read as fast as sagas are started.
#[utoipa::path(post, path = "/v1/sagas:batch", tag = "sagas",
    request_body(content = String, content_type = "application/x-ndjson",
        description = "a start a line: {definition, input, tags?, key?}"),
    responses((status = 200, body = BatchAnswer, content_type = "application/x-ndjson",
        description = "a line for each line, in order")))]
pub(crate) async fn start_batch(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let traceparent = traceparent(&headers);
    let answers = lines(body)
        .map(move |line| {
            let (state, traceparent) = (state.clone(), traceparent.clone());
            async move {
                let answer = match line {
                    Ok(line) => start_line(&state, &line, traceparent).await,
                    Err(problem) => Err(problem),
                };
                let answer = match answer {
                    Ok(id) => BatchAnswer { id: Some(id), problem: None },
                    Err(problem) => BatchAnswer { id: None, problem: Some(problem) },
                };
                let mut text = serde_json::to_string(&answer).unwrap_or_default();
                text.push('\n');
                Ok::<_, std::convert::Infallible>(text)
            }
        })
        .buffered(STARTS_AT_ONCE);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response()
}

async fn start_line(
    state: &ApiState,
    line: &[u8],
    traceparent: Option<String>,
) -> Result<String, Problem> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Problem::new(400, "bad_request", format!("the line cannot be read: {error}"))
    };
    let body: StartBody = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    let text = str::from_utf8(line).map_err(|error| unreadable(&error))?;
    check_json(text).map_err(|error| unreadable(&error))?;
    let started = state.runtime.start(request_of(body, traceparent)?).await?;
    Ok(started.id.to_string())
}

/// The lines of a body that are not empty. One that is too long, or a body that breaks off, ends
/// it with a problem.
fn lines(body: Body) -> impl Stream<Item = Result<BytesMut, Problem>> {
    struct Reader {
        body: axum::body::BodyDataStream,
        buffer: BytesMut,
        is_over: bool,
    }
    let reader = Reader { body: body.into_data_stream(), buffer: BytesMut::new(), is_over: false };
    unfold(reader, |mut reader| async move {
        loop {
            if let Some(end) = reader.buffer.iter().position(|byte| *byte == b'\n') {
                let line = reader.buffer.split_to(end + 1);
                if !line.trim_ascii().is_empty() {
                    return Some((Ok(line), reader));
                }
                continue;
            }
            if reader.is_over {
                let line = std::mem::take(&mut reader.buffer);
                let line = Some(line).filter(|line| !line.trim_ascii().is_empty())?;
                return Some((Ok(line), reader));
            }
            if reader.buffer.len() > BODY_BYTES_MAX {
                reader.buffer.clear();
                reader.is_over = true;
                let detail = format!("a line has more than {BODY_BYTES_MAX} bytes");
                return Some((Err(Problem::new(413, "body_too_large", detail)), reader));
            }
            match reader.body.next().await {
                Some(Ok(bytes)) => reader.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => {
                    reader.buffer.clear();
                    reader.is_over = true;
                    let detail = format!("the body broke off: {error}");
                    return Some((Err(Problem::new(400, "bad_request", detail)), reader));
                }
                None => reader.is_over = true,
            }
        }
    })
}
