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
use std::time::Instant;

use amends_engine::Digest;
use amends_sandbox::LoadedComponent;
use anyhow::{Context as _, bail};
use serde::Serialize;

use super::component::{looked_at, name_of};

/// Which component is built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The folder of the project.
    pub dir: PathBuf,
    /// Where to put the component; by default NAME.wasm in the folder.
    pub file: Option<PathBuf>,
    /// Takes a line about what takes long, such as the first installation of a toolchain.
    pub tell: fn(&str),
}

/// The component that was built.
#[derive(Debug, Clone, Serialize)]
pub struct BuildReport {
    /// Where it is.
    pub file: PathBuf,
    /// The name in its manifest.
    pub name: String,
    /// The version in its manifest.
    pub version: String,
    /// What it exports.
    pub exports: Vec<String>,
    /// Its size.
    pub bytes: usize,
    /// Its digest.
    pub digest: Digest,
    /// How long it took.
    pub seconds: f64,
}

/// What a project is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Builds the component of a project.
///
/// # Errors
/// When the toolchain is missing, the project does not build, or the host would refuse what it
/// makes.
pub async fn run(options: BuildOptions) -> anyhow::Result<BuildReport> {
    let began = Instant::now();
    let dir = fs::canonicalize(&options.dir)
        .with_context(|| format!("cannot read the folder {}", options.dir.display()))?;
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
        Language::Js => javascript::build(&dir, scratch.path(), &made, options.tell)?,
        Language::Python => python::build(&dir, scratch.path(), &made)?,
        Language::C => c::build(&dir, scratch.path(), &made)?,
    }
    let component = load(&made).await?;
    let name = name_of(&component)?;
    let file = options.file.unwrap_or_else(|| options.dir.join(format!("{name}.wasm")));
    put(&made, &file)?;
    let LoadedComponent { manifest, exports, digest, .. } = &component;
    Ok(BuildReport {
        file,
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        exports: exports.words(),
        bytes: component.bytes_len,
        digest: *digest,
        seconds: began.elapsed().as_secs_f64(),
    })
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
