//! The state of one saga: what its events say, and nothing else.

mod erased;
mod expressions;
mod fan_out;
mod orders;
mod progress;
mod readiness;
mod signals;
mod state;
mod step_state;
mod step_view;
mod steps;
mod timers;
mod view;

pub(crate) use fan_out::{Element, FanOut};
pub(crate) use orders::Wish;
pub use orders::{Chosen, Note, Ordered};
pub(crate) use progress::{Progress, StepOutcome, UndoProgress};
pub use state::Saga;
pub(crate) use state::{Phase, Signal};
pub(crate) use step_state::StepState;
pub use step_view::StepView;
