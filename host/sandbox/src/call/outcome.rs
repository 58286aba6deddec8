//! What a component answered, as the outcome that is recorded.

use std::borrow::Cow;
use std::time::Instant;

use amends_engine::{Direction, Emitted, Failure, Outcome, Payload};

use crate::bindings::amends::saga::types;
use crate::call::answer::{Answer, PluginCall};
use crate::call::effects::Effects;
use crate::capability::grant::Grant;
use crate::component::loaded::{LoadedComponent, READ_CHECK_MAX};
use crate::component::timed_checker::Unfit;
use crate::cut::cut_message;

/// An outcome with what is recorded with it.
pub(crate) fn told(
    outcome: Outcome,
    effects: Effects,
    granted: &Grant,
    call: &PluginCall,
) -> Answer {
    match &outcome {
        Outcome::Succeeded(_) | Outcome::NothingToUndo => {
            let emitted = effects.emitted.into_iter();
            let emitted = emitted.map(|event| clean_event(event, granted, call)).collect();
            Answer { effects: Effects { state: effects.state, emitted }, ..Answer::of(outcome) }
        }
        Outcome::Permanent(_) | Outcome::Retryable(_) => {
            Answer { effects: effects.seen(), ..Answer::of(outcome) }
        }
        // Nothing of it is done, whatever it saw.
        Outcome::Unknown(_) => Answer::of(outcome),
    }
}

/// Whether the input fits the component's schema, found out within the call's timeout; the
/// component is not called before.
pub(crate) async fn check_input(
    component: &LoadedComponent,
    call: &PluginCall,
) -> Result<(), Outcome> {
    if call.direction == Direction::Compensate {
        return Ok(());
    }
    let checked = component.takes_input_aside(&call.input);
    match tokio::time::timeout(call.timeout, checked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            let message = format!("the input does not fit the schema of {}: {why}", call.plugin);
            Err(Outcome::Permanent(Failure::new("invalid_input", cut_message(message))))
        }
        Err(_) => {
            let message = format!(
                "the input could not be checked against the schema of {} within the step's timeout \
                 of {:?}, so the component was not called; give it a simpler schema or less input",
                call.plugin, call.timeout
            );
            Err(Outcome::Retryable(Failure::new("timeout", message)))
        }
    }
}

/// The outcome of a call, unless it is an output that does not fit the component's own schema: later
/// steps and the undo rely on that, and its effect may stand. An output that could not be checked in time
/// is taken as it is.
pub(crate) async fn held_to_schema(
    component: &LoadedComponent,
    call: &PluginCall,
    outcome: Outcome,
    began: Instant,
) -> Outcome {
    // An undo answers with a receipt, of which no schema says anything.
    let (Outcome::Succeeded(output), Direction::Execute) = (&outcome, call.direction) else {
        return outcome;
    };
    // The answer came in time, so that there is always time to look at it.
    let left = call.timeout.saturating_sub(began.elapsed()).max(READ_CHECK_MAX);
    let checked = component.reads_output_within(output, left, left).await;
    held_to(checked, call, outcome)
}

/// The outcome of a call, when it is known whether its output fits.
fn held_to(checked: Result<(), Unfit>, call: &PluginCall, outcome: Outcome) -> Outcome {
    let why = match checked {
        Ok(()) => return outcome,
        Err(Unfit::Misfit(why)) => why,
        // Whoever reads it next checks it.
        Err(Unfit::NotChecked(why)) => {
            let PluginCall { plugin, saga_id, step, attempt, .. } = call;
            tracing::warn!(%plugin, %saga_id, %step, attempt, why, "the output is taken without a check against the component's schema");
            return outcome;
        }
    };
    let message = format!("the output does not fit the schema of {}: {why}", call.plugin);
    Outcome::Unknown(Failure::new("invalid_output", cut_message(message)))
}

/// What a component says of a request that the host refused is mostly less than the host knows.
pub(crate) fn with_refusal(outcome: Outcome, refused: Option<String>) -> Outcome {
    let Some(refused) = refused else { return outcome };
    let told = |mut failure: Failure| {
        failure.message = cut_message(format!("{} (the host: {refused})", failure.message));
        failure
    };
    match outcome {
        Outcome::Succeeded(_) | Outcome::NothingToUndo => outcome,
        Outcome::Permanent(failure) => Outcome::Permanent(told(failure)),
        Outcome::Retryable(failure) => Outcome::Retryable(told(failure)),
        Outcome::Unknown(failure) => Outcome::Unknown(told(failure)),
    }
}

fn clean_event(event: Emitted, granted: &Grant, call: &PluginCall) -> Emitted {
    let Cow::Owned(clean) = granted.secrets.redact_json(event.data.as_str()) else { return event };
    granted.warn_of_secret(&call.named(), "an event");
    let data = Payload::parse(&clean).unwrap_or_else(|_| unreadable("the data of the event"));
    Emitted { data, ..event }
}

