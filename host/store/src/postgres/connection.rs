//! A connection, with the statements that it has prepared.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::error::{Result, answer};
use super::place::Place;

/// The most statements that a connection keeps. Lists have one for each set of filters.
const STATEMENTS_MAX: usize = 256;

/// A value of a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// A connection to the database.
pub(super) struct Pg {
    pub(super) client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// Answers may take as long as they take.
    is_patient: AtomicBool,
    /// The task that reads and writes the socket.
    task: AbortHandle,
}

impl Pg {
    /// Connects, and sets the session up. Runs in the runtime of the store, because the task of the
    /// connection stays there.
    pub(super) async fn connect(place: &Place, setup: &str) -> Result<Self> {
        let (client, connection) =
            answer(place.config.connect(place.tls.connector.clone())).await?;
        let task = tokio::spawn(async move {
            // Whoever uses the connection gets its error.
            let _ = connection.await;
        });
        let pg = Self {
            client,
            statements: Mutex::default(),
            is_patient: AtomicBool::new(false),
            task: task.abort_handle(),
        };
        answer(pg.client.batch_execute(setup)).await?;
        Ok(pg)
    }

    /// Has answers take as long as they take from now on: what reads or writes the whole store needs minutes.
    pub(super) fn be_patient(&self) {
        self.is_patient.store(true, Ordering::Relaxed);
    }

    /// Waits for an answer.
    async fn answer<T>(
        &self,
        waiting: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        if self.is_patient.load(Ordering::Relaxed) {
            return Ok(waiting.await?);
        }
        answer(waiting).await
    }

    /// Returns the prepared statement of some SQL.
    pub(super) async fn statement(&self, sql: &str) -> Result<Statement> {
        let known =
            self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let prepared = self.answer(self.client.prepare(sql)).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.insert(sql.to_owned(), prepared.clone());
        Ok(prepared)
    }

    /// Runs a statement, and returns its rows.
    pub(super) async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let statement = self.statement(sql).await?;
        self.answer(self.client.query(&statement, values)).await
    }

    /// Runs a statement with values of its own, and returns its rows.
    pub(super) async fn query_values(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        self.query(sql, &references(values)).await
    }

    /// Runs a statement, and returns its first row, if there is one.
    pub(super) async fn first(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Returns true when a statement has a row.
    pub(super) async fn exists(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<bool> {
        Ok(self.first(sql, values).await?.is_some())
    }

    /// Runs a statement, and returns how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let statement = self.statement(sql).await?;
        self.answer(self.client.execute(&statement, values)).await
    }

    /// Runs statements without values.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.answer(self.client.batch_execute(sql)).await
    }
}

impl Drop for Pg {
    /// Closes the connection at once, also when the server does not answer.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns values as the driver takes them.
pub(super) fn references(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}
