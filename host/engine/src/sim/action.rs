//! What can happen to a simulated host and the world around it.

/// One thing that can happen next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// The host has room for a call that is due, and admits it.
    Admit { step: usize },
    /// A call ends.
    Reply { step: usize, reply: Reply },
    /// The clock moves to the next time that the saga waits for, and the host notices.
    Wait,
    /// The clock moves in the same way, but the host does not notice yet: it is busy, or was
    /// stopped.
    Late,
    /// The clock of the host is set an hour ahead, or right again.
    SetClock { ahead: bool },
    /// A request arrives that was still on its way when its call ended.
    Land { request: usize },
    /// The host crashes and starts again. `landed` are the steps whose call in flight had its
    /// effect.
    Crash { landed: u128 },
    /// An operator cancels the saga.
    Cancel,
    /// The host refuses a call that is due.
    Refuse { step: usize },
    /// The signal arrives that steps wait for.
    Signal,
    /// An operator gives an order, about a step where the order is about one.
    Order { order: OrderKind, step: usize },
}

/// The kind of an operator's order. An operator who resolves says the truth, and before that undoes
/// by hand what is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderKind {
    Retry,
    /// The operator retries with another input.
    Edit,
    Skip,
    Resolve,
    Pause,
    Resume,
    Compensate,
    Note,
    Abandon,
}

impl OrderKind {
    /// All kinds of orders.
    pub(super) const ALL: [Self; 9] = [
        Self::Retry,
        Self::Edit,
        Self::Skip,
        Self::Resolve,
        Self::Pause,
        Self::Resume,
        Self::Compensate,
        Self::Note,
        Self::Abandon,
    ];

    /// Returns true when the order is about a step.
    pub(super) const fn is_about_a_step(self) -> bool {
        match self {
            Self::Retry | Self::Edit | Self::Skip | Self::Resolve => true,
            Self::Pause | Self::Resume | Self::Compensate | Self::Note | Self::Abandon => false,
        }
    }
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// It succeeds.
    Done,
    /// It fails for good.
    Permanent,
    /// It fails, and may be retried.
    Retryable,
    /// Its reply is lost.
    Lost { landed: bool },
    /// Its reply is lost, and the component can tell what happened.
    Probed { landed: bool },
    /// Its reply is lost, and the host asks the component while the request is still on its way.
    /// The component finds no effect and says so.
    Looked,
}
