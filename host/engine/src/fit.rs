//! Whether a definition fits the plugins that it names, and whether its expressions can be right.
//!
//! The check of a config and the check of a component that is to become active use the same
//! function, [`flaws`]. It knows the expressions of the definition and the schemas in the plugins'
//! manifests, and evaluates nothing. A flaw that it calls certain fails whenever its step is
//! reached, or calls a function that does not exist.
//!
//! Deliberately absent: the values of payloads. The host checks each against its schema.

mod compare;
mod describe;
mod finder;
mod flaw;
mod index;
mod infer;
mod kinds;
mod mark;
mod marks;
mod misfit;
mod near;
mod schema;
mod shape;
mod syntax;
#[cfg(test)]
mod tests;

pub use finder::flaws;
pub use flaw::{Flaw, FlawKind, Schemas};
pub use index::{IndexFlaw, index_flaws};
pub(crate) use kinds::Kinds;
pub use mark::PERSONAL_MARK;
pub use marks::{PersonalMarks, marked_places};
pub use misfit::{Misfit, misfits};
pub use near::nearest;
pub use schema::Schema;
