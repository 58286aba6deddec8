//! The parameters of a URL that say how its connections are encrypted. The driver knows fewer of them, so they are
//! taken out of what it reads.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path keeps as it is.
const OF_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The parameters that name files.
const ROOT: &str = "sslrootcert";
const CERTIFICATE: &str = "sslcert";
const KEY: &str = "sslkey";

/// The value of `sslrootcert` that means the system's certificates, as for PostgreSQL's own programs.
const SYSTEM: &str = "system";

/// How a connection is encrypted, and how much of the server is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted when the server can do it.
    Prefer,
    /// Encrypted; the server may be anybody.
    Require,
    /// Encrypted, to a server whose certificate is of an authority that is trusted.
    VerifyCa,
    /// The same, and the certificate is for the name in the URL.
    VerifyFull,
}

/// What is trusted to vouch for servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    System,
    File(PathBuf),
}

/// What a URL says about encryption.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TlsParameters {
    pub(super) mode: Option<TlsMode>,
    pub(super) root: Option<Root>,
    /// The files with the certificate of the client, and with its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// Divides a URL into what is before its parameters, and these.
fn divide(url: &str) -> (&str, impl Iterator<Item = &str>) {
    let after_scheme = url.find("://").map_or(0, |place| place + 3);
    // A password may have a question mark.
    let host = url[after_scheme..].find('@').map_or(after_scheme, |place| after_scheme + place);
    let (before, parameters) = match url[host..].find('?') {
        Some(place) => (&url[..host + place], &url[host + place + 1..]),
        None => (url, ""),
    };
    (before, parameters.split('&').filter(|parameter| !parameter.is_empty()))
}

/// Puts a URL together again.
fn together(before: &str, parameters: &[String]) -> String {
    if parameters.is_empty() {
        before.to_owned()
    } else {
        format!("{before}?{}", parameters.join("&"))
    }
}

/// Returns the URL of a database with the paths of its files (`sslrootcert`, `sslcert`, `sslkey`) as `resolve` returns
/// them. Everything else of the URL stays as it is.
pub fn with_files_from(url: &str, resolve: impl Fn(&str) -> PathBuf) -> String {
    let (before, parameters) = divide(url);
    let resolved = parameters.map(|parameter| {
        let Some((name @ (ROOT | CERTIFICATE | KEY), value)) = parameter.split_once('=') else {
            return parameter.to_owned();
        };
        match percent_decode_str(value).decode_utf8() {
            Ok(path) if !(path.is_empty() || name == ROOT && path == SYSTEM) => {
                let path = resolve(&path).display().to_string();
                format!("{name}={}", utf8_percent_encode(&path, OF_PATHS))
            }
            Ok(_) | Err(_) => parameter.to_owned(),
        }
    });
    together(before, &resolved.collect::<Vec<_>>())
}

/// Takes the parameters out of a URL that are about encryption.
///
/// # Errors
/// What is wrong with them, in words that follow "the URL of the database is not understood".
pub(super) fn take_parameters(url: &str) -> Result<(String, TlsParameters), String> {
    let (before, given) = divide(url);
    let (mut others, mut found) = (Vec::new(), TlsParameters::default());
    let (mut certificate, mut key) = (None, None);
    for parameter in given {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !name.starts_with("ssl") || name == "sslnegotiation" {
            others.push(parameter.to_owned());
            continue;
        }
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("its {name} is no text"))?;
        if value.is_empty() {
            return Err(format!("its {name} is empty"));
        }
        let path = || PathBuf::from(&*value);
        match name {
            "sslmode" => found.mode = Some(read_mode(&value)?),
            ROOT if value == SYSTEM => found.root = Some(Root::System),
            ROOT => found.root = Some(Root::File(path())),
            CERTIFICATE => certificate = Some(path()),
            KEY => key = Some(path()),
            name => {
                return Err(format!(
                    "it has {name}, which this version does not know; it knows sslmode, {ROOT}, {CERTIFICATE}, \
                     {KEY} and sslnegotiation"
                ));
            }
        }
    }
    found.client = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(format!("it has {CERTIFICATE}, and no {KEY}")),
        (None, Some(_)) => return Err(format!("it has {KEY}, and no {CERTIFICATE}")),
    };
    Ok((together(before, &others), found))
}

fn read_mode(text: &str) -> Result<TlsMode, String> {
    match text {
        "disable" => Ok(TlsMode::Disable),
        "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        "verify-ca" => Ok(TlsMode::VerifyCa),
        "verify-full" => Ok(TlsMode::VerifyFull),
        _ => Err("its sslmode is none of disable, prefer, require, verify-ca and verify-full; the safe one is \
                  verify-full"
            .to_owned()),
    }
}

