//! Starts sagas on a host, and waits for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;

use amends_api_types::SagaView;
use amends_engine::Timestamp;

use crate::commands::client::{Client, accepted, escape, refused, retry_after};
use crate::commands::exit::{EXIT_ERROR, EXIT_NOT_FOUND, EXIT_WAIT_ENDED, Failed, of_status};

/// How long a start that the host is too busy for is sent again.
const BUSY_MAX: Duration = Duration::from_mins(1);

/// One request waits this long; a longer wait is several. Proxies cut off what is silent for a
/// minute.
const WAIT_PER_REQUEST: Duration = Duration::from_secs(30);

/// Between two requests of a wait, however soon a host answers.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// What a start sends.
#[derive(serde::Serialize)]
struct Body<'a> {
    definition: &'a str,
    input: &'a RawValue,
    tags: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_at: Option<Timestamp>,
}

/// Why a start came to no saga.
pub(super) enum NotStarted {
    /// The host refused it, so no saga was started.
    Refused(anyhow::Error),
    /// The host could not be reached, so it was not asked.
    NotSent(anyhow::Error),
    /// It was sent, and whether a saga was started is not known.
    NoAnswer(anyhow::Error),
}

pub(super) struct Starter<'a> {
    pub(super) client: Client,
    pub(super) definition: &'a str,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) start_at: Option<Timestamp>,
    pub(super) wait: Option<Duration>,
}

impl Starter<'_> {
    /// Starts one, and comes back when the host is too busy. With a wait, answers it as it rests or
    /// as it is when one request has waited long enough; and when that was sent.
    pub(super) async fn start(
        &self,
        input: &RawValue,
        key: Option<&str>,
    ) -> Result<(SagaView, Instant), NotStarted> {
        let (definition, tags, start_at) = (self.definition, &self.tags, self.start_at);
        let body = Body { definition, input, tags, start_at };
        let came = Instant::now();
        loop {
            let sent = Instant::now();
            let path = format!("/v1/sagas{}", self.wait.map_or_else(String::new, wait_query));
            let mut request = self.client.request(Method::POST, &path).json(&body);
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let response = request.send().await.map_err(|error| {
                let told = self.client.unreachable(&error);
                if error.is_connect() {
                    NotStarted::NotSent(told)
                } else {
                    NotStarted::NoAnswer(told)
                }
            })?;
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                let pause = retry_after(&response).max(ASK_PAUSE);
                if came.elapsed().saturating_add(pause) > BUSY_MAX {
                    let status = response.status();
                    let last = refused(status, &response.text().await.unwrap_or_default());
                    let message =
                        format!("the start was refused for {BUSY_MAX:?}: {}", last.message);
                    return Err(NotStarted::Refused(Failed { exit: EXIT_ERROR, message }.into()));
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            // A host that fails on the way may have started it; one without room has not.
            let status = response.status();
            let is_sure = !status.is_server_error() || status == StatusCode::INSUFFICIENT_STORAGE;
            let response = accepted(response).await.map_err(|error| {
                if is_sure { NotStarted::Refused(error) } else { NotStarted::NoAnswer(error) }
            })?;
            let saga = response.json().await.context("the host's answer cannot be read");
            return saga.map(|saga| (saga, sent)).map_err(NotStarted::NoAnswer);
        }
    }

    /// With a wait, goes on waiting: a host answers before a long wait is over. `saw` is told how the
    /// saga stands meanwhile.
    pub(super) async fn rested(
        &self,
        mut saga: SagaView,
        sent: Instant,
        saw: impl Fn(&SagaView),
    ) -> anyhow::Result<SagaView> {
        let Some(wait) = self.wait else { return Ok(saga) };
        while of_status(&saga.status) == EXIT_WAIT_ENDED {
            let left = wait.saturating_sub(sent.elapsed());
            if left.is_zero() {
                break;
            }
            saw(&saga);
            tokio::time::sleep(ASK_PAUSE.min(left)).await;
            let query = wait_query(wait.saturating_sub(sent.elapsed()));
            let id = escape(&saga.id);
            saga = self.client.get(&format!("/v1/sagas/{id}{query}")).await.with_context(|| {
                format!("saga {id} is started; it could not be waited for until it rests")
            })?;
        }
        Ok(saga)
    }

    /// What a person wants to know of a start that failed.
    pub(super) async fn explain(&self, error: NotStarted) -> anyhow::Error {
        match error {
            NotStarted::NotSent(error) => error,
            NotStarted::NoAnswer(error) => error.context(
                "whether the saga was started is not known; the same command with the same --key \
                 starts it at most once",
            ),
            NotStarted::Refused(error) => {
                let exit = error.downcast_ref::<Failed>().map(|failed| failed.exit);
                if exit == Some(EXIT_NOT_FOUND)
                    && let Err(unknown) = self.check_definition().await
                {
                    return unknown;
                }
                error
            }
        }
    }

    /// Whether the host knows the definition. One that does not tell is taken to know it.
    pub(super) async fn check_definition(&self) -> anyhow::Result<()> {
        match self.client.unknown_definition(self.definition).await {
            Ok(None) => Ok(()),
            Ok(Some(unknown)) => Err(unknown.into()),
            Err(error) if error.is::<Failed>() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Asks a host to answer when the saga rests, in a request of a length that nothing on the way
/// cuts off.
fn wait_query(wait: Duration) -> String {
    format!("?wait={}ms", wait.min(WAIT_PER_REQUEST).as_millis())
}
