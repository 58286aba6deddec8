//! What the pages show and nobody runs: commands in the text, pieces of configs, JSON.

use std::fs;
use std::process::Command;

use crate::book;
use crate::page::{Block, Page, Remark};
use crate::place::{binary, repository, stderr, stdout};

/// Has every `amends` of a command line print its help, which it does when it knows its verbs and flags;
/// else it says on standard error what it does not know. Python would miss what it reads.
const ONLY_PARSE: &str =
    "amends() { \"$AMENDS\" \"$@\" --help >/dev/null; }\npython3() { cat >/dev/null; }\n";

/// What a piece of a config leaves out: where the events are.
const STORE: &str = "\
[store]
url = \"sqlite:data/amends.db\"

";

/// What it leaves out as well: where plugins are, and the sagas that it names.
const AROUND: &str = "\
[plugins]
dir = \"../../plugins\"

[[saga]]
name = \"billing\"

[[saga.step]]
name = \"once\"
sleep = \"1s\"

[[saga]]
name = \"order-fulfillment\"

[[saga.step]]
name = \"once\"
sleep = \"1s\"
";

/// A page names no verb and no flag that there is not.
#[test]
fn the_commands_that_a_page_names_parse() {
    let (mut parsed, mut wrong) = (0, Vec::new());
    for page in book::all_pages() {
        let mut commands = page.commands_in_prose();
        for block in page.blocks.iter().filter(|block| block.language == "sh") {
            let lines = (block.line..).zip(block.text.lines());
            let starts = lines.filter(|(_, line)| line.starts_with("amends "));
            commands.extend(starts.map(|(number, line)| (number, line.to_owned())));
        }
        parsed += commands.len();
        for (line, command) in commands {
            let output = Command::new("bash")
                .args(["--noprofile", "--norc", "-c", &format!("{ONLY_PARSE}{command}")])
                .env("AMENDS", binary("amends"))
                .output()
                .unwrap();
            let said = stderr(&output);
            if !said.is_empty() {
                wrong.push(format!("{}: {command}\n{said}", page.at(line)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(parsed > 100, "{parsed} commands: where are the others?");
}

#[test]
fn the_pieces_of_configs_are_sound() {
    let mut wrong = Vec::new();
    for page in book::pages() {
        let pieces = page.blocks.iter().filter(|block| block.language == "toml");
        // What the reader saves is run with the commands of its page.
        for block in pieces.filter(|block| !matches!(block.remark, Some(Remark::SavedAs(_)))) {
            wrong.extend(mistakes(&page, block));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `amends check` says of a piece, if that is not that it is sound.
fn mistakes(page: &Page, block: &Block) -> Option<String> {
    // As deep as the page says that a config lies.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("plugins"), folder.path().join("plugins"))
        .unwrap();
    let config = folder.path().join("examples/mine/amends.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, whole(block)).unwrap();
    let checked = Command::new(binary("amends")).arg("check").arg(&config).output().unwrap();
    let (at, said) = (page.at(block.line), stdout(&checked));
    (!checked.status.success()).then(|| format!("{at}: {said}\n{}", whole(block)))
}

/// A block with what it leaves out.
fn whole(block: &Block) -> String {
    let text = &block.text;
    if text.contains("[plugins]") {
        return text.clone();
    }
    let store = if text.contains("[store]") { "" } else { STORE };
    let has_saga = text.lines().any(|line| line == "[[saga]]");
    let saga = if has_saga || !text.contains("[[saga.step]]") {
        ""
    } else {
        "[[saga]]\nname = \"piece\"\n\n"
    };
    let steps = text.find("[[saga.step]]").unwrap_or(text.len());
    let (before, after) = text.split_at(steps);
    format!("{store}{AROUND}{before}{saga}{after}")
}

#[test]
fn the_examples_in_json_are_json() {
    for page in book::all_pages() {
        for block in page.blocks.iter().filter(|block| block.language == "json") {
            let read: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
            assert!(read.is_ok(), "{}: {read:?}", page.at(block.line));
        }
    }
}
