//! Where a saga and its steps stand, in the words of the API, the store and the metrics.

/// Defines an enum of words: each variant has one, by which it is written and read.
///
/// The word of a variant is its name in `snake_case`, so that serde has the same words. The enum has `ALL`, `as_str`,
/// `from_word` and `Display`. A crate that uses the macro depends on serde.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns its word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Returns the one that has this word, if there is one.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Where a saga stands.
    SagaStatus {
        /// A call is in flight or due.
        Running = "running",
        /// It waits for a time or a signal; nothing is in flight.
        Waiting = "waiting",
        /// An operator holds it.
        Paused = "paused",
        /// What happened is being undone.
        Compensating = "compensating",
        /// An operator is needed. Not an end.
        Blocked = "blocked",
        /// An end: every step is done.
        Completed = "completed",
        /// An end: every effect that has an undo is undone.
        Compensated = "compensated",
        /// An end: an operator gave it up, effects may stand.
        Abandoned = "abandoned",
    }
}

words! {
    /// Where a step of a saga stands.
    StepStatus {
        /// Not begun.
        Pending = "pending",
        /// For a signal or a time.
        Waiting = "waiting",
        /// `execute` is in flight.
        Running = "running",
        /// `execute` failed and will be tried again.
        BackingOff = "backing_off",
        /// Held back by an open circuit breaker.
        BreakerOpen = "breaker_open",
        /// Its effect stands.
        Succeeded = "succeeded",
        /// No effect stands.
        Failed = "failed",
        /// Its effect may stand.
        Unknown = "unknown",
        /// Its `when` was false.
        Skipped = "skipped",
        /// `compensate` is in flight.
        Undoing = "undoing",
        /// `compensate` failed and will be tried again.
        UndoBackingOff = "undo_backing_off",
        /// Its effect is undone.
        Undone = "undone",
        /// `compensate` will not be tried again without an operator.
        UndoBlocked = "undo_blocked",
        /// An operator let its effect stand.
        UndoSkipped = "undo_skipped",
    }
}

impl SagaStatus {
    /// Whether nothing will happen any more.
    #[must_use]
    pub const fn is_end(self) -> bool {
        match self {
            Self::Completed | Self::Compensated | Self::Abandoned => true,
            Self::Running | Self::Waiting | Self::Paused | Self::Compensating | Self::Blocked => {
                false
            }
        }
    }
}
