//! Encrypted connections: what they trust, and what went wrong with one in words.
//!
//! Certificates are read when the store is opened. Deliberately absent: lists of revoked certificates.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls_url::{Root, TlsMode, TlsParameters};

/// The protocol that a server is asked for, which `sslnegotiation=direct` needs.
const ALPN: &[u8] = b"postgresql";

/// How the connections to a database are encrypted.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) mode: TlsMode,
    pub(super) connector: MakeRustlsConnect,
    /// Whose certificates are trusted, for people.
    trusted: String,
}

/// Takes the certificate of any server, or that of any server of some authorities.
#[derive(Debug)]
struct AnyName {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // The name is the last that is looked at.
        if let Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) = &verified
        {
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

impl Tls {
    /// Reads the certificates that connections of a mode need.
    ///
    /// # Errors
    /// What is wrong with them, in words that follow "the database".
    pub(super) fn new(mode: TlsMode, parameters: &TlsParameters) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| format!("cannot be reached with TLS: {error}"))?;
        let root = parameters.root.as_ref().unwrap_or(&Root::System);
        let any_name =
            |authorities| Arc::new(AnyName { authorities, provider: Arc::clone(&provider) });
        let builder = match mode {
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
                builder.dangerous().with_custom_certificate_verifier(any_name(None))
            }
            TlsMode::VerifyCa => {
                let authorities = Arc::new(authorities(root)?);
                let authorities =
                    WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider));
                let authorities = authorities.build();
                let authorities =
                    authorities.map_err(|error| format!("has {}: {error}", root.shown()))?;
                builder.dangerous().with_custom_certificate_verifier(any_name(Some(authorities)))
            }
            TlsMode::VerifyFull => builder.with_root_certificates(authorities(root)?),
        };
        let mut config = match &parameters.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (certificates, secret) =
                    (certificates(certificate, "sslcert")?, read_key(key)?);
                builder.with_client_auth_cert(certificates, secret).map_err(|error| {
                    format!("has an sslkey that does not belong to its sslcert: {error}")
                })?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { mode, connector: MakeRustlsConnect::new(config), trusted: root.shown() })
    }

    /// Says what is wrong when a connection cannot be encrypted, or its server is not who it should be. In words that
    /// follow "the database". None for every other error.
    pub(super) fn trouble(&self, error: &tokio_postgres::Error) -> Option<String> {
        let mut cause = error.source();
        while let Some(error) = cause {
            // The error of the operating system hides what it was made of.
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let of_tls = inner.and_then(|inner| inner.downcast_ref::<Error>());
            if let Some(of_tls) = of_tls.or_else(|| error.downcast_ref::<Error>()) {
                return Some(self.describe(of_tls));
            }
            if error.to_string() == NO_TLS {
                return Some(
                    "takes no encrypted connections; set `ssl = on` on the server. In a network that you trust, \
                     sslmode=disable sends everything unencrypted"
                        .to_owned(),
                );
            }
            cause = error.source();
        }
        None
    }

    fn describe(&self, error: &Error) -> String {
        let Error::InvalidCertificate(reason) = error else {
            return format!("cannot be reached with TLS: {error}");
        };
        if matches!(reason, CertificateError::UnknownIssuer) {
            return format!(
                "shows a certificate of an authority that {} does not trust; name the file with the certificate of \
                 the server's authority: sslrootcert=FILE",
                self.trusted
            );
        }
        let is_of_name = matches!(
            reason,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        );
        if is_of_name {
            return format!(
                "shows a certificate for another name ({reason}); use a name that the certificate has as \
                 subjectAltName, or sslmode=verify-ca, which takes any name"
            );
        }
        format!("shows a certificate that is not valid: {reason}")
    }
}

/// What the driver says of a server without TLS.
const NO_TLS: &str = "server does not support TLS";

/// Reads whom to trust.
fn authorities(root: &Root) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match root {
        Root::System => {
            let found = rustls_native_certs::load_native_certs();
            if store.add_parsable_certificates(found.certs).0 == 0 {
                let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(format!(
                    "cannot be trusted, because this machine has no certificates: install ca-certificates, or name \
                     a file with sslrootcert=FILE{}",
                    errors.first().map(|error| format!(" ({error})")).unwrap_or_default()
                ));
            }
        }
        Root::File(path) => {
            for certificate in certificates(path, "sslrootcert")? {
                store.add(certificate).map_err(|error| unusable("sslrootcert", path, &error))?;
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(name, path, &"it has no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(name, path, &error)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let error = format!("{error}; a key in PEM without a password is needed");
        unusable("sslkey", path, &error)
    })
}

fn unusable(name: &str, path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("needs the file {} ({name}), which cannot be used: {why}", path.display())
}
