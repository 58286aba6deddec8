//! A network that can be cut: a proxy of TCP in front of a port.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What a proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Open,
    /// Connections are broken off, and new ones refused.
    Shut,
    /// Nothing passes. What was sent passes when the network is open again.
    Silent,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    network: Mutex<Network>,
    has_changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn new(to: u16) -> Self {
        Self::of(TcpListener::bind("127.0.0.1:0").unwrap(), to)
    }

    /// A proxy that listens where the listener was made, and connects from the network namespace of this thread.
    pub(crate) fn of(listener: TcpListener, to: u16) -> Self {
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to,
            network: Mutex::new(Network::Open),
            has_changed: Condvar::new(),
            streams: Mutex::default(),
        });
        let of_all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_all);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn set(&self, network: Network) {
        *self.shared.network.lock().unwrap() = network;
        self.shared.has_changed.notify_all();
        if network == Network::Shut {
            for stream in self.shared.streams.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    /// Waits while nothing passes. Returns whether something passes now.
    fn passes(&self) -> bool {
        let mut network = self.network.lock().unwrap();
        while *network == Network::Silent {
            network = self.has_changed.wait(network).unwrap();
        }
        *network == Network::Open
    }

    fn serve(self: Arc<Self>, from: TcpStream) {
        if !self.passes() {
            return;
        }
        let Ok(to) = TcpStream::connect(("127.0.0.1", self.to)) else { return };
        {
            let mut streams = self.streams.lock().unwrap();
            // Those that have ended have no peer.
            streams.retain(|stream| stream.peer_addr().is_ok());
            streams.extend([&from, &to].map(|stream| stream.try_clone().unwrap()));
        }
        let (from_again, to_again) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let back = Arc::clone(&self);
        let answers = std::thread::spawn(move || back.pump(to_again, from_again));
        self.pump(from, to);
        let _ = answers.join();
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let _ = to.set_nodelay(true);
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if !self.passes() || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // So that neither side waits for the other, nor the other pump.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
