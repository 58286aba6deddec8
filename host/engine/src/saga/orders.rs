//! What operators ordered, as the saga remembers it.

use crate::call::Direction;
use crate::event::Cause;
use crate::ids::{Digest, Timestamp};

/// An operator's order to compensate the saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Who gave the order.
    pub(crate) who: String,
    /// The reason that they gave.
    pub(crate) reason: String,
    /// The cause of the compensation.
    pub(crate) cause: Cause,
}

/// Who gave an order about a saga or a step, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Who gave the order.
    pub who: String,
    /// The reason that they gave.
    pub reason: String,
}

/// A note that an operator added to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When the note was recorded.
    pub at: Timestamp,
    /// Who wrote the note.
    pub who: String,
    /// The text of the note.
    pub reason: String,
}

/// The component that an operator chose for calls of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The direction of those calls.
    pub direction: Direction,
    /// The digest of the component.
    pub digest: Digest,
    /// Who chose it.
    pub who: String,
    /// The reason that they gave.
    pub reason: String,
}
