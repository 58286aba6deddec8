//! What is refused of a manifest, and how long a registry may take.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

/// A manifest of one layer, as it should be.
fn manifest() -> Value {
    let digest = Digest::of(b"").to_string();
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": digest, "size": 2},
        "layers": [{"mediaType": LAYER_MEDIA_TYPE, "digest": digest, "size": COMPONENT_BYTES_MAX}],
    })
}

fn refusal(manifest: Value) -> Option<String> {
    wasm_layer(&serde_json::from_value(manifest).unwrap()).err()
}

#[test]
fn a_manifest_of_another_layout_is_refused_with_what_it_is() {
    assert_eq!(refusal(manifest()), None);
    let changed = |pointer: &str, value: Value| {
        let mut manifest = manifest();
        *manifest.pointer_mut(pointer).unwrap() = value;
        refusal(manifest).unwrap()
    };
    let image = "application/vnd.oci.image.config.v1+json";
    assert!(changed("/config/mediaType", json!(image)).contains(image));
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    assert!(changed("/layers/0/mediaType", json!(tar)).contains(tar));
    let layer = manifest()["layers"][0].clone();
    assert!(changed("/layers", json!([layer, layer])).contains("it has 2 layers"));
    assert!(changed("/layers", json!([])).contains("it has 0 layers"));
    let told = changed("/layers/0/size", json!(COMPONENT_BYTES_MAX + 1));
    assert!(told.contains("67108865 bytes, at most 67108864"), "{told}");
    assert!(changed("/layers/0/size", json!(-1)).contains("-1 bytes"));
    let told = changed("/layers/0/digest", json!("sha512:12"));
    assert!(told.contains("its layer: ") && told.contains("sha512:12"), "{told}");
    let index = json!({"schemaVersion": 2, "manifests": []});
    assert!(refusal(index).unwrap().contains("it is an index"));
}

/// A registry that lets everybody in, and then does this.
fn registry(answer: fn(TcpStream)) -> Reference {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 1_024];
                let read = stream.read(&mut request).unwrap();
                if request[..read].starts_with(b"GET /v2/ ") {
                    let let_in =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    stream.write_all(let_in).unwrap();
                } else {
                    answer(stream);
                }
            });
        }
    });
    format!("oci://127.0.0.1:{port}/acme@{}", Digest::of(b"")).parse().unwrap()
}

/// What is said to the user, well before a test would wait for the real limits.
async fn told(reference: &Reference, silence: Duration, whole: Duration) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (began, limits) = (Instant::now(), Limits { connect: silence, silence, whole });
    let error = pull_within(reference, limits).await.unwrap_err();
    assert!(began.elapsed() < LIMITS.connect, "{:?}", began.elapsed());
    error.to_string()
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    let silent = registry(|stream| {
        std::thread::sleep(LIMITS.silence);
        drop(stream);
    });
    let told = told(&silent, Duration::from_millis(300), LIMITS.whole).await;
    assert!(told.contains("did not answer in time"), "{told}");
}

#[tokio::test]
async fn a_registry_that_sends_drop_by_drop_is_given_up() {
    let slow = registry(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let told = told(&slow, LIMITS.silence, Duration::from_millis(600)).await;
    assert!(told.contains("was not there within 600ms"), "{told}");
}
