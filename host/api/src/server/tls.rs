//! The host's own certificate: read at the start, and again whenever its files change.
//!
//! The contents of the files are compared, and not their times or their folders' events. So it does not matter how
//! a new certificate comes: by a write, a rename, or a symbolic link of a folder that is exchanged.
//!
//! Deliberately absent: how a certificate is got (ACME), and certificates of clients.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

/// The files are looked at this often. That costs nothing, and whoever renews a certificate does so days before the
/// old one ends.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file of a certificate or of a key has at most this many bytes: a chain of very many certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The protocol that the server speaks (RFC 7301), which is asked for by clients that know others too.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why a host's own certificate cannot be used. Operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the file {} cannot be read: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file of the certificate has none.
    #[error("the file {} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The file of the key has none.
    #[error("the file {} has no private key in PEM that needs no password (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The key is that of another certificate.
    #[error("the key in {} is not that of the first certificate in {}", .key.display(), .certificate.display())]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that is not understood.
    #[error("the certificate in {} and the key in {} cannot be used: {why}", .certificate.display(), .key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What the library says.
        why: String,
    },
}

/// What the two files had when they were read.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

type ReadFiles = Result<Contents, TlsError>;

/// What was seen of the files so far.
struct Seen {
    /// What they had at the last look.
    last: Arc<ReadFiles>,
    /// What was tried last: it is in service, or it was reported.
    tried: Arc<ReadFiles>,
}

/// A host's own certificate with its key. A clone is the same one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    /// The file of the certificate, and of those that lead from it to an authority.
    certificate: PathBuf,
    /// The file of the private key.
    key: PathBuf,
    /// What is in service: the last that could be used.
    config: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

impl Tls {
    /// Reads a certificate and its key, both in PEM. They may be in one file.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let read = read_files(&certificate, &key);
        let config = match &read {
            Ok(contents) => load(&certificate, &key, contents)?,
            Err(error) => return Err(error.clone()),
        };
        let read = Arc::new(read);
        let seen = Seen { last: Arc::clone(&read), tried: read };
        Ok(Self(Arc::new(Inner {
            certificate,
            key,
            config: RwLock::new(Arc::new(config)),
            seen: Mutex::new(seen),
        })))
    }

    /// Reads the files again when they have changed. Files that cannot be used are reported once, and the certificate
    /// before them stays in service. Never returns. May be cancelled.
    pub async fn keep_current(&self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look_apart(false).await;
        }
    }

    /// Reads the files again at once, because somebody says that they have changed. May be cancelled.
    pub async fn read_again(&self) {
        self.look_apart(true).await;
    }

    /// What accepts connections with the certificate that is in service now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }

    /// Looks at the files where waiting for a disk holds up nobody.
    async fn look_apart(&self, is_asked: bool) {
        let tls = self.clone();
        let _ = tokio::task::spawn_blocking(move || tls.0.look(is_asked)).await;
    }
}

impl fmt::Debug for Tls {
    /// Nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.0.certificate).finish_non_exhaustive()
    }
}

impl Inner {
    /// Looks whether the files have changed, and puts what they have into service. Two files are written one after the
    /// other, so nobody but who asks for it gets what was not there at the look before.
    fn look(&self, is_asked: bool) {
        let read = Arc::new(read_files(&self.certificate, &self.key));
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let is_settled = seen.last == read;
            seen.last = Arc::clone(&read);
            if !is_asked && (!is_settled || seen.tried == read) {
                return;
            }
            seen.tried = Arc::clone(&read);
        }
        let loaded = match &*read {
            Ok(contents) => load(&self.certificate, &self.key, contents),
            Err(error) => Err(error.clone()),
        };
        match loaded {
            Ok(config) => {
                let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(config);
                drop(current);
                let certificate = self.certificate.display();
                tracing::info!(%certificate, "the certificate was read again; new connections get it");
            }
            Err(error) => tracing::error!(
                %error,
                "the new certificate cannot be used; the one before it stays in service"
            ),
        }
    }
}

fn read_files(certificate: &Path, key: &Path) -> ReadFiles {
    Ok(Contents { certificate: read_file(certificate)?, key: read_file(key)? })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |why: String| TlsError::Unreadable { path: path.to_owned(), why };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    // A pipe or a device may have no end.
    if !metadata.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(format!("it has more than {} KiB", FILE_BYTES_MAX >> 10)));
    }
    Ok(bytes)
}

