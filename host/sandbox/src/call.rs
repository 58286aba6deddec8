//! One call of a component, from its input to its outcome.

pub(crate) mod answer;
pub(crate) mod call_id;
pub(crate) mod call_trace;
pub(crate) mod context;
pub(crate) mod effects;
pub(crate) mod guest;
pub(crate) mod idle;
pub(crate) mod outcome;
pub(crate) mod probe;
pub(crate) mod rehearsal;
pub(crate) mod run;
pub(crate) mod trap;
