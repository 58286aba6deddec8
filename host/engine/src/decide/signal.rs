//! Whether a saga takes a signal, and what follows.

use super::draft::Draft;
use crate::event::SignalReceived;
use crate::ids::SignalName;
use crate::order::Refusal;
use crate::saga::{Saga, Signal};

/// The most signals that a saga keeps until its steps take them.
const SIGNALS_MAX: usize = 256;

/// Checks that a saga takes a new signal now: some step waits for it, or will.
///
/// # Errors
/// When the saga has ended, no step ever waits for that signal, no step will wait for it any more,
/// the log of the saga is full, or the saga keeps too many signals.
pub fn permits_signal(saga: &Saga, name: &SignalName) -> Result<(), Refusal> {
    let refuse = |message: String, remedy: String| Err(Refusal { message, remedy });
    if saga.has_ended() {
        let message = format!("the saga is {}", saga.status());
        return refuse(message, "nothing waits for a signal any more".to_owned());
    }
    if !saga.definition.signals().any(|known| known == name) {
        let known: Vec<_> = saga.definition.signals().map(SignalName::as_str).collect();
        let remedy = if known.is_empty() {
            "its definition waits for no signal".to_owned()
        } else {
            format!("it waits for {}", known.join(", "))
        };
        return refuse(format!("no step of the saga waits for `{name}`"), remedy);
    }
    if !saga.may_take(name) {
        let message = format!("no step of the saga will wait for `{name}` any more");
        return refuse(message, "ask why the saga is where it is".to_owned());
    }
    if saga.is_log_full() {
        let message = "the log of the saga is full".to_owned();
        return refuse(message, "`amends resume` allows more events".to_owned());
    }
    if saga.signals.len() >= SIGNALS_MAX {
        let message = format!("{SIGNALS_MAX} signals came already");
        return refuse(message, "send each signal once, with an id".to_owned());
    }
    Ok(())
}

impl Draft<'_> {
    /// Records a signal. One that came before changes nothing.
    ///
    /// # Errors
    /// As [`permits_signal`].
    pub(super) fn signal(&mut self, signal: SignalReceived) -> Result<(), Refusal> {
        let is_same = |known: &Signal| known.name == signal.name && known.id == signal.id;
        let came_before = signal.id.is_some() && self.saga.signals.iter().any(is_same);
        if !came_before {
            permits_signal(self.saga, &signal.name)?;
            self.emit(signal);
        }
        Ok(())
    }
}
