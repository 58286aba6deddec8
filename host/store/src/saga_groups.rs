//! Counts of sagas by what they have in common.

use amends_engine::{IndexName, SagaId, Timestamp};

/// The most groups of one answer, the largest first. A person reads a few; reasons may differ in each
/// saga.
pub const GROUPS_MAX: usize = 100;

/// What the sagas of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupBy {
    /// The status.
    Status,
    /// The definition.
    Definition,
    /// The reason why they are blocked or were compensated.
    Reason,
    /// The step of their last failure, and whether its undo failed.
    Step,
    /// The code of their last failure.
    Code,
    /// The index value of this name, as text.
    Index(IndexName),
}

impl GroupBy {
    /// All of them that have a word, so all but [`Self::Index`].
    pub const WORDS: [Self; 5] =
        [Self::Status, Self::Definition, Self::Reason, Self::Step, Self::Code];

    /// Returns the word for it, or the name of the index value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Status => "status",
            Self::Definition => "definition",
            Self::Reason => "reason",
            Self::Step => "step",
            Self::Code => "code",
            Self::Index(name) => name.as_str(),
        }
    }

    /// Returns what a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|by| by.as_str() == word)
    }
}

/// Sagas that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaGroup {
    /// What they have in common, in the order that was asked for. None for sagas that have no such
    /// value. The step is `NAME`, or `NAME undo` when the undo failed.
    pub values: Vec<Option<String>>,
    /// How many they are, at least one.
    pub sagas: u64,
    /// When the first of them started.
    pub oldest: Timestamp,
    /// The first of them.
    pub example: SagaId,
}

/// Sagas, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SagaGroups {
    /// How many sagas there are in all.
    pub sagas: u64,
    /// The largest groups, the largest first, at most [`GROUPS_MAX`].
    pub groups: Vec<SagaGroup>,
    /// How many groups there are beyond those.
    pub more: u64,
}
