//! Picks a carrier for a parcel and gets a label.

use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The heaviest parcel that any carrier takes.
const WEIGHT_G_MAX: u32 = 20_000;

/// What is sent where.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Parcel {
    /// The shop's number.
    pub order_id: String,
    /// Where to.
    pub address: Address,
    /// With packing.
    pub weight_g: u32,
    /// Whether it must be kept cold.
    #[serde(default)]
    pub cold_chain: bool,
}

/// Where to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Address {
    /// Who lives there.
    pub name: String,
    /// Street and number.
    pub street: String,
    /// City.
    pub city: String,
    /// Two letters.
    pub state: String,
    /// Five digits, or five and four.
    pub zip: String,
}

/// What the carrier gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shipped {
    /// The label's number.
    pub label: String,
    /// Who carries it.
    pub carrier: String,
    /// In days.
    pub transit_days: u32,
}

/// What was cancelled.
#[derive(Debug, Serialize)]
struct Cancelled {
    cancelled: String,
}

/// The plugin.
#[derive(Debug)]
pub struct Shipment;

impl Plugin for Shipment {
    const SUMMARY: &'static str = "Picks a carrier for a parcel and gets a label.";
    const SERVICE: Option<&'static str> = Some("carrier");
    type Input = Parcel;
    type Output = Shipped;
}

impl Execute for Shipment {
    fn execute(call: &Call, parcel: Parcel) -> Result<Shipped, Failure> {
        check_address(&parcel.address, parcel.cold_chain)?;
        let (carrier, transit_days) = pick_carrier(&parcel)?;
        let label = call.effect_id("LBL");
        log::debug("label issued", &[("effect", &label), ("order", &parcel.order_id)]);
        Ok(Shipped { label, carrier: carrier.to_owned(), transit_days })
    }
}

impl Compensate for Shipment {
    /// Cancelling by the label's number does no harm when it was never issued.
    fn compensate(call: &Call, _: Parcel, output: Option<Shipped>) -> Result<Undone, Failure> {
        let cancelled = output.map_or_else(|| call.effect_id("LBL"), |output| output.label);
        log::debug("label cancelled", &[("effect", &cancelled)]);
        Undone::done(&Cancelled { cancelled })
    }
}

fn check_address(address: &Address, cold_chain: bool) -> Result<(), Failure> {
    let undeliverable = |why: String| {
        Err(Failure::permanent("undeliverable_address", format!("{}: {why}", address.name)))
    };
    if address.street.trim().is_empty() || address.city.trim().is_empty() {
        return undeliverable("street and city must be given".to_owned());
    }
    let letters = address.state.len() == 2 && address.state.bytes().all(|b| b.is_ascii_uppercase());
    if !letters {
        return undeliverable(format!("`{}` is not a state", address.state));
    }
    if !is_zip(&address.zip) {
        return undeliverable(format!("`{}` is not a ZIP code", address.zip));
    }
    if cold_chain && address.street.starts_with("PO Box") {
        return undeliverable("what must be kept cold cannot go to a post office box".to_owned());
    }
    Ok(())
}

fn is_zip(text: &str) -> bool {
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('-') {
        Some((zip, more)) => digits(zip, 5) && digits(more, 4),
        None => digits(text, 5),
    }
}

fn pick_carrier(parcel: &Parcel) -> Result<(&'static str, u32), Failure> {
    let far = matches!(parcel.address.state.as_str(), "AK" | "HI" | "PR");
    match parcel.weight_g {
        _ if parcel.cold_chain => Ok(("polar-express", 1)),
        0..=500 => Ok(("letter-mail", if far { 6 } else { 3 })),
        501..=WEIGHT_G_MAX => Ok(("ground-parcel", if far { 8 } else { 4 })),
        weight => Err(Failure::permanent(
            "too_heavy",
            format!("{weight} g, no carrier takes more than {WEIGHT_G_MAX} g"),
        )),
    }
}

amends_sdk::step!(Shipment);

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "order-fulfillment".to_owned(),
            step: "shipment".to_owned(),
            attempt: 1,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        }
    }

    fn parcel() -> Parcel {
        Parcel {
            order_id: "ORD-1".to_owned(),
            address: Address {
                name: "A. Person".to_owned(),
                street: "1 Main Street".to_owned(),
                city: "Springfield".to_owned(),
                state: "IL".to_owned(),
                zip: "62701".to_owned(),
            },
            weight_g: 140,
            cold_chain: false,
        }
    }

    fn carrier(change: impl FnOnce(&mut Parcel)) -> String {
        let mut parcel = parcel();
        change(&mut parcel);
        Shipment::execute(&call(), parcel)
            .map_or_else(|failure| failure.error().code.clone(), |shipped| shipped.carrier)
    }

    #[test]
    fn picks_by_weight_and_cold() {
        assert_eq!(carrier(|_| ()), "letter-mail");
        assert_eq!(carrier(|parcel| parcel.weight_g = 501), "ground-parcel");
        assert_eq!(carrier(|parcel| parcel.cold_chain = true), "polar-express");
        assert_eq!(carrier(|parcel| parcel.weight_g = 20_001), "too_heavy");
    }

    #[test]
    fn refuses_where_nobody_delivers() {
        let wrong = "undeliverable_address";
        assert_eq!(carrier(|parcel| parcel.address.zip = "6270".to_owned()), wrong);
        assert_eq!(carrier(|parcel| parcel.address.state = "Illinois".to_owned()), wrong);
        assert_eq!(carrier(|parcel| parcel.address.street = " ".to_owned()), wrong);
        let cold_box = |parcel: &mut Parcel| {
            parcel.cold_chain = true;
            parcel.address.street = "PO Box 12".to_owned();
        };
        assert_eq!(carrier(cold_box), wrong);
    }

    #[test]
    fn cancels_with_and_without_an_output() {
        let Ok(shipped) = Shipment::execute(&call(), parcel()) else { panic!("not shipped") };
        let known = Shipment::compensate(&call(), parcel(), Some(shipped));
        let unknown = Shipment::compensate(&call(), parcel(), None);
        let (Ok(known), Ok(unknown)) = (known, unknown) else { panic!("not cancelled") };
        assert_eq!(known.receipt(), unknown.receipt(), "the label follows from the saga");
    }
}
