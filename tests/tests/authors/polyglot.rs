//! A saga whose steps are written in Rust, Python, C and JavaScript.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_sandbox::{CacheConfig, Inspection, Loader, PluginSettings, Priority, TrustedKeys};
use serde_json::Value;

use crate::place::{Host, Place, binary, repository, stdout};
use crate::project::{built, cache, one_at_a_time, placed};

/// Those that are written for the example: Python, C and JavaScript.
const STEPS: [&str; 3] = ["quote", "label", "notify"];

/// What a component may take at most that was compiled before. On a machine that does nothing else
/// the largest takes a tenth of it; to compile it takes ten times as long.
const COLD_LOAD_MAX: Duration = Duration::from_secs(1);

/// Sagas that run while a step is swapped.
const SAGAS: usize = 200;

fn example() -> PathBuf {
    repository().join("examples/polyglot")
}

/// A copy of the source of a step, with what its links lead to.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let is_made = ["node_modules", ".venv"].iter().any(|made| *made == name)
            || path.extension().is_some_and(|extension| extension == "wasm");
        if path.is_dir() && !is_made {
            copied(&path, &to.join(name));
        } else if !is_made {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The example with its components built; none when a toolchain is missing.
fn place() -> Option<Place> {
    let place = Place::empty();
    let config = fs::read_to_string(example().join("amends.toml")).unwrap();
    place.config(&config[config.find("[plugin.").unwrap()..]);
    fs::copy(repository().join("plugins/inventory.wasm"), place.plugin("inventory")).unwrap();
    for step in STEPS {
        let folder = placed(step, |folder| copied(&example().join(step), folder));
        fs::copy(built(&folder)?, place.plugin(step)).unwrap();
    }
    Some(place)
}

fn start(place: &Place, file: &str) -> (Option<i32>, Value) {
    let input = example().join(file);
    let arguments = ["start", "parcel", "--input", input.to_str().unwrap(), "--wait", "-o", "json"];
    let output = place.amends(&arguments);
    (output.status.code(), serde_json::from_str(&stdout(&output)).unwrap())
}

fn steps(saga: &Value) -> Vec<(&str, &str)> {
    let steps = saga["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["name"].as_str().unwrap(), step["status"].as_str().unwrap())).collect()
}

#[test]
fn a_saga_in_four_languages_completes_and_comes_undone() {
    let _one = one_at_a_time();
    let Some(place) = place() else { return };
    let host = place.run();
    let (code, saga) = start(&place, "parcel.json");
    assert_eq!((code, &saga["status"]), (Some(0), &Value::from("completed")), "{saga:#}");
    let outputs: Vec<_> =
        saga["steps"].as_array().unwrap().iter().map(|step| &step["output"]).collect();
    assert_eq!(outputs[1]["price_cents"], 690 + 2 * 150);
    assert_eq!(outputs[2]["label"], "034012345000000019");
    let text = outputs[3]["text"].as_str().unwrap();
    assert_eq!(text, "ada@example.com: parcel 034012345000000019 is on its way, for 9.90");

    let (code, saga) = start(&place, "parcel-unreachable.json");
    assert_eq!(code, Some(5), "{saga:#}");
    assert_eq!(
        steps(&saga),
        [("stock", "undone"), ("price", "undone"), ("label", "undone"), ("message", "failed")]
    );
    // In reverse, and each of them had something to undo.
    let events = host.events();
    let undone: Vec<_> = events.iter().filter(|event| event["type"] == "undo.succeeded").collect();
    let order: Vec<_> = undone.iter().map(|event| &event["data"]["step"]).collect();
    assert_eq!(order, ["label", "price", "stock"]);
    assert!(undone.iter().all(|event| event["data"]["receipt"].is_object()), "{undone:#?}");
    let kept = |key: &str| stdout(&place.amends(&["state", "list", "inventory", key]));
    assert_eq!(kept("reservation/").lines().filter(|line| line.contains("RSV-")).count(), 1);
    cold_loads(&place);
    swaps(&place, &host);
    assert_eq!(host.stop(), Some(0));
}

/// From bytes to a component that can be called, with its code compiled by an earlier process.
fn cold_loads(place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept =
        CacheConfig { dir: place.path("cache"), key: Some(place.path("data/amends.db-cache-key")) };
    let load = |bytes: &[u8]| {
        let amends = Inspection::Child(binary("amends"));
        let loader = Loader::new(Some(&kept), TrustedKeys::default(), amends).unwrap();
        let settings = Arc::new(PluginSettings::for_inspection());
        let began = Instant::now();
        runtime.block_on(loader.load(bytes.to_vec(), settings, Priority::Awaited)).unwrap();
        (began.elapsed(), loader.compiled())
    };
    for step in ["inventory", "quote", "label", "notify"] {
        // The machine is shared, and other builds may run on it: the best of ten is what it takes.
        let bytes = fs::read(place.plugin(step)).unwrap();
        // With other settings than the host's it is asked for its manifest once more.
        let (asked, compiled) = load(&bytes);
        assert_eq!(compiled, 0, "{step} was not in the cache");
        println!("asked {step} once more: {asked:?}");
        let times = [(); 10].map(|()| load(&bytes).0);
        println!("cold load of {step}: {times:?}");
        let took = times.iter().min().unwrap();
        assert!(*took < COLD_LOAD_MAX, "{step} took {times:?}");
    }
}

/// The JavaScript step is built anew and copied over while sagas run.
fn swaps(place: &Place, host: &Host) {
    let folder = cache().join("projects/notify");
    let source = folder.join("plugin.js");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("'0.1.0'", "'0.2.0'").replace("on its way", "under way"))
        .unwrap();
    let new = built(&folder).unwrap();
    let parcel: Value =
        serde_json::from_str(&fs::read_to_string(example().join("parcel.json")).unwrap()).unwrap();
    let lines = vec![parcel.to_string(); SAGAS].join("\n");
    fs::write(place.path("parcels.ndjson"), lines).unwrap();
    let run = || {
        let arguments =
            ["start", "parcel", "--input", "parcels.ndjson", "--each", "--wait", "300s"];
        place.command(&arguments).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut first = run();
    // Whole or not at all, as `plugin build -o` puts it there.
    let beside = place.path("notify.new");
    fs::copy(new, &beside).unwrap();
    fs::rename(beside, place.plugin("notify")).unwrap();
    host.until("the new one is active", || host.get("/v1/plugins/notify")["version"] == "0.2.0");
    let mut second = run();
    for client in [&mut first, &mut second] {
        assert_eq!(client.wait().unwrap().code(), Some(0), "a saga did not complete");
    }
    host.settle();
    let sagas = host.sagas();
    assert_eq!(sagas.iter().filter(|saga| saga["status"] == "completed").count(), 1 + 2 * SAGAS);
    let (code, saga) = start(place, "parcel.json");
    assert_eq!(code, Some(0));
    assert!(saga["output"]["text"].as_str().unwrap().contains("is under way"), "{saga:#}");
}
