//! Picks a carrier for a parcel and gets a label.
//!
//! The setting `carrier` is the address of the carriers' service, such as `http://127.0.0.1:7171`,
//! and the secret `carrier_token` its token, if it wants one. Without the setting the shop prints
//! labels of its own, whose numbers follow from the saga.

use amends_sdk::http::{self, Request, Response};
use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, log, secret, setting};
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
    const NEEDS: &'static [&'static str] = &["config"];
    type Input = Parcel;
    type Output = Shipped;
}

impl Execute for Shipment {
    fn execute(call: &Call, parcel: Parcel) -> Result<Shipped, Failure> {
        check_address(&parcel.address, parcel.cold_chain)?;
        let (carrier, transit_days) = pick_carrier(&parcel)?;
        let reference = call.effect_id("LBL");
        let label = match setting::<String>("carrier") {
            Some(service) => order_label(&service, &reference, carrier, &parcel)?,
            None => reference,
        };
        log::debug("label issued", &[("effect", &label), ("order", &parcel.order_id)]);
        Ok(Shipped { label, carrier: carrier.to_owned(), transit_days })
    }
}

impl Compensate for Shipment {
    /// Cancels by the reference, which is the same whether or not anybody knows of a label. The
    /// service keeps that it is cancelled, so that a request that is still on its way gets none.
    fn compensate(call: &Call, _: Parcel, output: Option<Shipped>) -> Result<Undone, Failure> {
        let reference = call.effect_id("LBL");
        let cancelled = output.map_or_else(|| reference.clone(), |output| output.label);
        if let Some(service) = setting::<String>("carrier") {
            let request = http::delete(format!("{service}/labels/{reference}"));
            let answer = answer(with_token(request).send()?)?;
            if !answer.json::<CancelAnswer>()?.cancelled {
                return Ok(Undone::nothing());
            }
        }
        log::debug("label cancelled", &[("effect", &cancelled)]);
        Undone::done(&Cancelled { cancelled })
    }
}

/// What the service is asked for.
#[derive(Serialize)]
struct LabelOrder<'a> {
    reference: &'a str,
    order_id: &'a str,
    carrier: &'a str,
    weight_g: u32,
}

/// What it answers.
#[derive(Deserialize)]
struct LabelAnswer {
    label: String,
}

#[derive(Deserialize)]
struct CancelAnswer {
    cancelled: bool,
}

/// What it says when it does not do what it was asked.
#[derive(Deserialize)]
struct Refused {
    code: String,
}

fn order_label(
    service: &str,
    reference: &str,
    carrier: &str,
    parcel: &Parcel,
) -> Result<String, Failure> {
    let (order_id, weight_g) = (parcel.order_id.as_str(), parcel.weight_g);
    let order = LabelOrder { reference, order_id, carrier, weight_g };
    let request = http::post(format!("{service}/labels")).json(&order)?;
    Ok(answer(with_token(request).send()?)?.json::<LabelAnswer>()?.label)
}

fn with_token(request: Request) -> Request {
    match secret("carrier_token") {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// What the service says about it: that it was done, that nothing was, or nothing that is sure.
fn answer(response: Response) -> Result<Response, Failure> {
    let status = response.status;
    let refused = |code: &str| format!("the carrier's service says {status} {code}");
    match status {
        200..300 => Ok(response),
        429 | 503 => Err(Failure::retryable("carrier_busy", refused("try later"))),
        400..500 => {
            let code = response.json::<Refused>().map_or_else(|_| String::new(), |it| it.code);
            Err(Failure::permanent("carrier_refused", refused(&code)))
        }
        _ => Err(Failure::unknown("carrier_failed", refused(""))),
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

    fn with_carrier<T>(
        answer: impl FnMut(&Request) -> Result<Response, http::NoResponse> + 'static,
        test: impl FnOnce() -> T,
    ) -> T {
        let settings = serde_json::json!({"carrier": "http://carrier", "carrier_token": "t"});
        amends_sdk::with_settings(&settings, || http::with(answer, test))
    }

    #[test]
    fn orders_a_label_and_cancels_it() {
        let service = |request: &Request| {
            let is_known = request.headers.iter().any(|(name, _)| name == "authorization");
            assert!(is_known, "the token goes with it");
            Ok(match request.method.as_str() {
                "POST" => Response::new(201, r#"{"label":"CP-1"}"#),
                _ => Response::new(200, r#"{"cancelled":true}"#),
            })
        };
        with_carrier(service, || {
            let Ok(shipped) = Shipment::execute(&call(), parcel()) else { panic!("not shipped") };
            assert_eq!(shipped.label, "CP-1");
            let undone = Shipment::compensate(&call(), parcel(), Some(shipped));
            let Ok(undone) = undone else { panic!("not cancelled") };
            assert_eq!(undone.receipt(), Some(r#"{"cancelled":"CP-1"}"#));
        });
    }

    #[test]
    fn says_what_is_known_when_the_carrier_does_not_answer_well() {
        let class = |answer: Result<Response, http::NoResponse>| {
            let failure =
                with_carrier(move |_| answer.clone(), || Shipment::execute(&call(), parcel()));
            match failure {
                Ok(_) => "shipped",
                Err(Failure::Permanent(_)) => "permanent",
                Err(Failure::Retryable(_)) => "retryable",
                Err(Failure::Unknown(_)) => "unknown",
            }
        };
        assert_eq!(class(Ok(Response::new(503, ""))), "retryable");
        assert_eq!(class(Ok(Response::new(409, r#"{"code":"cancelled"}"#))), "permanent");
        assert_eq!(class(Ok(Response::new(500, ""))), "unknown");
        assert_eq!(class(Ok(Response::new(201, "what?"))), "unknown");
        assert_eq!(class(Err(http::NoResponse::NotSent(String::new()))), "retryable");
        assert_eq!(class(Err(http::NoResponse::Lost(String::new()))), "unknown");
    }

    #[test]
    fn what_was_never_issued_is_nothing_to_cancel() {
        let answer = |_: &Request| Ok(Response::new(200, r#"{"cancelled":false}"#));
        let undone = with_carrier(answer, || Shipment::compensate(&call(), parcel(), None));
        assert!(matches!(undone, Ok(undone) if undone.receipt().is_none()));
    }
}
