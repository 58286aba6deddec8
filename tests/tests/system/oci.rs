//! Components from OCI registries: pulled by digest, held against it, and deployed as files are.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use amends_engine::Digest;
use amends_sandbox::COMPONENT_BYTES_MAX;
use amends_tests::Component;

use crate::place::{Place, stderr, stdout};
use crate::registry::{
    Answer, PASSWORD, Registry, USER, WASM_CONFIG, WASM_LAYER, manifest, scripted,
};

/// A folder without a config, and with a login for nobody.
fn place() -> Place {
    let place = Place::empty();
    fs::create_dir(place.path("docker")).unwrap();
    place
}

/// The command line, with the logins of this place.
fn amends(place: &Place, arguments: &[&str]) -> Output {
    place.command(arguments).env("DOCKER_CONFIG", place.path("docker")).output().unwrap()
}

fn component(version: &str) -> Vec<u8> {
    let schema = r#"{"examples":[{"n":1}]}"#;
    Component { name: "pack", version, schema, ..Component::default() }.build()
}

/// What it is refused with, in words and with what would be right.
fn refused(place: &Place, reference: &str, exit: i32) -> String {
    let output = amends(place, &["plugin", "inspect", reference]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "{reference}: {told}");
    assert!(told.starts_with("error: ") && told.contains("\n  help: "), "{told}");
    told
}

