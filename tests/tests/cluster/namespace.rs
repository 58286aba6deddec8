//! Network namespaces of Linux, and the cables between them. Nothing of the machine's own network changes, and all of it
//! goes with the process.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The number of a bridge itself in its network.
const BRIDGE: u8 = 254;

/// A network namespace, whose loopback device is up.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes one. Says why that is not possible here.
    pub(crate) fn new() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`unshare` cannot be run: {error}"))?;
        // It answers from within. The namespace stays when the process has ended, because the file is open.
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let answers = stdin.write_all(b"?").and_then(|()| stdout.read_exact(&mut [0]));
        let file = answers.and_then(|()| File::open(format!("/proc/{}/ns/net", child.id())));
        drop(stdin);
        let ended = child.wait_with_output().unwrap();
        let Ok(file) = file else {
            return Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned());
        };
        let namespace = Self(file);
        namespace.run(|| try_ip("link set lo up"))?;
        Ok(namespace)
    }

    /// Does something in the namespace. Threads, processes and sockets that it begins belong there.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.0.as_fd(), kind).unwrap();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Where another process finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A network of up to 253 hosts: a bridge in the namespace of the thread that makes it. No host has to ask for another
/// one's hardware address, so nobody learns that a cable is cut.
pub(crate) struct Bridge {
    name: &'static str,
    network: u8,
}

/// One host's connection to a bridge.
pub(crate) struct Cable {
    port: String,
}

impl Bridge {
    /// Makes a bridge, whose addresses are 10.77.NETWORK.
    pub(crate) fn new(name: &'static str, network: u8) -> Self {
        let bridge = Self { name, network };
        let (address, hardware) = (bridge.address(), bridge.hardware_of(BRIDGE));
        ip(&format!("link add {name} address {hardware} type bridge"));
        ip(&format!("address add {address}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        bridge
    }

    /// The address of the namespace that has the bridge.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address_of(BRIDGE)
    }

    pub(crate) fn address_of(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.network, host)
    }

    fn hardware_of(&self, host: u8) -> String {
        format!("02:00:00:00:{:02x}:{host:02x}", self.network)
    }

    /// Connects the namespace of a host, one of `hosts`.
    pub(crate) fn connect(&self, namespace: &Namespace, host: u8, hosts: &[u8]) -> Cable {
        let (bridge, port) = (self.name, format!("{}{host}", self.name));
        let (hardware, path) = (self.hardware_of(host), namespace.path());
        ip(&format!(
            "link add {port} type veth peer name {bridge} address {hardware} netns {path}"
        ));
        ip(&format!("link set {port} master {bridge}"));
        ip(&format!("link set {port} up"));
        self.know(host);
        namespace.run(|| {
            ip(&format!("address add {}/24 dev {bridge}", self.address_of(host)));
            ip(&format!("link set {bridge} up"));
            let others = hosts.iter().filter(|other| **other != host);
            others.chain(&[BRIDGE]).for_each(|other| self.know(*other));
        });
        Cable { port }
    }

    /// Has this namespace know the hardware address of a host for ever.
    fn know(&self, host: u8) {
        let (address, hardware) = (self.address_of(host), self.hardware_of(host));
        ip(&format!(
            "neighbour replace {address} lladdr {hardware} dev {} nud permanent",
            self.name
        ));
    }
}

impl Cable {
    /// Nothing passes any more, and nobody is told. What was sent is sent again until it passes or is given up.
    pub(crate) fn cut(&self) {
        ip(&format!("link set {} down", self.port));
    }

    pub(crate) fn mend(&self) {
        ip(&format!("link set {} up", self.port));
    }
}

fn ip(arguments: &str) {
    try_ip(arguments).unwrap();
}

/// Runs `ip` in the namespace of this thread.
fn try_ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("`ip` (of iproute2) cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
