//! A page in Markdown as this test reads it: its blocks of code, and what a comment says of one.

use std::path::Path;

use crate::place::repository;

/// A page of the repository.
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

/// What stands between two fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line of the page after the first fence, from 1.
    pub(crate) line: usize,
    /// `sh`, `toml`, …; empty for what a command prints.
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) remark: Option<Remark>,
}

/// A comment on the line before the first fence, which a reader of the page does not see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Remark {
    /// The commands of the block are not run, because of this.
    NotRun(String),
    /// The numbers of an output are different each time, because of this.
    Varies(String),
    /// The block is run in the first terminal, where a host stays up until the next such block.
    StaysUp,
    /// The reader saves the block under this name.
    SavedAs(String),
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(repository().join(name)).unwrap();
        let blocks = blocks(name, &text);
        Self { name: name.to_owned(), text, blocks }
    }

    /// The first fence without a language after a block of commands, and before the next block of
    /// any other language, has what these print.
    pub(crate) fn output_of(&self, commands: &Block) -> Option<&Block> {
        let next = self.blocks.iter().find(|block| block.line > commands.line)?;
        next.language.is_empty().then_some(next)
    }

    /// Every command line in the text outside of blocks: where, and what it is.
    pub(crate) fn commands_in_prose(&self) -> Vec<(usize, String)> {
        let mut commands = Vec::new();
        let mut is_block = false;
        for (number, line) in (1..).zip(self.text.lines()) {
            if line.starts_with("```") {
                is_block = !is_block;
                continue;
            }
            // Between two backticks is each second part.
            for code in line.split('`').skip(1).step_by(2) {
                if !is_block && code.starts_with("amends ") {
                    // In a table a bar is escaped.
                    commands.push((number, code.replace("\\|", "|")));
                }
            }
        }
        commands
    }

    /// A place in the page, as editors understand it.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }
}

impl Block {
    pub(crate) fn is_run(&self) -> bool {
        self.language == "sh" && !matches!(self.remark, Some(Remark::NotRun(_)))
    }
}

fn blocks(name: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut before = "";
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                let remark = remark(before, language)
                    .unwrap_or_else(|wrong| panic!("{name}:{}: {wrong}", number - 1));
                let language = language.to_owned();
                let block = Block { line: number + 1, language, text: String::new(), remark };
                open = Some(block);
            }
            (None, Some(block)) => {
                block.text += line;
                block.text.push('\n');
            }
            (None, None) => {}
        }
        before = line;
    }
    assert!(open.is_none(), "{name}: a block has no end");
    blocks
}

/// What the line before a block of this language says of it.
fn remark(line: &str, language: &str) -> Result<Option<Remark>, String> {
    let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
    else {
        return Ok(None);
    };
    let (remark, of) = if comment == "stays up" {
        (Remark::StaysUp, "sh")
    } else if let Some(reason) = comment.strip_prefix("not run: ") {
        (Remark::NotRun(reason.to_owned()), "sh")
    } else if let Some(reason) = comment.strip_prefix("varies: ") {
        (Remark::Varies(reason.to_owned()), "")
    } else if let Some(path) = comment.strip_prefix("saved as ") {
        if Path::new(path).is_absolute() || path.contains("..") {
            return Err(format!("{path} is outside of the repository"));
        }
        (Remark::SavedAs(path.to_owned()), "toml")
    } else {
        return Err(format!("nobody knows what `{comment}` says of a block"));
    };
    if language != of {
        return Err(format!("`{comment}` is said of a block of `{of}`, and this is `{language}`"));
    }
    Ok(Some(remark))
}

#[test]
fn blocks_have_their_lines_outputs_and_remarks() {
    let text = "# A\n\n```sh\nls\n```\n\nprints\n\n<!-- varies: files come and go -->\n```\nx 1\n```\n\
                <!-- not run: it is not here -->\n```sh\nrm\n```\n```json\n{}\n```\n";
    let page =
        Page { name: "A.md".to_owned(), text: text.to_owned(), blocks: blocks("A.md", text) };
    let lines: Vec<_> =
        page.blocks.iter().map(|block| (block.line, block.language.as_str())).collect();
    assert_eq!(lines, [(4, "sh"), (11, ""), (15, "sh"), (18, "json")]);
    let run: Vec<_> = page.blocks.iter().map(Block::is_run).collect();
    assert_eq!(run, [true, false, false, false]);
    assert_eq!(page.output_of(&page.blocks[0]).unwrap().text, "x 1\n");
    assert!(page.output_of(&page.blocks[2]).is_none());
    let varies = Remark::Varies("files come and go".to_owned());
    assert_eq!(page.blocks[1].remark, Some(varies));
}

#[test]
fn a_remark_that_nobody_knows_is_refused() {
    let knows = |line: &str, language: &str| remark(line, language).map(|it| it.is_some());
    assert_eq!(knows("<!-- stays up -->", "sh"), Ok(true));
    assert_eq!(knows("text", "sh"), Ok(false));
    for (line, language) in [
        ("<!-- not-run: slow -->", "sh"),
        ("<!-- stays up -->", ""),
        ("<!-- varies: time -->", "sh"),
        ("<!-- saved as ../x -->", "toml"),
    ] {
        assert!(knows(line, language).is_err(), "{line} of {language}");
    }
}
