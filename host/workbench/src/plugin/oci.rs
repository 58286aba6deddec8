//! A component from an OCI registry (OCI distribution specification 1.1), in the layout of the CNCF
//! Wasm artifact: a config `application/vnd.wasm.config.v0+json` and one layer `application/wasm`.
//!
//! A component is named by the digest of its manifest, and the manifest has the digest of the component's
//! bytes. Both digests are checked, so neither the registry nor a server that it redirects to has to be
//! trusted. The `oci-client` crate does the handshake for a token. The two documents are read here, with a
//! limit of bytes, because the crate has no such limit.
//!
//! Deliberately absent: tags, which can move; pushing, which `wkg`, `oras` and the like do.

mod error;
mod reference;

use std::path::PathBuf;
use std::time::Duration;

use amends_engine::Digest;
use amends_sandbox::COMPONENT_BYTES_MAX;
use anyhow::Context as _;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::RegistryOperation;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciManifest};
use oci_client::secrets::RegistryAuth;
use reqwest::StatusCode;
use reqwest::header::ACCEPT;

pub use error::{OciError, OciErrorKind};
pub use reference::{Reference, is_reference};

/// Bytes of a manifest: what the specification has every registry take. One of a component has 600.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

const CONFIG_MEDIA_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_MEDIA_TYPE: &str = "application/wasm";

/// Where the login of Docker's own registry is kept.
const DOCKER_HUB_LOGIN: &str = "https://index.docker.io/v1/";

const USER_AGENT: &str = concat!("amends/", env!("CARGO_PKG_VERSION"));

/// How long a registry may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Until there is a connection.
    connect: Duration,
    /// Without a byte.
    silence: Duration,
    /// For all of it: the largest component at 2 Mbit/s.
    whole: Duration,
}

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(30),
    whole: Duration::from_mins(5),
};

/// The bytes of a component. May be cancelled. TLS is that of the process's default provider.
///
/// # Errors
/// When they cannot be had, or are not what the reference names: mostly an [`OciError`].
pub async fn pull(reference: &Reference) -> anyhow::Result<Vec<u8>> {
    pull_within(reference, LIMITS).await
}

async fn pull_within(reference: &Reference, limits: Limits) -> anyhow::Result<Vec<u8>> {
    let pulled = async {
        let registry = Registry::open(reference, limits).await?;
        let manifest = registry.manifest().await?;
        registry.layer(&manifest).await
    };
    tokio::time::timeout(limits.whole, pulled).await.unwrap_or_else(|_| {
        Err(failed(
            OciErrorKind::Other,
            &format!("{reference} was not there within {:?}", limits.whole),
            "try again; pull it by other means and deploy the file, if the registry is that slow",
        ))
    })
}

/// What is wrong, and what would be right.
fn failed(kind: OciErrorKind, wrong: &str, right: &str) -> anyhow::Error {
    OciError::new(kind, wrong, right).into()
}

/// A registry, and what it wants to see of whoever asks.
struct Registry<'r> {
    reference: &'r Reference,
    http: reqwest::Client,
    access: RegistryAuth,
}

/// Where the bytes of a component are.
struct Layer {
    digest: Digest,
    bytes: usize,
}

impl<'r> Registry<'r> {
    async fn open(reference: &'r Reference, limits: Limits) -> anyhow::Result<Self> {
        let login = login(reference.registry())?;
        let protocol =
            if reference.is_plain() { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(limits.connect),
            read_timeout: Some(limits.silence),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config).map_err(|error| {
            failed(
                OciErrorKind::Other,
                &format!("no registry can be asked: {error}"),
                "install the certificates that this machine trusts (ca-certificates), or name a \
                 file of them in SSL_CERT_FILE",
            )
        })?;
        let token = client.auth(&reference.to_oci(), &login, RegistryOperation::Pull).await;
        let token = token.map_err(|error| {
            if let OciDistributionError::RequestError(error) = &error {
                unreachable(reference, error)
            } else if let OciDistributionError::AuthenticationFailure(_) = &error {
                no_access(reference, "it gives no token")
            } else {
                let message = format!("{} gives no access", reference.registry());
                anyhow::Error::new(error).context(message)
            }
        })?;
        // Without a handshake for a token the login itself is what a registry wants.
        let access = token.map_or(login, RegistryAuth::Bearer);
        let http = reqwest::Client::builder()
            // Nor may a redirect lead from an encrypted connection to a plain one.
            .https_only(!reference.is_plain())
            .connect_timeout(limits.connect)
            .read_timeout(limits.silence)
            .user_agent(USER_AGENT)
            .build()
            .context("no HTTP client")?;
        Ok(Self { reference, http, access })
    }

