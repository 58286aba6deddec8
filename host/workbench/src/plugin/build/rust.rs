//! Rust, by rustup's `wasm32-unknown-unknown`, or by Debian's toolchain, which compiles the standard
//! library itself.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use wit_component::ComponentEncoder;

use super::tool::{answers, find, run};

const TARGET: &str = "wasm32-unknown-unknown";

const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown`, or where that cannot be had, \
                      as root on Debian: apt-get install rustc-web cargo-web rust-web-src \
                      rust-web-llvm lld";

/// Debian's.
const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const LIBRARY: &str = "/usr/lib/rustlib/src";

pub(super) fn build(dir: &Path, made: &Path) -> anyhow::Result<()> {
    let target_dir = match env::var_os("CARGO_TARGET_DIR") {
        Some(target_dir) => env::current_dir()?.join(target_dir),
        None => dir.join("target"),
    };
    let mut command = toolchain(dir)?;
    command
        .current_dir(dir)
        .args(["build", "--quiet", "--release", "--lib", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", flags(dir));
    run(&mut command)?;
    let module = target_dir
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", library(&dir.join("Cargo.toml"))?));
    let module = fs::read(&module).with_context(|| {
        format!(
            "cargo made no {}; write crate-type = [\"cdylib\", \"rlib\"] under [lib] in Cargo.toml",
            module.display()
        )
    })?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(ComponentEncoder::encode)
        .context("what cargo made is no plugin; export it with the SDK's macro")?;
    fs::write(made, component).with_context(|| format!("cannot write {}", made.display()))
}

/// No path of this machine gets into a component: the same source makes the same bytes elsewhere.
fn flags(dir: &Path) -> String {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let given = env::var("RUSTFLAGS").unwrap_or_default();
    let (dir, cargo) = (dir.display(), cargo.display());
    format!("{given} --remap-path-prefix={dir}=/plugin --remap-path-prefix={cargo}=/cargo")
}

/// `cargo` with what makes it build for the target.
fn toolchain(dir: &Path) -> anyhow::Result<Command> {
    if let Some(cargo) = find("cargo")
        && has_target(dir)
    {
        return Ok(Command::new(cargo));
    }
    if !answers(Path::new(CARGO)) || !answers(Path::new(RUSTC)) {
        bail!("there is no Rust toolchain for WebAssembly: {REMEDY}");
    }
    if find("wasm-ld").is_none() || !Path::new(LIBRARY).is_dir() {
        bail!("Debian's Rust toolchain is here, its linker or standard library is not: {REMEDY}");
    }
    let mut command = Command::new(CARGO);
    command
        .args(["-Z", "build-std=std,panic_abort"])
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
    Ok(command)
}

/// Whether the compiler that `cargo` takes here has the target's standard library.
fn has_target(dir: &Path) -> bool {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .output();
    asked.is_ok_and(|output| {
        let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && !libdir.is_empty() && Path::new(&libdir).is_dir()
    })
}

/// The name of the library that a Cargo.toml makes.
fn library(manifest: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(manifest)?;
    let document: toml::Table =
        text.parse().with_context(|| format!("cannot read {}", manifest.display()))?;
    let name = |table: &str| document.get(table)?.get("name")?.as_str();
    let name = name("lib").or_else(|| name("package"));
    let name = name.with_context(|| format!("{} names no package", manifest.display()))?;
    Ok(name.replace('-', "_"))
}
