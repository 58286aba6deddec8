//! C, by clang and wasi-libc: the bindings are made here, what they and the project's sources
//! compile to is linked into a module, and that becomes a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_component::ComponentEncoder;

use super::tool::{WORLD, need, run};

const REMEDY: &str =
    "as root on Debian: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32";

/// What every component has besides the project's sources.
const CHANCE: &str = include_str!("../../../templates/c/chance.c");

/// The functions that it stands in for.
const WRAPPED: [&str; 4] = ["rand", "srand", "random", "srandom"];

/// Where Debian has the libc.
const LIBC: &str = "/usr/include/wasm32-wasi";

/// What a component is compiled for: WASI preview 1, which the libc speaks and the adapter
/// translates.
const TARGET: &str = "--target=wasm32-wasi";

pub(super) fn build(dir: &Path, scratch: &Path, made: &Path) -> anyhow::Result<()> {
    let clang = need("clang", REMEDY)?;
    need("wasm-ld", REMEDY)?;
    if !Path::new(LIBC).is_dir() {
        bail!("there is no C library for WebAssembly: {REMEDY}");
    }
    let bindings = bindings(&dir.join("wit"), scratch)?;
    let module = scratch.join("module.wasm");
    let chance = scratch.join("chance.c");
    fs::write(&chance, CHANCE).with_context(|| format!("cannot write {}", chance.display()))?;
    // A component is called more than once, so it has no `main`: a reactor.
    run(Command::new(clang)
        .args([TARGET, "-mexec-model=reactor", "-std=c17", "-Os", "-Wall", "-Wextra"])
        .arg("-I")
        .arg(scratch)
        .arg("-o")
        .arg(&module)
        .args(WRAPPED.map(|function| format!("-Wl,--wrap={function}")))
        .args(sources(dir)?)
        .args(bindings)
        .arg(chance)
        .current_dir(dir))?;
    let module = fs::read(&module).context("clang made no module")?;
    // The adapter is left out of a module that imports no WASI.
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| {
            encoder.adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(ComponentEncoder::encode)
        .context("what clang made cannot be turned into a component")?;
    fs::write(made, component).with_context(|| format!("cannot write {}", made.display()))
}

/// Every `.c` file of the folder.
fn sources(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.extend(path.file_name().map(PathBuf::from));
        }
    }
    sources.sort();
    Ok(sources)
}

/// Writes `plugin.h` and what belongs to it; what of it is compiled and linked.
fn bindings(wit: &Path, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .context("the bindings cannot be made")?;
    let mut inputs = Vec::new();
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        if Path::new(name).extension().is_none_or(|extension| extension != "h") {
            inputs.push(path);
        }
    }
    Ok(inputs)
}
