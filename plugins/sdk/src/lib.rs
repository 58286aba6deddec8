//! Write steps and undos for Amends in Rust.
//!
//! A plugin is a type with an input and an output, what it does and how that is undone, and one
//! macro line. Its manifest, with JSON Schemas, comes by itself.
//!
//! ```
//! use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Order { order_id: String }
//!
//! #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! struct Ticket { number: String }
//!
//! struct Ticketing;
//!
//! impl Plugin for Ticketing {
//!     const SUMMARY: &'static str = "Opens a ticket.";
//!     type Input = Order;
//!     type Output = Ticket;
//! }
//!
//! impl Execute for Ticketing {
//!     fn execute(call: &Call, order: Order) -> Result<Ticket, Failure> {
//!         if order.order_id.is_empty() {
//!             return Err(Failure::permanent("no_order", "the order has no id"));
//!         }
//!         Ok(Ticket { number: call.effect_id("TCK") })
//!     }
//! }
//!
//! impl Compensate for Ticketing {
//!     fn compensate(call: &Call, _: Order, _: Option<Ticket>) -> Result<Undone, Failure> {
//!         Undone::done(&Ticket { number: call.effect_id("TCK") })
//!     }
//! }
//!
//! amends_sdk::step!(Ticketing);
//! ```
//!
//! # Two rules that the host counts on
//! **The same call twice does one effect.** A call whose answer was lost is called again, with the
//! same idempotency key. Hand the key to the service that you call, or name the effect by
//! [`Call::effect_id`], which is the same for every attempt.
//!
//! **An undo that finds nothing to undo succeeds**, with [`Undone::nothing`]. It is called with no
//! output when nobody knows whether the step happened; then find out by the effect's id, or undo
//! by it blindly if that does no harm. To fail there would block the saga for nothing.
//!
//! # A call whose answer was lost
//! A step can also tell what became of such a call: it implements [`Probe`] as well, and ends with
//! [`step_with_probe!`] in place of [`step!`]. Then the host asks before it calls again. "It did not
//! happen" means that it will not either: the request of a host that was killed may still be on its
//! way, so that a probe has the service refuse it from then on. The host believes it once the call's
//! own timeout has passed since it began; until then it takes it as unclear, and calls again with
//! the same idempotency key.
//!
//! # What a plugin may use
//! [`setting`] and [`secret`], [`log`], what it keeps ([`state`]), what it tells ([`events`]) and,
//! with the feature `http`, services over HTTP. All but the log are granted in `[plugin.NAME]` of
//! the config; [`Plugin::NEEDS`] says which of them it needs. The time is [`now`], a random number is
//! [`random_u64`].
//!
//! # A panic
//! A component that panics is stopped, and its call is unknown. The host logs the message and the place
//! of the panic, and the failure of the call names them.
//!
//! Deliberately absent: async (a call is one thread), memory that lasts from one call to the next
//! (each has a fresh instance).

mod bindings;
mod chance;
pub mod events;
#[cfg(any(target_family = "wasm", test))]
mod heap;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
#[cfg(target_family = "wasm")]
mod panics;
mod settings;
pub mod state;

use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use bindings::types::{Call, Direction, Error, Failure};
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use bindings::worlds;
pub use chance::{now, random_bytes, random_u64};
#[cfg(not(target_family = "wasm"))]
pub use settings::with_settings;
pub use settings::{granted, secret, setting};

#[cfg(target_family = "wasm")]
#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

/// What a component is about.
pub trait Plugin {
    /// One sentence for people.
    const SUMMARY: &'static str;
    /// The service that it calls, if there is one: a name for breakers and limits.
    const SERVICE: Option<&'static str> = None;
    /// The capabilities that it cannot do without: `config`, `state`, `events`, `http`. While one is
    /// not granted, the host refuses the component; of others it asks with [`granted`].
    const NEEDS: &'static [&'static str] = &[];
    /// What `execute` is given.
    type Input: DeserializeOwned + JsonSchema;
    /// What `execute` answers and the undo reads.
    type Output: Serialize + DeserializeOwned + JsonSchema;
}

/// Does a step.
pub trait Execute: Plugin {
    /// Does the step once, however often it is called with the same idempotency key.
    ///
    /// # Errors
    /// [`Failure::permanent`] and [`Failure::retryable`] when no effect stands,
    /// [`Failure::unknown`] when one may.
    fn execute(call: &Call, input: Self::Input) -> Result<Self::Output, Failure>;
}

