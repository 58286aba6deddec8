//! Talks to a host.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::multipart::Form;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use amends_api_types::{DefinitionView, MeView, PluginView, Problem};
use amends_engine::on_one_line;
use amends_runtime::DEFAULT_NAMESPACE;

use crate::commands::context::ChosenContext;
use crate::commands::exit::{EXIT_AUTH, EXIT_ERROR, EXIT_NOT_FOUND, EXIT_USAGE, Failed};
use crate::commands::namespace;
use amends_config::HostContext;
use amends_config::suggest::{did_you_mean, list};

/// Which host to talk to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Host")]
pub(crate) struct HostArgs {
    /// The host's address, such as 127.0.0.1:7070 or https://amends.example.com; may also stand before the verb
    /// [env: AMENDS_HOST] [default: that of the context, else 127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// The token, for a host that asks for one. Set AMENDS_TOKEN in place of this flag: other users of the machine
    /// can see the arguments of a process. An http:// address gets the token in plain text
    #[arg(long, env = "AMENDS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Your name, which is kept with your orders; the host does not check it [default: that of the context, else
    /// $USER]
    #[arg(long = "as", env = "AMENDS_USER", value_name = "NAME", value_parser = user_name)]
    pub(crate) user: Option<String>,
}

/// Where a host is when nothing is said.
const HOST_DEFAULT: &str = "http://127.0.0.1:7070";

/// How long a request is sent again that came sooner than the rate of its token allows.
const RATE_WAIT_MAX: Duration = Duration::from_mins(1);

/// The shortest pause before it is sent again.
const RATE_PAUSE: Duration = Duration::from_millis(200);

/// How an address with TLS begins.
const ENCRYPTED: &str = "https://";

/// The address that stood before the verb.
static HOST_BEFORE_VERB: OnceLock<String> = OnceLock::new();

/// Takes the address that stood before the verb.
pub(crate) fn set_host(host: Option<String>) {
    if let Some(host) = host {
        // There is one command line.
        let _ = HOST_BEFORE_VERB.set(host);
    }
}

/// The header that names the namespace that a request is for.
const NAMESPACE: &str = "amends-namespace";

/// The variable that says where the host is.
const HOST_VARIABLE: &str = "AMENDS_HOST";

/// Which host a verb talks to, and as whom.
#[derive(Debug)]
struct Target {
    base: String,
    token: Option<String>,
    user: Option<String>,
    namespace: Option<String>,
    /// Why the token of the context is not sent, if it is not.
    token_withheld: Option<String>,
}

/// Finds out which host a verb talks to, and as whom. What a context says is for its own host alone: another host gets
/// neither its token nor its user.
fn target(args: &HostArgs, namespace: Option<String>) -> Result<Target, Failed> {
    let context = ChosenContext::read()?;
    let own = context.as_ref().map(base_of).transpose()?;
    let given = address(args)?;
    if let (Some((HOST_VARIABLE, given)), Some(context), Some(own)) = (&given, &context, &own)
        && context.is_by_flag
        && given != own
    {
        let name = &context.name;
        let wrong = format!("--context {name} is for {own}, and AMENDS_HOST is {given}");
        let right = "unset AMENDS_HOST, or leave out --context";
        return Err(Failed::with_help(EXIT_USAGE, &wrong, right));
    }
    let base = given.map(|(_, base)| base).or_else(|| own.clone());
    let base = base.unwrap_or_else(|| HOST_DEFAULT.to_owned());
    let (context, other) =
        if own.as_ref() == Some(&base) { (context, None) } else { (None, context) };
    let token = match token(args)? {
        Some(token) => Some(token),
        None => context.as_ref().map(token_of).transpose()?.flatten(),
    };
    let other = other.filter(|other| token.is_none() && other.context.token.is_some());
    let token_withheld = other.map(|ChosenContext { name, context, .. }| {
        format!(
            "the token of the context `{name}` was not sent, because it is for {}",
            context.host
        )
    });
    let of_context = context.as_ref().and_then(|chosen| chosen.context.namespace.clone());
    let namespace = namespace.or(of_context);
    // Nobody chose the name of the account for this: one that no host takes is left out.
    let account = || std::env::var("USER").ok().and_then(|name| user_name(&name).ok());
    let user = args.user.clone().or_else(|| context?.context.user).or_else(account);
    let user = user.filter(|user| !user.trim().is_empty());
    Ok(Target { base, token, user, namespace, token_withheld })
}

