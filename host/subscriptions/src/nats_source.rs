//! Events that come in from streams of NATS JetStream.
//!
//! Each source is a durable pull consumer. A message is acknowledged when what its event does is durable, so
//! the stream delivers again what was cut off. A message that fails again and again is terminated: the stream
//! keeps it, and delivers it no more.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{AckKind, Message};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::answer::with_causes;
use crate::incoming::{IncomingError, IncomingEvent};
use crate::limits::{
    PAUSE_FIRST, SOURCE_AGE_MAX, SOURCE_ATTEMPTS_MAX, SOURCE_MESSAGES_MAX, SOURCE_PAUSE_MAX,
    SOURCE_PENDING_MAX,
};
use crate::local::NotTaken;
use crate::nats_client::{LastError, connect};
use crate::settings::{NatsSourceSettings, StartFrom};
use crate::stop::stopped;

/// How often the server says that it is there, while it has no messages.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What the names of the headers begin with that have attributes of an event.
const ATTRIBUTE_PREFIX: &str = "ce-";

/// Takes the events of a source within the host.
pub trait TakesIncoming: fmt::Debug + Send + Sync {
    /// Takes an event, and returns when what it does is durable. The event may come again.
    fn take(&self, event: IncomingEvent) -> BoxFuture<'_, Result<(), NotTaken>>;

    /// Hears of a message that is no event.
    fn refuse(&self, why: &str);

    /// Hears that messages come, or why none do.
    fn is_away(&self, why: Option<String>);
}

