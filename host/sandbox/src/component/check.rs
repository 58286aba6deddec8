//! What can be known of a component without compiling it.

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::component::code_limits;
use crate::error::Rejection;
use crate::settings::Required;

/// A component's bytes. A Python component has 18 MiB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// The WIT package of this host.
const PACKAGE: &str = "amends:saga/";

/// Its version. A component may be built for the same major version and no later minor one.
const PACKAGE_VERSION: &str = "1.1.0";
const PACKAGE_MAJOR: u64 = 1;
const PACKAGE_MINORS: std::ops::RangeInclusive<u64> = 0..=1;

/// The interfaces of the package that are linked. What is not granted of them is refused when it is
/// called, or when the component is loaded if its manifest says that it cannot do without.
const GIVEN: [&str; 5] = ["types", "config", "log", "state", "events"];

/// What may be imported of `wasi:http`.
const HTTP: [&str; 2] = ["wasi:http/types@0.2.", "wasi:http/outgoing-handler@0.2."];

/// The packages of WASI 0.2 that are linked, with nothing granted.
///
/// CPython imports sockets whether it uses them or not. To use one fails with `access-denied`.
const WASI: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Interfaces that a component imports. One of Python imports some thirty, when nothing is stubbed.
const IMPORTS_MAX: usize = 200;

/// Bytes of the name of one.
const IMPORT_BYTES_MAX: usize = 200;

/// Which calls a component serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exports {
    /// Whether it exports `amends:saga/action`.
    pub execute: bool,
    /// Whether it exports `amends:saga/undo`.
    pub compensate: bool,
    /// Whether it exports `amends:saga/probe`.
    pub probe: bool,
}

impl Exports {
    /// Returns the words by which the API names the exports.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let all =
            [("execute", self.execute), ("compensate", self.compensate), ("probe", self.probe)];
        all.into_iter().filter(|(_, there)| *there).map(|(word, _)| word.to_owned()).collect()
    }
}

/// Checks everything but the code itself; that is held against limits.
pub(crate) fn check(component: &[u8]) -> Result<(Exports, Vec<String>), Rejection> {
    check_is_component(component)?;
    code_limits::check(component)?;
    validate(component)?;
    let (imports, exports) = names(component)?;
    check_versions(imports.iter().chain(&exports))?;
    for import in &imports {
        check_import(import)?;
    }
    let has = |interface: &str| exports.iter().any(|name| interface_of(name) == Some(interface));
    let exports = Exports { execute: has("action"), compensate: has("undo"), probe: has("probe") };
    if !has("manifest") {
        return Err(Rejection::MissingExport {
            missing: "amends:saga/manifest".to_owned(),
            remedy: "target one of the worlds step, step-only and undo-only".into(),
        });
    }
    if !exports.execute && !exports.compensate {
        return Err(Rejection::MissingExport {
            missing: "amends:saga/action or amends:saga/undo".to_owned(),
            remedy: "target one of the worlds step, step-only and undo-only".into(),
        });
    }
    if imports.len() > IMPORTS_MAX {
        let found = imports.len();
        let why = format!("it imports {found} interfaces, at most {IMPORTS_MAX} are allowed");
        return Err(Rejection::Code(why));
    }
    Ok((exports, imports))
}

/// Whether a component has the calls that definitions name.
pub(crate) fn check_required(exports: Exports, required: Required) -> Result<(), Rejection> {
    for (interface, is_missing) in [
        ("amends:saga/action", required.execute && !exports.execute),
        ("amends:saga/undo", required.compensate && !exports.compensate),
    ] {
        if is_missing {
            return Err(Rejection::MissingExport {
                missing: interface.to_owned(),
                remedy:
                    "a definition calls it: export it, or name another plugin in the definition"
                        .into(),
            });
        }
    }
    Ok(())
}

/// Checks what costs nothing: the size, and the first bytes.
pub(crate) fn check_is_wasm(bytes: &[u8]) -> Result<(), Rejection> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(Rejection::TooLarge { bytes: bytes.len(), max: COMPONENT_BYTES_MAX });
    }
    if bytes.starts_with(b"\0asm") { Ok(()) } else { Err(not_wasm(bytes)) }
}

