//! Rows on their way from one store into another: the tables that are copied, and the values of their columns.

use amends_engine::IndexValue;

use crate::stream::Stream;

/// A table that is copied. What only one of the stores has, such as hosts and their leases, is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopiedTable {
    Appends,
    Sagas,
    SagaTags,
    SagaIndex,
    StartKeys,
    Failures,
    State,
    Blobs,
    Segments,
    Archived,
    Subscriptions,
    DeadLetters,
    Schedules,
}

impl CopiedTable {
    /// All of them, in the order in which they are copied.
    pub(crate) const ALL: [Self; 13] = [
        Self::Appends,
        Self::Sagas,
        Self::SagaTags,
        Self::SagaIndex,
        Self::StartKeys,
        Self::Failures,
        Self::State,
        Self::Blobs,
        Self::Segments,
        Self::Archived,
        Self::Subscriptions,
        Self::DeadLetters,
        Self::Schedules,
    ];

    /// Returns the name that the table has in every store.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Appends => "appends",
            Self::Sagas => "sagas",
            Self::SagaTags => "saga_tags",
            Self::SagaIndex => "saga_index",
            Self::StartKeys => "start_keys",
            Self::Failures => "failures",
            Self::State => "state",
            Self::Blobs => "blobs",
            Self::Segments => "segments",
            Self::Archived => "archived",
            Self::Subscriptions => "subscriptions",
            Self::DeadLetters => "dead_letters",
            Self::Schedules => "schedules",
        }
    }
}

/// A value that is copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Stream(Stream),
    Index(IndexValue),
}

/// What a store counts apart from its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopiedCounts {
    /// The position of the last event, which may have gone to the archive.
    pub(crate) last_position: i64,
    /// In milliseconds.
    pub(crate) start_delay: i64,
    /// In milliseconds.
    pub(crate) longest_life: i64,
}
