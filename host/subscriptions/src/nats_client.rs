//! Connections to NATS servers.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};

use crate::limits::CONNECT_TIMEOUT;
use crate::settings::NatsCredentials;

/// What the server or the client has last said of a connection. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    /// Returns the words for an operator.
    pub(crate) fn text(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().unwrap_or_else(|| "it is lost".to_owned())
    }

    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Connects to a server, or to the cluster that it belongs to. A connection that is lost comes back by
/// itself.
pub(crate) async fn connect(
    server: &ServerAddr,
    credentials: Option<&NatsCredentials>,
    last_error: &LastError,
) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let last_error = last_error.clone();
    let mut options = ConnectOptions::new()
        .name("amends")
        .connection_timeout(CONNECT_TIMEOUT)
        // Also for the servers of which the first one tells.
        .require_tls(server.scheme() == "tls")
        .tls_client_config(amends_sandbox::system_tls())
        .event_callback(move |event| {
            let error = match event {
                Event::ServerError(error) => Some(error.to_string()),
                Event::ClientError(error) => Some(error.to_string()),
                Event::Connected => None,
                Event::Disconnected
                | Event::LameDuckMode
                | Event::Draining
                | Event::Closed
                | Event::SlowConsumer(_) => return std::future::ready(()),
            };
            last_error.set(error);
            std::future::ready(())
        });
    if let Some(credentials) = credentials {
        options = options.credentials(credentials.reveal())?;
    }
    Ok(options.connect(server.clone()).await?)
}
