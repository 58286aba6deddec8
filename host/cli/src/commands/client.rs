//! Talks to a host.

use std::borrow::Cow;
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::Form;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use amends_api_types::{DefinitionView, PluginView, Problem};
use amends_engine::on_one_line;

use crate::commands::exit::{EXIT_AUTH, EXIT_ERROR, EXIT_NOT_FOUND, EXIT_USAGE, Failed};
use amends_config::suggest::{did_you_mean, list};

/// Which host to talk to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Host")]
pub(crate) struct HostArgs {
    /// The host's address, such as 127.0.0.1:7070; may also stand before the verb [env: AMENDS_HOST]
    /// [default: 127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// A token for a proxy that asks for one; a host does not ask
    #[arg(long, env = "AMENDS_TOKEN", hide = true, hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Your name, which is kept with your orders; the host does not check it [default: $USER]
    #[arg(long = "as", env = "AMENDS_USER", value_name = "NAME", value_parser = user_name)]
    pub(crate) user: Option<String>,
}

/// Where a host is when nothing is said.
const HOST_DEFAULT: &str = "http://127.0.0.1:7070";

/// The address that stood before the verb.
static HOST_BEFORE_VERB: OnceLock<String> = OnceLock::new();

/// Takes the address that stood before the verb.
pub(crate) fn set_host(host: Option<String>) {
    if let Some(host) = host {
        // There is one command line.
        let _ = HOST_BEFORE_VERB.set(host);
    }
}

/// Where the host is, and who said so: the verb's flag, the flag before the verb, the environment.
fn address(args: &HostArgs) -> Result<String, Failed> {
    let from_environment = || std::env::var("AMENDS_HOST").ok().filter(|host| !host.is_empty());
    let flag = args.host.as_ref().or_else(|| HOST_BEFORE_VERB.get());
    let (name, text) = match flag.map(|host| ("--host", host.clone())) {
        Some(given) => given,
        None => match from_environment() {
            Some(host) => ("AMENDS_HOST", host),
            None => return Ok(HOST_DEFAULT.to_owned()),
        },
    };
    base(&text)
        .map_err(|help| Failed { exit: EXIT_USAGE, message: format!("{name} {text}: {help}") })
}

/// A name that a header can say (RFC 9110, 5.5) and a host takes.
fn user_name(text: &str) -> Result<String, &'static str> {
    let is_plain = text.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic());
    is_plain.then(|| text.to_owned()).ok_or("write a name in ASCII, on one line, such as ada")
}

/// `127.0.0.1:7070` as `http://127.0.0.1:7070`.
fn base(text: &str) -> Result<String, &'static str> {
    const HELP: &str = "write an address such as 127.0.0.1:7070 or http://127.0.0.1:7070";
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
    let rest = rest.trim_end_matches('/');
    if scheme == "https" {
        return Err("this version speaks plain http only; write http://ADDRESS:PORT");
    }
    let base = format!("http://{rest}");
    let url = reqwest::Url::parse(&base).map_err(|_| HELP)?;
    let is_address = scheme == "http" && url.has_host() && url.query().is_none();
    // A port alone, or a word for one, is no name of a host.
    let is_name = !rest.is_empty() && !rest.starts_with(':') && rest.parse::<u64>().is_err();
    if is_address && is_name { Ok(base) } else { Err(HELP) }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

/// A connection to a host.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    user: Option<String>,
}

impl Client {
    pub(crate) fn new(args: &HostArgs) -> anyhow::Result<Self> {
        let base = address(args)?;
        let http = plain_http()?;
        // Nobody chose the name of the account for this: one that no host takes is left out.
        let account = || std::env::var("USER").ok().and_then(|name| user_name(&name).ok());
        let user = args.user.clone().or_else(account);
        let user = user.filter(|user| !user.trim().is_empty());
        Ok(Self { http, base, token: args.token.clone(), user })
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
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let plugin = plugin_sought(&response);
        let error = match accepted(response).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match plugin {
            Some(name) => Err(self.unknown_plugin(&name).await.unwrap_or(error)),
            None => Err(error),
        }
    }

    /// What to say when the host has no plugin of this name; none when it has one, or cannot tell.
    async fn unknown_plugin(&self, name: &str) -> Option<anyhow::Error> {
        let response = self.request(Method::GET, "/v1/plugins").send().await.ok()?;
        let page: Page<PluginView> = response.json().await.ok()?;
        let names: Vec<_> = page.items.iter().map(|plugin| plugin.name.as_str()).collect();
        Some(unknown("plugin", name, &names)?.into())
    }

