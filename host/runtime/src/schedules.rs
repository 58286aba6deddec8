//! Schedules: sagas that start at the times of a cron pattern.
//!
//! One task looks after all schedules. Each time of a schedule starts its saga with the start key
//! `schedule/NAME/TIME`, and then the store keeps that the time is decided. So after a crash between
//! both, the same start finds the same saga.
//!
//! A clock that was ahead and is set back makes times due again that were decided. Their start keys
//! find the sagas that are there. Of those, times that are past by the new clock are not caught up again.
//!
//! Deliberately absent: a choice of which of several hosts looks after a schedule. Several that do start
//! the same sagas once, by their keys.

mod due;
mod pattern;
mod runner;
mod settings;
mod status;

pub use pattern::{PatternError, SchedulePattern};
pub(crate) use runner::{Firing, Firings, Runner};
pub(crate) use settings::SCHEDULE_KEY_PREFIX;
pub use settings::{CatchUp, Overlap, SCHEDULE_TAG, SCHEDULED_AT, ScheduleSettings};
pub use status::ScheduleStatus;
pub(crate) use status::Schedules;
