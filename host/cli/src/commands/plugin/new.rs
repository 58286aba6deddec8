//! `amends plugin new`: a project that builds and passes its own test at once.
//!
//! All of it is in the binary: the interfaces, the source, and for Rust the SDK, which no registry
//! has. So a project needs nothing of the repository that the binary was built from.

use std::fs;
use std::path::{Path, PathBuf};

use amends_engine::PluginName;
use anyhow::{Context as _, bail};
use clap::Args;

use super::build::Language;
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::say;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct New {
    /// The plugin's name: lower case words joined by `-`
    pub name: PluginName,
    /// What to write it in
    #[arg(long, value_enum)]
    pub lang: Language,
    /// The folder to make the project's in
    #[arg(long, value_name = "PARENT", default_value = ".")]
    pub dir: PathBuf,
}

/// A path in the project and what is written there.
type File = (&'static str, &'static str);

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../../../templates/", $file))
    };
}

/// A path in the project's `sdk/`, and the file of the repository's SDK.
macro_rules! sdk {
    ($($file:literal),*) => {
        [$((
            concat!("sdk/src/", $file),
            include_str!(concat!("../../../../../plugins/sdk/src/", $file)),
        )),*]
    };
}

/// What every project has.
const COMMON: [File; 2] = [
    ("wit/saga.wit", include_str!("../../../../../wit/saga.wit")),
    ("README.md", template!("README.md")),
];

const WORLD: File = ("wit/world.wit", template!("world.wit"));

const RUST: [File; 4] = [
    ("Cargo.toml", template!("rust/Cargo.toml")),
    ("src/lib.rs", template!("rust/lib.rs")),
    ("sdk/Cargo.toml", template!("rust/sdk.toml")),
    (".gitignore", "/target\n/*.wasm\n"),
];

const SDK: [File; 10] = sdk!(
    "lib.rs",
    "bindings.rs",
    "chance.rs",
    "events.rs",
    "heap.rs",
    "http.rs",
    "log.rs",
    "panics.rs",
    "settings.rs",
    "state.rs"
);

const JS: [File; 4] = [
    WORLD,
    ("package.json", template!("js/package.json")),
    ("plugin.js", template!("js/plugin.js")),
    (".gitignore", "/node_modules\n/*.wasm\n"),
];

const PYTHON: [File; 4] = [
    WORLD,
    ("requirements.txt", template!("python/requirements.txt")),
    ("plugin.py", template!("python/plugin.py")),
    (".gitignore", "/.venv\n__pycache__\n/*.wasm\n"),
];

const C: [File; 5] = [
    WORLD,
    ("plugin.c", template!("c/plugin.c")),
    ("json.c", template!("c/json.c")),
    ("json.h", template!("c/json.h")),
    (".gitignore", "/*.wasm\n"),
];

/// Runs the verb.
///
/// # Errors
/// When the folder is there and not empty, or cannot be written.
pub(crate) fn run(args: &New) -> anyhow::Result<u8> {
    let folder = args.dir.join(args.name.as_str());
    let shown = folder.display();
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{shown} is not empty: name another plugin, or another folder with --dir");
    }
    for (path, text) in files(args.lang) {
        write(&folder.join(path), &filled(text, args.name.as_str(), args.lang))?;
    }
    let name = &args.name;
    say!("made {shown}; now:")?;
    say!("  amends plugin build {shown}")?;
    say!("  amends plugin test {shown}/{name}.wasm")?;
    say!("  amends plugin inspect {shown}/{name}.wasm")?;
    Ok(EXIT_DONE)
}

fn files(language: Language) -> Vec<File> {
    let (own, sdk): (&[File], &[File]) = match language {
        Language::Rust => (&RUST, &SDK),
        Language::Js => (&JS, &[]),
        Language::Python => (&PYTHON, &[]),
        Language::C => (&C, &[]),
    };
    [&COMMON, own, sdk].concat()
}

fn filled(text: &str, name: &str, language: Language) -> String {
    let (own_test, source) = match language {
        Language::Rust => {
            ("cargo test                       # the tests in src/lib.rs, natively\n", "src/lib.rs")
        }
        Language::Js => ("", "plugin.js"),
        Language::Python => ("", "plugin.py"),
        Language::C => ("", "plugin.c"),
    };
    // The SDK's bindings name the interfaces by where they are from its folder.
    text.replace("\"../../wit\"", "\"../wit\"")
        .replace("{NAME}", name)
        .replace("{SOURCE}", source)
        .replace("{OWN_TEST}", own_test)
        .replace("{VERSION}", env!("CARGO_PKG_VERSION"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    fs::write(path, text).with_context(cannot)
}
