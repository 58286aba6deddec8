//! What came of a request that got no answer.

use std::io;

use wasmtime_wasi_http::Error;

use crate::capability::outbound::connect::{Lacking, Prohibited, Unresolved};

/// Why nothing came back: for the component in the words of `wasi:http`, for people in ours.
pub(crate) struct Sent {
    pub(crate) error: Error,
    pub(crate) why: Option<String>,
    /// Nothing of the request has left the host.
    pub(crate) is_unsent: bool,
    /// What this machine lacked, where that is why.
    pub(crate) lacked: Option<String>,
}

impl From<Error> for Sent {
    fn from(error: Error) -> Self {
        Self { error, why: None, is_unsent: false, lacked: None }
    }
}

impl Sent {
    pub(crate) fn because(error: Error, why: String) -> Self {
        Self { why: Some(why), ..Self::from(error) }
    }

    pub(crate) fn of(error: &hyper_util::client::legacy::Error) -> Self {
        Self { is_unsent: error.is_connect(), ..Self::why(error) }
    }

    fn why(error: &hyper_util::client::legacy::Error) -> Self {
        for cause in causes(error) {
            if let Some(lacking) = cause.downcast_ref::<Lacking>() {
                let lacked = Some(lacking.0.clone());
                let why = lacking.0.clone();
                return Self { lacked, ..Self::because(Error::ConnectionLimitReached, why) };
            }
            if let Some(prohibited) = cause.downcast_ref::<Prohibited>() {
                return Self::because(Error::DestinationIpProhibited, prohibited.0.clone());
            }
            if let Some(unresolved) = cause.downcast_ref::<Unresolved>() {
                let rcode = Some(unresolved.to_string());
                return Self::from(Error::DnsError { rcode, info_code: None });
            }
            if let Some(failed) = cause.downcast_ref::<rustls::Error>() {
                let told = if error.is_connect() {
                    Error::TlsCertificateError
                } else {
                    // What was sent may have arrived.
                    Error::ConnectionTerminated
                };
                return Self::because(told, format!("TLS failed: {failed}"));
            }
            if !error.is_connect() {
                continue;
            }
            // One that says more comes after it.
            if let Some(failed) = cause.downcast_ref::<io::Error>()
                && failed.get_ref().is_none()
            {
                let kind = failed.kind();
                return Self::from(if kind == io::ErrorKind::ConnectionRefused {
                    Error::ConnectionRefused
                } else if kind == io::ErrorKind::TimedOut {
                    Error::ConnectionTimeout
                } else {
                    Error::DestinationUnavailable
                });
            }
        }
        Self::from(if error.is_connect() {
            Error::DestinationUnavailable
        } else {
            // What was sent may have arrived.
            Error::ConnectionTerminated
        })
    }
}

/// What it comes from, and what that comes from. `source` of an error of I/O skips the error that it
/// wraps.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| {
        let made_of = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        made_of.map_or_else(|| cause.source(), |made_of| Some(made_of as &dyn std::error::Error))
    })
}
