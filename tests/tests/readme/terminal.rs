//! The reader's two terminals: one in which a host stays up, and one for everything else.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::clone::Clone;
use crate::page::Block;

/// A block takes at most this long, also the first time that components are built.
const BLOCK_MAX: Duration = Duration::from_mins(8);

/// After Ctrl-C a host settles what is in flight.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Notes each command that fails: the line of the page, the exit code and the command.
const NOTE_FAILURES: &str =
    r#"trap 'printf "%s %s %s\0" "$LINENO" "$?" "$BASH_COMMAND" >>"$FAILURES"' ERR"#;

/// Ends what the terminal runs, children and all, when this test is gone; not at a Ctrl-C, which is for
/// what it runs.
const END_WITH_TEST: &str = "exec 3<&0 </dev/null\n\
    (trap '' INT; cat <&3 >/dev/null; kill -KILL 0) >/dev/null 2>&1 &\nexec 3<&-\n";

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Of the page.
    pub(crate) line: usize,
    pub(crate) code: String,
    pub(crate) command: String,
}

/// What came of a block.
pub(crate) struct Ran {
    /// On both outputs, as a terminal shows them.
    pub(crate) printed: String,
    pub(crate) failed: Vec<Failed>,
    /// The terminal takes no further block.
    pub(crate) is_over: bool,
}

/// A shell that runs one block after the other.
pub(crate) struct Terminal {
    shell: Child,
    input: ChildStdin,
    ended: Receiver<String>,
    notes: PathBuf,
}

impl Terminal {
    pub(crate) fn open(clone: &Clone) -> Self {
        let mut command = clone.shell();
        command.env("FAILURES", clone.notes.join("failures")).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().unwrap();
        let (tell, ended) = channel();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| tell.send(line)).ok();
        });
        let mut input = shell.stdin.take().unwrap();
        writeln!(input, "{NOTE_FAILURES}").unwrap();
        Self { shell, input, ended, notes: clone.notes.clone() }
    }

    /// Runs a block, to its end.
    pub(crate) fn run(&mut self, clone: &Clone, block: &Block) -> Ran {
        // What the last command came to is noted; the block as a whole is no command that fails.
        let script = script(clone, block, "", "true\n");
        let printed = self.notes.join(format!("{}.out", block.line));
        let failures = self.notes.join("failures");
        fs::write(&failures, "").unwrap();
        let (script, out) = (script.display(), printed.display());
        // Whether the shell is there at all is seen below.
        let _ = writeln!(self.input, ". '{script}' >'{out}' 2>&1 </dev/null; echo ended");
        let ended = self.ended.recv_timeout(BLOCK_MAX);
        let printed = fs::read_to_string(&printed).unwrap_or_default();
        let mut failed = read_failures(&fs::read_to_string(&failures).unwrap());
        let is_over = ended.is_err();
        let wrong = match ended {
            Ok(_) => None,
            Err(RecvTimeoutError::Timeout) => Some(format!("no end within {BLOCK_MAX:?}")),
            Err(RecvTimeoutError::Disconnected) => Some("the shell has ended".to_owned()),
        };
        failed.extend(wrong.map(|wrong| Failed {
            line: block.line,
            code: wrong,
            command: block.text.clone(),
        }));
        Ran { printed, failed, is_over }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// A shell that runs one block, which stays up.
pub(crate) struct Standing {
    shell: Child,
    /// Closed when this test ends.
    _input: ChildStdin,
    printed: PathBuf,
}

impl Standing {
    pub(crate) fn start(clone: &Clone, block: &Block) -> Self {
        let script = script(clone, block, END_WITH_TEST, "");
        let printed = clone.notes.join(format!("{}.out", block.line));
        let out = File::create(&printed).unwrap();
        let mut command = clone.shell();
        command.arg(script).process_group(0);
        // Of its first terminal the page says only that a host runs in it.
        command.env_remove("AMENDS_HOST");
        command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(out);
        let mut shell = command.spawn().unwrap();
        let input = shell.stdin.take().unwrap();
        Self { shell, _input: input, printed }
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.printed).unwrap()
    }

    /// Its exit, if it stays up no longer.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.shell.try_wait().unwrap().map(|status| status.to_string())
    }

    /// Ctrl-C; false when that does not end it.
    pub(crate) fn interrupt(&mut self) -> bool {
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::INT);
        let began = Instant::now();
        while self.ended().is_none() {
            if began.elapsed() > STOP_MAX {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// A file with the commands of a block, on the lines that they have in the page.
fn script(clone: &Clone, block: &Block, before: &str, after: &str) -> PathBuf {
    let path = clone.notes.join(format!("{}.sh", block.line));
    let lines = "\n".repeat(block.line.saturating_sub(1 + before.lines().count()));
    fs::write(&path, format!("{before}{lines}{}{after}", clone.localized(&block.text))).unwrap();
    path
}

fn read_failures(text: &str) -> Vec<Failed> {
    let read = |note: &str| {
        let mut words = note.splitn(3, ' ').map(str::to_owned);
        let (line, code, command) = (words.next()?, words.next()?, words.next()?);
        Some(Failed { line: line.parse().ok()?, code: format!("exit code {code}"), command })
    };
    text.split_terminator('\0').map(|note| read(note).unwrap()).collect()
}

fn end(shell: &mut Child) {
    let _ = kill_process_group(Pid::from_child(shell), Signal::KILL);
    let _ = shell.wait();
}