/// The sources of a host.
#[derive(Debug)]
pub struct NatsSources {
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl NatsSources {
    /// Begins to take the messages of sources. A server that is not there is tried again without end.
    #[must_use]
    pub fn open(sources: Vec<(NatsSourceSettings, Arc<dyn TakesIncoming>)>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let run = |(settings, taker): (NatsSourceSettings, Arc<dyn TakesIncoming>)| {
            let source = Source { settings, taker, last_error: LastError::default() };
            tokio::spawn(source.run(stopping.clone()))
        };
        let tasks = sources.into_iter().map(run).collect();
        Self { tasks: Mutex::new(tasks), stop }
    }

    /// Stops taking messages. Those that are being taken then come again. A second call returns at once.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

struct Source {
    settings: NatsSourceSettings,
    taker: Arc<dyn TakesIncoming>,
    last_error: LastError,
}

impl Source {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut has_begun = false;
            tokio::select! {
                () = stopped(&mut stop) => return,
                error = self.consume(&mut has_begun) => self.taker.is_away(Some(with_causes(&*error))),
            }
            // A connection that was lost is tried at once.
            pause = if has_begun { PAUSE_FIRST } else { (pause * 2).min(SOURCE_PAUSE_MAX) };
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes messages until something fails.
    async fn consume(&self, has_begun: &mut bool) -> BoxError {
        let failed = async {
            let mut messages = self.messages().await?;
            *has_begun = true;
            self.taker.is_away(None);
            let mut taking = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(()) = taking.next() => {}
                    message = messages.next(), if taking.len() < SOURCE_MESSAGES_MAX => {
                        let message = message.ok_or("the server has ended the consumer")??;
                        taking.push(self.take(message));
                    }
                }
            }
        };
        let failed: Result<std::convert::Infallible, BoxError> = failed.await;
        match failed {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn messages(&self) -> Result<pull::Stream, BoxError> {
        let NatsSourceSettings { server, stream, credentials, .. } = &self.settings;
        let client = connect(server, credentials.as_ref(), &self.last_error).await?;
        let jetstream = jetstream::new(client);
        let stream = jetstream.get_stream(stream).await?;
        // A consumer that is there gets these settings. The server refuses what it cannot change.
        let consumer = stream.create_consumer(self.consumer(&stream).await?).await?;
        let messages = consumer.stream().max_messages_per_batch(SOURCE_MESSAGES_MAX);
        Ok(messages.heartbeat(HEARTBEAT).messages().await?)
    }

    /// The settings of the consumer. One that is there keeps the place where it began.
    async fn consumer(&self, stream: &Stream) -> Result<pull::Config, BoxError> {
        let NatsSourceSettings { subject, consumer, begin, .. } = &self.settings;
        let deliver_policy = match (stream.consumer_info(consumer).await, begin) {
            (Ok(info), _) => info.config.deliver_policy,
            (Err(error), _) if error.kind() != ConsumerInfoErrorKind::NotFound => {
                return Err(error.into());
            }
            (Err(_), StartFrom::Now) => DeliverPolicy::New,
            (Err(_), StartFrom::Start) => DeliverPolicy::All,
        };
        Ok(pull::Config {
            durable_name: Some(consumer.clone()),
            filter_subject: subject.clone().unwrap_or_default(),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            max_deliver: -1,
            max_ack_pending: SOURCE_PENDING_MAX,
            ..pull::Config::default()
        })
    }

    async fn take(&self, message: Message) {
        let info = message.info().ok();
        let sequence = info.as_ref().map_or(0, |info| info.stream_sequence);
        let delivered =
            info.as_ref().and_then(|info| u32::try_from(info.delivered).ok()).unwrap_or(1);
        let age = info.and_then(|info| SystemTime::from(info.published).elapsed().ok());
        let age = age.unwrap_or_default();
        let answer = match event_of(&message) {
            Err(error) => {
                self.taker.refuse(&error.to_string());
                self.terminated(sequence, &error.to_string());
                AckKind::Term
            }
            Ok(event) => {
                let taken = self.taker.take(event).await;
                let answer = answer_to(taken.as_ref(), delivered, age);
                if let (Err(NotTaken { error, .. }), AckKind::Term) = (&taken, &answer) {
                    self.terminated(sequence, error);
                }
                answer
            }
        };
        // The stream delivers it again when it does not hear this.
        if let Err(error) = message.ack_with(answer).await {
            tracing::debug!(consumer = self.settings.consumer, %error, "a message is not acknowledged");
        }
    }

    fn terminated(&self, sequence: u64, error: &str) {
        let NatsSourceSettings { stream, consumer, .. } = &self.settings;
        tracing::warn!(
            stream,
            consumer,
            sequence,
            error,
            "a message of NATS cannot be taken; the stream keeps it and delivers it no more"
        );
    }
}

/// Says what a stream is told of a message that was delivered so often, and is so old.
fn answer_to(taken: Result<&(), &NotTaken>, delivered: u32, age: Duration) -> AckKind {
    let is_over = |error: &NotTaken| {
        let may_come = error.is_passing || (error.is_early && age < SOURCE_AGE_MAX);
        !may_come && delivered >= SOURCE_ATTEMPTS_MAX
    };
    match taken {
        Ok(()) => AckKind::Ack,
        Err(error) if is_over(error) => AckKind::Term,
        Err(_) => {
            let doubled = 2_u32.saturating_pow(delivered.saturating_sub(1).min(16));
            AckKind::Nak(Some((PAUSE_FIRST * doubled).min(SOURCE_PAUSE_MAX)))
        }
    }
}

/// Reads the event of a message: in JSON, or with its attributes in headers (the NATS protocol binding of
/// CloudEvents).
fn event_of(message: &Message) -> Result<IncomingEvent, IncomingError> {
    let text =
        str::from_utf8(&message.payload).map_err(|error| IncomingError::Json(error.to_string()))?;
    let mut attributes = BTreeMap::new();
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let name = name.to_string().to_ascii_lowercase();
        if let (Some(attribute), Some(value)) =
            (name.strip_prefix(ATTRIBUTE_PREFIX), values.first())
        {
            attributes.insert(attribute.to_owned(), value.as_str().to_owned());
        }
    }
    if attributes.is_empty() {
        return IncomingEvent::parse(text);
    }
    IncomingEvent::of_attributes(attributes, Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_again_and_terminated_in_the_end() {
        let error = |is_passing| NotTaken { error: String::new(), is_passing, is_early: false };
        let nak = |seconds| format!("{:?}", AckKind::Nak(Some(Duration::from_secs(seconds))));
        let answer = |taken: Result<(), NotTaken>, delivered| {
            format!("{:?}", answer_to(taken.as_ref(), delivered, SOURCE_AGE_MAX))
        };
        assert_eq!(answer(Ok(()), 9), "Ack");
        for (delivered, seconds) in [(0, 1), (1, 1), (2, 2), (7, 60)] {
            assert_eq!(answer(Err(error(false)), delivered), nak(seconds));
            assert_eq!(answer(Err(error(true)), delivered), nak(seconds));
        }
        assert_eq!(answer(Err(error(false)), SOURCE_ATTEMPTS_MAX), "Term");
        assert_eq!(answer(Err(error(true)), u32::MAX), nak(60), "the host was full");
    }

    #[test]
    fn a_message_that_comes_before_its_saga_waits_for_three_days() {
        let early = NotTaken { error: String::new(), is_passing: false, is_early: true };
        let answer = |age| format!("{:?}", answer_to(Err(&early), 4_000, age));
        let last = Duration::from_hours(71);
        assert_eq!(answer(last), format!("{:?}", AckKind::Nak(Some(SOURCE_PAUSE_MAX))));
        assert_eq!(answer(SOURCE_AGE_MAX), "Term");
    }
}
