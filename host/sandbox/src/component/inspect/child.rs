//! The host's side of the child process that looks at a component.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::{
    CODE_BYTES_MAX, Description, INSPECT_COMPONENT, Inspection, MEMORY_BYTES_MAX,
    PROCESSOR_SECONDS_MAX, Request, inspect,
};
use crate::error::Rejection;

/// How long a child may take when somebody waits for it: twice its processor time, for it may wait
/// for a disk.
const TIMEOUT: Duration = Duration::from_mins(4);

/// How long it may take when nobody waits for it: it gives way to all that runs, and may have a tenth
/// of a core.
const BACKGROUND_TIMEOUT: Duration = Duration::from_mins(20);

/// Bytes of an answer: two schemas as JSON strings, and some texts. What is longer is not read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Bytes of what a child says when it breaks off.
const LAST_WORDS_BYTES_MAX: u64 = 8 << 10;

/// Threads of the compiler in a child, on a machine with more cores: each needs memory of its own.
const THREADS_MAX: usize = 2;

/// Looks at a component where no harm is done. When this is dropped, the child is killed.
///
/// # Errors
/// Why the component cannot serve, or which limit it met.
pub(crate) async fn look(
    inspection: &Inspection,
    request: Request,
    bytes: Arc<Vec<u8>>,
) -> Result<Description, Rejection> {
    match inspection {
        Inspection::Child(program) => in_child(program, &request, &bytes).await,
        Inspection::InThisProcess => {
            let work = tokio::task::spawn_blocking(move || inspect(&request, &bytes));
            work.await.unwrap_or_else(|error| Err(Rejection::Failed(error.to_string())))
        }
    }
}

async fn in_child(
    program: &Path,
    request: &Request,
    bytes: &[u8],
) -> Result<Description, Rejection> {
    let broken = |error: &dyn std::fmt::Display| {
        Rejection::Failed(format!("there is no process for it: {error}; try it again"))
    };
    let mut child = spawn(program).map_err(|error| broken(&error))?;
    let timeout = if request.is_background { BACKGROUND_TIMEOUT } else { TIMEOUT };
    let Ok(ended) = tokio::time::timeout(timeout, converse(&mut child, request, bytes)).await
    else {
        // Dropping it would do as well, but not before this is answered.
        let _ = child.kill().await;
        // How much a child computes in that time is up to the machine: it may do better the next time.
        return Err(Rejection::Failed(format!(
            "it took longer than {timeout:?}; split its largest functions, or give the host more of \
             the machine"
        )));
    };
    let Ended { status, answer, last_words } = ended.map_err(|error| broken(&error))?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(Rejection::Manifest(format!(
            "it and its imports have more than {ANSWER_BYTES_MAX} bytes"
        )));
    }
    if !status.success() {
        return Err(why(status, &last_words, is_memory_scarce()));
    }
    serde_json::from_slice(&answer).unwrap_or_else(|error| Err(broken(&error)))
}

fn spawn(program: &Path) -> std::io::Result<Child> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Command::new(program)
        .arg(INSPECT_COMPONENT)
        // There may be secrets in it.
        .env_clear()
        .env("RAYON_NUM_THREADS", cores.min(THREADS_MAX).to_string())
        // Memory that is only set aside must not count against the limit.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        // An interrupt of the terminal is for the host, which then lets go of its children.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    last_words: Vec<u8>,
}

async fn converse(child: &mut Child, request: &Request, bytes: &[u8]) -> std::io::Result<Ended> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let lost = || std::io::Error::other("it has no pipes");
    let mut input = child.stdin.take().ok_or_else(lost)?;
    let output = child.stdout.take().ok_or_else(lost)?;
    let words = child.stderr.take().ok_or_else(lost)?;
    let send = async {
        // One that breaks off does not read to the end, and says why elsewhere.
        let _ = input.write_all(&line).await;
        let _ = input.write_all(bytes).await;
        let _ = input.flush().await;
    };
    let ((), answer, last_words) =
        tokio::join!(send, read(output, ANSWER_BYTES_MAX + 1), read(words, LAST_WORDS_BYTES_MAX));
    if answer.as_ref().is_ok_and(|answer| answer.len() as u64 > ANSWER_BYTES_MAX) {
        let _ = child.start_kill();
    }
    // The child ends when its input does, so that is held open until it has answered.
    let status = child.wait().await?;
    drop(input);
    Ok(Ended { status, answer: answer?, last_words: last_words? })
}

async fn read(mut from: impl AsyncRead + Unpin, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(bytes_max).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Whether the machine may refuse memory to a child that has less than it may have.
fn is_memory_scarce() -> bool {
    let own = getrlimit(Resource::As).current.is_some_and(|bytes| bytes < MEMORY_BYTES_MAX);
    // 2: it promises no more than it has (`man 5 proc_sys_vm`).
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    own || mode.is_ok_and(|mode| mode.trim() == "2")
}

/// Why a child ended without an answer.
fn why(status: ExitStatus, last_words: &[u8], is_memory_scarce: bool) -> Rejection {
    // `signal(7)`; std has no names for them.
    const SIGABRT: i32 = 6;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    let words = String::from_utf8_lossy(last_words);
    let smaller = "split its largest functions, or build it in release mode";
    match status.signal() {
        Some(SIGXCPU) => Rejection::Limit(format!(
            "took more than {PROCESSOR_SECONDS_MAX} s of processor time; {smaller}"
        )),
        Some(SIGXFSZ) => Rejection::Limit(format!(
            "made more than {} MiB of compiled code; {smaller}",
            CODE_BYTES_MAX >> 20
        )),
        Some(SIGABRT) if words.contains("memory allocation of") && is_memory_scarce => {
            Rejection::Failed(
                "the machine gave the process that looked at it no more memory; raise what the host \
                 may have (ulimit -v, vm.overcommit_memory)"
                    .to_owned(),
            )
        }
        Some(SIGABRT) if words.contains("memory allocation of") => Rejection::Limit(format!(
            "took more than {} MiB of memory; {smaller}",
            MEMORY_BYTES_MAX >> 20
        )),
        Some(SIGABRT) if words.contains("overflowed its stack") => {
            Rejection::Limit(format!("took more stack than there is; {smaller}"))
        }
        Some(SIGKILL) => Rejection::Failed(
            "the process that looked at it was killed, most likely because the machine has no memory \
             left; make it smaller, or give the machine more"
                .to_owned(),
        ),
        Some(_) | None => {
            let last = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            Rejection::Failed(format!(
                "the process that looked at it ended with {status} and said: {last}; build it again \
                 with a released compiler"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_is_told_in_words() {
        let status = ExitStatus::from_raw;
        for (status, last_words, words) in [
            (status(24), "", "looking at it took more than 120 s of processor time; split"),
            (status(25), "", "looking at it made more than 256 MiB of compiled code; split"),
            (status(6), "memory allocation of 42 bytes failed\n", "more than 1024 MiB of memory; "),
            (status(6), "\nthread 'main' has overflowed its stack\n", "more stack than there is; "),
            (status(9), "", "the process that looked at it was killed, most likely because"),
            (
                status(101 << 8),
                "thread 'main' panicked at\nmore",
                "said: thread 'main' panicked at; ",
            ),
            (status(11), "", "ended with signal: 11 (SIGSEGV)"),
        ] {
            let reason = why(status, last_words.as_bytes(), false).to_string();
            assert!(reason.contains(words), "{reason}");
        }
        let scarce = why(status(6), b"memory allocation of 42 bytes failed\n", true);
        assert!(scarce.is_passing(), "{scarce}");
    }
}
