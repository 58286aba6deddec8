//! A backup of a running host: its answer, written into a file of this machine. Also how any answer becomes a file.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use reqwest::Method;

use amends_api_types::{BACKUP_HEADER, BackupView};
use amends_failpoint::failpoint;
use amends_store::{draft_of, put_in_place};

use crate::commands::client::Client;
use crate::commands::exit::{EXIT_ERROR, Failed};

/// Writes the backup of a host into a file, which appears under its name when it is complete.
pub(super) async fn download(
    client: &Client,
    file: &Path,
    may_replace: bool,
) -> anyhow::Result<BackupView> {
    // Made first, so that a folder that is not there costs the host nothing.
    let mut draft = Draft::create(file)?;
    let mut response = client.send(client.request(Method::GET, "/v1/store/backup")).await?;
    let view = response.headers().get(BACKUP_HEADER).and_then(|value| value.to_str().ok());
    let view: BackupView = view
        .and_then(|text| serde_json::from_str(text).ok())
        .context("the host's answer cannot be read: it does not say what the backup holds")?;
    let mut written = 0;
    while let Some(piece) = response.chunk().await.with_context(|| {
        format!(
            "the host ended its answer after {written} of {} bytes; nothing is kept",
            view.bytes
        )
    })? {
        draft.write(&piece, written)?;
        written += piece.len() as u64;
        failpoint("cli.backup.writing");
    }
    ensure!(
        written == view.bytes,
        "the host sent {written} of {} bytes; nothing is kept",
        view.bytes
    );
    draft.finish(file, may_replace)?;
    Ok(view)
}

/// The error of a file that exists and is not to be replaced.
pub(in crate::commands) fn exists(file: &Path) -> Failed {
    let wrong = format!("{} exists", file.display());
    Failed::with_help(EXIT_ERROR, &wrong, "name another file, or say --replace")
}

/// A file that is being written. It is removed when it is dropped before it is complete.
pub(in crate::commands) struct Draft {
    path: PathBuf,
    file: File,
    is_done: bool,
}

impl Draft {
    /// Makes the draft beside the file. Only its owner may read it, as the store.
    pub(in crate::commands) fn create(target: &Path) -> anyhow::Result<Self> {
        let path = draft_of(target);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { path, file, is_done: false })
    }

    /// Returns the file, for a writer of its own.
    pub(super) fn file(&self) -> anyhow::Result<File> {
        self.file.try_clone().with_context(|| format!("{} cannot be used", self.path.display()))
    }

    pub(in crate::commands) fn write(&mut self, piece: &[u8], written: u64) -> anyhow::Result<()> {
        self.file.write_all(piece).with_context(|| {
            format!(
                "{} cannot be written after {written} bytes; nothing is kept",
                self.path.display()
            )
        })
    }

    pub(in crate::commands) fn finish(
        &mut self,
        target: &Path,
        may_replace: bool,
    ) -> anyhow::Result<()> {
        let durable = self.file.sync_all();
        durable.with_context(|| format!("{} cannot be made durable", self.path.display()))?;
        match put_in_place(&self.path, target, may_replace) {
            Ok(()) => self.is_done = true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(exists(target).into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be named", target.display()));
            }
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.path);
        }
    }
}