#[test]
fn a_component_is_pulled_deployed_and_serves() {
    let Some(registry) = Registry::open() else { return };
    let place = place();
    for name in ["pack", "other"] {
        fs::write(place.plugin(name), component("1.0.0")).unwrap();
    }
    place.config(
        "[plugin.other]\ncomponent = \"pack\"\n\
         [[saga]]\nname = \"order\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n",
    );
    let host = place.run();
    let bytes = component("2.0.0");
    let digest = Digest::of(&bytes).to_string();
    let reference = registry.push("acme/pack", bytes);

    let inspected = amends(&place, &["plugin", "inspect", &reference, "-o", "ids"]);
    assert_eq!(stdout(&inspected).trim(), digest, "{}", stderr(&inspected));
    let tested = amends(&place, &["plugin", "test", &reference]);
    assert_eq!(tested.status.code(), Some(0), "{}", stderr(&tested));

    let other = format!("other={reference}");
    let deployed = amends(&place, &["plugin", "deploy", &reference, &other, "--reason", "7"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    for name in ["pack", "other"] {
        let plugin = host.get(&format!("/v1/plugins/{name}"));
        assert_eq!(
            (&plugin["version"], &plugin["digest"]),
            (&"2.0.0".into(), &digest.as_str().into())
        );
    }
    let started = amends(&place, &["start", "order", "--wait", "-o", "ids"]);
    assert_eq!(started.status.code(), Some(0), "{}", stderr(&started));
    let events = host.get(&format!("/v1/sagas/{}/events", stdout(&started).trim()));
    let mut events = events["items"].as_array().unwrap().iter();
    let call = events.find(|event| event["type"] == "step.started").expect("it is called");
    assert_eq!(call["data"]["digest"], digest);

    // A registry that has it no more is not needed again.
    drop(registry);
    assert_eq!(host.stop(), Some(0));
    let host = place.run();
    assert_eq!(host.get("/v1/plugins/pack")["version"], "2.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_a_registry_does_not_have_or_has_otherwise_is_refused() {
    let Some(registry) = Registry::open() else { return };
    let place = place();
    let reference = registry.push("acme/pack", component("1.0.0"));
    let (name, digest) = reference.split_once('@').unwrap();
    let other = format!("{name}@{}", Digest::of(b"other"));
    assert!(refused(&place, &other, 4).contains("has no sha256:"));
    assert!(refused(&place, &format!("{name}:pushed"), 1).contains("a tag can be moved"));
    // By digest, whatever the tag beside it says.
    let output = amends(&place, &["plugin", "inspect", &format!("{name}:gone@{digest}")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let tar = "application/vnd.oci.image.layer.v1.tar";
    let image = registry.push_as("acme/image", WASM_CONFIG, &[(tar, b"tar".to_vec())]);
    assert!(refused(&place, &image, 1).contains("application/vnd.oci.image.layer.v1.tar"));
    let config = "application/vnd.oci.image.config.v1+json";
    let image = registry.push_as("acme/image", config, &[(WASM_LAYER, component("1.0.0"))]);
    assert!(refused(&place, &image, 1).contains("it is not a component: its config is"));
    let large = registry.push("acme/large", vec![0; COMPONENT_BYTES_MAX + 1]);
    let told = refused(&place, &large, 1);
    assert!(told.contains("its layer has 67108865 bytes, at most 67108864"), "{told}");
    // The layout says Wasm, and the bytes are none: the loader's word.
    let text = registry.push("acme/text", b"fn main() {}".to_vec());
    let output = amends(&place, &["plugin", "inspect", &text]);
    assert!(stderr(&output).contains("it is not WebAssembly"), "{}", stderr(&output));

    drop(registry);
    let told = refused(&place, &reference, 1);
    assert!(told.contains("cannot be reached"), "{told}");
}

#[test]
fn nothing_is_taken_that_the_digest_does_not_name() {
    let place = place();
    let (ours, theirs) = (component("1.0.0"), component("6.6.6"));
    let (right, wrong) = (manifest(&ours), manifest(&theirs));
    let asked = Digest::of(&right);
    let longer = [ours.clone(), vec![0; 1 << 20]].concat();
    let endless = vec![b' '; (4 << 20) + 1];
    let cases: [(&[u8], &[u8], &str); 5] = [
        (&wrong, &theirs, "was asked for sha256:"),
        (&right, &theirs, "was asked for sha256:"),
        (&right, &ours[..ours.len() - 1], "was asked for sha256:"),
        (&right, &longer, "has more than"),
        (&endless, &ours, "has more than 4194304 bytes"),
    ];
    for (manifest, layer, words) in cases {
        let (manifest, layer) = (manifest.to_vec(), layer.to_vec());
        let address = scripted(|_| {
            Box::new(move |path, _| match path {
                "/v2/" => Answer::ok(""),
                path if path.contains("/manifests/") => Answer::ok(manifest.clone()),
                _ => Answer::ok(layer.clone()),
            })
        });
        let told = refused(&place, &format!("oci://{address}/acme/pack@{asked}"), 1);
        assert!(told.contains(words) && told.contains("not to be trusted"), "{told}");
    }
    // The same script with what was asked for is taken: it is the bytes that were refused.
    let address = scripted(|_| {
        Box::new(move |path, _| match path {
            "/v2/" => Answer::ok(""),
            path if path.contains("/manifests/") => Answer::ok(right.clone()),
            _ => Answer::ok(ours.clone()),
        })
    });
    let reference = format!("oci://{address}/acme/pack@{asked}");
    let output = amends(&place, &["plugin", "inspect", &reference]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// `ada:planted-password`, as a login is kept and shown.
const LOGIN: &str = "YWRhOnBsYW50ZWQtcGFzc3dvcmQ=";

fn log_in(place: &Place, address: &str) {
    let config = format!(r#"{{"auths":{{"{address}":{{"auth":"{LOGIN}"}}}}}}"#);
    fs::write(place.path("docker/config.json"), config).unwrap();
}

#[test]
fn a_registry_that_wants_a_login_is_shown_what_docker_has() {
    let Some(registry) = Registry::with_password() else { return };
    let place = place();
    let reference = registry.push("acme/pack", component("1.0.0"));
    let told = refused(&place, &reference, 3);
    assert!(told.contains(&format!("docker login {}", registry.address)), "{told}");
    log_in(&place, &registry.address);
    let output = amends(&place, &["plugin", "inspect", &reference]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    fs::write(place.path("docker/config.json"), "{").unwrap();
    assert!(refused(&place, &reference, 3).contains("cannot be read"));
}

#[test]
fn a_registry_that_wants_a_token_is_shown_the_one_that_it_gives_for_the_login() {
    let place = place();
    let bytes = component("1.0.0");
    let manifest = manifest(&bytes);
    let asked = Digest::of(&manifest);
    let address = scripted(|address| {
        let wants =
            format!("www-authenticate: Bearer realm=\"http://{address}/token\",service=\"s\"");
        Box::new(move |path, login| {
            let is_in = login == Some("Bearer planted-token");
            match path {
                path if path.starts_with("/token?") => match login {
                    Some(login) if login == format!("Basic {LOGIN}") => {
                        assert!(path.contains("repository%3Aacme%2Fpack%3Apull"), "{path}");
                        Answer::ok(r#"{"token":"planted-token"}"#)
                    }
                    _ => Answer { status: 401, ..Answer::ok("") },
                },
                _ if !is_in => Answer { status: 401, header: wants.clone(), body: Vec::new() },
                path if path.contains("/manifests/") => Answer::ok(manifest.clone()),
                _ => Answer::ok(bytes.clone()),
            }
        })
    });
    let reference = format!("oci://{address}/acme/pack@{asked}");
    let told = refused(&place, &reference, 3);
    assert!(told.contains("it gives no token"), "{told}");
    log_in(&place, &address);
    let output = amends(&place, &["plugin", "inspect", &reference]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output) + &stderr(&output);
    assert!(!said.contains("planted-token") && !said.contains(PASSWORD) && !said.contains(USER));
}

#[test]
fn another_machine_is_not_asked_without_encryption() {
    let place = place();
    // Of this machine, by an address that is not the loopback's.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let digest = Digest::of(b"");
    let asked = std::thread::spawn(move || {
        use std::io::Read as _;
        let mut first = [0; 1];
        listener.accept().unwrap().0.read_exact(&mut first).unwrap();
        first[0]
    });
    let told = refused(&place, &format!("oci://0.0.0.0:{port}/acme/pack@{digest}"), 1);
    assert!(told.contains("the registry 0.0.0.0:"), "{told}");
    assert_eq!(asked.join().unwrap(), 0x16, "the first byte of a TLS handshake");
}
