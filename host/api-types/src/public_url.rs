//! The address of a host behind a proxy.

use std::str::FromStr;

use http::Uri;

/// The address at which a proxy serves the host: a scheme, a name and perhaps a port, such as
/// `https://amends.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// The whole address as browsers write it: in lower case, without the scheme's own port.
    origin: String,
    /// The name in the address.
    name: String,
}

/// The error for a text that is not the address of a host behind a proxy. It has the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not http:// or https://, a name and perhaps a port")]
pub struct PublicUrlError(String);

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let error = || PublicUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| error())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(error());
        };
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(error()),
        };
        let has_more = uri.path() != "/" || uri.query().is_some();
        let has_port = authority.port_u16().is_some();
        let ends_with_name = has_port || authority.as_str().ends_with(authority.host());
        let is_bare = !has_more && !authority.as_str().contains('@') && ends_with_name;
        if !is_bare || authority.host().is_empty() {
            return Err(error());
        }
        let name = authority.host().to_ascii_lowercase();
        let port = match authority.port_u16() {
            Some(port) if port != own_port => format!(":{port}"),
            Some(_) | None => String::new(),
        };
        Ok(Self { origin: format!("{scheme}://{name}{port}"), name })
    }
}

impl PublicUrl {
    /// The whole address as browsers write it in `Origin`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The name in the address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_a_scheme_a_name_and_a_port() {
        for (text, origin, name) in [
            ("https://amends.example.com", "https://amends.example.com", "amends.example.com"),
            ("https://Amends.Example.com:443/", "https://amends.example.com", "amends.example.com"),
            ("http://amends:8080", "http://amends:8080", "amends"),
            ("http://amends:443", "http://amends:443", "amends"),
        ] {
            let (origin, name) = (origin.to_owned(), name.to_owned());
            assert_eq!(text.parse(), Ok(PublicUrl { origin, name }), "{text}");
        }
        for text in [
            "",
            "amends.example.com",
            "ftp://amends.example.com",
            "https://amends.example.com/console",
            "https://amends.example.com/?a",
            "https://eve@amends.example.com",
            "https://",
            "https://amends.example.com:99999",
            "https://amends.example.com:",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
