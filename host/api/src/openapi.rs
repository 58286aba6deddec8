//! The OpenAPI document, which describes the API. Its operations are the routes of `router.rs`.

#[cfg(test)]
mod breaks;
#[cfg(test)]
mod tests;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::OpenApi as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};

use amends_api_types::Problem;

use crate::access::SCHEME;

/// What the document says beside the operations of the routes.
///
/// The operations on one key of a plugin's state stand here, because their route takes a key with slashes, and a
/// path of OpenAPI cannot say that.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Amends",
        description = "Sagas whose steps and undos are WebAssembly components.\n\nThe header `amends-namespace` names \
                       the namespace that a request is for. Without it, that is the only one of the caller's token, else \
                       `default`."
    ),
    tags(
        (name = "sagas", description = "Starting sagas, finding them, and what became of them."),
        (name = "operators", description = "What a person on call looks at and does."),
        (name = "events", description = "The log of all events."),
        (name = "definitions", description = "What sagas do."),
        (name = "plugins", description = "The components that sagas call, and their state."),
        (name = "access", description = "Who asks, and who may do what."),
        (name = "host", description = "The host, its store and its health.")
    ),
    components(schemas(Problem)),
    paths(
        crate::plugin_state::keys::get,
        crate::plugin_state::keys::put,
        crate::plugin_state::keys::delete,
    )
)]
struct Document;

/// The name of the answer to a request that failed.
const PROBLEM: &str = "Problem";

/// The status and the name of each answer that an operation gives when it needs a token.
const REFUSALS: [(&str, &str); 2] = [("401", "TokenRefused"), ("403", "PermissionMissing")];

/// What the document says of the header `amends-user`, wherever an operation takes it.
const USER: &str = "The person for whom the caller asks, which is recorded as who asks, or, of a caller with a \
                    token, as on whose behalf.";

/// What the document says of tokens.
const TOKEN: &str = "A token of a host with access control: `amends token new` makes one. The list of an \
                     operation names the permissions that its token needs, all of them. A host without access \
                     control asks for no token, and its document has no such lists.";

/// Begins the document, to which the router adds the operations of its routes.
pub(crate) fn begin() -> OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let failed = problem("The request failed. `code` tells programs why.");
    components.responses.insert(PROBLEM.to_owned(), RefOr::T(failed.build()));
    let challenge = HeaderBuilder::new().description(Some("What to show (RFC 9110, 11.6.1)."));
    let refused = problem("The request shows no token, or one that does not count.")
        .header("www-authenticate", challenge.build());
    let missing = problem("The token lacks a permission that the operation needs.");
    for ((_, name), answer) in REFUSALS.into_iter().zip([refused, missing]) {
        components.responses.insert(name.to_owned(), RefOr::T(answer.build()));
    }
    let mut token = Http::new(HttpAuthScheme::Bearer);
    token.description = Some(TOKEN.to_owned());
    components.add_security_scheme(SCHEME, SecurityScheme::Http(token));
    document
}

/// Begins an answer that is a problem.
fn problem(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(PROBLEM))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content)
}

/// Adds what many operations have in common: that they may fail, that those that need a token may refuse it, and
/// what the header `amends-user` is for.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for parameter in operation.parameters.iter_mut().flatten() {
            if let RefOr::T(parameter) = parameter
                && parameter.name == "amends-user"
            {
                parameter.description = Some(USER.to_owned());
            }
        }
        let problem = RefOr::Ref(Ref::from_response_name(PROBLEM));
        operation.responses.responses.insert("default".to_owned(), problem);
        // The empty requirement says that no token is needed.
        let needs_token = operation
            .security
            .as_ref()
            .is_some_and(|security| !security.contains(&SecurityRequirement::default()));
        for (status, name) in REFUSALS.into_iter().filter(|_| needs_token) {
            let refusal = RefOr::Ref(Ref::from_response_name(name));
            operation.responses.responses.insert(status.to_owned(), refusal);
        }
    }
    document
}

/// Takes out what the operations say of tokens, for a host that asks for none.
pub(crate) fn without_security(mut document: OpenApi) -> OpenApi {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.security = None;
        for (status, _) in REFUSALS {
            operation.responses.responses.remove(status);
        }
    }
    document
}

/// Returns the operations of a path. The API has no others than these methods.
fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().flatten()
}

/// The document as it is answered.
#[derive(Clone)]
pub(crate) struct Written(Bytes);

impl Written {
    /// Writes the document.
    pub(crate) fn new(document: &OpenApi) -> Self {
        // The document has nothing that JSON cannot say.
        let mut text = serde_json::to_vec(document).unwrap_or_default();
        text.push(b'\n');
        Self(Bytes::from(text))
    }

    /// Answers with the document.
    pub(crate) fn answer(&self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.clone()).into_response()
    }
}
