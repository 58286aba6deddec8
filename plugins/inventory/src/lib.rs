//! Reserves pieces of a drug in a warehouse.
//!
//! How much is in stock comes with the order, or from the setting `stock_default`.

use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, log, setting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is needed of an order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Order {
    /// The shop's number.
    pub order_id: String,
    /// Where it is sent from.
    pub warehouse: String,
    /// What is ordered.
    pub drug: Item,
    /// Pieces in that warehouse; none: the setting `stock_default` says.
    #[serde(default)]
    pub stock: Option<u32>,
}

/// What is ordered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Item {
    /// The generic name.
    pub name: String,
    /// `tablet`, `capsule`, …
    pub form: String,
    /// Of one piece, in milligrams.
    pub strength_mg: f64,
    /// Pieces.
    pub quantity: u32,
}

/// What was reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
}

/// The plugin.
#[derive(Debug)]
pub struct Inventory;

impl Plugin for Inventory {
    const SUMMARY: &'static str = "Reserves pieces of a drug in a warehouse.";
    const NEEDS: &'static [&'static str] = &["config"];
    type Input = Order;
    type Output = Reservation;
}

impl Execute for Inventory {
    fn execute(call: &Call, order: Order) -> Result<Reservation, Failure> {
        let Item { name, form, strength_mg, quantity } = &order.drug;
        let sku = format!("{name}-{strength_mg}mg-{form}");
        let stock = order.stock.or_else(|| setting("stock_default")).unwrap_or(0);
        if stock < *quantity {
            return Err(Failure::permanent(
                "out_of_stock",
                format!("{quantity} of {sku} wanted, {stock} in {}", order.warehouse),
            ));
        }
        let reservation_id = call.effect_id("RSV");
        log::debug("stock reserved", &[("effect", &reservation_id), ("order", &order.order_id)]);
        Ok(Reservation { reservation_id, sku, warehouse: order.warehouse, quantity: *quantity })
    }
}

impl Compensate for Inventory {
    /// Releasing by the reservation's id does no harm when nothing was reserved under it.
    fn compensate(call: &Call, _: Order, output: Option<Reservation>) -> Result<Undone, Failure> {
        let reserved = output.map(|output| output.reservation_id);
        let released = reserved.unwrap_or_else(|| call.effect_id("RSV"));
        log::debug("stock released", &[("effect", &released)]);
        Undone::done(&Released { released })
    }
}

amends_sdk::step!(Inventory);

#[cfg(test)]
mod tests {
    use super::*;

    fn call(attempt: u32) -> Call {
        Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: "inventory".to_owned(),
            attempt,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        }
    }

    fn order(stock: Option<u32>) -> Order {
        Order {
            order_id: "ORD-1".to_owned(),
            warehouse: "north".to_owned(),
            drug: Item {
                name: "metformin".to_owned(),
                form: "tablet".to_owned(),
                strength_mg: 500.0,
                quantity: 60,
            },
            stock,
        }
    }

    #[test]
    fn reserves_what_is_there_once() {
        let first = Inventory::execute(&call(1), order(Some(60)));
        let again = Inventory::execute(&call(2), order(Some(60)));
        let (Ok(first), Ok(again)) = (first, again) else { panic!("not reserved") };
        assert_eq!(first, again);
        assert_eq!(first.sku, "metformin-500mg-tablet");
    }

    #[test]
    fn refuses_what_is_not_there() {
        let failure = Inventory::execute(&call(1), order(Some(59)));
        assert!(matches!(failure, Err(Failure::Permanent(error)) if error.code == "out_of_stock"));
    }

    #[test]
    fn takes_stock_from_the_settings_when_the_order_does_not_say() {
        let settings = serde_json::json!({"stock_default": 60});
        let reserved =
            amends_sdk::with_settings(&settings, || Inventory::execute(&call(1), order(None)));
        assert!(reserved.is_ok());
        assert!(Inventory::execute(&call(1), order(None)).is_err());
    }

    #[test]
    fn releases_with_and_without_an_output() {
        let reserved = Inventory::execute(&call(1), order(Some(60))).ok();
        let known = Inventory::compensate(&call(1), order(None), reserved);
        let unknown = Inventory::compensate(&call(1), order(None), None);
        let (Ok(known), Ok(unknown)) = (known, unknown) else { panic!("not released") };
        assert_eq!(known.receipt(), unknown.receipt(), "the id follows from the saga");
    }
}
