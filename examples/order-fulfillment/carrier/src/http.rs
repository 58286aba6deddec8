//! The service over HTTP: what requests must look like, what they are answered, and what each
//! fault does to them. All answers are JSON; those that refuse have a stable `code`.
//!
//! Deliberately absent: TLS, rate limits and a store. What is here ends with the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::faults::{Change, Fate, Faults};
use crate::ledger::{Issued, Ledger, Parcel, Refusal};

/// A request's body is at most this many bytes: hundreds of times a parcel's, and small enough to
/// read before anything is decided.
const BODY_BYTES_MAX: usize = 64 << 10;

/// A reference has at most this many characters: what fits on a printed label.
const REFERENCE_CHARACTERS_MAX: usize = 64;

/// The order's number and the carrier's name have at most this many characters each, for the
/// ledger keeps them.
const TEXT_CHARACTERS_MAX: usize = 256;

/// An idempotency key has at most this many bytes, for the ledger keeps it.
const KEY_BYTES_MAX: usize = 255;

/// A longer `traceparent` is not kept: W3C Trace Context has 55 bytes and leaves room for more.
const TRACEPARENT_BYTES_MAX: usize = 255;

/// The scheme of RFC 6750 and what parts it from the token.
const BEARER: &[u8] = b"bearer ";

/// The carrier, as all requests share it.
pub(crate) struct Carrier {
    /// Held for moments only, and by no one who waits: what is behind it has no `async`.
    state: Mutex<Shop>,
    token: Option<String>,
}

struct Shop {
    ledger: Ledger,
    faults: Faults,
}

impl Carrier {
    /// With a `token`, no request gets anywhere without it.
    pub(crate) fn new(ledger: Ledger, faults: Faults, token: Option<String>) -> Self {
        Self { state: Mutex::new(Shop { ledger, faults }), token }
    }

    fn lock(&self) -> MutexGuard<'_, Shop> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Shared = State<Arc<Carrier>>;

/// All paths of the service.
pub(crate) fn router(carrier: Arc<Carrier>) -> Router {
    Router::new()
        .route("/labels", post(issue))
        .route("/labels/{reference}", get(show).delete(cancel))
        .route("/ledger", get(ledger))
        .route("/stats", get(stats))
        .route("/faults", get(faults).post(change_faults))
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .fallback(async || refused(StatusCode::NOT_FOUND, "not_found", "there is no such path"))
        .method_not_allowed_fallback(async || {
            refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Outermost, so that nothing of a request is read without the token.
        .layer(middleware::from_fn_with_state(Arc::clone(&carrier), authorize))
        .with_state(carrier)
}

/// A status and the JSON that goes with it.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

fn refused(status: StatusCode, code: &str, message: impl Into<String>) -> Answer {
    Answer { status, body: json!({ "code": code, "message": message.into() }) }
}

fn malformed(message: impl Into<String>) -> Answer {
    refused(StatusCode::BAD_REQUEST, "malformed", message)
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = match refusal {
            Refusal::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "the idempotency key came with another reference before",
            ),
            Refusal::Cancelled => (
                StatusCode::CONFLICT,
                "cancelled",
                "the reference was cancelled; there will be no label for it",
            ),
            Refusal::ReferenceTaken => (
                StatusCode::CONFLICT,
                "reference_taken",
                "another idempotency key has a label for this reference",
            ),
            Refusal::Full => {
                (StatusCode::INSUFFICIENT_STORAGE, "full", "the ledger has no room for more")
            }
        };
        refused(status, code, message)
    }
}

/// `POST /labels`
async fn issue(
    State(carrier): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Answer> {
    let key = idempotency_key(&headers)?
        .ok_or_else(|| malformed("the header idempotency-key is missing"))?;
    let parcel: Parcel = read(body)?;
    check_text("reference", &parcel.reference, REFERENCE_CHARACTERS_MAX)?;
    check_text("order_id", &parcel.order_id, TEXT_CHARACTERS_MAX)?;
    check_text("carrier", &parcel.carrier, TEXT_CHARACTERS_MAX)?;
    let traceparent = traceparent(&headers);
    let effect =
        move |ledger: &mut Ledger| match ledger.issue(&key, &parcel, traceparent.as_deref()) {
            Ok(issued) => show_issued(&issued),
            Err(refusal) => refusal.into(),
        };
    Ok(deliver(carrier, effect).await)
}

fn show_issued(issued: &Issued<'_>) -> Answer {
    let Issued { label, reference, carrier, first } = issued;
    Answer {
        status: if *first { StatusCode::CREATED } else { StatusCode::OK },
        body: json!({ "label": label, "reference": reference, "carrier": carrier }),
    }
}

/// `DELETE /labels/{reference}`
async fn cancel(
    State(carrier): Shared,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Answer> {
    let reference = reference(path)?;
    let key = idempotency_key(&headers)?;
    let effect = move |ledger: &mut Ledger| match ledger.cancel(&reference, key.as_deref()) {
        Ok(cancelled) => Answer { status: StatusCode::OK, body: json!({ "cancelled": cancelled }) },
        Err(refusal) => refusal.into(),
    };
    Ok(deliver(carrier, effect).await)
}

/// Has `effect` done on the ledger, and its answer sent, as the faults will have it.
async fn deliver(
    carrier: Arc<Carrier>,
    effect: impl Fn(&mut Ledger) -> Answer + Send + 'static,
) -> Response {
    let (stall, lose, duplicate) = match carrier.lock().faults.draw() {
        Fate::Fail => {
            let message = "the carrier is not available; nothing was done";
            return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
                .into_response();
        }
        Fate::Handle { stall, lose, duplicate } => (stall, lose, duplicate),
    };
    let handled = async move {
        if let Some(stall) = stall {
            tokio::time::sleep(stall).await;
        }
        let mut shop = carrier.lock();
        if stall.is_some() {
            shop.faults.end_stall();
        }
        let answer = effect(&mut shop.ledger);
        if duplicate {
            // The caller reads the answer to the first; that to the second comes after it and
            // finds nobody.
            effect(&mut shop.ledger);
        }
        answer
    };
    // A task of its own: this one ends when the caller closes the connection, and what has
    // arrived is done all the same.
    match tokio::spawn(handled).await {
        Ok(_) if lose => lost(),
        Ok(answer) => answer.into_response(),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the carrier is broken")
            .into_response(),
    }
}

/// An answer that never gets to the caller. Its body breaks before its first byte, whereupon hyper
/// closes the connection without having sent the head. Were the head sent all the same, it would
/// be no success, and would promise a byte that does not come.
fn lost() -> Response {
    let broken = futures::future::ready(Err::<Bytes, _>(std::io::Error::other("lost on purpose")));
    let body = Body::from_stream(futures::stream::once(broken));
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_LENGTH, "1")], body).into_response()
}

