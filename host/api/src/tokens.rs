//! Tokens of access control, and who asks.

use axum::extract::State;
use axum::http::StatusCode;

use amends_api_types::{
    MeView, NewTokenView, Page, RevokeBody, RevokedView, TokenBody, TokenView, parse_duration,
};
use amends_runtime::{
    Namespaces, NewToken, Role, TOKEN_NAME_BYTES_MAX, TOKENS_MAX, Token, TokenState, TokensError,
    now,
};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::reason::reason_of;

/// What [`ApiState::only_in_default`] calls them.
const TOKENS: &str = "the tokens";

/// Says who asks, and what they may do.
#[utoipa::path(get, path = "/v1/me", operation_id = "get_me", tag = "access",
    security(("token" = [])),
    responses((status = 200, body = MeView, description = "Who asks.")))]
pub(crate) async fn me(State(state): State<ApiState>, caller: Caller) -> Json<MeView> {
    let roles = caller.holder.iter().flat_map(|holder| &holder.roles);
    Json(MeView {
        who: caller.principal().subject().to_owned(),
        access_control: state.host.has_access_control(),
        roles: roles.map(ToString::to_string).collect(),
        permissions: caller.permissions().iter().map(|one| one.to_string()).collect(),
        namespaces: state.namespaces_of(&caller),
        expires_at: caller.holder.as_ref().and_then(|holder| holder.expires_at),
    })
}

/// Makes a token.
///
/// The answer has the token, and no other answer has it.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "access",
    security(("token" = ["administer"])),
    params(("amends-user" = Option<String>, Header)),
    request_body = TokenBody,
    responses((status = 201, body = NewTokenView, description = "The token was made.")))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody<TokenBody>,
) -> Result<(StatusCode, Json<NewTokenView>), ApiError> {
    state.only_in_default(TOKENS)?;
    let TokenBody { name, roles, payloads, namespaces, expires_in } = body;
    let namespaces = Namespaces::read(&namespaces).map_err(|wrong| {
        ApiError::new(400, "bad_request", format!("`{wrong}` is no name of a namespace"))
            .with_remedy("name namespaces of the config, or * for all of them")
    })?;
    let roles = roles.iter().map(|role| role_of(role)).collect::<Result<Vec<_>, _>>()?;
    let expires_in = expires_in.as_deref().map(parse_duration).transpose().map_err(|error| {
        ApiError::new(400, "bad_request", format!("`expires_in`: {error}"))
            .with_remedy("write a duration such as 90d, or leave it out")
    })?;
    let new = NewToken { name, roles, payloads, namespaces, expires_in };
    let (token, made) = state.host.create_token(caller.principal(), new).await?;
    Ok((StatusCode::CREATED, Json(NewTokenView { token, view: token_view(made) })))
}

fn role_of(text: &str) -> Result<Role, ApiError> {
    Role::from_word(text).ok_or_else(|| {
        let roles: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        ApiError::new(400, "bad_request", format!("there is no role `{text}`"))
            .with_remedy(format!("the roles are {}", roles.join(", ")))
    })
}

/// Lists the tokens that are active or ended within the last 90 days, the newest first.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "access",
    security(("token" = ["administer"])),
    responses((status = 200, body = Page<TokenView>, description = "The tokens.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Page<TokenView>>, ApiError> {
    state.only_in_default(TOKENS)?;
    let items = state.host.tokens()?.into_iter().map(token_view).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Revokes a token that is active.
///
/// The other hosts of the store know of it within a second. Streams that were opened with the token end.
#[utoipa::path(post, path = "/v1/tokens/{id}/revoke", operation_id = "revoke_token", tag = "access",
    security(("token" = ["administer"])),
    params(
        ("id" = String, Path, description = "The id or the name of the token."),
        ("amends-user" = Option<String>, Header)),
    request_body = RevokeBody,
    responses((status = 200, body = TokenView, description = "The token, which counts no more.")))]
pub(crate) async fn revoke(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<RevokeBody>,
) -> Result<Json<TokenView>, ApiError> {
    state.only_in_default(TOKENS)?;
    let reason = reason_of(&body.reason)?;
    Ok(Json(token_view(state.host.revoke_token(caller.principal(), &id, reason).await?)))
}

fn token_view(token: Token) -> TokenView {
    let state: TokenState = token.state(now());
    TokenView {
        state: state.as_str().to_owned(),
        id: token.id,
        name: token.name,
        roles: token.roles.iter().map(ToString::to_string).collect(),
        payloads: token.payloads,
        namespaces: token.namespaces.words(),
        created_by: token.created_by,
        created_at: token.created_at,
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        revoked: token.revoked.map(|revoked| RevokedView {
            who: revoked.who,
            at: revoked.at,
            reason: revoked.reason,
        }),
    }
}

impl From<TokensError> for ApiError {
    fn from(error: TokensError) -> Self {
        let detail = error.to_string();
        match error {
            TokensError::Off => Self::new(409, "auth_off", detail)
                .with_remedy("add [auth] to the config and start the host again"),
            TokensError::Name(_) => Self::new(400, "bad_name", detail).with_remedy(format!(
                "use 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, but not `admin_token`"
            )),
            TokensError::NoRole => Self::new(400, "bad_request", detail)
                .with_remedy("name at least one role"),
            TokensError::NameTaken(_) => Self::new(409, "token_name_taken", detail)
                .with_remedy("revoke that token first, or give another name"),
            TokensError::Full => Self::new(409, "tokens_full", detail)
                .with_remedy(format!("revoke some: at most {TOKENS_MAX} are active")),
            TokensError::NotFound(_) => Self::new(404, "token_unknown", detail)
                .with_remedy("GET /v1/tokens lists the tokens"),
            TokensError::Random(_) => Self::new(500, "failed", detail)
                .with_remedy("look at the machine's source of random numbers, then try again"),
            TokensError::Store(error) => error.into(),
        }
    }
}
