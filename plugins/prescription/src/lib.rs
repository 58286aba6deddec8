//! Checks an order against the formulary and issues a prescription number.
//!
//! Nothing is asked of the clock: an order says when it was placed.

mod formulary;

use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, events, granted, log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use formulary::Drug;

/// Tablets, capsules or doses of a controlled drug in one order.
const CONTROLLED_QUANTITY_MAX: u32 = 30;

/// What is needed of an order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Order {
    /// The shop's number.
    pub order_id: String,
    /// The day on which it was placed, `YYYY-MM-DD`.
    pub ordered_on: String,
    /// Who prescribed.
    pub prescriber: Prescriber,
    /// What the prescription says.
    pub prescription: Paper,
    /// What is ordered.
    pub drug: Item,
}

/// Who prescribed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Prescriber {
    /// For people.
    pub name: String,
    /// National Provider Identifier: ten digits, the last a check digit.
    pub npi: String,
}

/// What the prescription says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Paper {
    /// The last day on which it may be filled, `YYYY-MM-DD`.
    pub valid_until: String,
    /// How often it may still be filled, this time included.
    pub fills_left: u32,
}

/// What is ordered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Item {
    /// The generic name.
    pub name: String,
    /// `tablet`, `capsule`, `inhaler`, `pen`, `solution`.
    pub form: String,
    /// Of one piece, in milligrams.
    pub strength_mg: f64,
    /// Pieces.
    pub quantity: u32,
    /// Pieces a day.
    pub per_day: f64,
}

/// What was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Issued {
    /// The prescription's number in our books.
    pub prescription_number: String,
    /// How often it may be filled after this.
    pub fills_left: u32,
    /// Whether it must be kept cold.
    pub cold_chain: bool,
    /// Of all pieces with their packing.
    pub weight_g: u32,
}

/// What was voided.
#[derive(Debug, Serialize)]
struct Voided {
    voided: String,
}

/// What is told when it was issued.
#[derive(Debug, Serialize)]
struct Created<'a> {
    prescription_number: &'a str,
    order_id: &'a str,
}

/// The plugin.
#[derive(Debug)]
pub struct Prescription;

impl Plugin for Prescription {
    const SUMMARY: &'static str = "Checks drug, dose, prescriber and fills, issues a number.";
    type Input = Order;
    type Output = Issued;
}

impl Execute for Prescription {
    fn execute(call: &Call, order: Order) -> Result<Issued, Failure> {
        let drug = check_drug(&order.drug)?;
        check_prescriber(&order.prescriber)?;
        check_paper(&order, drug)?;
        let number = call.effect_id("RX");
        log::debug("prescription issued", &[("effect", &number), ("order", &order.order_id)]);
        if granted("events") {
            let created = Created { prescription_number: &number, order_id: &order.order_id };
            events::emit("order.prescription_created", &created)?;
        }
        Ok(Issued {
            prescription_number: number,
            fills_left: order.prescription.fills_left - 1,
            cold_chain: drug.cold_chain,
            weight_g: 20 + order.drug.quantity * drug.piece_g,
        })
    }
}

impl Compensate for Prescription {
    /// Voiding by number does no harm when the number was never issued.
    fn compensate(call: &Call, _: Order, output: Option<Issued>) -> Result<Undone, Failure> {
        let issued = output.map(|output| output.prescription_number);
        let voided = issued.unwrap_or_else(|| call.effect_id("RX"));
        log::debug("prescription voided", &[("effect", &voided)]);
        let voided = Voided { voided };
        if granted("events") {
            events::emit("order.prescription_voided", &voided)?;
        }
        Undone::done(&voided)
    }
}

fn check_drug(item: &Item) -> Result<&'static Drug, Failure> {
    let Some(drug) = formulary::find(&item.name) else {
        return Err(Failure::permanent(
            "unknown_drug",
            format!("{} is not in the formulary", item.name),
        ));
    };
    let same = |strength: &f64| (strength - item.strength_mg).abs() < 1e-9;
    if drug.form != item.form || !drug.strengths_mg.iter().any(same) {
        return Err(Failure::permanent(
            "unknown_strength",
            format!(
                "{} comes as {} of {:?} mg, not as {} of {} mg",
                drug.name, drug.form, drug.strengths_mg, item.form, item.strength_mg
            ),
        ));
    }
    if item.quantity == 0 || item.per_day <= 0.0 {
        return Err(Failure::permanent("no_quantity", "the quantity and dose must be above zero"));
    }
    let daily_mg = item.per_day * item.strength_mg;
    if daily_mg > drug.daily_mg_max {
        return Err(Failure::permanent(
            "dose_too_high",
            format!("{daily_mg} mg of {} a day, at most {} mg", drug.name, drug.daily_mg_max),
        ));
    }
    Ok(drug)
}

