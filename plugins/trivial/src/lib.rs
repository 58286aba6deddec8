//! A step and an undo that do nothing: what `amends bench` measures is all that is around them.

use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is needed of an order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Order {
    /// The step that is to fail, if one is.
    #[serde(default)]
    pub fails: Option<String>,
}

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Names what was done, the same for every attempt.
    pub number: String,
}

/// The plugin.
#[derive(Debug)]
pub struct Trivial;

impl Plugin for Trivial {
    const SUMMARY: &'static str = "Does nothing, and undoes it.";
    type Input = Order;
    type Output = Done;
}

impl Execute for Trivial {
    fn execute(call: &Call, order: Order) -> Result<Done, Failure> {
        if order.fails.as_deref() == Some(call.step.as_str()) {
            return Err(Failure::permanent("refused", "the order says that this step fails"));
        }
        Ok(Done { number: call.effect_id("N") })
    }
}

impl Compensate for Trivial {
    fn compensate(call: &Call, _: Order, done: Option<Done>) -> Result<Undone, Failure> {
        Undone::done(&done.unwrap_or_else(|| Done { number: call.effect_id("N") }))
    }
}

amends_sdk::step!(Trivial);

#[cfg(test)]
mod tests {
    use super::*;

    fn call(step: &str) -> Call {
        Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: step.to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        }
    }

    #[test]
    fn fails_in_the_step_that_is_named_only() {
        let order = || Order { fails: Some("shipment".to_owned()) };
        assert!(Trivial::execute(&call("shipment"), order()).is_err());
        let Ok(done) = Trivial::execute(&call("inventory"), order()) else { panic!("it failed") };
        let undone = Trivial::compensate(&call("inventory"), order(), None);
        let again = Trivial::compensate(&call("inventory"), order(), Some(done));
        let (Ok(undone), Ok(again)) = (undone, again) else { panic!("not undone") };
        assert_eq!(undone.receipt(), again.receipt());
    }
}