/// `GET /labels/{reference}`
async fn show(
    State(carrier): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Answer> {
    let reference = reference(path)?;
    let shop = carrier.lock();
    let entry = shop.ledger.find(&reference).ok_or_else(|| {
        refused(StatusCode::NOT_FOUND, "not_found", "the reference names no label")
    })?;
    Ok(Json(json!({
        "label": entry.label,
        "reference": entry.reference,
        "order_id": entry.order_id,
        "carrier": entry.carrier,
        "weight_g": entry.weight_g,
        "status": entry.status,
    })))
}

/// `GET /ledger`
async fn ledger(State(carrier): Shared) -> Response {
    // Written under the lock: one state of the ledger, and one copy of it.
    Json(carrier.lock().ledger.entries()).into_response()
}

/// `GET /stats`
async fn stats(State(carrier): Shared) -> Json<Value> {
    let shop = carrier.lock();
    let counts = shop.faults.counts();
    Json(json!({
        "requests": counts.requests,
        "failed": counts.failed,
        "stalled": counts.stalled,
        "lost": counts.lost,
        "duplicated": counts.duplicated,
        "labels": shop.ledger.entries().len(),
        "cancelled": shop.ledger.cancelled(),
    }))
}

/// `GET /faults`
async fn faults(State(carrier): Shared) -> Response {
    Json(carrier.lock().faults.chances()).into_response()
}

/// `POST /faults`
async fn change_faults(
    State(carrier): Shared,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Answer> {
    let change: Change = read(body)?;
    let mut shop = carrier.lock();
    shop.faults.change(change).map_err(malformed)?;
    Ok(Json(shop.faults.chances()).into_response())
}

async fn authorize(State(carrier): Shared, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map_or(&[][..], |it| it.as_bytes());
    let welcome = carrier.token.as_ref().is_none_or(|token| {
        let (scheme, rest) = given.split_at_checked(BEARER.len()).unwrap_or_default();
        scheme.eq_ignore_ascii_case(BEARER) && equal(rest, token.as_bytes())
    });
    if welcome {
        return next.run(request).await;
    }
    let message = "the header authorization must have the token that the carrier was started with";
    let answer = refused(StatusCode::UNAUTHORIZED, "unauthorized", message);
    ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response()
}

/// Takes the same time wherever the first difference is, so that a token cannot be guessed byte
/// by byte.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && difference == 0
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Answer> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(malformed(format!("an idempotency key has 1 to {KEY_BYTES_MAX} ASCII bytes"))),
    }
}

/// What is no text or too long is left out: a trace is never worth a parcel.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    (text.len() <= TRACEPARENT_BYTES_MAX).then(|| text.to_owned())
}

fn reference(path: Result<Path<String>, PathRejection>) -> Result<String, Answer> {
    let Path(reference) = path.map_err(|rejection| malformed(rejection.body_text()))?;
    check_text("reference", &reference, REFERENCE_CHARACTERS_MAX)?;
    Ok(reference)
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Answer> {
    let body = body.map_err(|rejection| {
        let large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let code = if large { "too_large" } else { "malformed" };
        refused(rejection.status(), code, rejection.body_text())
    })?;
    serde_json::from_slice(&body).map_err(|error| malformed(format!("the body: {error}")))
}

fn check_text(name: &str, text: &str, characters_max: usize) -> Result<(), Answer> {
    if (1..=characters_max).contains(&text.chars().count()) {
        return Ok(());
    }
    Err(malformed(format!("{name} has 1 to {characters_max} characters")))
}
