//! Encrypted connections to a real server: who is trusted, who is refused, and that no connection goes without.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_store::conformance::{TestStore, start, then, whole_log};
use amends_store::{Durability, PageBudget, PostgresStore, SagaQuery};
use database::own_server::OwnServer;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// Who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Makes a certificate and its key. One of a client has no name of a host.
    fn sign(&self, common_name: &str, hosts: &[&str], is_over: bool) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let is_client = hosts.is_empty();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![if is_client {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        if is_over {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server that takes encrypted connections, and what clients need for them.
struct Fixture {
    server: OwnServer,
    authority: Authority,
    folder: TempDir,
}

impl Fixture {
    /// Makes a server whose certificate is for `localhost`. None when there are no programs.
    fn new() -> Option<Self> {
        let server = database::own_server()?;
        let authority = Authority::new("an authority");
        let fixture = Self { server, authority, folder: tempfile::tempdir().unwrap() };
        fixture.file("ca.pem", &fixture.authority.pem);
        fixture.file("other.pem", &Authority::new("another authority").pem);
        Some(fixture)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Gives the server a certificate, and says who may connect. Starts it.
    fn start(&mut self, is_over: bool, who: &str) {
        let (certificate, key) = self.authority.sign("server", &["localhost"], is_over);
        self.server.write("server.crt", &certificate);
        self.server.write("server.key", &key);
        self.server.write("clients.crt", &self.authority.pem);
        self.server.write("pg_hba.conf", who);
        self.server.configure("ssl = on\nssl_ca_file = 'clients.crt'");
        self.server.start();
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        let folder = self.folder.path().display().to_string();
        let parameters = parameters.replace("FOLDER", &folder);
        format!("postgres://postgres@{host}:{}/postgres?{parameters}", self.server.port)
    }

    /// Opens the store and closes it, or returns what was said.
    async fn said(&self, host: &str, parameters: &str) -> String {
        match PostgresStore::open(&self.url(host, parameters), Durability::Relaxed) {
            Ok(store) => {
                amends_store::Store::close(&store).await.unwrap();
                "it works".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
}

/// Only encrypted connections are let in.
const ENCRYPTED: &str = "hostssl all all 127.0.0.1/32 trust\n";

/// Only encrypted connections with a certificate of the user are let in.
const WITH_CERTIFICATE: &str = "hostssl all all 127.0.0.1/32 cert\n";

/// The right authority and name are taken, and everything else is refused in words that say what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_who_it_should_be() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.start(false, ENCRYPTED);
    for (host, parameters, said) in [
        ("localhost", "sslmode=verify-full&sslrootcert=FOLDER/ca.pem", "it works"),
        // The safe mode is the one without saying so.
        ("localhost", "sslrootcert=FOLDER/ca.pem", "it works"),
        ("localhost", "sslrootcert=FOLDER/other.pem", "an authority that"),
        ("localhost", "sslmode=verify-full", "sslrootcert=FILE"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=FOLDER/ca.pem", "for another name"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=FOLDER/ca.pem", "it works"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=FOLDER/other.pem", "an authority that"),
        // As PostgreSQL's own programs do it.
        ("127.0.0.1", "sslmode=require&sslrootcert=FOLDER/other.pem", "an authority that"),
        ("127.0.0.1", "sslmode=require", "it works"),
        ("127.0.0.1", "sslmode=prefer", "it works"),
        ("127.0.0.1", "sslmode=disable", "refuses the user"),
        (
            "localhost",
            "sslrootcert=FOLDER/none.pem",
            "none.pem (sslrootcert), which cannot be used",
        ),
        ("localhost", "sslcert=FOLDER/ca.pem&sslkey=FOLDER/ca.pem", "ca.pem (sslkey)"),
    ] {
        let found = fixture.said(host, parameters).await;
        assert!(found.contains(said), "{host}, {parameters}: {found}");
    }
}

/// A certificate that is over is refused, and so is a server without encryption; but `prefer` does without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_encrypt_is_refused() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.server.start();
    for mode in
        ["require", "verify-ca&sslrootcert=FOLDER/ca.pem", "verify-full&sslrootcert=FOLDER/ca.pem"]
    {
        let said = fixture.said("localhost", &format!("sslmode={mode}")).await;
        assert!(said.contains("takes no encrypted connections; set `ssl = on`"), "{mode}: {said}");
    }
    assert_eq!(fixture.said("localhost", "sslmode=prefer").await, "it works");
    assert_eq!(fixture.said("localhost", "").await, "it works");
    fixture.server.stop("fast");
    fixture.start(true, ENCRYPTED);
    let said = fixture.said("localhost", "sslrootcert=FOLDER/ca.pem").await;
    assert!(said.contains("not valid: certificate expired"), "{said}");
}

/// A client shows its certificate, and every connection of a store at work is encrypted: the server lets no other in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_encrypted() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.start(false, WITH_CERTIFICATE);
    let (certificate, key) = fixture.authority.sign("postgres", &[], false);
    let save = |name: &str, text: &str| -> PathBuf { fixture.file(name, text) };
    let (certificate, key) = (save("client.crt", &certificate), save("client.key", &key));
    let said = fixture.said("localhost", "sslrootcert=FOLDER/ca.pem").await;
    assert!(said.contains("valid client certificate"), "{said}");

    let of = |path: &Path| path.display().to_string();
    let parameters =
        format!("sslrootcert=FOLDER/ca.pem&sslcert={}&sslkey={}", of(&certificate), of(&key));
    let store =
        PostgresStore::open(&fixture.url("localhost", &parameters), Durability::Full).unwrap();
    let store = TestStore::of(Arc::new(store)).await.unwrap();
    for number in 0..20 {
        store.append(start(number)).await.unwrap();
        store.append(then(number, 1)).await.unwrap();
    }
    // Several readers at once, the sequencer, the ticks, and what keeps the store in order.
    let query = || SagaQuery { limit: 10, ..SagaQuery::default() };
    let lists = futures::future::join_all((0..8).map(|_| store.sagas().list(query()))).await;
    assert!(lists.iter().all(|list| list.as_ref().unwrap().len() == 10));
    assert_eq!(whole_log(&*store).await.len(), 40);
    store.ownership().tick().await.unwrap();
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.maintenance().survey().await.unwrap();
    store.log().follow(amends_store::Cursor::START, PageBudget::items(1)).await.unwrap();
    let plain = store.maintenance().health().borrow().clone();
    assert!(matches!(plain, amends_store::StoreHealth::Well), "{plain:?}");
    store.close().await.unwrap();
}
