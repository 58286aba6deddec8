//! What a call did that is not done before it is recorded.

use amends_engine::{Emitted, StateChange};

/// Goes into the append of the call's event, when the call succeeded; what it saw of its state goes
/// there however it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// What it saw and wrote of its plugin's state.
    pub state: Option<Box<StateChange>>,
    /// Domain events, in order.
    pub emitted: Vec<Emitted>,
}

impl Effects {
    /// Of a call that did not succeed: nothing of it is done, and yet its answer is one about the
    /// state that it saw.
    #[must_use]
    pub(crate) fn seen(mut self) -> Self {
        if let Some(state) = &mut self.state {
            state.write_nothing();
        }
        self.emitted.clear();
        self
    }
}
