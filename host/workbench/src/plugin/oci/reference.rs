//! `oci://REGISTRY/REPOSITORY@sha256:…`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use amends_engine::Digest;

use super::error::{OciError, OciErrorKind};

const SCHEME: &str = "oci://";

/// Whether an argument names a component in a registry, or means to.
#[must_use]
pub fn is_reference(argument: &str) -> bool {
    argument.starts_with(SCHEME)
}

/// A component in a registry, by the digest of its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// A host, and perhaps a port.
    registry: String,
    repository: String,
    digest: Digest,
}

impl Reference {
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// The last part of the repository.
    #[must_use]
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the registry is on this machine, so that nobody can listen.
    pub(super) fn is_plain(&self) -> bool {
        let host = host_of(&self.registry);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// As the client of registries has it.
    pub(super) fn to_oci(&self) -> oci_client::Reference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        oci_client::Reference::with_digest(registry, repository, self.digest.to_string())
    }

    /// Where the registry has a manifest or a blob.
    pub(super) fn url(&self, kind: &str, digest: Digest) -> String {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let oci = self.to_oci();
        let (registry, repository) = (oci.resolve_registry(), &self.repository);
        format!("{scheme}://{registry}/v2/{repository}/{kind}/{digest}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let wrong = |wrong: &str, right: &str| {
            OciError::new(OciErrorKind::Other, &format!("{text} {wrong}"), right)
        };
        let form = "write oci://REGISTRY/REPOSITORY@sha256:…, such as \
                    oci://ghcr.io/acme/inventory@sha256:… with the 64 digits of its digest";
        let Some((registry, path)) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'))
        else {
            return Err(wrong("names no registry and repository", form));
        };
        let (repository, digest) = match path.split_once('@') {
            Some((repository, digest)) => (repository, Some(digest)),
            None => (path, None),
        };
        let (repository, tag) = match repository.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (repository, None),
        };
        if !is_registry(registry) || !is_repository(repository) {
            return Err(wrong("is no name in a registry", form));
        }
        let Some(digest) = digest else {
            let tag = tag.unwrap_or("latest");
            let right = format!(
                "write {SCHEME}{registry}/{repository}@sha256:…; `oras resolve \
                 {registry}/{repository}:{tag}` says the digest, and so does whatever pushed it"
            );
            return Err(wrong("has no digest, and a tag can be moved to other bytes", &right));
        };
        let Ok(digest) = digest.parse() else {
            return Err(wrong(
                "has no usable digest: it is `sha256:` and 64 hexadecimal digits",
                form,
            ));
        };
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Ok(Self { registry, repository, digest })
    }
}

/// Without the port.
fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    }
}

/// A name or an address, and perhaps a port: no user, no path.
fn is_registry(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let url = reqwest::Url::parse(&format!("https://{text}/"));
    text.bytes().all(is_plain) && url.is_ok_and(|url| url.has_host() && url.path() == "/")
}

/// Parts of `a-z`, `0-9`, `.`, `_` and `-`, each with a letter or digit at both ends.
fn is_repository(text: &str) -> bool {
    let is_end = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_plain = |byte: u8| is_end(Some(byte)) || b"._-".contains(&byte);
    text.split('/').all(|part| {
        let mut ends = part.bytes();
        let (first, last) = (part.bytes().next(), ends.next_back());
        is_end(first) && is_end(last) && part.bytes().all(is_plain)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parse(rest: &str) -> Result<Reference, String> {
        format!("{SCHEME}{rest}").parse::<Reference>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_has_a_registry_a_repository_and_a_digest() {
        let reference = parse(&format!("ghcr.io/acme/seats/book-seats@{DIGEST}")).unwrap();
        assert_eq!((reference.registry(), reference.name()), ("ghcr.io", "book-seats"));
        assert_eq!(reference.repository(), "acme/seats/book-seats");
        assert_eq!(reference.digest(), Digest::of(b"abc"));
        assert_eq!(
            reference.url("blobs", reference.digest()),
            format!("https://ghcr.io/v2/acme/seats/book-seats/blobs/{DIGEST}")
        );
        assert_eq!(reference.to_string(), format!("oci://ghcr.io/acme/seats/book-seats@{DIGEST}"));
        // The digest says which; a tag beside it says nothing.
        assert_eq!(
            parse(&format!("ghcr.io/acme/seats/book-seats:1.2@{DIGEST}")).unwrap(),
            reference
        );
        let hub = parse(&format!("docker.io/acme/seats@{DIGEST}")).unwrap();
        assert!(
            hub.url("blobs", hub.digest()).starts_with("https://index.docker.io/v2/acme/seats/")
        );
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        for (registry, is_plain) in [
            ("127.0.0.1:5000", true),
            ("127.0.0.1", true),
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com:5000", false),
            ("10.0.0.1:5000", false),
            ("[2001:db8::1]", false),
            ("registry.example.com:80", false),
        ] {
            let reference = parse(&format!("{registry}/acme@{DIGEST}")).unwrap();
            assert_eq!(reference.is_plain(), is_plain, "{registry}");
            let scheme = if is_plain { "http://" } else { "https://" };
            let url = reference.url("manifests", reference.digest());
            assert!(url.starts_with(&format!("{scheme}{registry}/v2/")), "{url}");
        }
    }

    #[test]
    fn a_name_that_says_too_little_or_too_much_is_refused_with_what_would_be_right() {
        for (rest, words) in [
            ("ghcr.io/acme/inventory:1.2", "a tag can be moved"),
            ("ghcr.io/acme/inventory:1.2", "oras resolve ghcr.io/acme/inventory:1.2"),
            ("ghcr.io/acme/inventory", "oras resolve ghcr.io/acme/inventory:latest"),
            ("inventory", "names no registry and repository"),
            ("ghcr.io/acme@sha256:12", "64 hexadecimal digits"),
            ("ghcr.io/acme@sha512:12", "64 hexadecimal digits"),
        ] {
            let told = parse(rest).unwrap_err();
            assert!(told.contains(words) && told.contains("\n  help: "), "{rest}: {told}");
        }
        for name in [
            "",
            "/acme",
            "user:password@ghcr.io/acme",
            "ghcr.io:x/acme",
            "ghcr.io/",
            "ghcr.io/Acme",
            "ghcr.io//acme",
            "ghcr.io/../acme",
            "ghcr.io/acme/",
            "ghcr.io/a?b",
            "ghcr.io/a%2f",
            "gh cr.io/acme",
            "ghcr.io#/acme",
        ] {
            let told = parse(&format!("{name}@{DIGEST}")).unwrap_err();
            assert!(told.contains("names no registry") || told.contains("is no name"), "{told}");
        }
    }
}
