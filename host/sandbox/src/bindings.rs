//! What `wit/saga.wit` says, as Rust.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package amends:host;

        /// All that a component may export and all of `amends:saga` that it may import.
        world all {
            include amends:saga/step-probe@1.1.0;
            import amends:saga/state@1.1.0;
            import amends:saga/events@1.1.0;
        }
    ",
    world: "amends:host/all",
    imports: {
        "amends:saga/state": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
