//! The stock that the inventory plugin keeps: the last pieces go out once, whatever happens.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::StateQuery;
use amends_store::{Durability, SqliteStore, Store};
use serde_json::Value;

use crate::place::{Host, Place, example, stdout};

const ORDERS: usize = 64;
/// What one order wants, and how many such there are in stock.
const QUANTITY: u64 = 60;
const IN_STOCK: u64 = 10;
/// Less than an order wants stays.
const REST: u64 = 7;

const KEY: &str = "stock/north/metformin-500mg-tablet";

/// 64 sagas at once want one of the last 10 packs, and the host is killed in the middle: 10 get
/// one, and the books say the same as the sagas.
#[test]
fn the_last_pieces_are_reserved_once_though_the_host_is_killed() {
    for (round, delay_ms) in [3, 12, 40].into_iter().enumerate() {
        let place = Place::example();
        let config = fs::read_to_string(place.path("amends.toml")).unwrap();
        let stock = QUANTITY * IN_STOCK + REST;
        let scarce = config.replace("stock_default = 100000", &format!("stock_default = {stock}"));
        assert_ne!(scarce, config);
        fs::write(place.path("amends.toml"), scarce).unwrap();
        let mut order: Value =
            serde_json::from_str(&fs::read_to_string(example().join("order.json")).unwrap())
                .unwrap();
        // The books decide, not what the shop believes.
        order["stock"] = 100_000.into();
        fs::write(place.path("orders"), format!("{order}\n").repeat(ORDERS)).unwrap();
        let start = [
            "start",
            "order-fulfillment",
            "--input",
            "orders",
            "--each",
            "--key",
            "k",
            "-o",
            "ids",
        ];

        let host = place.run();
        let client = place.command(&start).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        std::thread::sleep(Duration::from_millis(delay_ms));
        host.kill();
        client.unwrap().wait().unwrap();
        let host = place.run();
        let output = place.amends(&[&start[..], &["--wait", "120s"]].concat());
        assert_eq!(stdout(&output).lines().count(), ORDERS, "{}", crate::place::stderr(&output));
        host.settle();

        let sagas = host.sagas();
        let of = |status: &str| sagas.iter().filter(|saga| saga["status"] == status).count();
        let found = (of("completed"), of("compensated"));
        assert_eq!(found, (10, ORDERS - 10), "round {round}, killed after {delay_ms} ms");
        assert_eq!(host.stop(), Some(0));
        check_books(&place);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_books(place: &Place) {
    let store = SqliteStore::open(&place.path("data/amends.db"), Durability::Full).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let inventory = || "inventory".parse().unwrap();
    let stock = store.state().value(inventory(), KEY.to_owned()).await.unwrap();
    assert_eq!(stock.as_deref(), Some("7"), "what no order could have");
    let query = StateQuery { prefix: "reservation/".to_owned(), after: None, limit: 100 };
    let reserved = store.state().keys(inventory(), query).await.unwrap();
    assert_eq!(reserved.len(), 10, "{reserved:?}");
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// Of calls of one saga that change the same key at once, each round has at least one recorded, and
/// what each of them writes is written, however often an append of theirs was refused.
#[test]
fn steps_of_one_saga_take_from_one_shelf_at_once() {
    const STEPS: u64 = 12;
    let place = Place::example();
    let mut config = String::from(
        "[plugin.inventory]\nstate = true\nsettings = { stock_default = 600 }\n\
         [[saga]]\nname = \"many\"\n",
    );
    for number in 0..STEPS {
        let _ = write!(
            config,
            "[[saga.step]]\nname = \"take-{number}\"\nplugin = \"inventory\"\nafter = []\n\
             retry = {{ attempts = 1 }}\nundo = {{ plugin = \"inventory-release\" }}\n\
             input = \"input\"\n"
        );
    }
    place.config(&config);
    // Ten of them are enough for all that is there.
    let order = example().join("order.json");
    let host = place.run();
    let output = place.amends(&["start", "many", "--input", order.to_str().unwrap(), "--wait"]);
    assert_eq!(output.status.code(), Some(5), "{}", stdout(&output));
    assert!(stdout(&output).contains("out_of_stock"), "{}", stdout(&output));
    assert_eq!(reservations(&host), 0);
    let state = |key: &str| host.get(&format!("/v1/plugins/inventory/state/{key}"));
    assert_eq!(state(KEY)["value"], 600, "what was taken is back");
    let output = place.amends(&["state", "set", "inventory", KEY, "1000"]);
    assert_eq!(output.status.code(), Some(0));
    let output = place.amends(&["start", "many", "--input", order.to_str().unwrap(), "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert_eq!(state(KEY)["value"], 1000 - STEPS * QUANTITY);
    assert_eq!(reservations(&host), 12);
    assert_eq!(host.stop(), Some(0));
}

fn reservations(host: &Host) -> usize {
    let page = host.get("/v1/plugins/inventory/state?prefix=reservation/&limit=1000");
    page["items"].as_array().unwrap().len()
}
