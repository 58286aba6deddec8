//! Reserves pieces of a drug in a warehouse.
//!
//! The stock is the plugin's state: `stock/WAREHOUSE/SKU` is how many pieces there are, and
//! `reservation/ID` what is reserved of them. Both are written in the transaction of the step's
//! event, so no piece is reserved twice and none is lost. The stock is a counter, so orders of one SKU
//! do not wait for one another. A SKU that is not in the books is entered with the setting
//! `stock_default`; without that, or without `state = true`, what the order says is there is believed.

use amends_sdk::state::{self, Added};
use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, granted, log, setting};
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
    /// Pieces that the shop counted there when it took the order: fewer than are ordered are refused
    /// whatever the books say.
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
    quantity: u32,
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
        let reservation_id = call.effect_id("RSV");
        let key = format!("reservation/{reservation_id}");
        let stock_key = format!("stock/{}/{sku}", order.warehouse);
        let keeps_books = granted("state");
        if keeps_books && let Some(reserved) = state::get(&key)? {
            return Ok(reserved);
        }
        let out_of_stock = |counted: u32| {
            let message = format!("{quantity} of {sku} wanted, {counted} in {}", order.warehouse);
            Err(Failure::permanent("out_of_stock", message))
        };
        if let Some(counted) = order.stock.filter(|counted| counted < quantity) {
            return out_of_stock(counted);
        }
        let in_books = if keeps_books {
            state::add(&stock_key, -i64::from(*quantity), 0..)
        } else {
            Added::Absent
        };
        match in_books {
            Added::Done => {}
            Added::TooSmall | Added::TooLarge => {
                return out_of_stock(state::get(&stock_key)?.unwrap_or(0));
            }
            Added::Absent => {
                let books: Option<u32> = setting("stock_default");
                let counted = books.or(order.stock).unwrap_or(0);
                let Some(left) = counted.checked_sub(*quantity) else {
                    return out_of_stock(counted);
                };
                if keeps_books && books.is_some() {
                    state::set(&stock_key, &left)?;
                }
            }
        }
        let reserved =
            Reservation { reservation_id, sku, warehouse: order.warehouse, quantity: *quantity };
        if keeps_books {
            state::set(&key, &reserved)?;
        }
        let effect = &reserved.reservation_id;
        log::debug("stock reserved", &[("effect", effect), ("order", &order.order_id)]);
        Ok(reserved)
    }
}

impl Compensate for Inventory {
    /// The reservation is in the books or it was never made. Without books, releasing by its id does
    /// no harm when there is none.
    fn compensate(call: &Call, order: Order, _: Option<Reservation>) -> Result<Undone, Failure> {
        let released = call.effect_id("RSV");
        if !granted("state") {
            return Undone::done(&Released { released, quantity: order.drug.quantity });
        }
        let key = format!("reservation/{released}");
        let Some(reserved) = state::get::<Reservation>(&key)? else {
            return Ok(Undone::nothing());
        };
        let stock_key = format!("stock/{}/{}", reserved.warehouse, reserved.sku);
        // A SKU that is not in the books was believed to be there.
        let back = state::add(&stock_key, i64::from(reserved.quantity), ..);
        if matches!(back, Added::TooSmall | Added::TooLarge) {
            let message = format!("the stock `{stock_key}` cannot count what comes back");
            return Err(Failure::permanent("stock_too_large", message));
        }
        let _ = state::delete(&key);
        log::debug("stock released", &[("effect", &released)]);
        Undone::done(&Released { released, quantity: reserved.quantity })
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

    fn stock() -> Option<u32> {
        state::get("stock/north/metformin-500mg-tablet").unwrap_or_default()
    }

    const BOOKS: [(&str, &str); 1] = [("stock/north/metformin-500mg-tablet", "100")];

    #[test]
    fn reserves_what_is_in_the_books_once() {
        state::with(&BOOKS, || {
            let first = Inventory::execute(&call(1), order(None));
            let again = Inventory::execute(&call(2), order(None));
            let (Ok(first), Ok(again)) = (first, again) else { panic!("not reserved") };
            assert_eq!(first, again);
            assert_eq!(first.sku, "metformin-500mg-tablet");
            assert_eq!(stock(), Some(40));
        });
    }

    #[test]
    fn refuses_what_is_not_there() {
        let is_refused = |stock| {
            let failure = Inventory::execute(&call(1), order(stock));
            matches!(failure, Err(Failure::Permanent(error)) if error.code == "out_of_stock")
        };
        assert!(is_refused(None), "nobody knows the drug");
        state::with(&BOOKS, || assert!(is_refused(Some(59)), "the shop counted fewer"));
        let few = [(BOOKS[0].0, "59")];
        state::with(&few, || assert!(is_refused(Some(60)), "the books have fewer"));
    }

    #[test]
    fn enters_what_is_not_in_the_books() {
        let settings = serde_json::json!({"stock_default": 60});
        let reserved = amends_sdk::with_settings(&settings, || {
            state::with(&[], || {
                let reserved = Inventory::execute(&call(1), order(None));
                assert_eq!(stock(), Some(0));
                reserved
            })
        });
        assert!(reserved.is_ok());
        // What the order says is believed, and there is nothing to count it in.
        state::with(&[], || {
            assert!(Inventory::execute(&call(1), order(Some(60))).is_ok());
            assert_eq!(stock(), None);
        });
    }

    #[test]
    fn releases_what_was_reserved_once() {
        state::with(&BOOKS, || {
            let nothing = Inventory::compensate(&call(1), order(None), None);
            assert!(matches!(nothing, Ok(undone) if undone.receipt().is_none()));
            let reserved = Inventory::execute(&call(1), order(None)).ok();
            assert_eq!(stock(), Some(40));
            let released = Inventory::compensate(&call(1), order(None), reserved.clone());
            assert!(matches!(released, Ok(undone) if undone.receipt().is_some()));
            assert_eq!(stock(), Some(100));
            let again = Inventory::compensate(&call(2), order(None), reserved);
            assert!(matches!(again, Ok(undone) if undone.receipt().is_none()));
            assert_eq!(stock(), Some(100));
        });
    }
}
