//! The fault matrix: every step of every shape, with every trouble, in both directions, as one
//! cell each, generated. A cell is a definition of its own and one saga of it.
//!
//! What happened is told by the components: each effect is a line in the log of the host. It is
//! compared with what the host says of the saga.
//!
//! Deliberately absent: trouble of a step that runs a saga. It calls no component; what fails in
//! it is a step of the saga that it runs, and a host that is killed at one of those is killed
//! during it.

mod cell;
mod check;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use amends_tests::{Behaviour, Component, Fault, FaultKind};
use serde_json::{Value, json};

use self::cell::{Cell, Direction, Rest, SHAPES, Trouble};
use self::check::{check, check_keys};
use self::witness::{Line, Witness, effects};
use crate::place::{Host, Place, agent};

/// Offences that are told of: where one is everywhere, the rest says no more.
const TOLD_MAX: usize = 40;

/// A place with the definitions and the components of these cells.
fn place(cells: &[Cell]) -> Place {
    let place = Place::empty();
    let write = |component: Component<'_>| {
        fs::write(place.plugin(component.name), component.build()).unwrap();
    };
    write(Direction::Execute.component("good", Behaviour::Effect));
    write(Direction::Execute.component("refuse", Behaviour::Permanent));
    // So few calls that never end leave the others time enough.
    let mut config = String::from("[service.slow]\nconcurrency = 4\n");
    let mut written = BTreeSet::new();
    for cell in cells {
        let plugin = cell.plugin();
        if written.insert(plugin.clone()) {
            write(cell.direction.component(&plugin, cell.trouble.behaviour(cell.step)));
        }
        config += &cell.config();
    }
    place.config(&config);
    place
}

/// Starts a saga of each cell; their ids by definition.
fn start(host: &Host, cells: &[&Cell]) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    let agent = agent();
    for cell in cells {
        let answer =
            agent.post(host.url("/v1/sagas")).send_json(json!({"definition": cell.name()}));
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 202, "{text}");
        let saga: Value = serde_json::from_str(&text).unwrap();
        ids.insert(cell.name(), saga["id"].as_str().unwrap().to_owned());
    }
    ids
}

/// Waits until each saga rests. A parent whose child is blocked is still being undone, and in a
/// saga that is blocked the undos beside go on.
fn settle(host: &Host, cells: &[&Cell], ids: &BTreeMap<String, String>) {
    let saga = |id: &str| host.get(&format!("/v1/sagas/{id}"));
    let has_blocked_child = |id: &str| {
        let parent = saga(id);
        let mut steps = parent["steps"].as_array().unwrap().iter();
        steps.any(|step| {
            step["child"].as_str().is_some_and(|child| saga(child)["status"] == "blocked")
        })
    };
    host.until("every saga rests", || {
        let page = host.get("/v1/sagas?status=running,waiting,compensating&limit=1000");
        page["items"].as_array().unwrap().iter().all(|saga| {
            saga["status"] == "compensating" && has_blocked_child(saga["id"].as_str().unwrap())
        })
    });
    for cell in cells.iter().filter(|cell| cell.rest() == Rest::Blocked) {
        let (name, id) = (cell.name(), &ids[&cell.name()]);
        host.until(&format!("what is beside the blocked step of {name} is undone"), || {
            let saga = saga(id);
            let mut beside = cell.shape.steps.iter().filter(|step| cell.is_beside(step.name));
            beside.all(|step| {
                let mut steps = saga["steps"].as_array().unwrap().iter();
                steps.any(|shown| shown["name"] == step.name && shown["status"] == "undone")
            })
        });
    }
}

