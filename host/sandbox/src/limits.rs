//! What limits the memory and the time that components take.

pub(crate) mod background;
pub(crate) mod budget;
pub(crate) mod call_limits;
pub(crate) mod clock;
pub(crate) mod engine;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod meter;
