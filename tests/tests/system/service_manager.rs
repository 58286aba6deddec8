//! A host under a service manager: what it says over the socket of sd_notify(3), and the unit for systemd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, SOON, agent, repository, stderr, stdout};

/// How often the host has to say that it lives.
const WATCHDOG: Duration = Duration::from_millis(600);

/// What the host says next, within so long.
fn said(socket: &UnixDatagram, within: Duration) -> Option<String> {
    let mut message = [0; 256];
    socket.set_read_timeout(Some(within)).unwrap();
    let length = socket.recv(&mut message).ok()?;
    Some(String::from_utf8(message[..length].to_vec()).unwrap())
}

#[test]
fn a_service_manager_learns_that_the_host_is_ready_lives_and_stops() {
    let place = Place::example();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let micros = WATCHDOG.as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", &micros)];
    let host = place.spawn_with_env(&environment);

    assert_eq!(said(&socket, SOON).as_deref(), Some("READY=1\n"));
    let ready = agent().get(host.url("/readyz")).call().unwrap();
    assert_eq!(ready.status(), 200, "it said that it is ready");
    for _ in 0..4 {
        assert_eq!(said(&socket, SOON).as_deref(), Some("WATCHDOG=1\n"));
    }

    // A host that hangs says nothing, so it is started again.
    host.signal(Signal::STOP);
    while said(&socket, 2 * WATCHDOG).is_some() {}
    let hangs_since = Instant::now();
    assert_eq!(said(&socket, 3 * WATCHDOG), None);
    assert!(hangs_since.elapsed() >= 3 * WATCHDOG);
    host.signal(Signal::CONT);
    assert_eq!(said(&socket, SOON).as_deref(), Some("WATCHDOG=1\n"));

    host.signal(Signal::TERM);
    let stopping = std::iter::from_fn(|| said(&socket, SOON)).find(|said| said != "WATCHDOG=1\n");
    assert_eq!(stopping.as_deref(), Some("STOPPING=1\n"));
}

#[test]
fn systemd_takes_the_unit() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        amends_tests::skipped(
            "the unit for systemd",
            "there is no systemd-analyze (Debian: systemd)",
        );
        return;
    };
    assert!(version.status.success());
    let unit = fs::read_to_string(repository().join("host/packaging/amends.service")).unwrap();
    // systemd looks for the program.
    let here = unit.replace("/usr/local/bin/amends", "/bin/true");
    assert_ne!(unit, here);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("amends.service");
    fs::write(&copy, here).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output().unwrap();
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    let security = ["security", "--offline=yes", "--threshold=20"];
    let output = Command::new("systemd-analyze").args(security).arg(&copy).output().unwrap();
    assert!(output.status.success(), "the exposure is more than 2.0: {}", stdout(&output));
}
