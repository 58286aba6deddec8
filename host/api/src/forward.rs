//! Several hosts of one store: each request about a saga is served by the host that runs the saga.
//!
//! [`receive`] stands behind the door: it recognises what another host has passed on. [`to_owner`] stands behind
//! that: it passes on what belongs to another host. What was passed on once is never passed on again: the host that
//! does not run the saga says so, and the first host looks again who does. So no request goes in a circle.
//!
//! Deliberately absent: what only reads the store. It is answered where it arrives.

mod ask;
mod internal;
mod place;
pub(crate) mod receive;
mod route;

pub(crate) use ask::{activities_of_others, saga_elsewhere, unmoved_of_others};
pub(crate) use internal::{activities, signal, starts, unmoved};
pub(crate) use receive::receive;
pub(crate) use route::to_owner;
