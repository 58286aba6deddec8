//! A reader who goes through a page from its first block to its last.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::clone::Clone;
use crate::compare::difference;
use crate::page::{Block, Page, Remark};
use crate::place::agent;
use crate::terminal::{Ran, Standing, Terminal};

/// A host is up within this long, and has printed what the page shows.
const UP_MAX: Duration = Duration::from_mins(3);

/// How a line says that the code with which its command ends is shown.
const SHOWS_CODE: &str = "; echo \"exit $?\"";

/// Something that is not as the page says.
pub(crate) struct Mismatch {
    /// Where in the page.
    at: String,
    commands: String,
    wrong: String,
    printed: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indented = |text: &str| {
            text.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat()
        };
        let Self { at, commands, wrong, printed } = self;
        let (commands, printed) = (indented(commands), indented(printed));
        write!(formatter, "{at}: {wrong}\n  commands:\n{commands}  printed:\n{printed}")
    }
}

pub(crate) struct Walk<'a> {
    page: &'a Page,
    clone: Clone,
    first: Option<Standing>,
    second: Terminal,
    /// What follows would only follow from what went wrong.
    is_over: bool,
    mismatches: Vec<Mismatch>,
}

impl<'a> Walk<'a> {
    /// In a clone that has this name.
    pub(crate) fn new(page: &'a Page, clone: &str) -> Self {
        let clone = Clone::new(clone);
        let second = Terminal::open(&clone);
        Self { page, clone, first: None, second, is_over: false, mismatches: Vec::new() }
    }

    /// Pastes every block; what was not as the page says.
    pub(crate) fn all(mut self) -> Vec<Mismatch> {
        let page = self.page;
        for block in &page.blocks {
            let began = Instant::now();
            if let Some(Remark::SavedAs(path)) = &block.remark {
                self.save(path, block);
            } else if block.remark == Some(Remark::StaysUp) {
                self.stay_up(block);
            } else if block.is_run() {
                self.paste(block);
            } else {
                continue;
            }
            if self.is_over {
                break;
            }
            // Shown of tests that fail, or with --nocapture.
            eprintln!("{}: {:.1} s", page.at(block.line), began.elapsed().as_secs_f64());
        }
        self.stop();
        self.mismatches
    }

    fn save(&self, path: &str, block: &Block) {
        let path = self.clone.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.clone.localized(&block.text)).unwrap();
    }

    fn paste(&mut self, block: &Block) {
        let Ran { printed, failed, is_over } = self.second.run(&self.clone, block);
        self.is_over = is_over;
        let output = self.page.output_of(block);
        for failed in failed {
            let line = failed.line.checked_sub(block.line);
            let line = line.and_then(|line| block.text.lines().nth(line)).unwrap_or_default();
            if line.contains(SHOWS_CODE) && output.is_some() {
                continue;
            }
            let wrong =
                format!("{}: `{}`, and the page does not say so", failed.code, failed.command);
            self.tell(failed.line, block, wrong, &printed);
        }
        if let Some(output) = output {
            let wrong = self.differs(output, &printed);
            if let Some((line, wrong)) = wrong {
                self.tell(line, block, wrong, &printed);
            }
        }
    }

    /// Has the host of the first terminal stopped, and another one up in it.
    fn stay_up(&mut self, block: &Block) {
        self.stop();
        let mut standing = Standing::start(&self.clone, block);
        let output = self.page.output_of(block);
        let began = Instant::now();
        let wrong = loop {
            let printed = standing.printed();
            if let Some(status) = standing.ended() {
                break Some((block.line, format!("it does not stay up: {status}")));
            }
            let wrong = output.and_then(|output| self.differs(output, &printed));
            let wrong = wrong.or_else(|| {
                let ready = agent().get(format!("{}/readyz", self.clone.host())).call();
                let is_ready = ready.is_ok_and(|answer| answer.status() == 200);
                (!is_ready).then(|| (block.line, "no host is up".to_owned()))
            });
            if wrong.is_none() || began.elapsed() > UP_MAX {
                break wrong;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if let Some((line, wrong)) = wrong {
            self.is_over = true;
            let printed = standing.printed();
            self.tell(line, block, wrong, &printed);
        }
        self.first = Some(standing);
    }

    fn stop(&mut self) {
        if let Some(mut standing) = self.first.take() {
            assert!(standing.interrupt(), "Ctrl-C does not stop it:\n{}", standing.printed());
        }
    }

    /// The line of the page that was not printed as it is shown, and what is wrong with it.
    fn differs(&self, output: &Block, printed: &str) -> Option<(usize, String)> {
        let varies = matches!(output.remark, Some(Remark::Varies(_)));
        let differs = difference(&self.clone.localized(&output.text), printed, varies)?;
        let told = |line: Option<String>| line.unwrap_or_else(|| "(nothing)".to_owned());
        let wrong = format!(
            "not what the page shows\n  shown:   {}\n  printed: {}",
            told(differs.shown),
            told(differs.printed)
        );
        Some((output.line + differs.line, wrong))
    }

    fn tell(&mut self, line: usize, block: &Block, wrong: String, printed: &str) {
        let (at, commands) = (self.page.at(line), block.text.clone());
        self.mismatches.push(Mismatch { at, commands, wrong, printed: printed.to_owned() });
    }
}
