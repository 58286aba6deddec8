//! What a config says of a subscription.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use http::Uri;

use crate::filter::EventFilter;
use crate::local::TakesEvents;
use crate::signature::SigningSecret;

pub use async_nats::ServerAddr;

/// The bytes of what the subjects of a stream begin with.
const SUBJECT_BYTES_MAX: usize = 100;

/// The `source` of events when the config names none.
pub const SOURCE_DEFAULT: &str = "/amends";

/// A subscription: which events reach which receiver, and what happens when it fails.
#[derive(Debug, Clone)]
pub struct SubscriptionSettings {
    /// The name. The store keeps the progress of the subscription under it.
    pub name: String,
    /// Where the events go.
    pub target: Target,
    /// Which events go there.
    pub filter: EventFilter,
    /// Where a subscription begins that the store does not know yet.
    pub from: StartFrom,
    /// The `source` of each event (CloudEvents): a URI reference that names this store to receivers.
    pub source: String,
    /// How much one request carries.
    pub batch: BatchSettings,
    /// What happens to an event that the receiver does not accept.
    pub retry: RetrySettings,
}

/// Where the events of a subscription go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To an address, with a POST for each request.
    Webhook(WebhookSettings),
    /// To a stream of NATS JetStream, as a message each.
    Nats(NatsSettings),
    /// To something within the host.
    Local(Arc<dyn TakesEvents>),
}

/// A receiver of webhooks.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// The address, `http` or `https`.
    pub url: Uri,
    /// The secrets that sign each request. None: requests are not signed.
    pub secrets: Vec<SigningSecret>,
    /// How long one request may take, from the connection to the end of the answer.
    pub timeout: Duration,
}

/// Why a text is not the address of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no address of the web.
    #[error("it is no address that begins with http:// or https://")]
    NoUrl,
    /// It is no address of a NATS server.
    #[error("it is no address that begins with nats:// or tls://")]
    NoServer,
    /// What follows the host is no port.
    #[error("a port is a number from 1 to 65535")]
    NoPort,
    /// It has a name or a password.
    #[error("a name or a password in an address is a secret in the config")]
    HasUser,
}

impl WebhookSettings {
    /// Reads the address of a receiver.
    ///
    /// # Errors
    /// When it is not an address of the web.
    pub fn parse_url(text: &str) -> Result<Uri, UrlError> {
        let url: Uri = text.parse().map_err(|_| UrlError::NoUrl)?;
        let is_web = matches!(url.scheme_str(), Some("http" | "https"));
        let authority = url.authority().ok_or(UrlError::NoUrl)?;
        if !is_web || authority.host().is_empty() {
            return Err(UrlError::NoUrl);
        }
        if authority.as_str().contains('@') {
            return Err(UrlError::HasUser);
        }
        // The library takes any text behind the colon, and uses the port of the scheme then.
        let has_port_text = authority.as_str().len() > authority.host().len();
        if has_port_text && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::NoPort);
        }
        Ok(url)
    }

    /// Returns true when everybody on the way to the receiver can read the events.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        self.url.scheme_str() == Some("http") && !is_here(self.url.host().unwrap_or_default())
    }
}

fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A stream of NATS JetStream. Whoever runs the server makes the stream: it takes the subjects that begin
/// with [`Self::subject`].
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// The address of a server, `nats` or `tls`. A server of a cluster tells the client of the others.
    pub server: ServerAddr,
    /// What the subject of each message begins with, such as `amends`. The name of the definition and the type
    /// of the event follow.
    pub subject: String,
    /// What the client proves itself with. None: with nothing.
    pub credentials: Option<NatsCredentials>,
    /// How long the stream may take to acknowledge a message.
    pub timeout: Duration,
}

impl fmt::Display for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.server.host(), self.server.port());
        write!(f, "{}://{host}:{port} {}.>", self.server.scheme(), self.subject)
    }
}

/// What is in a credentials file of NATS. Nothing prints it.
#[derive(Clone)]
pub struct NatsCredentials(String);

impl NatsCredentials {
    /// Reads the text of a credentials file.
    ///
    /// # Errors
    /// When it is not one: it has no JWT or no seed.
    pub fn parse(text: &str) -> std::io::Result<Self> {
        ConnectOptions::with_credentials(text)?;
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatsCredentials")
    }
}

