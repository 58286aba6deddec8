// {if step}
//! Books seats.
// {end}
// {if undo-only}
//! Cancels seats: the undo of a step that another plugin does. It works on that plugin's state.
// {end}
//!
//! The booking is in the plugin's state, under the saga and the step: what a call writes there is
//! committed together with the fact that the call succeeded, or not at all.

// {if step}
use amends_sdk::{Call, Compensate, Execute, Failure, Plugin, Undone, log, state};
// {end}
// {if undo-only}
use amends_sdk::{Call, Compensate, Failure, Plugin, Undone, log, state};
// {end}
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// {if step}
const SEATS_MAX: u32 = 8;

// {end}
/// What is to be booked. `amends plugin test` calls the step with the examples.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(
    example = Order { event: "concert".to_owned(), seats: 2 },
    example = Order { event: "matinee".to_owned(), seats: 1 }
)]
pub struct Order {
    /// What the seats are for.
    pub event: String,
    /// How many.
    #[schemars(range(min = 1))]
    pub seats: u32,
}

/// What was booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Booking {
    /// Names it.
    pub booking: String,
    /// How many seats.
    pub seats: u32,
}

/// What was cancelled.
#[derive(Debug, Serialize)]
struct Cancelled {
    cancelled: String,
}

/// The plugin.
#[derive(Debug)]
pub struct Seats;

impl Plugin for Seats {
    // {if step}
    const SUMMARY: &'static str = "Books seats.";
    // {end}
    // {if undo-only}
    const SUMMARY: &'static str = "Cancels seats.";
    // {end}
    const NEEDS: &'static [&'static str] = &["state"];
    type Input = Order;
    type Output = Booking;
}

/// The same for every attempt, and for the undo as for the step.
fn booking_of(call: &Call) -> String {
    format!("booking/{}/{}", call.saga_id, call.step)
}

// {if step}
impl Execute for Seats {
    fn execute(call: &Call, order: Order) -> Result<Booking, Failure> {
        let booking = booking_of(call);
        // Called again with the same idempotency key: the booking is there, and so is the answer.
        if let Some(booked) = state::get(&booking)? {
            return Ok(booked);
        }
        let Order { event, seats } = order;
        if seats > SEATS_MAX {
            // No effect stands, and another attempt would not help.
            return Err(Failure::permanent(
                "too_many_seats",
                format!("{seats} seats for {event}, and one booking has at most {SEATS_MAX}"),
            ));
        }
        log::info("booked", &[("booking", &booking)]);
        let booked = Booking { booking: booking.clone(), seats };
        state::set(&booking, &booked)?;
        Ok(booked)
    }
}

// {end}
impl Compensate for Seats {
    /// The output is none when nobody knows whether the step happened: the state tells.
    fn compensate(call: &Call, _: Order, _: Option<Booking>) -> Result<Undone, Failure> {
        let booking = booking_of(call);
        if !state::delete(&booking) {
            return Ok(Undone::nothing());
        }
        log::info("cancelled", &[("booking", &booking)]);
        Undone::done(&Cancelled { cancelled: booking })
    }
}

// {if step}
amends_sdk::step!(Seats);
// {end}
// {if undo-only}
amends_sdk::undo_only!(Seats);
// {end}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(attempt: u32) -> Call {
        Call {
            saga_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            definition: "evening".to_owned(),
            step: "seats".to_owned(),
            attempt,
            idempotency_key: "k".to_owned(),
            traceparent: None,
        }
    }

    fn order(seats: u32) -> Order {
        Order { event: "concert".to_owned(), seats }
    }

    fn is_nothing(undone: Result<Undone, Failure>) -> bool {
        undone.unwrap().receipt().is_none()
    }

    // {if step}
    #[test]
    fn books_once() {
        state::with(&[], || {
            let first = Seats::execute(&call(1), order(2)).unwrap();
            assert_eq!(first.seats, 2);
            assert_eq!(Seats::execute(&call(2), order(2)).unwrap(), first);
        });
    }

    #[test]
    fn refuses_too_many() {
        state::with(&[], || {
            let failure = Seats::execute(&call(1), order(9)).unwrap_err();
            assert!(matches!(&failure, Failure::Permanent(error) if error.code == "too_many_seats"));
            assert!(is_nothing(Seats::compensate(&call(1), order(9), None)));
        });
    }

    // {end}
    #[test]
    fn an_undo_succeeds_when_there_is_nothing_to_undo() {
        state::with(&[], || {
            assert!(is_nothing(Seats::compensate(&call(1), order(2), None)));
            // {if step}
            let booked = Seats::execute(&call(1), order(2)).unwrap();
            // {end}
            // {if undo-only}
            let booked = Booking { booking: booking_of(&call(1)), seats: 2 };
            state::set(&booked.booking, &booked).unwrap();
            // {end}
            assert!(!is_nothing(Seats::compensate(&call(1), order(2), Some(booked.clone()))));
            assert!(is_nothing(Seats::compensate(&call(2), order(2), Some(booked))));
        });
    }
}
