//! The manifests for Kubernetes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::image::Image;
use crate::access::asker::ADMIN_VARIABLE;
use crate::place::{Place, amends, repository, stderr, stdout};
use crate::python::python_with;

/// It has the schemas of Kubernetes, and a reader of YAML.
const LIBRARIES: [&str; 1] = ["kubernetes-validate==1.37.0"];

/// The oldest version whose schemas it has, and the newest one.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];

/// Where the programs of these libraries are. Several tests need them at once.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| python_with("kubernetes", &LIBRARIES));

const READ_YAML: &str =
    "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";

fn file() -> PathBuf {
    repository().join("host/packaging/kubernetes.yaml")
}

/// The objects of the manifests.
pub(super) struct Manifests(Vec<Value>);

impl Manifests {
    pub(super) fn read() -> Self {
        let python = PYTHON.join("python");
        let output = Command::new(python).args(["-c", READ_YAML]).arg(file()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn object(&self, kind: &str, name: &str) -> &Value {
        let is_it = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// What each pod is made of.
    fn pod(&self) -> &Value {
        &self.object("StatefulSet", "amends")["spec"]["template"]["spec"]
    }

    /// The config of the host.
    pub(super) fn config(&self) -> &str {
        self.object("ConfigMap", "amends")["data"]["amends.toml"].as_str().unwrap()
    }

    /// Where the host has its volume.
    pub(super) fn volume(&self) -> &str {
        let mounts = self.pod()["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == "data").unwrap();
        mount["mountPath"].as_str().unwrap()
    }
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let validate = PYTHON.join("kubernetes-validate");
    for version in VERSIONS {
        let mut command = Command::new(&validate);
        let output = command.args(["--strict", "-k", version]).arg(file()).output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn the_manifests_fit_the_image_and_the_host() {
    let (manifests, image) = (Manifests::read(), Image::read());
    let set = &manifests.object("StatefulSet", "amends")["spec"];
    let (pod, host) = (manifests.pod(), &manifests.pod()["containers"][0]);
    let (user, group) = image.user();
    let security = &pod["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}));
    assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(user), &json!(group)));
    assert_eq!(security["fsGroup"], group);
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(host["securityContext"], expected);
    // The host waits up to 20 s for calls in flight.
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 20);

    assert_eq!(host["ports"], json!([{"name": "http", "containerPort": image.port()}]));
    let document = fs::read(repository().join("host/api/openapi.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(host[probe]["httpGet"], json!({"path": path, "port": "http"}));
        assert!(document["paths"][path].is_object(), "{path}");
    }

    // Pods, services and rules find each other.
    let labels = &set["template"]["metadata"]["labels"];
    assert!(labels.is_object());
    assert_eq!(set["selector"]["matchLabels"], *labels);
    for name in ["amends", "amends-hosts"] {
        assert_eq!(manifests.object("Service", name)["spec"]["selector"], *labels);
    }
    let policy = &manifests.object("NetworkPolicy", "amends")["spec"];
    assert_eq!(policy["podSelector"]["matchLabels"], *labels);
    assert_eq!(set["serviceName"], "amends-hosts");
    assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "data");
    assert_eq!(manifests.volume(), image.volume());
}

/// The changes that the comment above the manifests names.
#[test]
fn the_config_of_the_manifests_is_sound_with_a_database_as_well() {
    let place = Place::empty();
    let config = Manifests::read().config().to_owned();
    let shared = config
        .replace("sqlite:/data/store/amends.db", "postgres://amends@db.example.com/amends")
        .replace("\"/data/archive\"", "\"none\"");
    assert!(shared.contains("postgres://") && shared.contains("\"none\""), "{shared}");
    for text in [&config, &shared] {
        fs::write(place.path("amends.toml"), text).unwrap();
        let output = Command::new(amends())
            .args(["check", "--secrets"])
            .arg(place.path("amends.toml"))
            .envs([
                ADMIN_VARIABLE,
                ("AMENDS_ADDRESS", "http://amends-0.amends-hosts:7070"),
                // The one of the image is not on this machine.
                ("AMENDS_PLUGINS_DIR", place.plugins().to_str().unwrap()),
            ])
            .output()
            .unwrap();
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(output.status.success() && !said.contains("warning"), "{said}");
    }
}
