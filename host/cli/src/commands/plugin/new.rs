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
pub(crate) struct New {
    /// The plugin's name: lower case words joined by `-`
    pub(crate) name: PluginName,
    /// The language
    #[arg(long, value_enum)]
    pub(crate) lang: Language,
    /// Make only an undo, for a step that another plugin executes
    #[arg(long)]
    pub(crate) undo_only: bool,
    /// The folder in which to make the folder of the project
    #[arg(long, value_name = "PARENT", default_value = ".")]
    pub(crate) dir: PathBuf,
}

/// What a project is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
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
