//! What a component logs and prints while it is tested.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::on_one_line;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Lines that are kept of one check.
const LINES_MAX: usize = 200;

/// The lines that were said and not yet taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// Hears what components say from now on, in this process.
    pub(super) fn listen() -> Self {
        let said = Self::default();
        let heard = tracing_subscriber::registry().with(Listener(said.clone()));
        // Another one is never there: each verb is a process of its own.
        let _ = tracing::subscriber::set_global_default(heard);
        said
    }

    /// The lines since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Listener(Said);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The host writes the lines of components under this name.
        if event.metadata().target() != "plugin" {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level().as_str();
        let mut said = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = on_one_line(&format!("{level:<5} {}{}", line.message, line.fields)).into_owned();
        match said.len().cmp(&LINES_MAX) {
            Ordering::Less => said.push(line),
            Ordering::Equal => said.push(format!("… and more than these {LINES_MAX} lines")),
            Ordering::Greater => {}
        }
    }
}

/// A line, without what the host adds: the test itself says which call it is of.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let to = match field.name() {
            "message" => &mut self.message,
            "fields" => {
                self.fields.push(' ');
                &mut self.fields
            }
            _ => return,
        };
        // Writing to a text does not fail.
        let _ = write!(to, "{value:?}");
    }
}
