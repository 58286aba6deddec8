//! Talks to a host.

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::Form;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use amends_api::Problem;
use amends_engine::on_one_line;

use crate::commands::exit::{EXIT_AUTH, EXIT_ERROR, EXIT_NOT_FOUND, Failed};

/// Which host to talk to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Host")]
pub struct HostArgs {
    /// The host's address
    #[arg(long, env = "AMENDS_HOST", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub host: String,
    /// The token to show it
    #[arg(long, env = "AMENDS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// A connection to a host.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(args: &HostArgs) -> anyhow::Result<Self> {
        let base = args.host.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") {
            let message = format!(
                "--host {base}: this version speaks plain http only; write http://ADDRESS:PORT"
            );
            return Err(Failed { exit: EXIT_ERROR, message }.into());
        }
        let http = plain_http()?;
        Ok(Self { http, base, token: args.token.clone() })
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends, and turns a refusal into an error that says what would be right.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        accepted(request.send().await.map_err(|error| self.unreachable(&error))?).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.json().await.context("the host's answer cannot be read")
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path).json(body);
        self.send_as_user(request).await?.json().await.context("the host's answer cannot be read")
    }

    /// As [`Self::send`], with who asks for it.
    pub(crate) async fn send_as_user(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        self.send(match std::env::var("USER") {
            Ok(user) => request.header("amends-user", user),
            Err(_) => request,
        })
        .await
    }

    /// As [`Self::send_as_user`], a form of components: a host takes none without a header that a
    /// page cannot send.
    pub(crate) async fn upload(&self, path: &str, form: Form) -> anyhow::Result<Response> {
        let request = self.request(Method::POST, path).header("amends-request", "1");
        self.send_as_user(request.multipart(form)).await
    }

    /// An error that every other request would meet as well, so it is no [`Failed`].
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let what = if error.is_connect() { "cannot be reached" } else { "did not answer" };
        anyhow::anyhow!(
            "the host {} {what}\n  help: is it running (amends run CONFIG)? another address is \
             given by --host or AMENDS_HOST",
            self.base
        )
    }
}

/// Speaks HTTP with hosts. Their connections are not encrypted, so that the machine's certificates
/// are not read, which takes longer than most verbs and fails where there are none.
pub(crate) fn plain_http() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().context("no HTTP client")
}

/// The answer to a request that was sent, or the error that it says: what is wrong and what would
/// be right. The request is not sent again for it, which could do a second time what it asks for.
pub(crate) async fn accepted(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let message = match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => match problem.remedy {
            Some(remedy) => {
                format!("{}\n  help: {}", on_one_line(&problem.detail), on_one_line(&remedy))
            }
            None => on_one_line(&problem.detail).into_owned(),
        },
        Err(_) => format!("the host answered {status}: {}", on_one_line(&text)),
    };
    let exit = match status {
        StatusCode::NOT_FOUND => EXIT_NOT_FOUND,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => EXIT_AUTH,
        _ => EXIT_ERROR,
    };
    Err(Failed { exit, message }.into())
}

/// `a b` as `a%20b`, for a query or a path.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
