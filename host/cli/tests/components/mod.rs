//! Plugins for the tests of the config: sound ones, and broken ones of each kind.

use std::path::Path;

use amends_tests::Component;

/// Writes every plugin that a config in `tests/check` names.
pub(crate) fn write_all(dir: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(format!("{name}.wasm")), bytes).unwrap();
    };
    let component = |world, name| Component { world, name, ..Component::default() }.build();
    for name in ["prescription", "inventory", "shipment"] {
        write(name, &component("step", name));
    }
    write("inventory-release", &component("undo-only", "inventory-release"));
    write("notify", &component("step-only", "notify"));
    write("misnamed", &component("step", "prescription"));
    write("source", b"fn main() {}\n");
    write("nothing", b"");
    let whole = component("step", "truncated");
    write("truncated", &whole[..whole.len() / 2]);
    write("core", &wat::parse_str("(module)").unwrap());
    write("hollow", &wat::parse_str("(component)").unwrap());
    let sockets = "(component (import \"wasi:sockets/network@0.2.0\" (instance)))";
    write("sockets", &wat::parse_str(sockets).unwrap());
}