/// Judges every cell.
fn judge(witness: &Witness, cells: &[Cell], ids: &BTreeMap<String, String>) {
    let mut wrong = check_keys(witness);
    wrong.extend(cells.iter().flat_map(|cell| check(witness, cell, &ids[&cell.name()])));
    println!("{} cells checked", cells.len());
    let (count, first) = (wrong.len(), wrong.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{count} offences, the first of them:\n{}", first.join("\n"));
}

/// The number of steps that call a component.
fn steps() -> usize {
    SHAPES.iter().map(|shape| shape.steps.len()).sum()
}

#[test]
fn each_step_that_fails_in_each_way_is_undone_or_blocked() {
    let cells = Cell::all(&Trouble::faults());
    assert_eq!((steps(), cells.len()), (16, 16 * 2 * 11), "steps, directions, faults");
    let place = place(&cells);
    let host = place.run();
    let all: Vec<_> = cells.iter().collect();
    let ids = start(&host, &all);
    settle(&host, &all, &ids);
    let witness = Witness::of(host, Vec::new());
    judge(&witness, &cells, &ids);
    what_is_wrong_is_found(&witness, &ids);
}

#[test]
fn each_call_that_the_host_is_killed_before_during_or_after_is_made_good() {
    let cells = Cell::all(&Trouble::KILLS);
    assert_eq!(cells.len(), 16 * 2 * 3, "steps, directions, moments");
    let place = place(&cells);
    let (mut ids, mut log) = (BTreeMap::new(), Vec::new());
    for kill in Trouble::KILLS {
        let cells: Vec<_> = cells.iter().filter(|cell| cell.trouble == kill).collect();
        let subjects: Vec<_> = cells.iter().map(|cell| cell.subject()).collect();
        let failpoints = match kill {
            Trouble::KilledBefore => format!("plugins.call.before=return({})", subjects.join(",")),
            Trouble::KilledAfter => format!("plugins.call.returned=return({})", subjects.join(",")),
            // The component does not come back by itself.
            Trouble::KilledDuring | Trouble::Fails(_) => String::new(),
        };
        let mut host = place.spawn_with(&failpoints);
        assert!(host.becomes_ready());
        ids.extend(start(&host, &cells));
        host.until("every call is where the host is to be killed", || {
            let log = host.log();
            let there = match kill {
                Trouble::KilledDuring => effects(&log, &cells),
                Trouble::KilledBefore | Trouble::KilledAfter | Trouble::Fails(_) => {
                    log.iter().filter(|line| line.contains("call is held")).count()
                }
            };
            there == cells.len()
        });
        log.extend(host.kill());
        // They come to rest before the next kill, so that each is killed once.
        let host = place.run();
        settle(&host, &cells, &ids);
        let (code, more) = host.stop_logged();
        assert_eq!(code, Some(0));
        log.extend(more);
    }
    let witness = Witness::of(place.run(), log);
    judge(&witness, &cells, &ids);
}

/// The judge finds what it looks for: each of these is told of.
fn what_is_wrong_is_found(witness: &Witness, ids: &BTreeMap<String, String>) {
    let cell = Cell {
        shape: &SHAPES[0],
        step: "c",
        direction: Direction::Execute,
        trouble: Trouble::Fails(Fault {
            kind: FaultKind::Permanent,
            attempts: u32::MAX,
            has_effect: false,
            element: None,
        }),
    };
    let id = &ids[&cell.name()];
    let key = |step: &str| (id.clone(), step.to_owned());
    let spoiled = |what: &str, spoil: &dyn Fn(&mut Witness)| {
        let mut witness = witness.clone();
        spoil(&mut witness);
        let wrong = [check_keys(&witness), check(&witness, &cell, id)].concat();
        assert!(wrong.iter().any(|wrong| wrong.contains(what)), "not found: {what}: {wrong:?}");
    };
    let again = |witness: &mut Witness, change: &dyn Fn(&mut Line)| {
        let lines = witness.lines.get_mut(&key("b")).unwrap();
        let mut line = lines[0].clone();
        change(&mut line);
        lines.insert(1, line);
    };
    spoiled("made twice", &|witness| again(witness, &|_| ()));
    spoiled("two effects", &|witness| again(witness, &|line| line.key.push('0')));
    spoiled("not recorded", &|witness| again(witness, &|line| line.attempt = 2));
    spoiled("execute in attempts [1]", &|witness| again(witness, &|line| line.attempt = 2));
    spoiled("should be (true, true)", &|witness| {
        witness.lines.get_mut(&key("b")).unwrap().pop();
    });
    spoiled("should be (true, true)", &|witness| {
        witness.lines.get_mut(&key("b")).unwrap().remove(0);
    });
    spoiled("should be (false, false)", &|witness| {
        let lines = witness.lines[&key("b")].clone();
        witness.lines.insert(key("c"), lines);
    });
    spoiled("done after it was undone", &|witness| {
        let lines = witness.lines.get_mut(&key("b")).unwrap();
        let line = lines[0].clone();
        lines.push(line);
    });
    spoiled("a was undone before b", &|witness| {
        let position = witness.lines[&key("a")][1].position;
        witness.lines.get_mut(&key("b")).unwrap()[1].position = position + 1;
    });
    spoiled("two calls have key", &|witness| {
        let other = witness.lines[&key("a")][0].key.clone();
        witness.lines.get_mut(&key("b")).unwrap()[0].key = other;
    });
    spoiled("step b is", &|witness| {
        witness.sagas.get_mut(id).unwrap().saga["steps"][1]["status"] = json!("succeeded");
    });
    spoiled("\"status\":\"completed\"", &|witness| {
        witness.sagas.get_mut(id).unwrap().saga["status"] = json!("completed");
    });
    spoiled("not by `c failed`", &|witness| {
        witness.sagas.get_mut(id).unwrap().saga["reason"] = json!("cancelled");
    });
}
