//! Operators who act at once.

use std::fs;

use amends_tests::Component;
use serde_json::json;

use crate::place::{Place, agent, stdout};

/// A saga that has ended is loaded for an order. By the time that it is there, another order may
/// have moved it on.
#[test]
fn orders_that_come_at_once_for_an_ended_saga_all_reach_it() {
    let place = Place::empty();
    fs::write(place.plugin("good"), Component { name: "good", ..Component::default() }.build())
        .unwrap();
    place.config("[[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n");
    let host = place.run();
    fs::write(place.path("lines"), "{}\n".repeat(200)).unwrap();
    let start = ["start", "good", "--input", "lines", "--each", "--wait", "-o", "ids"];
    let ids = stdout(&place.amends(&start));
    assert_eq!(ids.lines().count(), 200);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for id in ids.lines() {
                    let url = host.url(&format!("/v1/sagas/{id}/compensate"));
                    let answer = agent().post(url).send_json(json!({"reason": "recalled"}));
                    assert_eq!(answer.unwrap().status(), 200, "{id}");
                }
            });
        }
    });
    host.settle();
    for saga in host.sagas() {
        assert_eq!(saga["status"], "compensated", "{saga}");
    }
    assert!(!host.log().iter().any(|line| line.contains("saga is quarantined")));
    assert_eq!(host.stop(), Some(0));
}
