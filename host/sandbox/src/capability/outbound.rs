//! Outbound HTTP of plugins (`wasi:http/outgoing-handler`): to the hosts of `allow_hosts`, with
//! limits, over connections that are kept.
//!
//! Deliberately absent: redirects (whoever follows one sends another request, which is checked like
//! the first), proxies and cookies.

pub(crate) mod address;
pub(crate) mod allow;
pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod limits;
pub(crate) mod requests;
pub(crate) mod sent;
pub(crate) mod stub;
#[cfg(test)]
mod tests;
