//! A broken rule, and how to see it again.

use std::fmt;
use std::sync::Arc;

use crate::{Definition, Event, Timestamp};

/// A rule that was broken, and how to see it again.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The rule as a sentence.
    pub rule: String,
    /// The definition of the saga.
    pub definition: Arc<Definition>,
    /// The actions that led there, in order.
    pub actions: Vec<String>,
    /// The log by then.
    pub log: Vec<(Timestamp, Arc<Event>)>,
}

impl Violation {
    /// Adds the actions that led there.
    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and every caller boxes it")]
    pub(super) fn after<A: fmt::Debug>(mut self: Box<Self>, actions: &[A]) -> Box<Self> {
        self.actions = actions.iter().map(|action| format!("{action:?}")).collect();
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.rule)?;
        writeln!(f, "definition: {}", self.definition.canonical())?;
        writeln!(f, "actions: {}", self.actions.join(", "))?;
        writeln!(f, "log:")?;
        for (at, event) in &self.log {
            writeln!(f, "  {:>8} {} {}", at.as_millis(), event.kind(), event.data())?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