/// Undoes a step.
pub trait Compensate: Plugin {
    /// Undoes the step once, however often it is called with the same idempotency key. `output`
    /// is none when nobody knows whether the step happened. Succeeds when there is nothing to undo.
    ///
    /// # Errors
    /// When it could not be undone; a permanent failure blocks the saga until an operator acts.
    fn compensate(
        call: &Call,
        input: Self::Input,
        output: Option<Self::Output>,
    ) -> Result<Undone, Failure>;
}

/// Tells what became of a call whose answer was lost.
///
/// ```
/// # use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone};
/// use amends_sdk::{Direction, Fate, Probe};
///
/// # struct Ticketing;
/// # impl Plugin for Ticketing {
/// #     const SUMMARY: &'static str = "Opens a ticket.";
/// #     type Input = ();
/// #     type Output = String;
/// # }
/// # impl Execute for Ticketing {
/// #     fn execute(call: &Call, (): ()) -> Result<String, Failure> { Ok(call.effect_id("TCK")) }
/// # }
/// # impl Compensate for Ticketing {
/// #     fn compensate(_: &Call, (): (), _: Option<String>) -> Result<Undone, Failure> {
/// #         Ok(Undone::nothing())
/// #     }
/// # }
/// # fn is_open_or_closed_to(_: &str, _attempt: u32) -> Option<bool> { Some(true) }
/// impl Probe for Ticketing {
///     fn probe(call: &Call, direction: Direction, (): ()) -> Result<Fate<String>, Failure> {
///         let ticket = call.effect_id("TCK");
///         // Not a look alone: a request of this attempt may still be on its way. A service that
///         // answers that there is no ticket refuses this attempt, and those before it, from then
///         // on; the next one goes through.
///         Ok(match (direction, is_open_or_closed_to(&ticket, call.attempt)) {
///             (Direction::Execute, Some(true)) => Fate::Happened(ticket),
///             (Direction::Compensate, Some(false)) => Fate::Undone(Undone::done(&ticket)?),
///             (_, Some(_)) => Fate::DidNotHappen,
///             (_, None) => Fate::Unclear,
///         })
///     }
/// }
///
/// amends_sdk::step_with_probe!(Ticketing);
/// ```
pub trait Probe: Execute + Compensate {
    /// Finds out what became of the call of `direction` with the idempotency key of `call`. Does
    /// nothing itself, and may be asked more than once.
    ///
    /// # Errors
    /// When it cannot be found out now; the host then takes it as [`Fate::Unclear`].
    fn probe(
        call: &Call,
        direction: Direction,
        input: Self::Input,
    ) -> Result<Fate<Self::Output>, Failure>;
}

/// What became of a call. `T` is the step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate<T> {
    /// The step happened, with this output. Of [`Direction::Execute`] only.
    Happened(T),
    /// The undo happened. Of [`Direction::Compensate`] only.
    Undone(Undone),
    /// It did not happen, and will not: the host calls again.
    DidNotHappen,
    /// It cannot be told now.
    Unclear,
}

/// What an undo did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Done(String),
    Nothing,
}

impl Undone {
    /// The effect was undone; the receipt is kept in the saga's history.
    ///
    /// # Errors
    /// When the receipt cannot be written as JSON.
    pub fn done<T: Serialize>(receipt: &T) -> Result<Self, Failure> {
        Ok(Self(Kind::Done(to_json(receipt)?)))
    }

    /// There was nothing to undo.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(Kind::Nothing)
    }

    /// The receipt, as JSON; none when there was nothing to undo.
    #[must_use]
    pub fn receipt(&self) -> Option<&str> {
        match &self.0 {
            Kind::Done(receipt) => Some(receipt),
            Kind::Nothing => None,
        }
    }
}

impl Failure {
    /// No effect stands, another attempt would not help.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Permanent(error(code, message))
    }

    /// No effect stands, another attempt may help.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retryable(error(code, message))
    }

    /// The effect may stand.
    pub fn unknown(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unknown(error(code, message))
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Self::Permanent(error) | Self::Retryable(error) | Self::Unknown(error) => error,
        }
    }
}

fn error(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error { code: code.into(), message: message.into(), retry_after_ms: None, details: None }
}

