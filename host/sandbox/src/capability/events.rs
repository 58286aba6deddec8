//! `amends:saga/events`.

use amends_engine::{Emitted, EventType, PAYLOAD_BYTES_MAX, Payload};

use crate::bindings::amends::saga::events::Host;
use crate::call::guest::Guest;
use crate::stopped::Stopped;

/// Events of one call.
pub(crate) const EVENTS_MAX: usize = 100;

/// Bytes of their data: as many as of one payload.
pub(crate) const EVENT_BYTES_OF_CALL_MAX: usize = PAYLOAD_BYTES_MAX;

impl Host for Guest {
    fn emit(&mut self, event_type: String, data: String) -> wasmtime::Result<()> {
        self.host_call()?;
        self.need("events")?;
        let refuse = |message: String| Err(Stopped::new("event_refused", message).into());
        let Some(id) = &self.id else {
            return refuse("a component emits events while it is called, not before".to_owned());
        };
        if id.is_probe {
            return refuse("a probe only looks, and emits no events".to_owned());
        }
        if self.effects.emitted.len() >= EVENTS_MAX {
            return refuse(format!("a call emits at most {EVENTS_MAX} events"));
        }
        if self.granted.secrets.redact(&event_type) != event_type {
            return refuse("the type of an event has a secret of the plugin in it".to_owned());
        }
        let kind = match event_type.parse::<EventType>() {
            Ok(kind) => kind,
            Err(error) => return refuse(error.to_string()),
        };
        self.emitted_bytes += data.len();
        if self.emitted_bytes > EVENT_BYTES_OF_CALL_MAX {
            return refuse(format!(
                "the events of a call have at most {EVENT_BYTES_OF_CALL_MAX} bytes together"
            ));
        }
        match Payload::parse(&data) {
            Ok(data) => self.effects.emitted.push(Emitted { kind, data }),
            Err(error) => return refuse(format!("the data of a `{kind}` event: {error}")),
        }
        Ok(())
    }
}