/// Where the host is, and who said so: the verb's flag, the flag before the verb, the environment.
fn address(args: &HostArgs) -> Result<Option<(&'static str, String)>, Failed> {
    let from_environment = || std::env::var(HOST_VARIABLE).ok().filter(|host| !host.is_empty());
    let flag = args.host.as_ref().or_else(|| HOST_BEFORE_VERB.get());
    let given = flag.map(|host| ("--host", host.clone()));
    let given = given.or_else(|| Some((HOST_VARIABLE, from_environment()?)));
    let Some((name, text)) = given else { return Ok(None) };
    match base(&text) {
        Ok(base) => Ok(Some((name, base))),
        Err(help) => Err(Failed { exit: EXIT_USAGE, message: format!("{name} {text}: {help}") }),
    }
}

/// Where the host of a context is.
fn base_of(chosen: &ChosenContext) -> Result<String, Failed> {
    let ChosenContext { name, context: HostContext { host, .. }, .. } = chosen;
    base(host).map_err(|help| {
        let wrong = format!("the host of the context `{name}` is `{}`", on_one_line(host));
        Failed::with_help(EXIT_USAGE, &wrong, help)
    })
}

/// The token of a context, if it has one.
fn token_of(chosen: &ChosenContext) -> Result<Option<String>, Failed> {
    let Some(token) = chosen.token()? else { return Ok(None) };
    let right = format!("give the context `{}` what `amends token new` printed", chosen.name);
    one_word(&token, &right)
}

/// A name that a header can say (RFC 9110, 5.5) and a host takes.
fn user_name(text: &str) -> Result<String, &'static str> {
    let is_plain = text.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic());
    is_plain.then(|| text.to_owned()).ok_or("write a name in ASCII, on one line, such as ada")
}

/// The token, if there is one. An empty variable of the environment counts as none.
///
/// # Errors
/// When a header cannot say it. The error does not have the token in it.
fn token(args: &HostArgs) -> Result<Option<String>, Failed> {
    let Some(token) = &args.token else { return Ok(None) };
    let right =
        "set AMENDS_TOKEN (or --token) to what `amends token new` printed, and nothing else";
    one_word(token, right)
}

/// A token without the line break of its file. None: there is nothing else.
fn one_word(token: &str, right: &str) -> Result<Option<String>, Failed> {
    let token = token.trim();
    if token.chars().all(|letter| letter.is_ascii_graphic()) {
        return Ok((!token.is_empty()).then(|| token.to_owned()));
    }
    let wrong = "the token has a character that no token has, such as a blank or a line break";
    Err(Failed::with_help(EXIT_USAGE, wrong, right))
}

/// `127.0.0.1:7070` as `http://127.0.0.1:7070`.
fn base(text: &str) -> Result<String, &'static str> {
    const HELP: &str = "write an address such as 127.0.0.1:7070 or https://amends.example.com";
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
    let rest = rest.trim_end_matches('/');
    let base = format!("{scheme}://{rest}");
    let url = reqwest::Url::parse(&base).map_err(|_| HELP)?;
    let is_http = matches!(scheme, "http" | "https");
    let is_address = is_http && url.has_host() && url.query().is_none();
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
    namespace: Option<String>,
    token_withheld: Option<String>,
}

impl Client {
    pub(crate) fn new(args: &HostArgs) -> anyhow::Result<Self> {
        Self::open(args, namespace::said()?)
    }

    /// For what a host has once, whatever namespace somebody works in.
    pub(crate) fn in_default(args: &HostArgs) -> anyhow::Result<Self> {
        Self::open(args, Some(DEFAULT_NAMESPACE.to_owned()))
    }