/// Checks the first bytes: a core module is not a component.
pub(crate) fn check_is_component(bytes: &[u8]) -> Result<(), Rejection> {
    check_is_wasm(bytes)?;
    match encoding(bytes)? {
        Encoding::Component => Ok(()),
        Encoding::Module => Err(Rejection::CoreModule),
    }
}

fn not_wasm(bytes: &[u8]) -> Rejection {
    if bytes.len() < 4 && b"\0asm".starts_with(bytes) {
        return Rejection::Truncated { bytes: bytes.len() };
    }
    // What it begins with instead is not said: it may be anybody's, and a refusal is kept.
    Rejection::NotWasm
}

fn encoding(bytes: &[u8]) -> Result<Encoding, Rejection> {
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding, .. })) => Ok(encoding),
        Some(Ok(_)) => Err(Rejection::Invalid("it does not begin with a version".to_owned())),
        Some(Err(error)) => Err(Rejection::broken(bytes, &error)),
        None => Err(Rejection::Truncated { bytes: bytes.len() }),
    }
}

fn validate(bytes: &[u8]) -> Result<(), Rejection> {
    let mut validator = Validator::new_with_features(WasmFeatures::default());
    validator.validate_all(bytes).map(|_| ()).map_err(|error| Rejection::broken(bytes, &error))
}

/// The names that the outermost component imports and exports.
fn names(component: &[u8]) -> Result<(Vec<String>, Vec<String>), Rejection> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| Rejection::broken(component, &error))?;
        if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } = payload {
            depth += 1;
        } else if let Payload::End(_) = payload {
            depth = depth.saturating_sub(1);
        } else if depth > 0 {
            // A name inside is not one of the component's.
        } else if let Payload::ComponentImportSection(section) = payload {
            for import in section {
                let import = import.map_err(|error| Rejection::broken(component, &error))?;
                let name = import.name.name;
                if name.len() > IMPORT_BYTES_MAX {
                    let bytes = name.len();
                    return Err(Rejection::Code(format!(
                        "it imports an interface whose name has {bytes} bytes, at most \
                         {IMPORT_BYTES_MAX} are allowed"
                    )));
                }
                imports.push(name.to_owned());
            }
        } else if let Payload::ComponentExportSection(section) = payload {
            for export in section {
                let export = export.map_err(|error| Rejection::broken(component, &error))?;
                exports.push(export.name.name.to_owned());
            }
        }
    }
    Ok((imports, exports))
}

fn check_versions<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), Rejection> {
    for name in names.filter(|name| name.starts_with(PACKAGE)) {
        let found = name.split_once('@').map_or("none", |(_, version)| version);
        let mut numbers = found.split('.').map(|number| number.parse::<u64>().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        let fits = major == Some(PACKAGE_MAJOR)
            && minor.is_some_and(|minor| PACKAGE_MINORS.contains(&minor));
        if !fits {
            let found = found.to_owned();
            return Err(Rejection::PackageVersion { found, known: PACKAGE_VERSION.into() });
        }
    }
    Ok(())
}

fn check_import(import: &str) -> Result<(), Rejection> {
    let not_granted =
        |remedy: String| Err(Rejection::NotGranted { import: import.to_owned(), remedy });
    match interface_of(import) {
        Some(interface) if GIVEN.contains(&interface) => Ok(()),
        Some(_) => not_granted(
            "a component may import config, log, state and events of amends:saga".to_owned(),
        ),
        None if HTTP.iter().any(|interface| import.starts_with(interface)) => Ok(()),
        None if import.starts_with("wasi:http/") => {
            not_granted("a component may import outgoing-handler and types of wasi:http".to_owned())
        }
        None if WASI.iter().any(|package| import.starts_with(package)) => Ok(()),
        None => not_granted(
            "a component may import config, log, state and events of amends:saga, \
             wasi:http/outgoing-handler and WASI 0.2"
                .to_owned(),
        ),
    }
}

/// `action` of `amends:saga/action@1.1.0`.
fn interface_of(name: &str) -> Option<&str> {
    let interface = name.strip_prefix(PACKAGE)?;
    Some(interface.split_once('@').map_or(interface, |(interface, _)| interface))
}