impl TlsParameters {
    /// Returns the mode: that of the URL, or the safe one when other machines may hear what is sent.
    ///
    /// # Errors
    /// When two parameters contradict each other, in words as for [`take_parameters`].
    pub(super) fn mode(&self, is_remote: bool) -> Result<TlsMode, String> {
        let has_files = self.root.is_some() || self.client.is_some();
        let has_authorities = matches!(self.root, Some(Root::File(_)));
        match self.mode {
            None if is_remote || has_files => Ok(TlsMode::VerifyFull),
            // Any server with a certificate of the web would do.
            Some(TlsMode::VerifyCa) if !has_authorities => Err(format!(
                "with the authorities of this machine, its sslmode has to be verify-full; for verify-ca, name the \
                 file with the certificate of the server's authority: {ROOT}=FILE"
            )),
            Some(TlsMode::Require) if self.root == Some(Root::System) => {
                Err(format!("with {ROOT}=system, its sslmode has to be verify-full"))
            }
            None => Ok(TlsMode::Disable),
            Some(TlsMode::Disable | TlsMode::Prefer) if has_files => Err(format!(
                "with {ROOT} or {CERTIFICATE}, its sslmode has to be verify-full, verify-ca or require"
            )),
            // As PostgreSQL's own programs do.
            Some(TlsMode::Require) if self.root.is_some() => Ok(TlsMode::VerifyCa),
            Some(mode) => Ok(mode),
        }
    }
}

impl Root {
    /// Says which certificates are trusted, for people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::System => "this machine".to_owned(),
            Self::File(path) => Path::display(path).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    fn taken(parameters: &str) -> Result<(String, TlsParameters), String> {
        take_parameters(&format!("postgres://a:b?c@db/x{parameters}"))
    }

    #[test]
    fn parameters_about_encryption_are_taken_out() {
        let (url, found) = taken(
            "?sslmode=verify-ca&connect_timeout=3&sslrootcert=a%20b.pem&sslnegotiation=direct",
        )
        .unwrap();
        assert_eq!(url, "postgres://a:b?c@db/x?connect_timeout=3&sslnegotiation=direct");
        assert_eq!(found.mode, Some(TlsMode::VerifyCa));
        assert_eq!(found.root, Some(Root::File("a b.pem".into())));
        let (url, found) = taken("?sslrootcert=system&sslcert=c&sslkey=k").unwrap();
        assert_eq!(url, "postgres://a:b?c@db/x");
        assert_eq!(found.root, Some(Root::System));
        assert_eq!(found.client, Some(("c".into(), "k".into())));
        assert_eq!(
            taken("").unwrap(),
            ("postgres://a:b?c@db/x".to_owned(), TlsParameters::default())
        );
        for (parameters, said) in [
            ("?sslmode=allow", "verify-full"),
            ("?sslmode=", "empty"),
            ("?sslpassword=x", "does not know"),
            ("?sslcert=x", "no sslkey"),
            ("?sslkey=x", "no sslcert"),
            ("?sslrootcert=%ff", "no text"),
        ] {
            let error = taken(parameters).unwrap_err();
            assert!(error.contains(said), "{parameters}: {error}");
        }
    }

    #[test]
    fn the_mode_is_safe_where_others_may_listen() {
        let mode = |parameters: &str, is_remote| taken(parameters).unwrap().1.mode(is_remote);
        assert_eq!(mode("", true), Ok(TlsMode::VerifyFull));
        assert_eq!(mode("", false), Ok(TlsMode::Disable));
        assert_eq!(mode("?sslrootcert=a", false), Ok(TlsMode::VerifyFull));
        assert_eq!(mode("?sslmode=require", true), Ok(TlsMode::Require));
        assert_eq!(mode("?sslmode=require&sslrootcert=a", true), Ok(TlsMode::VerifyCa));
        for any_name in [
            "?sslmode=verify-ca",
            "?sslmode=verify-ca&sslrootcert=system",
            "?sslmode=require&sslrootcert=system",
        ] {
            assert!(mode(any_name, true).unwrap_err().contains("verify-full"), "{any_name}");
        }
        assert_eq!(mode("?sslmode=disable", true), Ok(TlsMode::Disable));
        assert!(mode("?sslmode=prefer&sslrootcert=a", true).is_err());
    }

    #[test]
    fn files_count_from_a_folder() {
        let from = |url: &str| with_files_from(url, |path| Path::new("/etc/amends").join(path));
        assert_eq!(
            from("postgres://a@db/x?sslmode=require&sslrootcert=my%20ca.pem&sslkey=/k"),
            "postgres://a@db/x?sslmode=require&sslrootcert=/etc/amends/my%20ca.pem&sslkey=/k"
        );
        for same in ["postgres://a@db/x", "postgres://a@db/x?sslrootcert=system&user=b"] {
            assert_eq!(from(same), same);
        }
    }
}
