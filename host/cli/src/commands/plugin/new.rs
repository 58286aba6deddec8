//! `amends plugin new`: a project that builds and passes its own test at once.

use std::path::PathBuf;

use amends_engine::PluginName;
use amends_workbench::plugin::build;
use amends_workbench::plugin::new::{self, NewOptions};
use clap::{Args, ValueEnum};

use crate::commands::exit::EXIT_DONE;
use crate::commands::output::say;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct New {
    /// The plugin's name: lower case words joined by `-`
    pub name: PluginName,
    /// What to write it in
    #[arg(long, value_enum)]
    pub lang: Language,
    /// The undo of a step that another plugin does, and no step
    #[arg(long)]
    pub undo_only: bool,
    /// The folder to make the project's in
    #[arg(long, value_name = "PARENT", default_value = ".")]
    pub dir: PathBuf,
}

/// What a project is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// JavaScript, through componentize-js.
    Js,
    /// Python, through componentize-py.
    Python,
    /// C, through clang.
    C,
}

impl From<Language> for build::Language {
    fn from(language: Language) -> Self {
        match language {
            Language::Rust => Self::Rust,
            Language::Js => Self::Js,
            Language::Python => Self::Python,
            Language::C => Self::C,
        }
    }
}

pub(crate) fn run(args: New) -> anyhow::Result<u8> {
    let New { name, lang, undo_only, dir } = args;
    let options = NewOptions { name, language: lang.into(), undo_only, dir };
    let folder = new::run(&options)?;
    let (name, shown) = (&options.name, folder.display());
    say!("made {shown}; now:")?;
    say!("  amends plugin build {shown}")?;
    if undo_only {
        say!("  amends plugin test STEP.wasm --undo {shown}/{name}.wasm")?;
    } else {
        say!("  amends plugin test {shown}/{name}.wasm")?;
    }
    say!("  amends plugin inspect {shown}/{name}.wasm")?;
    Ok(EXIT_DONE)
}
