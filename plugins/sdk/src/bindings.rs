//! What `wit/saga.wit` says, as Rust.

#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

mod base {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package amends:sdk;
            world base {
                import amends:saga/types@1.1.0;
                import amends:saga/config@1.1.0;
                import amends:saga/log@1.1.0;
                import amends:saga/state@1.1.0;
                import amends:saga/events@1.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
    });
}

pub use base::amends::saga::types;
#[cfg(target_family = "wasm")]
pub use base::amends::saga::{config, events, log, state};

/// The manifest's record; every world has one of its own.
#[derive(Debug)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub input_schema: String,
    pub output_schema: String,
    pub service: Option<String>,
    pub needs: Vec<String>,
}

/// Only in components: the macros that two worlds make have the same names, and a native build of
/// several plugins has the features of all.
#[cfg(target_family = "wasm")]
pub mod worlds {
    macro_rules! world {
        ($module:ident, $world:literal) => {
            pub mod $module {
                wit_bindgen::generate!({
                    path: "../../wit",
                    world: $world,
                    pub_export_macro: true,
                    with: {
                        "amends:saga/types@1.1.0": crate::bindings::types,
                        "amends:saga/config@1.1.0": crate::bindings::config,
                        "amends:saga/log@1.1.0": crate::bindings::log,
                    },
                });
            }
        };
    }

    #[cfg(feature = "step")]
    world!(step, "step");
    #[cfg(feature = "step-probe")]
    world!(step_probe, "step-probe");
    #[cfg(feature = "step-only")]
    world!(step_only, "step-only");
    #[cfg(feature = "undo-only")]
    world!(undo_only, "undo-only");
}