/// The component was swapped for one that cannot serve the step: nothing was done, and a good
/// one may come.
pub(crate) fn missing(call: &PluginCall, export: &str) -> Outcome {
    let message =
        format!("the component {} of {} does not export {export}", call.digest, call.plugin);
    Outcome::Retryable(Failure::new("missing_export", message))
}

/// The answer is not taken as done when it cannot be recorded: the effect may stand.
pub(crate) fn succeeded(output: &str, granted: &Grant, call: &PluginCall) -> Outcome {
    let max = granted.settings.payload_bytes_max;
    if output.len() > max {
        let message = format!(
            "the component's answer has {} bytes and may have {max}; raise payload_max in [{}] or make \
             it answer less",
            output.len(),
            granted.settings.section()
        );
        return Outcome::Unknown(Failure::new("output_limit", message));
    }
    let clean = granted.secrets.redact_json(output);
    if let Cow::Owned(_) = &clean {
        granted.warn_of_secret(&call.named(), "an answer");
    }
    match Payload::parse(&clean) {
        Ok(output) => Outcome::Succeeded(output),
        Err(error) => {
            let message = format!("the component's answer cannot be recorded: {error}");
            Outcome::Unknown(Failure::new("invalid_output", cut_message(message)))
        }
    }
}

pub(crate) fn failed(failure: types::Failure, granted: &Grant, call: &PluginCall) -> Outcome {
    let warned = |clean: Cow<'_, str>| {
        if let Cow::Owned(_) = &clean {
            granted.warn_of_secret(&call.named(), "a failure");
        }
        clean.into_owned()
    };
    let convert = |error: types::Error| {
        let code = warned(granted.secrets.redact(&error.code));
        let message = warned(granted.secrets.redact(&error.message));
        let (code, message) = if is_code(&code) {
            (code, message)
        } else {
            let code: String = code.chars().take(CODE_BYTES_MAX).collect();
            (INVALID_CODE.to_owned(), format!("{message} (the component's own code is {code:?})"))
        };
        let details = error.details.map(|details| {
            let details = warned(granted.secrets.redact_json(&details));
            Payload::parse(&details).unwrap_or_else(|_| unreadable("the details"))
        });
        Failure {
            code,
            message: cut_message(message),
            retry_after_ms: error.retry_after_ms,
            details,
        }
    };
    match failure {
        types::Failure::Permanent(error) => Outcome::Permanent(convert(error)),
        types::Failure::Retryable(error) => Outcome::Retryable(convert(error)),
        types::Failure::Unknown(error) => Outcome::Unknown(convert(error)),
    }
}

/// A failure's code is at most this many bytes: it is a column of tables and a label of programs.
const CODE_BYTES_MAX: usize = 64;

/// Instead of a code that is none.
const INVALID_CODE: &str = "invalid_code";

/// Lower case, digits and `_`, beginning with a letter, as `saga.wit` says.
fn is_code(code: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    code.len() <= CODE_BYTES_MAX
        && code.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && code.bytes().all(is_part)
}

/// In place of what is no JSON, or none that every reader understands the same. The text itself is
/// not kept: nobody could look for secrets in it.
fn unreadable(what: &str) -> Payload {
    let text = format!("{what} of the component cannot be recorded: it is not valid JSON");
    Payload::from_value(&serde_json::Value::from(text)).unwrap_or_else(|_| Payload::null())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::time::Duration;

    use amends_engine::{Digest, SagaId, Timestamp};

    use super::*;

    #[test]
    fn an_output_that_could_not_be_checked_is_taken() {
        let call = PluginCall {
            plugin: "test".parse().unwrap(),
            digest: Digest::of(b""),
            state_of: "test".parse().unwrap(),
            saga_id: SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]),
            definition: "definition".parse().unwrap(),
            step: "step".parse().unwrap(),
            attempt: 1,
            direction: Direction::Execute,
            idempotency_key: String::new(),
            traceparent: None,
            is_traced: false,
            input: Payload::null(),
            output: None,
            timeout: Duration::from_secs(1),
        };
        let held = |checked| held_to(checked, &call, Outcome::Succeeded(Payload::null()));
        let taken = Outcome::Succeeded(Payload::null());
        assert_eq!(held(Ok(())), taken);
        assert_eq!(held(Err(Unfit::NotChecked("its schema took too long".to_owned()))), taken);
        let Outcome::Unknown(failure) = held(Err(Unfit::Misfit("/total: no".to_owned()))) else {
            panic!("it is taken");
        };
        assert_eq!(failure.code, "invalid_output");
        assert_eq!(failure.message, "the output does not fit the schema of test: /total: no");
    }
}