    /// What to say when the host has no definition of this name; none when it has one.
    pub(crate) async fn unknown_definition(&self, name: &str) -> anyhow::Result<Option<Failed>> {
        let page: Page<DefinitionView> = self.get("/v1/definitions").await?;
        let names: Vec<_> = page.items.iter().map(|definition| definition.name.as_str()).collect();
        Ok(unknown("definition", name, &names))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.json().await.context("the host's answer cannot be read")
    }

    /// Reads a whole list, page by page. `path` has a query.
    pub(crate) async fn get_all<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page<T> = self.get(&format!("{path}{cursor}")).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={}", escape(&next)),
                None => return Ok(items),
            }
        }
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
        self.send(match &self.user {
            Some(user) => request.header("amends-user", user),
            None => request,
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
        Ok(problem) => match remedy(&problem) {
            Some(remedy) => {
                format!("{}\n  help: {}", on_one_line(&problem.detail), on_one_line(&remedy))
            }
            None => on_one_line(&problem.detail).into_owned(),
        },
        Err(_) => format!("the host answered {status}: {}", on_one_line(&text)),
    };
    let exit = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => EXIT_NOT_FOUND,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => EXIT_AUTH,
        _ => EXIT_ERROR,
    };
    Err(Failed { exit, message }.into())
}

/// The plugin that a request was about which found nothing. A name that has to be escaped is none.
fn plugin_sought(response: &Response) -> Option<String> {
    let rest = response.url().path().split_once("/v1/plugins/")?.1;
    let name = rest.split('/').next().unwrap_or_default();
    (response.status() == StatusCode::NOT_FOUND).then(|| name.to_owned())
}

/// What to say of a name that is none of those that a host has; none when it is.
fn unknown(what: &str, name: &str, names: &[&str]) -> Option<Failed> {
    if names.contains(&name) {
        return None;
    }
    let names = || names.iter().copied();
    let help =
        did_you_mean(name, names(), || format!("the {what}s of this host are {}", list(names())));
    let wrong = format!("there is no {what} `{name}`");
    Some(Failed::with_help(EXIT_NOT_FOUND, &wrong, &help))
}

/// What would be right, in words of the command line where the host's are those of HTTP.
fn remedy(problem: &Problem) -> Option<Cow<'_, str>> {
    Some(match problem.code.as_str() {
        "saga_unknown" => "`amends list` lists the sagas of this host".into(),
        "plugin_unknown" => "`amends plugin list` lists the plugins of this host".into(),
        "canary_refused" | "no_rollback" | "bad_digest" => {
            "`amends plugin versions NAME` shows its canaries and the components that served it"
                .into()
        }
        "not_found" | "method_not_allowed" => {
            "the host is of another version than this command line, or --host is no host of Amends"
                .into()
        }
        "definition_unknown" => "`amends check CONFIG` lists the definitions of a config".into(),
        "no_key" => "`amends state list PLUGIN` lists what the plugin keeps".into(),
        _ => match problem.remedy.as_deref()? {
            later if later.contains("Retry-After") => "try again in a second".into(),
            remedy => remedy.into(),
        },
    })
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

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::{HostArgs, base};

    #[test]
    fn an_address_needs_no_scheme() {
        for (text, told) in [
            ("127.0.0.1:7600", "http://127.0.0.1:7600"),
            ("http://127.0.0.1:7600/", "http://127.0.0.1:7600"),
            ("localhost", "http://localhost"),
            ("[::1]:7600", "http://[::1]:7600"),
            (" proxy.example/amends/ ", "http://proxy.example/amends"),
        ] {
            assert_eq!(base(text).as_deref(), Ok(told));
        }
        for wrong in ["", "7600", ":7600", "a b", "ftp://a", "https://a", "http://", "1.2.3.4:x"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_no_header_can_say_is_refused_by_its_flag() {
        let user = |name: &str| {
            let command = HostArgs::augment_args(Command::new("list"));
            let matches = command.try_get_matches_from(["list", "--as", name])?;
            HostArgs::from_arg_matches(&matches).map(|args| args.user)
        };
        for name in ["ada", "Ada L. (on call)", ""] {
            assert_eq!(user(name).ok().flatten().as_deref(), Some(name));
        }
        for name in ["Zo\u{eb}", "a\nb", "a\u{7f}"] {
            let told = user(name).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(told.contains("--as <NAME>") && told.contains("in ASCII"), "{name}: {told}");
        }
    }
}
