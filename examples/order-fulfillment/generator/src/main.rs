//! Makes the example's 1,000 orders: `cargo run --release -p amends-example-orders > orders.ndjson`.
//! The same orders every time; a test compares them with the committed file.

#![allow(clippy::print_stdout, reason = "its output is the file")]

use serde_json::{Value, json};

const ORDERS: u32 = 1_000;
const SEED: u64 = 20_260_302;

/// What is to become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shipped,
    Collected,
    OutOfStock,
    Expired,
    NoFillsLeft,
    Undeliverable,
}

struct Drug {
    name: &'static str,
    form: &'static str,
    strengths_mg: &'static [f64],
    /// Pieces of each strength a day that the formulary allows.
    per_day: &'static [f64],
    quantities: &'static [u32],
}

const DRUGS: [Drug; 18] = [
    drug("amlodipine", "tablet", &[2.5, 5.0, 10.0], &[1.0], &[30, 90]),
    drug("amoxicillin", "capsule", &[250.0, 500.0], &[3.0], &[21, 30]),
    drug("atorvastatin", "tablet", &[10.0, 20.0, 40.0, 80.0], &[1.0], &[30, 90]),
    drug("azithromycin", "tablet", &[250.0, 500.0], &[1.0], &[3, 6]),
    drug("cetirizine", "tablet", &[10.0], &[1.0], &[30, 60]),
    drug("doxycycline", "capsule", &[100.0], &[1.0, 2.0], &[14, 20]),
    drug("gabapentin", "capsule", &[100.0, 300.0, 400.0], &[3.0], &[90]),
    drug("insulin-glargine", "pen", &[10.9], &[1.0], &[5]),
    drug("levothyroxine", "tablet", &[0.025, 0.05, 0.1], &[1.0], &[30, 90]),
    drug("lisinopril", "tablet", &[5.0, 10.0, 20.0], &[1.0, 2.0], &[30, 90]),
    drug("losartan", "tablet", &[25.0, 50.0, 100.0], &[1.0], &[30, 90]),
    drug("metformin", "tablet", &[500.0, 850.0, 1000.0], &[2.0], &[60, 180]),
    drug("metoprolol", "tablet", &[25.0, 50.0, 100.0], &[1.0, 2.0], &[60]),
    drug("omeprazole", "capsule", &[20.0, 40.0], &[1.0], &[30]),
    drug("oxycodone", "tablet", &[5.0, 10.0], &[2.0, 4.0], &[12, 28]),
    drug("salbutamol", "inhaler", &[0.1], &[4.0, 8.0], &[1, 2]),
    drug("semaglutide", "pen", &[0.25, 0.5, 1.0], &[1.0], &[1, 4]),
    drug("sertraline", "tablet", &[25.0, 50.0, 100.0], &[1.0, 2.0], &[30, 90]),
];

const fn drug(
    name: &'static str,
    form: &'static str,
    strengths_mg: &'static [f64],
    per_day: &'static [f64],
    quantities: &'static [u32],
) -> Drug {
    Drug { name, form, strengths_mg, per_day, quantities }
}

const FIRST: [&str; 12] = [
    "Ada", "Bruno", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Keiko",
    "Lena",
];
const LAST: [&str; 12] = [
    "Abbott", "Baker", "Castillo", "Dubois", "Eriksen", "Fischer", "Garcia", "Hughes", "Ivanova",
    "Jensen", "Kowalski", "Lopez",
];
const STREETS: [&str; 8] = [
    "Main Street",
    "Oak Avenue",
    "Maple Drive",
    "Cedar Lane",
    "Park Road",
    "Hill Street",
    "Lake View",
    "Mill Road",
];
const CITIES: [(&str, &str, u64); 10] = [
    ("Springfield", "IL", 62_701),
    ("Portland", "OR", 97_201),
    ("Boston", "MA", 2_108),
    ("Austin", "TX", 73_301),
    ("Denver", "CO", 80_201),
    ("Anchorage", "AK", 99_501),
    ("Honolulu", "HI", 96_801),
    ("Madison", "WI", 53_703),
    ("Savannah", "GA", 31_401),
    ("Phoenix", "AZ", 85_001),
];

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).unwrap_or(0)]
    }
}

