//! The container image: what its Containerfile copies runs as Kubernetes would run it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;

use super::image::{Image, all, numbers};
use super::kubernetes::Manifests;
use super::root::{Process, Root, libraries, may_enter};
use crate::access::asker::{ADMIN, ADMIN_VARIABLE};
use crate::place::{Place, amends, repository, stderr, stdout};

/// The libraries of `distroless/cc` that a program may be linked with, without their versions.
const DISTROLESS: [&str; 9] = [
    "libc",
    "libm",
    "libdl",
    "libpthread",
    "librt",
    "libgcc_s",
    "libstdc++",
    "libgomp",
    "ld-linux-x86-64",
];

/// What the stage that compiles leaves to the image.
const BINARY: &str = "/amends/target/dist/amends";
const EMPTY: &str = "/empty/";

/// What it runs. It leaves [`BINARY`] and [`EMPTY`].
const COMMANDS: [&str; 2] = ["cargo build --profile dist --locked -p amends", "mkdir /empty"];

#[test]
fn the_image_is_built_of_everything_that_it_needs() {
    let image = Image::read();
    assert_eq!(all(&image.build, "RUN"), COMMANDS);
    let compiler = format!("/rust:{}-bookworm AS build", env!("CARGO_PKG_RUST_VERSION"));
    assert!(all(&image.build, "FROM")[0].ends_with(&compiler), "{:?}", image.build[0]);
    assert!(image.only("FROM").ends_with("/distroless/cc-debian12"), "{:?}", image.last[0]);
    let version = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(image.only("LABEL").contains(&version), "{}", image.only("LABEL"));
    // There is no shell.
    assert_eq!(all(&image.last, "RUN"), [""; 0]);

    let mut copied = BTreeSet::new();
    for copy in all(&image.build, "COPY") {
        let mut words: Vec<_> = copy.split_whitespace().collect();
        let target = words.pop().unwrap();
        for source in words {
            assert!(repository().join(source).exists(), "{source}");
            assert!(target == "./" || target == source, "COPY {copy}");
            copied.insert(source);
        }
    }
    let workspace = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, members) = workspace.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let mut needed: BTreeSet<_> =
        members.split('"').skip(1).step_by(2).map(|path| path.split('/').next().unwrap()).collect();
    needed.extend(["Cargo.toml", "Cargo.lock", ".cargo", "wit"]);
    assert_eq!(copied, needed);
}

#[test]
fn the_image_has_the_libraries_of_the_binary() {
    for library in libraries(&amends()) {
        let name = library.file_name().unwrap().to_str().unwrap();
        let name = name.split(".so").next().unwrap_or_default();
        assert!(DISTROLESS.contains(&name), "{}", library.display());
    }
}

/// The root file system of the image, with the binary under test.
fn root(image: &Image) -> Root {
    let root = Root::new();
    root.copy_libraries(&amends());
    for copy in all(&image.last, "COPY") {
        let (options, paths): (Vec<_>, Vec<_>) =
            copy.split_whitespace().partition(|word| word.starts_with("--"));
        let &[source, target] = paths.as_slice() else { panic!("COPY {copy}") };
        if source == EMPTY {
            root.folder(target);
        } else {
            assert_eq!(source, BINARY);
            root.copy(&amends(), target);
        }
        if let Some(owner) = options.iter().find_map(|option| option.strip_prefix("--chown=")) {
            let (user, group) = numbers(owner);
            chown(root.path(target), Some(user), Some(group)).unwrap();
        }
    }
    root
}

#[test]
fn the_image_runs_without_root_on_a_root_file_system_that_is_read_only() {
    if !may_enter("the container image") {
        return;
    }
    let (image, manifests) = (Image::read(), Manifests::read());
    let (user, group) = image.user();
    assert!(user != 0 && group != 0);
    assert_eq!(image.only("STOPSIGNAL"), "SIGTERM");
    let (root, volume) = (root(&image), image.volume());
    let command = [image.list("ENTRYPOINT"), image.list("CMD")].concat();
    root.folder("/etc/amends");
    fs::write(root.path(command.last().unwrap()), manifests.config()).unwrap();
    let port = Place::empty().port;
    let listen = format!("0.0.0.0:{port}");
    let process = Process {
        user,
        group,
        folder: image.only("WORKDIR"),
        writable: &volume,
        environment: &[ADMIN_VARIABLE, ("AMENDS_LISTEN", listen.as_str())],
        command: &command,
    };
    let running = root.run(&process, port);
    let status = running.status("status");
    let user_line = format!("Uid:\t{user}\t{user}\t{user}\t{user}\n");
    assert!(status.contains(&user_line), "{status}");
    let mounts = running.status("mountinfo");
    let options = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let options: Vec<_> = options.filter(|mount| mount[4] == "/").map(|mount| mount[5]).collect();
    assert!(!options.is_empty() && options.iter().all(|it| it.starts_with("ro")), "{mounts}");

    let run = |arguments: &[&str]| {
        let output = Command::new(amends())
            .args(arguments)
            .env("AMENDS_HOST", format!("http://127.0.0.1:{port}"))
            .env("AMENDS_TOKEN", ADMIN)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    };
    run(&["start", "heartbeat", "--wait", "1m"]);
    let (code, log) = running.stop();
    assert_eq!(code, Some(0), "{log}");
    // What it keeps is on the volume, and its own.
    let kept: Vec<_> = fs::read_dir(root.path(&volume)).unwrap().map(Result::unwrap).collect();
    assert!(kept.iter().any(|entry| entry.file_name() == "store"), "{kept:?}");
    assert!(kept.iter().all(|entry| entry.metadata().unwrap().uid() == user), "{kept:?}");
}
