//! The Debian package: what it installs, and a host that runs as its unit says.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::root::{Process, Root, may_enter};
use crate::place::{Place, amends, repository, stderr, stdout};

/// The user that the unit names.
const USER: &str = "amends";
const UNIT: &str = "/usr/lib/systemd/system/amends.service";
const CONFIG: &str = "/etc/amends/amends.toml";
const STATE: &str = "/var/lib/amends";

/// What systemd has for every unit, so that it can look at this one.
const TARGETS: [&str; 4] = ["sysinit", "basic", "shutdown", "network-online"];

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Whether the programs of Debian and systemd are here; says so when they are not.
fn has_tools() -> bool {
    for tool in ["dpkg-deb", "systemd-sysusers", "systemd-tmpfiles", "systemd-analyze"] {
        if Command::new(tool).arg("--version").output().is_err() {
            amends_tests::skipped("the Debian package", &format!("there is no {tool}"));
            return false;
        }
    }
    true
}

/// Makes the package of the binary under test.
fn package(folder: &Path) -> PathBuf {
    let mut command = Command::new(repository().join("host/packaging/deb"));
    command
        .arg(amends())
        .arg(folder)
        .envs([("DEBFULLNAME", "Ada"), ("DEBEMAIL", "ada@amends.example")])
        // The binary under test is big, because it is not stripped.
        .envs([("DPKG_DEB_COMPRESSOR_TYPE", "gzip"), ("DPKG_DEB_COMPRESSOR_LEVEL", "1")]);
    done(&command.output().unwrap());
    let made: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    made[0].clone()
}

/// A root without anything but the database of dpkg.
fn root_of_dpkg() -> Root {
    let root = Root::new();
    for folder in ["/etc", "/var/lib/dpkg/info", "/var/lib/dpkg/updates", "/var/lib/dpkg/triggers"]
    {
        root.folder(folder);
    }
    fs::write(root.path("/var/lib/dpkg/status"), "").unwrap();
    root
}

/// dpkg on another root. The package's scripts run outside of it, where systemd's programs are.
fn dpkg(root: &Root, arguments: &[&str]) {
    let mut command = Command::new("dpkg");
    command.arg(format!("--root={}", root.path("/").display()));
    // The root has no other packages, so none that it depends on.
    command.args(["--force-script-chrootless", "--force-depends", "--force-confold"]);
    done(&command.args(arguments).output().unwrap());
}

/// The value of a key of the unit.
fn key<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit has no {name}"));
    assert_eq!(values.next(), None, "{name} is there twice");
    value
}

/// The numbers of the user and of its group.
fn numbers(root: &Root) -> (u32, u32) {
    let users = fs::read_to_string(root.path("/etc/passwd")).unwrap();
    let line = users.lines().find(|line| line.starts_with(&format!("{USER}:"))).unwrap();
    let fields: Vec<_> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

#[test]
fn the_package_names_what_it_is_and_what_it_needs() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let field = |name: &str| {
        let output = Command::new("dpkg-deb").arg("--field").arg(&package).arg(name).output();
        done(&output.unwrap()).trim().to_owned()
    };
    assert_eq!(field("Package"), "amends");
    assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
    let needed = field("Depends");
    for library in ["libc6 (>= ", "libgcc-s1 (>= "] {
        assert!(needed.contains(library), "{needed}");
    }
    let listed = Command::new("dpkg-deb").arg("--contents").arg(&package).output().unwrap();
    let listed = done(&listed);
    for line in listed.lines() {
        assert!(line.contains(" root/root "), "{line}");
        let folder_or_file = ["drwxr-xr-x ", "-rwxr-xr-x ", "-rw-r--r-- "];
        assert!(folder_or_file.iter().any(|mode| line.starts_with(mode)), "{line}");
    }
    for shell in ["completions/amends", "vendor-completions/_amends", "completions.d/amends.fish"] {
        assert!(listed.contains(shell), "{shell}: {listed}");
    }
}

#[test]
fn the_package_installs_a_host_that_runs_as_its_unit_says() {
    if !has_tools() || !may_enter("a host of the Debian package") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let package = package.to_str().unwrap();
    let root = root_of_dpkg();
    dpkg(&root, &["--install", package]);
    let (user, group) = numbers(&root);
    let is = |path: &str, user: u32, group: u32, mode: u32| {
        let found = fs::metadata(root.path(path)).unwrap();
        let told = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(told, (user, group, mode), "{path}");
    };
    is("/etc/amends", 0, group, 0o750);
    is("/etc/amends/secrets", 0, group, 0o750);
    is(STATE, user, group, 0o700);
    is("/var/lib/amends/plugins", 0, group, 0o750);

    let unit = fs::read_to_string(root.path(UNIT)).unwrap();
    for target in TARGETS {
        let file = root.path(&format!("/usr/lib/systemd/system/{target}.target"));
        fs::write(file, format!("[Unit]\nDescription={target}\n")).unwrap();
    }
    let verified = Command::new("systemd-analyze")
        .arg(format!("--root={}", root.path("/").display()))
        .args(["verify", "amends.service"])
        .output()
        .unwrap();
    done(&verified);

    root.copy_libraries(&amends());
    assert_eq!(key(&unit, "User"), USER);
    let command: Vec<_> = key(&unit, "ExecStart").split(' ').map(str::to_owned).collect();
    assert_eq!(command[2], CONFIG);
    let port = Place::empty().port;
    let listen = format!("127.0.0.1:{port}");
    let process = Process {
        user,
        group,
        folder: key(&unit, "WorkingDirectory"),
        writable: STATE,
        environment: &[("AMENDS_LISTEN", listen.as_str())],
        command: &command,
    };
    let (code, log) = root.run(&process, port).stop();
    assert_eq!(code, Some(0), "{log}");

    // A package that comes again keeps what the operator wrote; one that goes keeps the store.
    let edited = fs::read_to_string(root.path(CONFIG)).unwrap() + "# mine\n";
    fs::write(root.path(CONFIG), &edited).unwrap();
    dpkg(&root, &["--install", package]);
    assert_eq!(fs::read_to_string(root.path(CONFIG)).unwrap(), edited);
    dpkg(&root, &["--purge", "amends"]);
    assert!(!root.path("/usr/bin/amends").exists() && !root.path(CONFIG).exists());
    assert!(root.path("/var/lib/amends/data/amends.db").exists());
}
