//! `amends plugin new`: a project that builds and passes its own test at once.
//!
//! All of it is in the binary: the interfaces, the source, and for Rust the SDK, which no registry
//! has. So a project needs nothing of the repository that the binary was built from.

use std::fs;
use std::path::{Path, PathBuf};

use amends_engine::PluginName;
use anyhow::{Context as _, bail};

use super::build::Language;

/// Which project is made.
#[derive(Debug, Clone)]
pub struct NewOptions {
    /// The plugin's name.
    pub name: PluginName,
    /// What it is written in.
    pub language: Language,
    /// The undo of a step that another plugin does, and no step.
    pub undo_only: bool,
    /// The folder to make the project's in.
    pub dir: PathBuf,
}

/// A path in the project and what is written there.
type File = (&'static str, &'static str);

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../../templates/", $file))
    };
}

/// A path in the project's `sdk/`, and the file of the repository's SDK.
macro_rules! sdk {
    ($($file:literal),*) => {
        [$((
            concat!("sdk/src/", $file),
            include_str!(concat!("../../../../plugins/sdk/src/", $file)),
        )),*]
    };
}

/// What every project has.
const COMMON: [File; 2] = [
    ("wit/saga.wit", include_str!("../../../../wit/saga.wit")),
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

const JS: [File; 8] = [
    WORLD,
    ("package.json", template!("js/package.json")),
    ("jsconfig.json", template!("js/jsconfig.json")),
    ("amends.d.ts", template!("js/amends.d.ts")),
    ("plugin.js", template!("js/plugin.js")),
    ("plugin.test.js", template!("js/plugin.test.js")),
    ("fake-host.js", template!("js/fake-host.js")),
    (".gitignore", "/node_modules\n/*.wasm\n"),
];

const PYTHON: [File; 7] = [
    WORLD,
    ("requirements.txt", template!("python/requirements.txt")),
    ("pyproject.toml", template!("python/pyproject.toml")),
    ("plugin.py", template!("python/plugin.py")),
    ("test_plugin.py", template!("python/test_plugin.py")),
    ("fake_host.py", template!("python/fake_host.py")),
    (".gitignore", "/.venv\n/bindings\n__pycache__\n/*.wasm\n"),
];

const C: [File; 5] = [
    WORLD,
    ("plugin.c", template!("c/plugin.c")),
    ("json.c", template!("c/json.c")),
    ("json.h", template!("c/json.h")),
    (".gitignore", "/*.wasm\n"),
];

/// Makes a project, and returns its folder.
///
/// # Errors
/// When the folder is there and not empty, or cannot be written.
pub fn run(options: &NewOptions) -> anyhow::Result<PathBuf> {
    let folder = options.dir.join(options.name.as_str());
    let shown = folder.display();
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{shown} is not empty: name another plugin, or another folder with --dir");
    }
    for (path, text) in files(options.language) {
        write(&folder.join(path), &filled(text, options))?;
    }
    Ok(folder)
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

fn filled(text: &str, options: &NewOptions) -> String {
    let (own_test, source) = match options.language {
        Language::Rust => {
            ("cargo test                       # the tests in src/lib.rs, natively\n", "src/lib.rs")
        }
        Language::Js => (
            "npm test                         # the tests in plugin.test.js, with a fake host\n\
             npm run types                    # holds plugin.js against the types in amends.d.ts\n",
            "plugin.js",
        ),
        Language::Python => (
            "python3 -m unittest              # the tests in test_plugin.py, with a fake host\n",
            "plugin.py",
        ),
        Language::C => ("", "plugin.c"),
    };
    let kind = if options.undo_only { "undo-only" } else { "step" };
    // The SDK's bindings name the interfaces by where they are from its folder.
    chosen(text, kind)
        .replace("\"../../wit\"", "\"../wit\"")
        .replace("{NAME}", options.name.as_str())
        .replace("{SOURCE}", source)
        .replace("{OWN_TEST}", own_test)
        .replace("{VERSION}", env!("CARGO_PKG_VERSION"))
}

/// A template without the lines between one with `{if KIND}`, of another kind, and the next one with
/// `{end}`, and without such lines themselves.
fn chosen(text: &str, kind: &str) -> String {
    let mut is_left_out = false;
    let mut lines = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if let Some((_, of)) = line.split_once("{if ") {
            is_left_out = of.trim_end() != format!("{kind}}}");
        } else if line.trim_end().ends_with("{end}") {
            is_left_out = false;
        } else if !is_left_out {
            lines.push_str(line);
        }
    }
    lines
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    fs::write(path, text).with_context(cannot)
}

#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "of the kinds of types, three have names inside")]
mod tests {
    use wit_bindgen_core::wit_parser::{Resolve, TypeDefKind};

    use super::*;

    /// What a project in JavaScript has to name: `idempotencyKey` of `idempotency-key`.
    fn camel(name: &str) -> String {
        let mut words = name.split('-');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| {
            let (initial, rest) = word.split_at(1);
            name + &initial.to_uppercase() + rest
        })
    }

    #[test]
    fn the_types_and_the_fake_hosts_have_all_of_the_interfaces() {
        let mut resolve = Resolve::default();
        resolve.push_str("saga.wit", COMMON[0].1).expect("the interfaces can be read");
        let types = template!("js/amends.d.ts");
        let js = template!("js/fake-host.js");
        let python = template!("python/fake_host.py");
        let mut count = 0;
        for (_, interface) in &resolve.interfaces {
            let of = interface.name.as_deref().unwrap_or_default();
            let is_imported = ["state", "events", "config", "log"].contains(&of);
            if is_imported {
                assert!(
                    types.contains(&format!("declare module 'amends:saga/{of}@1.1.0'")),
                    "{of}"
                );
            }
            for name in interface.functions.keys() {
                let camel = camel(name);
                let is_typed = types.contains(&format!("{camel}("))
                    || types.contains(&format!(" as {camel},"));
                assert!(is_typed, "{of}: {name}");
                if is_imported {
                    assert!(js.contains(&format!("{camel}: (")), "{of}: {name}");
                    let python_name = format!("\"{}\": ", name.replace('-', "_"));
                    assert!(python.contains(&python_name), "{of}: {name}");
                    count += 1;
                }
            }
            for (name, id) in &interface.types {
                match &resolve.types[*id].kind {
                    TypeDefKind::Record(record) => {
                        for field in &record.fields {
                            let field = camel(&field.name);
                            let is_typed = types.contains(&format!("    {field}: "))
                                || types.contains(&format!("    {field}?: "));
                            assert!(is_typed, "{name}: {field}");
                        }
                    }
                    TypeDefKind::Variant(variant) => {
                        for case in &variant.cases {
                            assert!(types.contains(&format!("tag: '{}'", case.name)), "{name}");
                        }
                    }
                    TypeDefKind::Enum(of) => {
                        for case in &of.cases {
                            assert!(types.contains(&format!("'{}'", case.name)), "{name}");
                        }
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(count, 11, "functions that a plugin imports");
    }

    #[test]
    fn a_template_has_the_lines_of_its_kind() {
        let text = "a\n// {if step}\nb\n// {end}\n  # {if undo-only}\nc\n  # {end}\nd\n";
        assert_eq!(chosen(text, "step"), "a\nb\nd\n");
        assert_eq!(chosen(text, "undo-only"), "a\nc\nd\n");
    }
}