impl Call {
    /// A name for the effect of this step of this saga: the same for every attempt, and for the
    /// undo as for the step, so that an undo without an output can name what it undoes.
    /// 60 bits of FNV-1a over the saga's id and the step, in Crockford's base 32.
    #[must_use]
    pub fn effect_id(&self, prefix: &str) -> String {
        const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bytes = self.saga_id.bytes().chain([0]).chain(self.step.bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The last bytes hardly reach the high bits of FNV.
        hash ^= hash >> 29;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut text = String::from(prefix);
        for group in 0..3 {
            text.push('-');
            for place in 0..4 {
                let digit = hash >> (59 - 5 * (group * 4 + place)) & 31;
                text.push(char::from(DIGITS[usize::try_from(digit).unwrap_or(0)]));
            }
        }
        text
    }
}

#[doc(hidden)]
pub struct About {
    pub package: &'static str,
    pub version: &'static str,
}

#[doc(hidden)]
#[must_use]
pub fn describe<P: Plugin>(about: &About) -> bindings::Description {
    #[cfg(target_family = "wasm")]
    panics::report();
    let name = about.package.strip_prefix("amends-plugin-").unwrap_or(about.package);
    bindings::Description {
        name: name.to_owned(),
        version: about.version.to_owned(),
        summary: P::SUMMARY.to_owned(),
        input_schema: schema_for!(P::Input).as_value().to_string(),
        output_schema: schema_for!(P::Output).as_value().to_string(),
        service: P::SERVICE.map(str::to_owned),
        needs: P::NEEDS.iter().map(|need| (*need).to_owned()).collect(),
    }
}

#[doc(hidden)]
pub fn execute<P: Execute>(call: &Call, input: &str) -> Result<String, Failure> {
    #[cfg(target_family = "wasm")]
    panics::report();
    to_json(&P::execute(call, from_json(input, "input")?)?)
}

#[doc(hidden)]
pub fn compensate<P: Compensate>(
    call: &Call,
    input: &str,
    output: Option<&str>,
) -> Result<Undone, Failure> {
    #[cfg(target_family = "wasm")]
    panics::report();
    let output = output.map(|output| from_json(output, "output")).transpose()?;
    P::compensate(call, from_json(input, "input")?, output)
}

/// The fate with what happened, output or receipt, as JSON; never [`Fate::Undone`].
#[doc(hidden)]
pub fn probe<P: Probe>(
    call: &Call,
    direction: Direction,
    input: &str,
) -> Result<Fate<String>, Failure> {
    #[cfg(target_family = "wasm")]
    panics::report();
    let fate = P::probe(call, direction, from_json(input, "input")?)?;
    match (direction, fate) {
        (Direction::Execute, Fate::Happened(output)) => to_json(&output).map(Fate::Happened),
        (Direction::Compensate, Fate::Undone(undone)) => {
            Ok(Fate::Happened(undone.receipt().unwrap_or("null").to_owned()))
        }
        (Direction::Execute, Fate::Undone(_)) | (Direction::Compensate, Fate::Happened(_)) => {
            Err(Failure::unknown("invalid_fate", "the probe told of the other direction"))
        }
        (_, Fate::DidNotHappen) => Ok(Fate::DidNotHappen),
        (_, Fate::Unclear) => Ok(Fate::Unclear),
    }
}

fn from_json<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::permanent(format!("invalid_{what}"), format!("the {what} cannot be read: {error}"))
    })
}

fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::unknown("invalid_output", format!("not JSON: {error}")))
}

/// Makes a component that does a step and undoes it. The type implements [`Execute`] and
/// [`Compensate`].
#[macro_export]
macro_rules! step {
    ($plugin:ty) => {
        $crate::__component!($plugin, step, action undo);
    };
}

/// Makes a component that does a step, undoes it, and tells what became of a call whose answer was
/// lost. The type implements [`Execute`], [`Compensate`] and [`Probe`]. Needs the feature
/// `step-probe` and no other: `amends-sdk = { …, default-features = false, features =
/// ["step-probe"] }`.
#[macro_export]
macro_rules! step_with_probe {
    ($plugin:ty) => {
        $crate::__component!($plugin, step_probe, action undo probe);
    };
}

/// Makes a component that does a step and cannot undo it: there is nothing to undo, or another
/// component does. The type implements [`Execute`]. Needs the feature `step-only` and no other.
#[macro_export]
macro_rules! step_only {
    ($plugin:ty) => {
        $crate::__component!($plugin, step_only, action);
    };
}