impl NatsSettings {
    /// Reads the address of a server.
    ///
    /// # Errors
    /// When it is not one that begins with `nats://` or `tls://`, or has a name or a password.
    pub fn parse_server(text: &str) -> Result<ServerAddr, UrlError> {
        let has_scheme = text.starts_with("nats://") || text.starts_with("tls://");
        let server: ServerAddr =
            text.parse().ok().filter(|_| has_scheme).ok_or(UrlError::NoServer)?;
        if server.host().is_empty() {
            return Err(UrlError::NoServer);
        }
        if text.contains('@') {
            return Err(UrlError::HasUser);
        }
        Ok(server)
    }

    /// Returns true for what subjects may begin with: words of letters, digits, `-` and `_`, with dots between.
    #[must_use]
    pub fn is_subject(text: &str) -> bool {
        let is_word = |word: &str| {
            let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            !word.is_empty() && word.chars().all(is_of_word)
        };
        text.len() <= SUBJECT_BYTES_MAX && text.split('.').all(is_word)
    }

    /// Returns true when everybody on the way to the server can read the events.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        is_server_in_clear(&self.server)
    }
}

fn is_server_in_clear(server: &ServerAddr) -> bool {
    server.scheme() == "nats" && !is_here(server.host())
}

/// A stream of NATS JetStream whose messages come in as events. Whoever runs the server makes the stream; the
/// host makes the consumer.
#[derive(Debug, Clone)]
pub struct NatsSourceSettings {
    /// The address of a server, `nats` or `tls`. A server of a cluster tells the client of the others.
    pub server: ServerAddr,
    /// The name of the stream.
    pub stream: String,
    /// The subjects of the stream that are wanted. None: all.
    pub subject: Option<String>,
    /// The name of the durable consumer. The server keeps under it what was acknowledged.
    pub consumer: String,
    /// Where a consumer begins that the server does not know yet.
    pub begin: StartFrom,
    /// What the client proves itself with. None: with nothing.
    pub credentials: Option<NatsCredentials>,
}

impl NatsSourceSettings {
    /// Returns true for the name of a stream or a consumer: letters, digits, `-` and `_`.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        !text.contains('.') && NatsSettings::is_subject(text)
    }

    /// Returns true for subjects of a stream: words with dots between, of which one may be `*` and the last
    /// one `>`.
    #[must_use]
    pub fn is_filter(text: &str) -> bool {
        let is_all = text == ">";
        let words = text.strip_suffix(".>").unwrap_or(if is_all { "x" } else { text });
        let plain = |word| if word == "*" { "x" } else { word };
        NatsSettings::is_subject(&words.split('.').map(plain).collect::<Vec<_>>().join("."))
    }

    /// Returns true when everybody on the way to the server can read the events.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        is_server_in_clear(&self.server)
    }
}

impl fmt::Display for NatsSourceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.server.host(), self.server.port());
        write!(f, "{}://{host}:{port} {}", self.server.scheme(), self.stream)?;
        self.subject.as_ref().map_or(Ok(()), |subject| write!(f, " {subject}"))
    }
}

/// Where a new subscription, or a new consumer of a stream, begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// With the first event after the start of the host.
    #[default]
    Now,
    /// With the first event of the store or the stream.
    Start,
}

/// How much one request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// The most events. With 1 a request is a single event, otherwise a batch (CloudEvents).
    pub events_max: u32,
    /// The most bytes of event data; one event may have more.
    pub bytes_max: usize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { events_max: 1, bytes_max: 1 << 20 }
    }
}

/// What happens to an event that the receiver does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// The longest pause between two attempts.
    pub pause_max: Duration,
    /// After this many attempts that the receiver refused, the event is a dead letter.
    pub attempts_max: u32,
    /// After this time since its first attempt, the event is a dead letter.
    pub age_max: Duration,
    /// What happens to the later events of the same saga.
    pub after_dead_letter: AfterDeadLetter,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            pause_max: Duration::from_mins(5),
            attempts_max: 12,
            age_max: Duration::from_hours(72),
            after_dead_letter: AfterDeadLetter::GoOn,
        }
    }
}

/// What happens to the later events of a saga, one event of which is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterDeadLetter {
    /// They are delivered.
    #[default]
    GoOn,
    /// They are dead letters too, and wait in order for a redrive.
    Hold,
}
