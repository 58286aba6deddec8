//! `amends plugin build`: from a project's source to a component that the host takes.

use std::path::PathBuf;

use amends_engine::on_one_line;
use amends_workbench::plugin::build::{self, BuildOptions};
use clap::Args;

use crate::commands::exit::EXIT_DONE;
use crate::commands::output::say;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The folder of the project: it has a Cargo.toml, package.json, plugin.py or plugin.c
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Where to put the component [default: NAME.wasm in the folder]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

pub(crate) async fn run(args: Build) -> anyhow::Result<u8> {
    let Build { dir, file } = args;
    let built = build::run(BuildOptions { dir, file, tell: |line| eprintln!("{line}") }).await?;
    let (name, version) = (on_one_line(&built.name), on_one_line(&built.version));
    say!("{}: {name} {version}", built.file.display())?;
    say!("exports  {}", built.exports.join(", "))?;
    say!("size     {} bytes", built.bytes)?;
    say!("digest   {}", built.digest)?;
    say!("built in {:.1} s", built.seconds)?;
    Ok(EXIT_DONE)
}