fn load(certificate: &Path, key: &Path, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let unusable = |error: &dyn fmt::Display| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        why: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(&contents.certificate);
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| {
        let is_cut_off = matches!(error, pem::Error::MissingSectionEnd { .. });
        if is_cut_off { unusable(&"a certificate is cut off") } else { unusable(&error) }
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.to_owned()));
    }
    // The library looks at the first one alone, and clients at all of them.
    for certificate in &chain {
        ParsedCertificate::try_from(certificate).map_err(|error| unusable(&error))?;
    }
    let private_key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|_| TlsError::NoKey(key.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private_key);
    let mut config = config.map_err(|error| {
        if error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            return TlsError::OtherKey { certificate, key };
        }
        unusable(&error)
    })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A certificate and its key, in PEM.
    fn certificate() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// What is in service, to be compared.
    fn in_service(tls: &Tls) -> Arc<ServerConfig> {
        Arc::clone(&tls.0.config.read().unwrap())
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (good, key) = certificate();
        let (_, other) = certificate();
        let open = |certificate: &str, key: &str| {
            let paths = (folder.path().join("host.pem"), folder.path().join("host.key"));
            fs::write(&paths.0, certificate).unwrap();
            fs::write(&paths.1, key).unwrap();
            Tls::open(paths.0, paths.1).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(open(&good, &key), Ok(()));
        let both = format!("{key}{good}");
        assert_eq!(open(&both, &both), Ok(()), "one file for both");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let chained = format!("{good}{broken}");
        let cut_off = &good[..good.len() - 40];
        for (certificate, key, words) in [
            (&chained[..], &key[..], "cannot be used: "),
            (cut_off, &key, "a certificate is cut off"),
            ("", &key[..], "host.pem has no certificate in PEM"),
            (&key, &key, "host.pem has no certificate in PEM"),
            (&good, "", "host.key has no private key in PEM"),
            (&good, &good, "host.key has no private key in PEM"),
            (&good, &other, "host.key is not that of the first certificate in"),
            (broken, &key, "cannot be used: "),
        ] {
            let told = open(certificate, key).unwrap_err();
            assert!(told.contains(words), "{words}: {told}");
        }
        let missing = Tls::open(folder.path().join("none.pem"), folder.path().join("host.key"));
        assert!(missing.unwrap_err().to_string().contains("none.pem cannot be read: No such file"));
        let pipe = Tls::open(folder.path().to_owned(), folder.path().join("host.key"));
        assert!(pipe.unwrap_err().to_string().contains("it is not a file"));
        let long = "x".repeat(1 + (1 << 20));
        assert!(open(&long, &key).unwrap_err().contains("it has more than 1024 KiB"));
    }

    /// As Kubernetes mounts a secret: the files are links into a folder, which is a link that is exchanged.
    #[test]
    fn a_folder_that_is_exchanged_is_seen_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let exchange = |name: &str, (certificate, key): (&str, &str)| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("tls.crt"), certificate).unwrap();
            fs::write(at(name).join("tls.key"), key).unwrap();
            symlink(name, at("next")).unwrap();
            fs::rename(at("next"), at("data")).unwrap();
        };
        let (first, second) = (certificate(), certificate());
        exchange("1", (&first.0, &first.1));
        symlink("data/tls.crt", at("tls.crt")).unwrap();
        symlink("data/tls.key", at("tls.key")).unwrap();
        let tls = Tls::open(at("tls.crt"), at("tls.key")).unwrap();
        let before = in_service(&tls);
        tls.0.look(false);
        assert!(Arc::ptr_eq(&before, &in_service(&tls)), "nothing has changed");

        exchange("2", (&second.0, &second.1));
        tls.0.look(false);
        assert!(Arc::ptr_eq(&before, &in_service(&tls)), "the key may come a moment later");
        tls.0.look(false);
        let renewed = in_service(&tls);
        assert!(!Arc::ptr_eq(&before, &renewed));

        // What cannot be used changes nothing, however often it is looked at, and what is mended counts.
        exchange("3", (&first.0, &second.1));
        for _ in 0..3 {
            tls.0.look(false);
        }
        assert!(Arc::ptr_eq(&renewed, &in_service(&tls)));
        fs::remove_file(at("data")).unwrap();
        for _ in 0..3 {
            tls.0.look(false);
        }
        assert!(Arc::ptr_eq(&renewed, &in_service(&tls)));
        exchange("4", (&first.0, &first.1));
        // Who asks for it does not wait.
        tls.0.look(true);
        assert!(!Arc::ptr_eq(&renewed, &in_service(&tls)));
    }
}
