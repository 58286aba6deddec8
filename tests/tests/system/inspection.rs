//! Components and compiled code that mean harm to whoever looks at them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use amends_tests::{Component, bombs, live_locals};

use crate::place::{Host, Place, stderr};

/// With what the process ends that runs planted code.
const PLANTED: u8 = 42;

fn place() -> Place {
    let place = Place::empty();
    fs::write(place.plugin("good"), named("1.0.0")).unwrap();
    place.config("[[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n");
    place
}

fn named(version: &str) -> Vec<u8> {
    Component { name: "good", version, ..Component::default() }.build()
}

fn completes(place: &Place) {
    let output = place.amends(&["start", "good", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// The last refusal of a plugin.
pub(crate) fn refusal(host: &Host, name: &str) -> Option<String> {
    let plugins = host.get("/v1/plugins");
    let plugin = plugins["items"].as_array()?.iter().find(|one| one["name"] == name)?.clone();
    Some(plugin["last_rejection"]["reason"].as_str()?.to_owned())
}

#[test]
fn a_host_refuses_what_harms_whoever_looks_at_it_and_serves_on() {
    let place = place();
    let host = place.run();
    let before = host.memory_mib();
    fs::write(place.plugin("locals"), live_locals()).unwrap();
    let bombs = bombs();
    for (number, bomb) in bombs.iter().enumerate() {
        fs::write(place.plugin(&format!("bomb-{number}")), &bomb.bytes).unwrap();
    }
    completes(&place);
    for (number, bomb) in bombs.iter().enumerate() {
        host.until(bomb.name, || {
            let reason = refusal(&host, &format!("bomb-{number}"));
            reason.is_some_and(|reason| reason.contains(bomb.words))
        });
        completes(&place);
    }
    let words = "took more than 1024 MiB of memory";
    host.until("locals", || refusal(&host, "locals").is_some_and(|reason| reason.contains(words)));
    // It reads files and answers of children, and compiles nothing.
    let after = host.memory_mib();
    println!("memory {before} to {after} MiB");
    assert!(after < before + 100, "memory {before} to {after} MiB");
    assert_eq!(host.stop(), Some(0));
    // The next start remembers what met a limit.
    let began = Instant::now();
    let host = place.run();
    println!("ready after {:?}", began.elapsed());
    completes(&place);
    assert_eq!(host.stop(), Some(0));
}

/// Overwrites the machine code of a compiled component with the end of the process.
fn plant(code: &Path) {
    // mov eax, 231 (exit_group); mov edi, PLANTED; syscall
    let end = [&[0xb8, 231, 0, 0, 0, 0xbf, PLANTED, 0, 0, 0, 0x0f, 0x05][..], &[0x90; 4]].concat();
    let mut bytes = fs::read(code).unwrap();
    let number = |bytes: &[u8], at: usize, length: usize| {
        let mut number = [0; 8];
        number[..length].copy_from_slice(&bytes[at..at + length]);
        usize::try_from(u64::from_le_bytes(number)).unwrap()
    };
    // The table of sections of an ELF file: those that are code have the flag 4.
    let (table, size, count) =
        (number(&bytes, 0x28, 8), number(&bytes, 0x3a, 2), number(&bytes, 0x3c, 2));
    let mut planted = 0;
    for section in (0..count).map(|index| table + index * size) {
        if number(&bytes, section + 8, 8) & 4 == 0 {
            continue;
        }
        let (at, length) = (number(&bytes, section + 0x18, 8), number(&bytes, section + 0x20, 8));
        let no_operation = bytes[at..at + length].iter_mut();
        no_operation.for_each(|byte| *byte = 0x90);
        for offset in (0..length.saturating_sub(end.len())).step_by(end.len()) {
            bytes[at + offset..at + offset + end.len()].copy_from_slice(&end);
            planted += 1;
        }
    }
    assert!(planted > 10, "it has code");
    fs::write(code, bytes).unwrap();
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|is| is == ending)).collect()
}

/// Of the checksum that stood beside code in earlier versions, nothing is left to be forged; what stands
/// there now, nobody has the key of.
#[test]
fn compiled_code_that_somebody_planted_is_never_run() {
    let place = place();
    let host = place.run();
    completes(&place);
    assert_eq!(host.stop(), Some(0));
    let code = files(&place.path("cache"), "cwasm");
    assert_eq!(code.len(), 1);
    plant(&code[0]);
    let output = place.amends(&["check", "amends.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output =
        place.amends(&["plugin", "inspect", "plugins/good.wasm", "--config", "amends.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    fs::write(place.path("input.json"), "{}").unwrap();
    let output = place.amends(&["chaos", "amends.toml", "--input", "input.json"]);
    assert_ne!(output.status.code(), Some(i32::from(PLANTED)), "{}", stderr(&output));
    let host = place.run();
    completes(&place);
    let log = host.log().join("\n");
    assert!(log.contains("is damaged, or not this host's, and is made anew"), "{log}");
    assert_eq!(host.stop(), Some(0));
    // Code under the name of another component is not that component's either.
    fs::write(place.plugin("good"), named("2.0.0")).unwrap();
    let host = place.run();
    host.until("2.0.0 is active", || host.get("/v1/plugins/good")["version"] == "2.0.0");
    assert_eq!(host.stop(), Some(0));
    let digest = Component { name: "good", version: "2.0.0", ..Component::default() }.build();
    let digest = amends_engine::Digest::of(&digest).to_string();
    let of_second = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        digest.ends_with(name.split('-').next().unwrap())
    };
    for ending in ["cwasm", "blake3", "json"] {
        let all = files(&place.path("cache"), ending);
        let second = all.iter().find(of_second).unwrap();
        let first = all.iter().find(|path| !of_second(path)).unwrap();
        fs::copy(first, second).unwrap();
    }
    let host = place.run();
    assert_eq!(host.get("/v1/plugins/good")["version"], "2.0.0");
    completes(&place);
    assert_eq!(host.stop(), Some(0));
}
