//! Registries for tests: a real one (`docker-registry`), and one that answers what it is told to.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amends_engine::Digest;
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::place::SOON;

pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const WASM_LAYER: &str = "application/wasm";

/// Whom a registry with a password lets in.
pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "planted-password";

/// Their line in a file of `htpasswd`: bcrypt is all that the registry reads.
const HTPASSWD: &str = "ada:$2b$04$p47UzEuffHPFCIBaETMd.OXDRj03GZZhmm.5jjfuUo4BRdoO0Jr.2\n";

/// A real registry, with a folder of its own. Ended with the test.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
    login: RegistryAuth,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// None when there is no `docker-registry` here, which is told.
    pub(crate) fn open() -> Option<Self> {
        Self::start("", RegistryAuth::Anonymous)
    }

    /// One that wants a password.
    pub(crate) fn with_password() -> Option<Self> {
        let auth = "auth: {htpasswd: {realm: test, path: htpasswd}}\n";
        Self::start(auth, RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned()))
    }

    fn start(auth: &str, login: RegistryAuth) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: data}}}}\n\
             http: {{addr: \"{address}\"}}\n{auth}"
        );
        fs::write(folder.path().join("config.yml"), config).unwrap();
        fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let spawned = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            amends_tests::skipped("OCI registries", "docker-registry is not installed");
            return None;
        };
        let began = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(began.elapsed() < SOON, "the registry does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child, address, login, _folder: folder })
    }

    /// Pushes one layer, as the tools for components do; what names it.
    pub(crate) fn push(&self, repository: &str, bytes: Vec<u8>) -> String {
        self.push_as(repository, WASM_CONFIG, &[(WASM_LAYER, bytes)])
    }

    /// As [`Self::push`], of whatever layout.
    pub(crate) fn push_as(
        &self,
        repository: &str,
        config: &str,
        layers: &[(&str, Vec<u8>)],
    ) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = ClientProtocol::Http;
        let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
        let name = format!("{}/{repository}", self.address);
        let reference: Reference = format!("{name}:pushed").parse().unwrap();
        let layers: Vec<_> = layers
            .iter()
            .map(|(kind, bytes)| ImageLayer::new(bytes.clone(), (*kind).to_owned(), None))
            .collect();
        let config = Config::new(r#"{"os":"wasip2"}"#, config.to_owned(), None);
        let digest = tokio::runtime::Runtime::new().unwrap().block_on(async {
            client.push(&reference, &layers, config, &self.login, None).await.unwrap();
            client.fetch_manifest_digest(&reference, &self.login).await.unwrap()
        });
        format!("oci://{name}@{digest}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a scripted registry answers, to a path and with what was shown of a login.
pub(crate) type Script = Box<dyn Fn(&str, Option<&str>) -> Answer + Send + Sync>;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) header: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, header: "x-none: none".to_owned(), body: body.into() }
    }
}

/// Serves a script as long as the test process lives; its address.
pub(crate) fn scripted(script: impl FnOnce(&str) -> Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = script(&address);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever has read enough hangs up.
            let _ = answer(stream.unwrap(), &script);
        }
    });
    address
}

fn answer(mut stream: TcpStream, script: &Script) -> std::io::Result<()> {
    let (mut path, mut login) = (String::new(), None);
    let mut reader = BufReader::new(stream.try_clone()?).take(64 << 10);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            login = Some(value.to_owned());
        }
    }
    let Answer { status, header, body } = script(&path, login.as_deref());
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\n{header}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// A manifest of one component, as it is pushed.
pub(crate) fn manifest(layer: &[u8]) -> Vec<u8> {
    let (config, layer, size) = (Digest::of(b"{}"), Digest::of(layer), layer.len());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"{WASM_CONFIG}","digest":"{config}","size":2}},"layers":[{{"mediaType":"{WASM_LAYER}","digest":"{layer}","size":{size}}}]}}"#
    )
    .into_bytes()
}