/// Makes a component that undoes what another one does. The type implements [`Compensate`]. Needs
/// the feature `undo-only` and no other.
#[macro_export]
macro_rules! undo_only {
    ($plugin:ty) => {
        $crate::__component!($plugin, undo_only, undo);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    ($plugin:ty, $world:ident, $($interface:ident)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the entry points of the canonical ABI")]
        const _: () = {
            struct Component;

            impl $crate::worlds::$world::exports::amends::saga::manifest::Guest for Component {
                fn describe() -> $crate::worlds::$world::exports::amends::saga::manifest::Description {
                    let description = $crate::describe::<$plugin>(&$crate::About {
                        package: env!("CARGO_PKG_NAME"),
                        version: match option_env!("AMENDS_PLUGIN_VERSION") {
                            Some("") => env!("CARGO_PKG_VERSION"),
                            Some(version) => version,
                            None => env!("CARGO_PKG_VERSION"),
                        },
                    });
                    $crate::worlds::$world::exports::amends::saga::manifest::Description {
                        name: description.name,
                        version: description.version,
                        summary: description.summary,
                        input_schema: description.input_schema,
                        output_schema: description.output_schema,
                        service: description.service,
                        needs: description.needs,
                    }
                }
            }

            $($crate::__interface!($interface, $plugin, $world);)*

            $crate::worlds::$world::export!(Component with_types_in $crate::worlds::$world);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __interface {
    (action, $plugin:ty, $world:ident) => {
        impl $crate::worlds::$world::exports::amends::saga::action::Guest for Component {
            fn execute(call: $crate::Call, input: String) -> Result<String, $crate::Failure> {
                $crate::execute::<$plugin>(&call, &input)
            }
        }
    };
    (undo, $plugin:ty, $world:ident) => {
        impl $crate::worlds::$world::exports::amends::saga::undo::Guest for Component {
            fn compensate(
                call: $crate::Call,
                input: String,
                output: Option<String>,
            ) -> Result<
                $crate::worlds::$world::exports::amends::saga::undo::Undone,
                $crate::Failure,
            > {
                use $crate::worlds::$world::exports::amends::saga::undo::Undone;
                let undone = $crate::compensate::<$plugin>(&call, &input, output.as_deref())?;
                let receipt = undone.receipt().map(str::to_owned);
                Ok(receipt.map_or(Undone::Nothing, |receipt| Undone::Done(Some(receipt))))
            }
        }
    };
    (probe, $plugin:ty, $world:ident) => {
        impl $crate::worlds::$world::exports::amends::saga::probe::Guest for Component {
            fn probe(
                call: $crate::Call,
                direction: $crate::Direction,
                input: String,
            ) -> Result<$crate::worlds::$world::exports::amends::saga::probe::Fate, $crate::Failure>
            {
                use $crate::worlds::$world::exports::amends::saga::probe::Fate;
                Ok(match $crate::probe::<$plugin>(&call, direction, &input)? {
                    $crate::Fate::Happened(told) => Fate::Happened(told),
                    $crate::Fate::DidNotHappen => Fate::DidNotHappen,
                    $crate::Fate::Undone(_) | $crate::Fate::Unclear => Fate::Unclear,
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every probe with the fate that its input names.
    struct Told;

    impl Plugin for Told {
        const SUMMARY: &'static str = "Is told.";
        type Input = String;
        type Output = u32;
    }

    impl Execute for Told {
        fn execute(_: &Call, _: String) -> Result<u32, Failure> {
            Ok(7)
        }
    }

    impl Compensate for Told {
        fn compensate(_: &Call, _: String, _: Option<u32>) -> Result<Undone, Failure> {
            Ok(Undone::nothing())
        }
    }

    impl Probe for Told {
        fn probe(_: &Call, _: Direction, fate: String) -> Result<Fate<u32>, Failure> {
            match fate.as_str() {
                "happened" => Ok(Fate::Happened(7)),
                "undone" => Undone::done(&"R-1").map(Fate::Undone),
                "nothing" => Ok(Fate::Undone(Undone::nothing())),
                "not" => Ok(Fate::DidNotHappen),
                _ => Ok(Fate::Unclear),
            }
        }
    }

    fn told(direction: Direction, fate: &str) -> Result<Fate<String>, String> {
        let call = Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "tickets".to_owned(),
            step: "open".to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        };
        let fate = format!("{fate:?}");
        probe::<Told>(&call, direction, &fate).map_err(|failure| failure.error().code.clone())
    }

    #[test]
    fn a_fate_carries_output_or_receipt_as_json() {
        use Direction::{Compensate, Execute};
        let happened = |json: &str| Ok(Fate::Happened(json.to_owned()));
        assert_eq!(told(Execute, "happened"), happened("7"));
        assert_eq!(told(Compensate, "undone"), happened("\"R-1\""));
        assert_eq!(told(Compensate, "nothing"), happened("null"));
        for direction in [Execute, Compensate] {
            assert_eq!(told(direction, "not"), Ok(Fate::DidNotHappen));
            assert_eq!(told(direction, "else"), Ok(Fate::Unclear));
        }
        // A fate of the other direction is a mistake of the plugin, and nothing is known.
        assert_eq!(told(Execute, "undone"), Err("invalid_fate".to_owned()));
        assert_eq!(told(Compensate, "happened"), Err("invalid_fate".to_owned()));
    }
}
