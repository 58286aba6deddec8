//! Inputs that end the process or never end.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// After so many times the time that an input may take, it is taken to be without end.
const ENDLESS: u32 = 20;

/// Keeps the input under way in a file, and ends the process when it does not come to an end.
pub(crate) struct Watch {
    file: File,
    path: PathBuf,
    tell: Sender<Told>,
    is_failed: bool,
}

enum Told {
    Begins,
    Ends,
}

impl Watch {
    pub(crate) fn new(name: &str, time_max: Duration) -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join("amends-fuzz");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}-{}", std::process::id()));
        let file = File::create(&path)?;
        let (tell, told) = channel();
        let (name, shown) = (name.to_owned(), path.clone());
        std::thread::spawn(move || watch(&name, &shown, &told, time_max * ENDLESS));
        Ok(Self { file, path, tell, is_failed: false })
    }

    /// Where the input under way stands.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn begin(&self, input: &[u8]) {
        // Without the file an input that ends the process is lost, and nothing else.
        let _ = self.file.write_all_at(input, 0);
        let _ = self.file.set_len(input.len() as u64);
        let _ = self.tell.send(Told::Begins);
    }

    pub(crate) fn end(&self) {
        let _ = self.tell.send(Told::Ends);
    }

    /// Keeps the file.
    pub(crate) fn fail(&mut self, input: &[u8]) {
        self.begin(input);
        self.end();
        self.is_failed = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_failed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn watch(name: &str, path: &Path, told: &Receiver<Told>, max: Duration) {
    while let Ok(told_now) = told.recv() {
        if let Told::Ends = told_now {
            continue;
        }
        if let Err(RecvTimeoutError::Timeout) = told.recv_timeout(max) {
            // Not by a macro: what a test prints is lost with the process.
            let _ = writeln!(
                std::io::stderr(),
                "fuzz {name}: an input has not come to its end within {max:?}; run it again with \
                 AMENDS_FUZZ_INPUT={}",
                path.display()
            );
            std::process::abort();
        }
    }
}
