//! The config that the README shows is one that works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn amends(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args(arguments).env_clear().current_dir(repository());
    command
}

/// The config of the README beside a link to the repository's plugins, in a folder that lies as
/// deep as the README says.
fn config() -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, block) = text.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("plugins"), folder.path().join("plugins"))
        .unwrap();
    let mine = folder.path().join("examples/mine");
    std::fs::create_dir_all(&mine).unwrap();
    let path = mine.join("amends.toml");
    std::fs::write(&path, block).unwrap();
    (folder, path)
}

/// Killed when the test ends, however it does.
struct Host {
    process: Child,
    address: String,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A host on a free port, once it is ready.
fn run(config: &Path) -> Host {
    let mut command = amends(&["run", config.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(process.stderr.take().unwrap());
    let mut host = Host { process, address: String::new() };
    let mut lines = log.lines().map_while(Result::ok);
    let ready = lines.by_ref().find(|line| line.contains("amends is ready"));
    let ready: serde_json::Value = serde_json::from_str(&ready.unwrap()).unwrap();
    host.address = format!("http://{}", ready["listen"].as_str().unwrap());
    std::thread::spawn(move || lines.for_each(drop));
    host
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn the_config_of_the_readme_is_sound_and_completes_an_order() {
    let (_folder, path) = config();
    let checked = amends(&["check", path.to_str().unwrap()]).output().unwrap();
    assert!(text(&checked).ends_with("is sound: no mistakes\n"), "{}", text(&checked));

    let host = run(&path);
    for (order, code) in [("order", 0), ("order-undeliverable", 5)] {
        let order = format!("examples/order-fulfillment/{order}.json");
        let start = ["start", "order-fulfillment", "--input", &order, "--wait", "--host"];
        let output = amends(&start).arg(&host.address).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{order}: {}", text(&output));
    }
}
