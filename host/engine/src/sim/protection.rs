//! What protects the sagas of several hosts.

/// A protection that a simulation can do without, to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The transaction of an append compares the epoch of its host's lane.
    Fence,
    /// A host whose answer is lost asks what became of the append. Without, it takes the append for
    /// one that was not committed.
    Question,
    /// A host raises the epoch of its lane before it asks.
    Raise,
    /// The answer to an append of an earlier epoch is not for the saga that was read since.
    AnswerOfEpoch,
    /// The end of a call is for the reading of the saga that made the call.
    CallOfReading,
    /// The time of a saga does not go back.
    SagaClock,
    /// A host forgets the sagas of a shard that it loses.
    Forgetting,
    /// A host begins a call and answers from memory only while its lease runs.
    Lease,
}