    fn open(args: &HostArgs, namespace: Option<String>) -> anyhow::Result<Self> {
        let Target { base, token, user, namespace, token_withheld } = target(args, namespace)?;
        let http = if base.starts_with(ENCRYPTED) { encrypted_http()? } else { plain_http()? };
        Ok(Self { http, base, token, user, namespace, token_withheld })
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = match &self.namespace {
            Some(namespace) => request.header(NAMESPACE, namespace),
            None => request,
        };
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends, and turns a refusal into an error that says what would be right.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = self.send_in_time(request).await?;
        let plugin = plugin_sought(&response);
        let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
        let error = match accepted(response).await {
            Ok(response) => return Ok(response),
            Err(error) if is_unauthorized => self.with_withheld(error),
            Err(error) => error,
        };
        match plugin {
            Some(name) => Err(self.unknown_plugin(&name).await.unwrap_or(error)),
            None => Err(error),
        }
    }

    /// Sends a request, and sends it again when the token has asked too often: the host has done nothing then. A
    /// body that is read while it is sent is sent once.
    async fn send_in_time(&self, mut request: RequestBuilder) -> anyhow::Result<Response> {
        let began = Instant::now();
        loop {
            let again = request.try_clone();
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            if status != StatusCode::TOO_MANY_REQUESTS {
                return Ok(response);
            }
            let pause = retry_after(&response).max(RATE_PAUSE);
            let text = response.text().await.unwrap_or_default();
            let is_in_time = began.elapsed().saturating_add(pause) <= RATE_WAIT_MAX;
            let problem = serde_json::from_str::<Problem>(&text);
            let is_of_rate = problem.is_ok_and(|problem| problem.code == "rate_limited");
            match again {
                Some(again) if is_of_rate && is_in_time => request = again,
                Some(_) | None => return Err(refused(status, &text).into()),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Adds to an error why the token of the context was not sent, if it was not.
    fn with_withheld(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(withheld) = &self.token_withheld else { return error };
        match error.downcast::<Failed>() {
            Ok(Failed { exit, message }) => {
                Failed { exit, message: format!("{message}\n  help: {}", on_one_line(withheld)) }
                    .into()
            }
            Err(error) => error,
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

    /// Checks that the caller may see payloads, for a verb that writes down what it reads.
    pub(crate) async fn needs_payloads(&self) -> anyhow::Result<()> {
        let response = self.request(Method::GET, "/v1/me").send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        // A host of an earlier version withholds nothing.
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let me: MeView = accepted(response).await?.json().await?;
        if me.permissions.iter().any(|permission| permission == "payloads") {
            return Ok(());
        }
        let wrong = "the token may not see payloads, so what would be written lacks them";
        Err(Failed::with_help(EXIT_AUTH, wrong, "use a token that was made with --payloads").into())
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
        if error.is_connect() && self.base.starts_with(ENCRYPTED) {
            // Such as a certificate that is not trusted.
            let why = on_one_line(&innermost(error)).into_owned();
            return anyhow::anyhow!(
                "the host {} {what}: {why}\n  help: is the host running, or the proxy before it? SSL_CERT_FILE names certificates to \
                 trust in place of the machine's; another address is given by --host or AMENDS_HOST",
                self.base
            );
        }
        anyhow::anyhow!(
            "the host {} {what}\n  help: is it running (amends run CONFIG)? another address is \
             given by --host or AMENDS_HOST",
            self.base
        )
    }
}

/// Speaks HTTP with hosts. These connections are not encrypted, so that the machine's certificates
/// are not read, which takes longer than most verbs and fails where there are none.
fn plain_http() -> anyhow::Result<reqwest::Client> {
    http().tls_certs_only([]).build().context("no HTTP client")
}

/// Speaks HTTPS with the proxies of hosts. Trusted are the machine's certificates, or those in the file that
/// `SSL_CERT_FILE` names.
fn encrypted_http() -> anyhow::Result<reqwest::Client> {
    http().https_only(true).build().map_err(|error| {
        anyhow::anyhow!(
            "no client for HTTPS: {}\n  help: install the certificates of this system, or name a file of \
             certificates in SSL_CERT_FILE",
            innermost(&error)
        )
    })
}

/// What both have in common. A host redirects nobody. A proxy that does would get an order as another kind of
/// request, and the token at an address that nobody named.
fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().redirect(Policy::none())
}

/// The last cause of an error: what happened, without who was told of it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The answer to a request that was sent, or the error that it says: what is wrong and what would
/// be right. The request is not sent again for it, which could do a second time what it asks for.
pub(crate) async fn accepted(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status.is_redirection() {
        return Err(moved(&response).into());
    }
    let text = response.text().await.unwrap_or_default();
    Err(refused(status, &text).into())
}

/// How long the host asks to wait before the next request: whole seconds (RFC 9110, 10.2.3), or one when it does not
/// say, or gives a date, which our hosts do not.
pub(crate) fn retry_after(response: &Response) -> Duration {
    let text = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Duration::from_secs(text.and_then(|text| text.trim().parse().ok()).unwrap_or(1))
}

/// The error that an answer says: what is wrong and what would be right.
pub(crate) fn refused(status: StatusCode, text: &str) -> Failed {
    let message = match serde_json::from_str::<Problem>(text) {
        Ok(problem) => match remedy(&problem) {
            Some(remedy) => {
                format!("{}\n  help: {}", on_one_line(&problem.detail), on_one_line(&remedy))
            }
            None => on_one_line(&problem.detail).into_owned(),
        },
        Err(_) => format!("the host answered {status}: {}", on_one_line(text)),
    };
    let exit = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => EXIT_NOT_FOUND,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => EXIT_AUTH,
        _ => EXIT_ERROR,
    };
    Failed { exit, message }
}

/// What to say when a proxy answers that the host is at another address.
fn moved(response: &Response) -> Failed {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let elsewhere =
        location.map_or_else(String::new, |at| format!(": it says {}", on_one_line(at)));
    let wrong = format!("the host answered {}{elsewhere}", response.status());
    let right = "give the address that the proxy serves, such as https://amends.example.com, by --host or \
                 AMENDS_HOST";
    Failed::with_help(EXIT_ERROR, &wrong, right)
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
        "token_missing" => {
            "set AMENDS_TOKEN to a token of this host; `amends token new` makes one".into()
        }
        "token_wrong" | "token_expired" | "token_revoked" => {
            "set AMENDS_TOKEN (or --token) to another token; `amends token new` makes one".into()
        }
        "permission_missing" => "`amends me` says what the token may do".into(),
        "no_namespace" => "`amends me` lists your namespaces; --namespace names one".into(),
        "token_unknown" => "`amends token list` lists the tokens".into(),
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
            ("https://amends.example.com/", "https://amends.example.com"),
            (" proxy.example/amends/ ", "http://proxy.example/amends"),
        ] {
            assert_eq!(base(text).as_deref(), Ok(told));
        }
        for wrong in ["", "7600", ":7600", "a b", "ftp://a", "https://", "http://", "1.2.3.4:x"] {
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

    #[test]
    fn a_token_is_one_word() {
        let given = |token: Option<&str>| {
            let args = HostArgs { host: None, token: token.map(str::to_owned), user: None };
            super::token(&args)
        };
        for (text, taken) in [
            (None, None),
            (Some(""), None),
            (Some(" \n"), None),
            (Some("amends_a_b\n"), Some("amends_a_b")),
            (Some("a-._~+/="), Some("a-._~+/=")),
        ] {
            assert_eq!(given(text).ok(), Some(taken.map(str::to_owned)), "{text:?}");
        }
        for wrong in ["secret text", "secret\nline", "secret\u{fc}"] {
            let told = given(Some(wrong)).err().map(|failed| failed.message).unwrap_or_default();
            assert!(told.starts_with("the token has a character"), "{wrong}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
