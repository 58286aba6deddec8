//! A store that takes no writes, and one that is taken over: what the host says and does.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, agent, stderr, stdout, text};

/// Sagas that want to go on while the store takes no writes.
const SAGAS: usize = 10;

/// `gate` waits for a signal, `nap` sleeps and then calls.
fn place() -> Place {
    let place = Place::empty();
    let component = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n\
         [[saga]]\nname = \"nap\"\n[[saga.step]]\nname = \"nap\"\nsleep = \"3s\"\n\
         [[saga.step]]\nname = \"good\"\nplugin = \"good\"\nundo = false\nservice = \"shop\"\n",
    );
    place
}

fn start(place: &Place, definition: &str) -> String {
    let output = place.amends(&["start", definition, "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// A small disk; gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// None where the test may not make one.
    fn mount(at: &Path) -> Option<Self> {
        Self::mount_with(at, "size=6m,mode=0700")
    }

    fn mount_with(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        mount.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Until nothing goes into it any more.
    fn fill(&self) {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        for block in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The status and the body of an answer; nobody waits for ever.
fn ask(url: &str, body: Option<&Value>) -> (u16, Value) {
    let limit = Some(Duration::from_secs(25));
    let answer = match body {
        None => agent().get(url).config().timeout_global(limit).build().call(),
        Some(body) => {
            let post = agent().post(url).header("content-type", "application/json");
            post.config().timeout_global(limit).build().send(body.to_string())
        }
    };
    let mut answer = answer.unwrap_or_else(|error| panic!("{url}: {error}"));
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap())
}

fn lines(host: &Host, words: &str) -> usize {
    host.log().iter().filter(|line| line.contains(words)).count()
}

#[test]
fn a_full_disk_is_said_once_answered_at_once_and_over_by_itself() {
    let place = place();
    let Some(disk) = Disk::mount(&place.path("data")) else {
        amends_tests::skipped(
            "a_full_disk_is_said_once",
            "only root may mount the small disk that it needs",
        );
        return;
    };
    let host = place.run();
    let (gate, quiet) = (start(&place, "gate"), start(&place, "gate"));
    let naps: Vec<_> = (0..SAGAS).map(|_| start(&place, "nap")).collect();
    disk.fill();

    host.until("it is not ready", || ask(&host.url("/readyz"), None).0 == 503);
    let (_, problem) = ask(&host.url("/readyz"), None);
    assert_eq!(problem["code"], "store_full", "{problem}");
    // Whoever orders something hears of it, and whoever starts something.
    let order = json!({"reason": "not wanted"});
    let (status, problem) = ask(&host.url(&format!("/v1/sagas/{gate}/cancel")), Some(&order));
    assert_eq!((status, &problem["code"]), (507, &json!("store_full")), "{problem}");
    let (status, problem) = ask(&host.url("/v1/sagas"), Some(&json!({"definition": "gate"})));
    assert_eq!((status, &problem["code"]), (507, &json!("store_full")), "{problem}");
    // A breaker is not opened for as long as the host runs, and forgotten then.
    let open = host.url("/v1/breakers/shop/open");
    let (status, problem) = ask(&open, Some(&json!({"reason": "it is away"})));
    assert_eq!((status, &problem["code"]), (507, &json!("store_full")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("nothing was done to the breaker"));
    assert_eq!(host.get("/v1/breakers")["items"][0]["state"], "closed");
    // The command line does not leave open what is known.
    let refused = place.amends(&["start", "gate"]);
    let told = stderr(&refused);
    assert!(told.contains("the disk is full") && !told.contains("is not known"), "{told}");
    fs::write(place.path("each.ndjson"), "{}\n{}\n").unwrap();
    let refused = place.amends(&["start", "gate", "--input", "each.ndjson", "--each"]);
    let told = stdout(&refused) + &stderr(&refused);
    assert!(told.contains("2  refused") && !told.contains("not known"), "{told}");
    // Each saga that would go on says what holds it back.
    for nap in &naps {
        host.until("it says why", || {
            let (_, why) = ask(&host.url(&format!("/v1/sagas/{nap}/why")), None);
            why["sentence"].as_str().unwrap().contains("cannot be recorded: the disk is full")
        });
    }
    // So does one that only waits.
    let (_, why) = ask(&host.url(&format!("/v1/sagas/{quiet}/why")), None);
    let told = why["sentence"].as_str().unwrap();
    assert!(told.contains("The store takes no writes") && told.contains("disk is full"), "{told}");
    let metrics = text(&host.url("/metrics"));
    assert!(metrics.contains("amends_store_failed_total{reason=\"full\"}"), "{metrics}");
    host.until("the gauges say so", || {
        let metrics = text(&host.url("/metrics"));
        metrics.lines().any(|line| line.starts_with("amends_disk_free_bytes 0"))
    });
    host.until("a warning says so", || lines(&host, "nearly full") == 1);
    // That is said once, however many want to write for however long.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lines(&host, "the store takes no writes"), 1, "{}", host.log().join("\n"));
    assert_eq!(lines(&host, "\"level\":\"ERROR\""), 1, "{}", host.log().join("\n"));

    fs::remove_file(disk.ballast()).unwrap();
    host.until("it is ready", || ask(&host.url("/readyz"), None).0 == 200);
    for nap in &naps {
        host.until("it ends", || host.get(&format!("/v1/sagas/{nap}"))["status"] == "completed");
    }
    assert_eq!(lines(&host, "the store takes writes again"), 1);
    // What was ordered meanwhile was not done; now it is.
    assert_eq!(host.get(&format!("/v1/sagas/{gate}"))["status"], "waiting");
    let (status, saga) = ask(&host.url(&format!("/v1/sagas/{gate}/cancel")), Some(&order));
    assert_eq!(status, 200, "{saga}");

    // A start on a full disk says what is wrong.
    host.kill();
    disk.fill();
    let (code, log) = place.spawn().ended_logged();
    assert_eq!(code, Some(1), "{log:?}");
    let log = log.join("\n");
    assert!(log.contains("full") && !log.contains("another process has taken"), "{log}");
    drop(disk);
}

#[test]
fn a_disk_that_is_nearly_full_is_a_warning_and_the_host_is_ready() {
    let place = place();
    let Some(disk) = Disk::mount(&place.path("data")) else {
        amends_tests::skipped(
            "a_disk_that_is_nearly_full",
            "only root may mount the disk that it needs",
        );
        return;
    };
    let host = place.run();
    let warnings = || host.get("/readyz")["warnings"].clone();
    // Less than 5 % is free; what is written meanwhile fits.
    let ballast = vec![0; (6 << 20) - (200 << 10)];
    let used: u64 =
        fs::read_dir(&disk.0).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(warnings(), Value::Null);
    let ballast = &ballast[usize::try_from(used).unwrap()..];
    fs::write(disk.ballast(), ballast).unwrap();
    host.until("it warns", || warnings()[0]["code"] == "disk_low");
    assert!(warnings()[0]["detail"].as_str().unwrap().contains("nearly full"), "{}", warnings());
    fs::remove_file(disk.ballast()).unwrap();
    host.until("there is room again", || warnings() == Value::Null);
}

/// Where the limit of a file's size is met, as on a disk with errors: what was not committed is not
/// said to be.
#[test]
fn a_start_that_cannot_write_says_what_is_wrong() {
    let place = place();
    let host = place.run();
    start(&place, "gate");
    host.kill();
    // The shell has the signal ignored that would end the process there.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" run \"$1\""])
        .arg(crate::place::binary("amends"))
        .arg(place.path("amends.toml"))
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("disk I/O error") && !told.contains("taken the store over"), "{told}");
    // Nothing of it does harm.
    let host = place.run();
    assert_eq!(host.sagas().len(), 1);
}

/// A service manager must not start a host again whose store is damaged.
#[test]
fn a_start_on_a_damaged_store_ends_with_its_own_code() {
    let place = place();
    let host = place.run();
    start(&place, "gate");
    assert_eq!(host.stop(), Some(0));
    let file = fs::OpenOptions::new().write(true).open(place.path("data/amends.db")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    drop(file);
    let output = place.amends(&["run", "amends.toml"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(9), "{told}");
    assert!(told.contains("the end of it is missing"), "{told}");
    assert!(told.contains("amends store restore BACKUP --config CONFIG --replace"), "{told}");
}

/// The lock does not hold, as on some network file systems: the fence does, and the host that has lost
/// the store ends, also when it has nothing to write.
#[test]
fn a_host_whose_store_is_taken_over_ends_and_says_why() {
    let place = place();
    let host = place.run();
    let gate = start(&place, "gate");
    fs::remove_file(place.path("data/amends.db-lock")).unwrap();
    let other = place.spawn_with_env(&[("AMENDS_LISTEN", "127.0.0.1:0")]);
    let (code, log) = host.ended_logged();
    let log = log.join("\n");
    assert_eq!(code, Some(9), "{log}");
    assert!(log.contains("another process has taken the store over"), "{log}");
    // The other one has it.
    other.until("it is ready", || lines(&other, "amends is ready") == 1);
    assert_eq!(other.stop(), Some(0));
    let host = place.run();
    assert_eq!(host.get(&format!("/v1/sagas/{gate}"))["status"], "waiting");
}

/// As `/tmp` of a hardened machine, and a volume of many a container.
#[test]
fn compiled_code_is_taken_from_where_nothing_may_be_run() {
    let place = place();
    let Some(disk) = Disk::mount_with(&place.path("cache"), "size=64m,mode=0700,noexec") else {
        amends_tests::skipped(
            "compiled_code_is_taken",
            "only root may mount the disk that it needs",
        );
        return;
    };
    for start_of in ["from its file", "from the cache"] {
        let host = place.run();
        let nap = start(&place, "nap");
        host.until(start_of, || host.get(&format!("/v1/sagas/{nap}"))["status"] == "completed");
        assert_eq!(host.stop(), Some(0));
    }
    let inspected = place
        .command(&["plugin", "inspect", "plugins/good.wasm"])
        .env("TMPDIR", &disk.0)
        .current_dir(place.path(""))
        .output()
        .unwrap();
    assert_eq!(inspected.status.code(), Some(0), "{}", stderr(&inspected));
}

/// A config that is mounted for reading, with a cache beside it.
#[test]
fn a_host_starts_where_compiled_code_cannot_be_kept() {
    let place = place();
    let Some(disk) = Disk::mount_with(&place.path("config"), "size=1m,mode=0700,ro") else {
        amends_tests::skipped("a_host_starts_where", "only root may mount the disk that it needs");
        return;
    };
    let cache = disk.0.join("cache");
    let host = place.run_with_env(&[("AMENDS_CACHE", cache.to_str().unwrap())]);
    let nap = start(&place, "nap");
    host.until("it is done", || host.get(&format!("/v1/sagas/{nap}"))["status"] == "completed");
    assert_eq!(lines(&host, "compiled code cannot be kept"), 1, "{}", host.log().join("\n"));
}