    async fn manifest(&self) -> anyhow::Result<OciManifest> {
        let digest = self.reference.digest();
        let bytes = self.read("manifests", digest, MANIFEST_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            failed(
                OciErrorKind::Other,
                &format!("{} is not the manifest of an artifact: {error}", self.reference),
                "name the digest of a manifest, which is what a registry answers to a push",
            )
        })
    }

    async fn layer(&self, manifest: &OciManifest) -> anyhow::Result<Vec<u8>> {
        let layer = wasm_layer(manifest).map_err(|wrong| {
            failed(OciErrorKind::Other, &format!("{}: {wrong}", self.reference), LAYOUT)
        })?;
        self.read("blobs", layer.digest, layer.bytes).await
    }

    /// What has this digest, of at most so many bytes.
    async fn read(&self, kind: &str, digest: Digest, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
        let reference = self.reference;
        let request = self.http.get(reference.url(kind, digest)).header(
            ACCEPT,
            // An index is refused, and by what it is.
            format!("{OCI_IMAGE_MEDIA_TYPE}, {OCI_IMAGE_INDEX_MEDIA_TYPE}, */*"),
        );
        let request = match &self.access {
            RegistryAuth::Anonymous => request,
            RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
            RegistryAuth::Bearer(token) => request.bearer_auth(token),
        };
        let sent = request.send().await;
        let mut response = sent.map_err(|error| unreachable(reference, &error))?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => {
                return Err(failed(
                    OciErrorKind::NotFound,
                    &format!(
                        "{} has no {digest} in {}",
                        reference.registry(),
                        reference.repository()
                    ),
                    "is that the digest of the manifest, and the name of the repository?",
                ));
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(no_access(reference, status.as_str()));
            }
            status => anyhow::bail!("{} answered {status} to {reference}", reference.registry()),
        }
        let mut bytes = Vec::new();
        while let Some(part) =
            response.chunk().await.map_err(|error| unreachable(reference, &error))?
        {
            if bytes.len() + part.len() > bytes_max {
                return Err(failed(
                    OciErrorKind::Other,
                    &format!(
                        "{}: what the registry sends for {digest} has more than {bytes_max} bytes",
                        self.reference
                    ),
                    "a registry that does so is broken, or not to be trusted: pull from another",
                ));
            }
            bytes.extend_from_slice(&part);
        }
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(failed(
                OciErrorKind::Other,
                &format!("{reference}: the registry was asked for {digest} and sent {found}"),
                "a registry that does so is broken, or not to be trusted: pull from another",
            ));
        }
        Ok(bytes)
    }
}

const LAYOUT: &str = "push it as a Wasm artifact, such as by `wkg oci push`: one layer \
                      application/wasm, and a config application/vnd.wasm.config.v0+json";

/// The one layer of a manifest.
fn wasm_layer(manifest: &OciManifest) -> Result<Layer, String> {
    let image = match manifest {
        OciManifest::Image(image) => image,
        OciManifest::ImageIndex(_) => {
            return Err("it is an index of several manifests, not a component".to_owned());
        }
    };
    if image.config.media_type != CONFIG_MEDIA_TYPE {
        let found = &image.config.media_type;
        return Err(format!("it is not a component: its config is {found:?}"));
    }
    let [layer] = image.layers.as_slice() else {
        return Err(format!("it has {} layers, and a component is one", image.layers.len()));
    };
    if layer.media_type != LAYER_MEDIA_TYPE {
        return Err(format!("its layer is {:?}, not a component", layer.media_type));
    }
    let bytes = usize::try_from(layer.size).unwrap_or(usize::MAX);
    if bytes > COMPONENT_BYTES_MAX {
        return Err(format!(
            "its layer has {} bytes, at most {COMPONENT_BYTES_MAX} are allowed",
            layer.size
        ));
    }
    let digest = layer.digest.parse().map_err(|error| format!("its layer: {error}"))?;
    Ok(Layer { digest, bytes })
}

/// As `docker login` has left it; who has not logged in asks as nobody.
fn login(registry: &str) -> anyhow::Result<RegistryAuth> {
    let key = if registry == "docker.io" { DOCKER_HUB_LOGIN } else { registry };
    match docker_credential::get_credential(key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => Err(failed(
            OciErrorKind::Login,
            &format!("the login to {registry} is an identity token, which is not supported"),
            "log in with a user and a password or an access token",
        )),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        Err(
            CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError,
        ) if !login_file().is_some_and(|file| file.exists()) => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(failed(
            OciErrorKind::Login,
            &format!("the login to {registry} cannot be read: {error}"),
            "log in again (docker login), or remove it from the config.json of docker",
        )),
    }
}

/// Docker's, which may not be there.
fn login_file() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let at_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    Some(folder.or_else(at_home)?.join("config.json"))
}

fn no_access(reference: &Reference, why: &str) -> anyhow::Error {
    let registry = reference.registry();
    let wrong = format!("{registry} does not let {} be read ({why})", reference.repository());
    failed(OciErrorKind::Login, &wrong, &format!("log in: docker login {registry}"))
}

fn unreachable(reference: &Reference, error: &reqwest::Error) -> anyhow::Error {
    let what = if error.is_connect() {
        "cannot be reached"
    } else if error.is_timeout() {
        "did not answer in time"
    } else {
        "broke off"
    };
    // The innermost says what happened; what is around it says the address again.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let registry = reference.registry();
    failed(
        OciErrorKind::Other,
        &format!("the registry {registry} {what}: {cause}"),
        "is its name right, and is it up? A registry is asked over https, one on this machine over \
         http",
    )
}

#[cfg(test)]
mod tests;
