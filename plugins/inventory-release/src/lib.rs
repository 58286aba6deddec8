//! Releases what the inventory step reserved: an undo that is a component of its own, so that it
//! can be swapped without touching the step.

use amends_sdk::{Call, Compensate, Failure, Plugin, Undone, log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is needed of an order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Order {
    /// The shop's number.
    pub order_id: String,
}

/// What the inventory step answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reservation {
    /// Names it in the warehouse's books.
    pub reservation_id: String,
    /// Pieces.
    pub quantity: u32,
    /// Where.
    pub warehouse: String,
}

/// What was released.
#[derive(Debug, Serialize)]
struct Released {
    released: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<u32>,
}

/// The plugin.
#[derive(Debug)]
pub struct InventoryRelease;

impl Plugin for InventoryRelease {
    const SUMMARY: &'static str = "Releases reserved pieces of a drug.";
    type Input = Order;
    type Output = Reservation;
}

impl Compensate for InventoryRelease {
    /// Releasing by the reservation's id does no harm when nothing was reserved under it.
    fn compensate(
        call: &Call,
        order: Order,
        output: Option<Reservation>,
    ) -> Result<Undone, Failure> {
        let quantity = output.as_ref().map(|output| output.quantity);
        let reserved = output.map(|output| output.reservation_id);
        let released = reserved.unwrap_or_else(|| call.effect_id("RSV"));
        log::debug("stock released", &[("effect", &released), ("order", &order.order_id)]);
        Undone::done(&Released { released, quantity })
    }
}

amends_sdk::undo_only!(InventoryRelease);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_with_and_without_an_output() {
        let call = Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: "inventory".to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        };
        let order = Order { order_id: "ORD-1".to_owned() };
        let reservation = Reservation {
            reservation_id: call.effect_id("RSV"),
            quantity: 60,
            warehouse: "north".to_owned(),
        };
        let known = InventoryRelease::compensate(&call, order.clone(), Some(reservation));
        let unknown = InventoryRelease::compensate(&call, order, None);
        let (Ok(known), Ok(unknown)) = (known, unknown) else { panic!("not released") };
        assert!(known.receipt().is_some_and(|receipt| receipt.contains("\"quantity\":60")));
        assert!(unknown.receipt().is_some_and(|receipt| receipt.contains(&call.effect_id("RSV"))));
    }
}
