//! The keyword by which a schema says that a value is personal.

/// The keyword of a JSON Schema that says that a value is personal. Its value is true or false.
pub const PERSONAL_MARK: &str = "x-amends-personal";
