//! Plugins for the tests of the config: sound ones, and broken ones of each kind.

use std::path::Path;

use amends_tests::Component;

/// What `reserve` takes and answers.
const RESERVATION: &str = r#"{
    "type": "object",
    "required": ["order_id", "quantity"],
    "additionalProperties": false,
    "properties": {
        "order_id": {"type": "string"},
        "quantity": {"type": "integer"},
        "note": {"type": "string"}
    }
}"#;

/// What `reserve-release` reads of it: one as another type, one that may not be there, one that is
/// not.
const RELEASE: &str = r#"{
    "type": "object",
    "required": ["order_id", "note", "warehouse"],
    "properties": {
        "order_id": {"type": "integer"},
        "note": {"type": "string"},
        "warehouse": {"type": "string"}
    }
}"#;

/// What `quote` takes and answers, which may have more fields than it says.
const QUOTE: &str = r#"{"type": "object", "properties": {"price_cents": {"type": "integer"}}}"#;

/// Writes every plugin that a config in `tests/check` names: the sound ones into `plugins`, each
/// broken one into a folder of its own name in `broken`.
pub(crate) fn write_all(folder: &Path) {
    let write = |dir: &str, name: &str, bytes: &[u8]| {
        let dir = folder.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.wasm")), bytes).unwrap();
    };
    let component = |world, name| Component { world, name, ..Component::default() }.build();
    for name in ["prescription", "inventory", "shipment"] {
        write("plugins", name, &component("step", name));
    }
    write("plugins", "inventory-release", &component("undo-only", "inventory-release"));
    write("plugins", "notify", &component("step-only", "notify"));
    let typed = |world, name, schema| {
        let component = Component { world, name, schema, ..Component::default() };
        write("plugins", name, &component.build());
    };
    typed("step", "reserve", RESERVATION);
    typed("step", "quote", QUOTE);
    typed("undo-only", "reserve-release", RELEASE);

    let broken = |name: &str, bytes: &[u8]| write(&format!("broken/{name}"), name, bytes);
    broken("source", b"fn main() {}\n");
    broken("nothing", b"");
    let whole = component("step", "truncated");
    broken("truncated", &whole[..whole.len() / 2]);
    broken("misnamed", &component("step", "prescription"));
    broken("core", &wat::parse_str("(module)").unwrap());
    broken("hollow", &wat::parse_str("(component)").unwrap());
    let keyvalue = "(component (import \"wasi:keyvalue/store@0.2.0\" (instance)))";
    broken("keyvalue", &wat::parse_str(keyvalue).unwrap());
    for name in ["prescription", "Bad Name"] {
        write("broken/unneeded", name, &component("step", "prescription"));
    }
    write("broken/unneeded", "source", b"fn main() {}\n");
}
