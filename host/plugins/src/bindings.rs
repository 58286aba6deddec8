//! What `wit/saga.wit` says, as Rust.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "step-probe",
    exports: { default: async },
});