fn check_prescriber(prescriber: &Prescriber) -> Result<(), Failure> {
    if is_npi(&prescriber.npi) {
        return Ok(());
    }
    Err(Failure::permanent(
        "invalid_prescriber",
        format!("{} of {} is not a provider identifier", prescriber.npi, prescriber.name),
    ))
}

fn check_paper(order: &Order, drug: &Drug) -> Result<(), Failure> {
    let paper = &order.prescription;
    for day in [&order.ordered_on, &paper.valid_until] {
        if !is_day(day) {
            return Err(Failure::permanent("invalid_day", format!("`{day}` is not YYYY-MM-DD")));
        }
    }
    // Days in this form sort like the days themselves.
    if order.ordered_on > paper.valid_until {
        return Err(Failure::permanent(
            "prescription_expired",
            format!("valid until {}, ordered on {}", paper.valid_until, order.ordered_on),
        ));
    }
    if paper.fills_left == 0 {
        return Err(Failure::permanent("no_fills_left", "every fill of it has been used"));
    }
    if drug.controlled && order.drug.quantity > CONTROLLED_QUANTITY_MAX {
        return Err(Failure::permanent(
            "controlled_quantity",
            format!(
                "{} pieces of the controlled {}, at most {CONTROLLED_QUANTITY_MAX}",
                order.drug.quantity, drug.name
            ),
        ));
    }
    Ok(())
}

/// The check digit of a National Provider Identifier: Luhn (ISO/IEC 7812-1) over the number with
/// 80840 before it, which adds 24.
fn is_npi(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(10)).collect();
    let Some(digits) = digits.filter(|digits| digits.len() == 10) else { return false };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 1 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
        .sum();
    (sum + 24).is_multiple_of(10)
}

fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(place, byte)| match place {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
        && ("01"..="12").contains(&&text[5..7])
        && ("01"..="31").contains(&&text[8..10])
}

amends_sdk::step!(Prescription);

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: "prescription".to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        }
    }

    fn order() -> Order {
        Order {
            order_id: "ORD-1".to_owned(),
            ordered_on: "2026-03-02".to_owned(),
            prescriber: Prescriber { name: "Dr. A".to_owned(), npi: "1234567893".to_owned() },
            prescription: Paper { valid_until: "2026-03-02".to_owned(), fills_left: 2 },
            drug: Item {
                name: "metformin".to_owned(),
                form: "tablet".to_owned(),
                strength_mg: 500.0,
                quantity: 60,
                per_day: 2.0,
            },
        }
    }

    fn code(change: impl FnOnce(&mut Order)) -> String {
        let mut order = order();
        change(&mut order);
        Prescription::execute(&call(), order)
            .map_or_else(|failure| failure.error().code.clone(), |_| "issued".to_owned())
    }

    #[test]
    fn issues_the_same_number_on_every_attempt() {
        let first = Prescription::execute(&call(), order());
        let again = Prescription::execute(&Call { attempt: 2, ..call() }, order());
        let (Ok(first), Ok(again)) = (first, again) else { panic!("not issued") };
        assert_eq!(first, again);
        assert_eq!(first.fills_left, 1);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(code(|_| ()), "issued");
        assert_eq!(code(|order| order.drug.name = "moondust".to_owned()), "unknown_drug");
        assert_eq!(code(|order| order.drug.strength_mg = 7.0), "unknown_strength");
        assert_eq!(code(|order| order.drug.per_day = 9.0), "dose_too_high");
        assert_eq!(code(|order| order.drug.quantity = 0), "no_quantity");
        assert_eq!(
            code(|order| order.prescriber.npi = "1234567890".to_owned()),
            "invalid_prescriber"
        );
        assert_eq!(
            code(|order| order.ordered_on = "2026-03-03".to_owned()),
            "prescription_expired"
        );
        assert_eq!(code(|order| order.ordered_on = "yesterday".to_owned()), "invalid_day");
        assert_eq!(code(|order| order.prescription.fills_left = 0), "no_fills_left");
        let controlled = |order: &mut Order| {
            order.drug = Item {
                name: "oxycodone".to_owned(),
                form: "tablet".to_owned(),
                strength_mg: 5.0,
                quantity: 31,
                per_day: 2.0,
            };
        };
        assert_eq!(code(controlled), "controlled_quantity");
    }

    #[test]
    fn voids_with_and_without_an_output() {
        let Ok(issued) = Prescription::execute(&call(), order()) else { panic!("not issued") };
        let known = Prescription::compensate(&call(), order(), Some(issued));
        let unknown = Prescription::compensate(&call(), order(), None);
        let (Ok(known), Ok(unknown)) = (known, unknown) else { panic!("not voided") };
        assert_eq!(known.receipt(), unknown.receipt(), "the number follows from the saga");
    }
}
