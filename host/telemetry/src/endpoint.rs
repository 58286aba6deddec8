//! Where a collector is.

use http::Uri;

/// The path of OTLP over HTTP below the address of a collector.
const HTTP_PATH: &str = "/v1/traces";

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with protobuf.
    Http,
}

/// Where a collector takes spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) protocol: Protocol,
    /// The whole URL of requests.
    pub(crate) url: String,
}

/// The reason why a text is not the address of a collector. It has nothing of the text in it: an address may
/// have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL with a scheme and a host.
    #[error("this is not the URL of a collector")]
    NoUrl,
    /// It has another scheme.
    #[error("the URL of a collector begins with http:// or https://")]
    Scheme,
    /// It has a name and a password.
    #[error(
        "the URL of a collector has no name and password; OTEL_EXPORTER_OTLP_HEADERS takes such secrets"
    )]
    Password,
}

impl Endpoint {
    /// A collector at this address, such as `http://127.0.0.1:4317`. OTLP over HTTP has its own path below it.
    ///
    /// # Errors
    /// When the address is none.
    pub fn of_collector(address: &str, protocol: Protocol) -> Result<Self, EndpointError> {
        let endpoint = Self::exact(address, protocol)?;
        let url = match protocol {
            Protocol::Grpc => endpoint.url,
            Protocol::Http => {
                let base = endpoint.url.trim_end_matches('/');
                if base.ends_with(HTTP_PATH) {
                    base.to_owned()
                } else {
                    format!("{base}{HTTP_PATH}")
                }
            }
        };
        Ok(Self { protocol, url })
    }

    /// A collector that takes spans at exactly this URL.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn exact(url: &str, protocol: Protocol) -> Result<Self, EndpointError> {
        let uri: Uri = url.parse().map_err(|_| EndpointError::NoUrl)?;
        let authority = uri.authority().ok_or(EndpointError::NoUrl)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(EndpointError::Scheme);
        }
        if authority.as_str().contains('@') {
            return Err(EndpointError::Password);
        }
        Ok(Self { protocol, url: url.to_owned() })
    }

    /// Returns true when its connections are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_below_which_http_has_its_path() {
        for (address, protocol, url) in [
            ("http://127.0.0.1:4317", Protocol::Grpc, "http://127.0.0.1:4317"),
            ("http://127.0.0.1:4318", Protocol::Http, "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", Protocol::Http, "http://127.0.0.1:4318/v1/traces"),
            ("https://c.example/otlp", Protocol::Http, "https://c.example/otlp/v1/traces"),
            ("https://c.example/v1/traces", Protocol::Http, "https://c.example/v1/traces"),
        ] {
            let endpoint = Endpoint::of_collector(address, protocol);
            assert_eq!(endpoint, Ok(Endpoint { protocol, url: url.to_owned() }), "{address}");
        }
        for (address, error) in [
            ("", EndpointError::NoUrl),
            ("collector", EndpointError::Scheme),
            ("collector:4317", EndpointError::Scheme),
            ("/v1/traces", EndpointError::NoUrl),
            ("grpc://collector:4317", EndpointError::Scheme),
            ("http://name:word@collector:4317", EndpointError::Password),
        ] {
            assert_eq!(Endpoint::of_collector(address, Protocol::Grpc), Err(error), "{address}");
        }
    }
}
