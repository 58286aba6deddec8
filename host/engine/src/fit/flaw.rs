//! Flaws: what in a definition does not fit.

use std::collections::BTreeSet;

use super::schema::Schema;
use crate::ids::{PluginName, StepName};

/// The schemas of one plugin's component.
#[derive(Debug, Clone, Copy)]
pub struct Schemas<'s> {
    /// The schema of the input of `execute`.
    pub input: Schema<'s>,
    /// The schema of the output of `execute`, which `compensate` reads.
    pub output: Schema<'s>,
}

/// The kind of a flaw: what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlawKind {
    /// An expression, or its value, is wrong.
    Expression,
    /// An expression, or an undo by another plugin, reads a field that the schema of a step's
    /// output does not describe.
    Undescribed,
    /// An input does not have the fields that its plugin takes. This can change while the config
    /// stays the same, because another component can become active.
    Fields,
    /// The undo is by another plugin and does not fit.
    Undo,
    /// The plugin's component marks values as personal, and they could not be sealed.
    Personal,
}

/// One thing in a definition that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The step with the flaw.
    pub step: StepName,
    /// The key in the table of the step: `when`, `each`, `input`, `undo` or `plugin`.
    pub key: &'static str,
    /// The field of the input, if the flaw is about one.
    pub field: Option<String>,
    /// True when the step certainly fails once it is reached, false when it may fail. An expression
    /// over the elements of a list only may fail, because the list may be empty. A mistake that no
    /// value makes right, such as an unknown function, is certain everywhere.
    pub is_certain: bool,
    /// The kind of the flaw.
    pub kind: FlawKind,
    /// The plugins whose schemas the flaw depends on.
    pub plugins: BTreeSet<PluginName>,
    /// The field or the function that the flaw is about. Two flaws with the same subject, kind and
    /// place are the same flaw.
    pub(crate) subject: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl Flaw {
    /// Returns true when this flaw, found before, is the same as `other`, found now, and at least
    /// as bad. Then `other` is nothing new. The messages do not count, because they also depend on
    /// the rest of the schemas.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        (self.is_certain || !other.is_certain)
            && self.step == other.step
            && self.key == other.key
            && self.field == other.field
            && self.kind == other.kind
            && self.subject == other.subject
    }
}
