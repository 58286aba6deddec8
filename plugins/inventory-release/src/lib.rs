//! Releases what the inventory step reserved: an undo that is a component of its own, so that it
//! can be swapped without touching the step. It works on the state of the plugin that reserved.

use amends_sdk::{Call, Compensate, Failure, Plugin, Undone, granted, log, state};
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
    /// Drug, form and strength.
    pub sku: String,
    /// Where.
    pub warehouse: String,
    /// Pieces.
    pub quantity: u32,
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
    /// The reservation is in the books or it was never made: what the step answered is not needed.
    /// Without books, releasing by its id does no harm when there is none.
    fn compensate(
        call: &Call,
        order: Order,
        output: Option<Reservation>,
    ) -> Result<Undone, Failure> {
        let released = call.effect_id("RSV");
        if !granted("state") {
            let quantity = output.map(|output| output.quantity);
            return Undone::done(&Released { released, quantity });
        }
        let key = format!("reservation/{released}");
        let Some(reserved) = state::get::<Reservation>(&key)? else {
            return Ok(Undone::nothing());
        };
        let stock_key = format!("stock/{}/{}", reserved.warehouse, reserved.sku);
        if let Some(stock) = state::get::<u32>(&stock_key)? {
            state::set(&stock_key, &(stock + reserved.quantity))?;
        }
        let _ = state::delete(&key);
        log::debug("stock released", &[("effect", &released), ("order", &order.order_id)]);
        let quantity = Some(reserved.quantity);
        Undone::done(&Released { released, quantity })
    }
}

amends_sdk::undo_only!(InventoryRelease);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_what_is_in_the_books_once() {
        let call = Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: "inventory".to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        };
        let release = || {
            let order = Order { order_id: "ORD-1".to_owned() };
            InventoryRelease::compensate(&call, order, None)
        };
        let id = call.effect_id("RSV");
        let reservation = Reservation {
            reservation_id: id.clone(),
            sku: "metformin-500mg-tablet".to_owned(),
            warehouse: "north".to_owned(),
            quantity: 60,
        };
        let reservation = serde_json::to_string(&reservation).unwrap_or_default();
        let books = [
            (format!("reservation/{id}"), reservation),
            ("stock/north/metformin-500mg-tablet".to_owned(), "40".to_owned()),
        ];
        let books: Vec<_> = books.iter().map(|(key, value)| (&**key, &**value)).collect();
        state::with(&books, || {
            let released = release();
            let Ok(released) = released else { panic!("not released") };
            assert!(released.receipt().is_some_and(|told| told.contains("\"quantity\":60")));
            assert!(matches!(release(), Ok(undone) if undone.receipt().is_none()));
            let stock: Option<u32> =
                state::get("stock/north/metformin-500mg-tablet").unwrap_or_default();
            assert_eq!(stock, Some(100));
        });
    }
}