fn main() {
    for order in orders() {
        println!("{order}");
    }
}

fn orders() -> Vec<Value> {
    let mut random = Random(SEED);
    (1..=ORDERS).map(|number| order(number, &mut random)).collect()
}

fn order(number: u32, random: &mut Random) -> Value {
    let kind = match random.below(100) {
        0..=5 => Kind::OutOfStock,
        6..=9 => Kind::Expired,
        10..=12 => Kind::NoFillsLeft,
        13..=19 => Kind::Undeliverable,
        20..=27 => Kind::Collected,
        _ => Kind::Shipped,
    };
    let drug = random.pick(&DRUGS);
    let quantity = *random.pick(drug.quantities);
    let stock = if kind == Kind::OutOfStock {
        random.below(u64::from(quantity))
    } else {
        u64::from(quantity) + random.below(400)
    };
    let day = 1 + random.below(28);
    let ordered_on = format!("2026-03-{day:02}");
    let valid_until = if kind == Kind::Expired {
        format!("2026-02-{:02}", 1 + random.below(28))
    } else {
        format!("2026-{:02}-{:02}", 4 + random.below(9), 1 + random.below(28))
    };
    let fills_left = if kind == Kind::NoFillsLeft { 0 } else { 1 + random.below(5) };
    let (city, state, zip) = *random.pick(&CITIES);
    let zip = if kind == Kind::Undeliverable {
        // A digit short, as people type it.
        format!("{:04}", random.below(10_000))
    } else {
        format!("{:05}", zip + random.below(20))
    };
    let name = |random: &mut Random| format!("{} {}", random.pick(&FIRST), random.pick(&LAST));
    let patient = name(random);
    json!({
        "order_id": format!("ORD-2026-{number:06}"),
        "ordered_on": ordered_on,
        "patient": { "name": patient },
        "prescriber": { "name": format!("Dr. {}", name(random)), "npi": npi(random) },
        "prescription": { "valid_until": valid_until, "fills_left": fills_left },
        "drug": {
            "name": drug.name,
            "form": drug.form,
            "strength_mg": random.pick(drug.strengths_mg),
            "quantity": quantity,
            "per_day": random.pick(drug.per_day),
        },
        "warehouse": random.pick(&["north", "south", "west"]),
        "stock": stock,
        "ship": kind != Kind::Collected,
        "address": {
            "name": patient,
            "street": format!("{} {}", 1 + random.below(900), random.pick(&STREETS)),
            "city": city,
            "state": state,
            "zip": zip,
        },
    })
}

/// A National Provider Identifier with its check digit (Luhn over 80840 and nine digits).
fn npi(random: &mut Random) -> String {
    let nine = 100_000_000 + random.below(900_000_000);
    let digits: Vec<u64> = nine.to_string().bytes().map(|digit| u64::from(digit - b'0')).collect();
    let sum: u64 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
        .sum();
    format!("{nine}{}", (10 - (sum + 24) % 10) % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_what_this_makes() {
        let made: Vec<_> = orders().iter().map(ToString::to_string).collect();
        let committed: Vec<_> = include_str!("../../orders.ndjson").lines().collect();
        assert!(made == committed, "run the generator again");
    }

    #[test]
    fn orders_of_each_kind_are_there() {
        let orders = orders();
        let count = |is: &dyn Fn(&Value) -> bool| orders.iter().filter(|order| is(order)).count();
        assert!(count(&|order| order["ship"] == false) > 50);
        assert!(count(&|order| order["prescription"]["fills_left"] == 0) > 10);
        assert!(
            count(&|order| order["address"]["zip"].as_str().is_some_and(|zip| zip.len() < 5)) > 50
        );
        assert!(count(&|order| order["stock"].as_u64() < order["drug"]["quantity"].as_u64()) > 30);
    }
}
