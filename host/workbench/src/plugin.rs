//! The projects of plugins, and their components before a host serves them.

mod alone;
pub mod build;
pub mod component;
pub mod inspect;
pub mod new;
pub mod oci;
pub mod replay;
pub mod test;
