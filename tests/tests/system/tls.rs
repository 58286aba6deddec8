//! A carrier over https: what is known of a request depends on when the connection failed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::place::{Place, example};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Each request is answered.
    Answered,
    /// A request that orders a label is heard and then the stream holds what is not TLS. Others
    /// are answered.
    Garbled,
    /// Its certificate is signed by nobody that the host trusts.
    Untrusted,
}

/// An authority that signs for this machine.
pub(crate) struct Authority {
    pub(crate) certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for `localhost`, and its key.
    pub(crate) fn signed(&self) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn server(&self) -> ServerConfig {
        let (certificate, key) = self.signed();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// A carriers' service over https; answers its port and how many orders of labels it has heard.
fn carrier(config: ServerConfig, then: Then) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, heard) = (Arc::new(config), Arc::new(AtomicU32::new(0)));
    let orders = Arc::clone(&heard);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, orders) = (Arc::clone(&config), Arc::clone(&orders));
            std::thread::spawn(move || connection(stream.unwrap(), config, then, &orders));
        }
    });
    (port, heard)
}

fn connection(stream: TcpStream, config: Arc<ServerConfig>, then: Then, orders: &AtomicU32) {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        // A client that does not trust this service goes.
        let Ok(length @ 1..) = tls.read(&mut buffer) else { return };
        request.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
            continue;
        }
        let answer = if head.starts_with("POST") {
            orders.fetch_add(1, Ordering::Relaxed);
            if then == Then::Garbled {
                // Around the connection's encryption.
                let _ = tls.sock.write_all(b"this is no record of TLS, and long enough to be read");
                return;
            }
            r#"{"label":"LBL-1"}"#
        } else {
            r#"{"cancelled":true}"#
        };
        let length = answer.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}");
        tls.write_all(answer.as_bytes()).unwrap();
        request.clear();
    }
}

fn place(port: u16) -> Place {
    let place = Place::example();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let (url, shipment) = (format!("https://localhost:{port}"), "[plugin.shipment]\n");
    let granted = format!("{shipment}settings = {{ carrier = \"{url}\" }}\n");
    let config = config.replace(shipment, &granted).replace("http://127.0.0.1:7171", &url);
    assert!(config.contains(&granted) && config.contains(&format!("[\"{url}\"]")), "{config}");
    fs::write(place.path("amends.toml"), config).unwrap();
    place
}

/// How an order ends with such a carrier, and how many orders of labels the carrier has heard.
fn order(then: Then) -> (Value, u32) {
    let authority = Authority::new();
    let trusted = match then {
        Then::Answered | Then::Garbled => &authority,
        Then::Untrusted => &Authority::new(),
    };
    let (port, heard) = carrier(authority.server(), then);
    let place = place(port);
    fs::write(place.path("roots.pem"), trusted.certificate.pem()).unwrap();
    let host = place.run_with_env(&[("SSL_CERT_FILE", place.path("roots.pem").to_str().unwrap())]);
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let output = place.amends(&[&start[..], &["-o", "json"]].concat());
    let saga = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(host.stop(), Some(0));
    (saga, heard.load(Ordering::Relaxed))
}

#[test]
fn a_carrier_whose_authority_the_machine_trusts_is_reached() {
    let (saga, heard) = order(Then::Answered);
    assert_eq!(saga["status"], "completed", "{saga}");
    assert_eq!(saga["steps"][2]["output"]["label"], "LBL-1", "{saga}");
    assert_eq!(heard, 1);
}

/// Nothing was sent: it is tried again, and there is nothing to undo.
#[test]
fn a_failure_of_tls_before_the_request_is_sent_is_known_to_have_done_nothing() {
    let (saga, heard) = order(Then::Untrusted);
    assert_eq!(saga["status"], "compensated", "{saga}");
    let reason = saga["reason"].as_str().unwrap();
    assert!(reason.contains("not_sent") && reason.contains("TLS failed"), "{reason}");
    assert_eq!(saga["steps"][2]["status"], "failed", "{saga}");
    assert_eq!(heard, 0);
}

/// The carrier has heard it: whether it did it nobody knows, so it is undone.
#[test]
fn a_failure_of_tls_after_the_request_was_sent_leaves_its_outcome_unknown() {
    let (saga, heard) = order(Then::Garbled);
    assert_eq!(saga["status"], "compensated", "{saga}");
    let reason = saga["reason"].as_str().unwrap();
    assert!(!reason.contains("not_sent") && reason.contains("TLS failed"), "{reason}");
    assert_eq!(saga["steps"][2]["status"], "undone", "{saga}");
    assert_eq!(heard, 4, "each attempt");
}
