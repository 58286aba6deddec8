//! How the hosts of one store reach one another: a request that belongs to another host is sent there over
//! HTTP, and the other host can tell that a host of its store sent it.
//!
//! [`Peers`] is what a host has of it. [`Peers::send`] sends any request. [`Peers::start`] starts a saga on
//! another host, and [`Peers::ask`] asks it a question of its own.
//!
//! Deliberately absent: which host owns what (the store says so), and what a request means (the API).

mod client;
mod groups;
mod limits;
mod passing;
mod peers;
mod secrets;
mod starts;
mod wire;

pub use client::{Answer, PeerError};
pub use limits::{FORWARD_ANSWER_TIME_MAX, FORWARDED_BYTES_MAX, OWNER_LOOK_PAUSE, OWNER_WAIT_MAX};
pub use passing::{Caller, FORWARDED, Forwarded, NotForwarded, ShownToken};
pub use peers::{NAMESPACE, NOT_OWNER, Passed, Peers, REFUSED, SERVED_BY};
pub use wire::{
    ACTIVITIES_PATH, Activities, ActivitiesOf, PeerPrincipal, PeerSignal, PeerStart, PeerStarted,
    QuarantinedSaga, SIGNAL_PATH, STARTS_PATH, Signalled, StartsAnswer, StartsBody, StuckSaga,
    UNMOVED_PATH, Unmoved,
};
