//! Plugins for the tests of the config: sound ones that only describe themselves, and broken
//! ones of each kind.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Writes every plugin that a config in `tests/check` names.
pub(crate) fn write_all(dir: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(format!("{name}.wasm")), bytes).unwrap();
    };
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

/// A component of a world of `wit/` whose manifest has a name and whose calls trap.
fn component(world: &str, name: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/saga.wit");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world_id = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module(world, name)).unwrap();
    embed_component_metadata(&mut module, &resolve, world_id, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// `describe` answers a record of five texts, no service and no needs, laid out by the canonical
/// ABI: pointer and length of each text, a discriminant, and an empty list.
fn module(world: &str, name: &str) -> String {
    let execute = "(func (export \"amends:saga/action@1.0.0#execute\")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)";
    let compensate = "(func (export \"amends:saga/undo@1.0.0#compensate\")
        (param i32) (result i32) unreachable)";
    let (execute, compensate) = match world {
        "step" => (execute, compensate),
        "step-only" => (execute, ""),
        _ => ("", compensate),
    };
    let texts = [name, "1.2.3", "For tests.", "{}", "{}"];
    let (mut at, mut record, mut data) = (1_024_u32, String::new(), String::new());
    for text in texts {
        let len = u32::try_from(text.len()).unwrap();
        for byte in at.to_le_bytes().into_iter().chain(len.to_le_bytes()) {
            record.push_str(&format!("\\{byte:02x}"));
        }
        data.push_str(&format!("(data (i32.const {at}) \"{text}\")\n"));
        at += len;
    }
    format!(
        "(module
            (memory (export \"memory\") 1)
            (global $free (mut i32) (i32.const 8192))
            (data (i32.const 512) \"{record}\")
            {data}
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                (global.get $free)
                (global.set $free (i32.add (global.get $free) (local.get 3))))
            (func (export \"amends:saga/manifest@1.0.0#describe\") (result i32) (i32.const 512))
            {execute}
            {compensate})"
    )
}
