//! What runs: the definitions, their plugins, and what a saga of each is given.

use std::fs;

use amends_tests::{Behaviour, Component, list_append};
use serde_json::{Value, json};

use crate::place::{Place, repository};
use crate::random::Random;
use crate::service::Service;

/// Pieces in stock at first, of which each saga takes one: never too few.
pub(crate) const STOCK: u64 = 1_000_000;

/// Under which the plugin keeps that.
pub(crate) const STOCK_KEY: &str = "stock/north/metformin-500mg-tablet";

/// The steps with an effect in the ledger, in the order in which they run.
pub(crate) const SHIPPED: [&str; 3] = ["ship-a", "ship-b", "ship-c"];

/// The definitions that clients start. `hold` is started by the fault that needs it.
pub(crate) const DEFINITIONS: [&str; 8] =
    ["plain", "gate", "pivot", "sleepy", "parent", "list", "late", "append"];

/// Lists to which sagas of one age append.
const LISTS: [&str; 3] = ["a", "b", "c"];

/// Calls of a saga that append.
const APPENDS: usize = 4;

/// The versions of `note` that are deployed in turn.
const NOTES: [&str; 2] = ["1.0.0", "1.0.1"];

/// A place with all of them.
pub(crate) fn place(service: &Service) -> Place {
    let place = Place::empty();
    for name in ["shipment", "inventory", "inventory-release"] {
        let file = repository().join(format!("plugins/{name}.wasm"));
        fs::copy(file, place.plugin(name)).unwrap();
    }
    let refuse =
        Component { name: "refuse", execute: Behaviour::Permanent, ..Component::default() };
    fs::write(place.plugin("refuse"), refuse.build()).unwrap();
    fs::write(place.plugin("note"), note(NOTES[1])).unwrap();
    fs::write(place.plugin("append"), list_append()).unwrap();
    place.config(&config(&service.url));
    place
}

/// The component that is deployed in place of the one of this version.
pub(crate) fn note(served: &str) -> Vec<u8> {
    let version = NOTES[usize::from(served == NOTES[0])];
    Component { name: "note", version, ..Component::default() }.build()
}

pub(crate) fn config(url: &str) -> String {
    let undo = "retry = { attempts = 1000, initial = \"20ms\", max = \"200ms\" }";
    let ship = |letter: &str, more: &str| {
        format!(
            "[[saga.step]]\nname = \"ship-{letter}\"\nplugin = \"shipment\"\n{more}\n\
             [saga.step.input]\norder_id = \"saga.id + '/ship-{letter}'\"\nweight_g = \"100\"\n\
             address = \"{{'name': 'Ada', 'street': '12 Oak Avenue', 'city': 'Portland', \
             'state': 'OR', 'zip': '97201'}}\"\n"
        )
    };
    let undone = format!("undo = {{ {undo} }}");
    let few = "retry = { attempts = 6, initial = \"20ms\", max = \"200ms\" }";
    let many = "retry = { attempts = 1000, initial = \"20ms\", max = \"200ms\" }";
    let (a, b) = (
        ship("a", &format!("{few}\n{undone}")),
        ship("b", &format!("{few}\n{undone}\nservice = \"flaky\"")),
    );
    let pivot = ship("b", &format!("{many}\n{undone}\npivot = true"));
    let last = ship("c", &format!("{many}\nundo = false"));
    let gate = |timeout: &str| {
        format!(
            "[[saga.step]]\nname = \"approval\"\n\
             wait = {{ signal = \"approved\", timeout = \"{timeout}\" }}\n"
        )
    };
    let (short, long) = (gate("1500ms"), gate("30m"));
    let refuse = "[[saga.step]]\nname = \"refuse\"\nplugin = \"refuse\"\nwhen = \"input.fail\"\n";
    let stock = format!(
        "[[saga.step]]\nname = \"stock\"\nplugin = \"inventory\"\n{few}\n\
         undo = {{ plugin = \"inventory-release\", {undo} }}\n\
         [saga.step.input]\norder_id = \"input.n\"\nwarehouse = \"'north'\"\n\
         drug = \"{{'name': 'metformin', 'form': 'tablet', 'strength_mg': 500, 'quantity': 1}}\"\n"
    );
    let note = "[[saga.step]]\nname = \"note\"\nplugin = \"note\"\ninput = \"input\"\n";
    let nap = "[[saga.step]]\nname = \"nap\"\nsleep = \"400ms\"\n";
    let append = format!(
        "[[saga.step]]\nname = \"append\"\nplugin = \"append\"\ninput = \"item\"\n\
         each = {{ list = \"input.appends\", concurrency = 3 }}\n{many}\nundo = false\n"
    );
    format!(
        "[plugin.shipment]\nallow_hosts = [\"{url}\"]\nsettings = {{ carrier = \"{url}\" }}\n\
         request_timeout = \"300ms\"\n\
         [plugin.inventory]\nstate = true\nsettings = {{ stock_default = {STOCK} }}\n\
         [plugin.append]\nstate = true\n\
         [service.flaky]\nbreaker = {{ failures = 5, open_for = \"300ms\" }}\n\
         [[saga]]\nname = \"plain\"\n{a}{stock}{note}{b}{refuse}\
         [[saga]]\nname = \"gate\"\n{a}{short}{b}{refuse}\
         [[saga]]\nname = \"pivot\"\n{a}{stock}{pivot}{last}\
         [[saga]]\nname = \"sleepy\"\n{a}{nap}{b}{refuse}\
         [[saga]]\nname = \"late\"\ndeadline = \"1s\"\n{a}{stock}{nap}{b}{short}\
         [[saga]]\nname = \"append\"\n{append}{refuse}\
         [[saga]]\nname = \"hold\"\n{a}{long}{b}\
         [[saga]]\nname = \"parent\"\n{a}\
         [[saga.step]]\nname = \"child\"\nsaga = \"plain\"\n\
         input = \"{{'n': input.n + '.c', 'fail': input.fail_child}}\"\n{refuse}\
         [[saga]]\nname = \"list\"\n\
         [[saga.step]]\nname = \"each\"\nsaga = \"sleepy\"\ninput = \"item\"\n\
         each = {{ list = \"input.items\", concurrency = 2 }}\n{refuse}"
    )
}

/// Operations of the plugin `append`, one text for each call of a saga. Lists of another age are others, so none
/// becomes long.
pub(crate) fn appends(age: u64, random: &mut Random) -> Vec<String> {
    let operations = |random: &mut Random| {
        let mut lists = LISTS;
        random.shuffle(&mut lists);
        let signs: &[&str] = match random.below(10) {
            0..4 => &["+"],
            4..6 => &["+", "+"],
            // Two calls that each read what the other one writes must not miss each other.
            6..9 => &["+", "?"],
            _ => &["?", "?"],
        };
        let operations = signs.iter().zip(lists);
        let operations = operations.map(|(sign, list)| format!("{sign}{age:05}{list}"));
        operations.collect::<Vec<_>>().concat()
    };
    (0..APPENDS).map(|_| operations(random)).collect()
}

/// What the saga of this name is given: its own name, and whether it comes undone.
pub(crate) fn input(name: &str, random: &mut Random) -> Value {
    let fails = |random: &mut Random| random.percent(25);
    let items: Vec<Value> = (0..3)
        .map(|item| json!({"n": format!("{name}.{item}"), "fail": random.percent(4)}))
        .collect();
    json!({"n": name, "fail": fails(random), "fail_child": fails(random), "items": items})
}
