//! `amends plugin build`: from a project's source to a component that the host takes.
//!
//! The language is told by what lies in the folder. Each has a module here that finds its
//! toolchain, or says what to install, and makes the component; what is made is then loaded as the
//! host would load it.

mod c;
mod javascript;
mod python;
mod rust;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amends_engine::on_one_line;
use amends_sandbox::LoadedComponent;
use anyhow::{Context as _, bail};
use clap::Args;

use super::component::{looked_at, name_of};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::say;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct Build {
    /// The folder of the project: it has a Cargo.toml, package.json, plugin.py or plugin.c
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Where to put the component [default: NAME.wasm in the folder]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What a project is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

impl Language {
    const ALL: [Self; 4] = [Self::Rust, Self::Js, Self::Python, Self::C];

    /// The file by which a project is known.
    const fn file(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Js => "package.json",
            Self::Python => "plugin.py",
            Self::C => "plugin.c",
        }
    }

    fn of(dir: &Path) -> anyhow::Result<Self> {
        let found: Vec<_> =
            Self::ALL.into_iter().filter(|language| dir.join(language.file()).is_file()).collect();
        match found.as_slice() {
            [language] => Ok(*language),
            [] => bail!(
                "{} is no plugin project: it has no Cargo.toml, package.json, plugin.py or \
                 plugin.c; `amends plugin new NAME --lang rust|js|python|c` makes one",
                dir.display()
            ),
            [first, second, ..] => bail!(
                "{} has {} and {}: keep one of them",
                dir.display(),
                first.file(),
                second.file()
            ),
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// When the toolchain is missing, the project does not build, or the host would refuse what it
/// makes.
pub(crate) async fn run(args: Build) -> anyhow::Result<u8> {
    let began = Instant::now();
    let dir = fs::canonicalize(&args.dir)
        .with_context(|| format!("cannot read the folder {}", args.dir.display()))?;
    let language = Language::of(&dir)?;
    // What a toolchain leaves behind goes with the folder. It is within the project's, so that the
    // component is renamed into its place, and a host that watches it never sees half of it.
    let scratch = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(&dir)
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    let made = scratch.path().join("component.wasm");
    match language {
        Language::Rust => rust::build(&dir, &made)?,
        Language::Js => javascript::build(&dir, scratch.path(), &made)?,
        Language::Python => python::build(&dir, scratch.path(), &made)?,
        Language::C => c::build(&dir, scratch.path(), &made)?,
    }
    let component = load(&made).await?;
    let name = name_of(&component)?;
    let file = args.file.unwrap_or_else(|| args.dir.join(format!("{name}.wasm")));
    put(&made, &file)?;
    report(&file, &component, began.elapsed())?;
    Ok(EXIT_DONE)
}

/// As the host would load it, with everything granted.
async fn load(file: &Path) -> anyhow::Result<LoadedComponent> {
    let bytes = fs::read(file).context("the toolchain made no component")?;
    looked_at(bytes, None)
        .await
        .map_err(|rejection| anyhow::anyhow!("it builds, and a host would refuse it: {rejection}"))
}

/// Beside its place first: what is read there is always whole.
fn put(made: &Path, file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", file.display());
    let beside =
        tempfile::Builder::new().prefix(".component-").tempfile_in(folder).with_context(cannot)?;
    fs::copy(made, beside.path()).with_context(cannot)?;
    beside.persist(file).map_err(|error| error.error).with_context(cannot)?;
    Ok(())
}

fn report(file: &Path, component: &LoadedComponent, took: Duration) -> anyhow::Result<()> {
    let manifest = &component.manifest;
    say!("{}: {} {}", file.display(), on_one_line(&manifest.name), on_one_line(&manifest.version))?;
    say!("exports  {}", component.exports.words().join(", "))?;
    say!("size     {} bytes", component.bytes_len)?;
    say!("digest   {}", component.digest)?;
    say!("built in {:.1} s", took.as_secs_f64())
}
