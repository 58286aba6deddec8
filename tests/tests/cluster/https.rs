//! Hosts that have certificates of their own reach one another over https.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ALONE;
use crate::place::{Host, Place, SOON, stderr, stdout};
use crate::server::Server;

const SAGA: &str =
    "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";

/// Makes a place whose host has a certificate of nobody but itself; the certificate.
fn place(name: &str, server: &Server) -> (Place, String) {
    let place = Place::empty();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    fs::write(place.path("host.pem"), &certificate).unwrap();
    fs::write(place.path("host.key"), key.serialize_pem()).unwrap();
    let (port, store) = (place.port, server.url());
    let config = format!(
        "[host]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\naddress = \"https://localhost:{port}\"\n\
         tls = {{ certificate = \"host.pem\", key = \"host.key\" }}\n[store]\nurl = \"{store}\"\n\
         [plugins]\ndir = \"plugins\"\ncache = \"cache\"\n{SAGA}"
    );
    fs::write(place.path("amends.toml"), config).unwrap();
    (place, certificate)
}

/// The command line, over https.
fn amends(place: &Place, arguments: &[&str]) -> Output {
    let mut command = place.command(arguments);
    command.env("AMENDS_HOST", format!("https://localhost:{}", place.port));
    command.env("SSL_CERT_FILE", place.path("roots.pem")).output().unwrap()
}

/// Waits until a host sees both, and each owns a part of the shards.
fn until_shared(place: &Place, host: &Host) {
    let began = Instant::now();
    loop {
        let output = amends(place, &["hosts", "-o", "json"]);
        let hosts = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let hosts = hosts.as_array().map_or(&[][..], Vec::as_slice);
        let owns = |host: &&Value| host["shards"].as_array().is_some_and(|own| !own.is_empty());
        if hosts.iter().filter(owns).count() == 2 {
            return;
        }
        let told = stderr(&output);
        assert!(began.elapsed() < SOON, "not shared: {told}\n{}", host.log().join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_request_is_passed_on_to_a_host_that_takes_https_only() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(server) = Server::start() else { return };
    let places = ["node-a", "node-b"].map(|name| place(name, &server));
    let roots = places.each_ref().map(|(_, certificate)| certificate.as_str()).concat();
    let hosts = places.each_ref().map(|(place, _)| {
        fs::write(place.path("roots.pem"), &roots).unwrap();
        let trusted = place.path("roots.pem");
        place.spawn_with_env(&[("SSL_CERT_FILE", trusted.to_str().unwrap())])
    });
    for ((place, _), host) in places.iter().zip(&hosts) {
        until_shared(place, host);
    }
    let [(a, _), (b, _)] = &places;
    for (owner, other) in [(a, b), (b, a)] {
        let output = amends(owner, &["start", "gate", "-o", "ids"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let id = stdout(&output).trim().to_owned();
        // A host gives the saga an id of a shard of its own, so the other one passes the order on.
        let output = amends(other, &["note", &id, "--reason", "over https"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let output = amends(owner, &["history", &id]);
        assert!(stdout(&output).contains("over https"), "{}", stdout(&output));
    }
    for host in hosts {
        assert_eq!(host.stop(), Some(0));
    }
}
