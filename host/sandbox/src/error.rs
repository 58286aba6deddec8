//! Why a component is refused, and what else can go wrong.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::component::key_id::KeyId;
use crate::cut::cut;

/// Why bytes are not a component that can serve. The author of the component can act, or whoever
/// grants capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// Not WebAssembly.
    #[error(
        "it is not WebAssembly: it does not begin with \\0asm; put the built .wasm file there, not its \
         source or text form"
    )]
    NotWasm,
    /// The bytes end in the middle of a section.
    #[error("it is incomplete: it ends in the middle, after {bytes} bytes; copy it again")]
    Truncated {
        /// The bytes that are there.
        bytes: usize,
    },
    /// The bytes are not valid WebAssembly.
    #[error("it is not valid WebAssembly: {0}; build it again")]
    Invalid(String),
    /// Too many bytes.
    #[error(
        "it has {bytes} bytes, at most {max} are allowed; build it in release mode and strip it"
    )]
    TooLarge {
        /// The bytes that it has.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A core module.
    #[error(
        "it is a core module, and a host takes components; build it with `amends plugin build`, which \
         makes a component of it"
    )]
    CoreModule,
    /// Its code goes past a limit.
    #[error("{0}; split what is so large, or build it in release mode")]
    Code(String),
    /// Looking at it took more than it may.
    #[error("looking at it {0}")]
    Limit(String),
    /// It could not be looked at. Another try may do.
    #[error("it could not be looked at: {0}")]
    Failed(String),
    /// It lacks something that every component must have.
    #[error("it does not export {missing}; {remedy}")]
    MissingExport {
        /// What it lacks.
        missing: String,
        /// What would be right.
        remedy: Cow<'static, str>,
    },
    /// It was built against another version of the WIT package.
    #[error(
        "it was built for amends:saga@{found}, this host has amends:saga@{known}; build it \
         against the wit/ folder of this version"
    )]
    PackageVersion {
        /// The version that it names.
        found: String,
        /// The version of the host.
        known: Cow<'static, str>,
    },
    /// It wants what it was not granted.
    #[error("it imports {import}, which is not granted; {remedy}")]
    NotGranted {
        /// What it wants.
        import: String,
        /// What would be right.
        remedy: String,
    },
    /// The compiler rejects it.
    #[error("it cannot be compiled: {0}; build it again with a released compiler")]
    Compile(String),
    /// Sagas in flight have recorded outputs that it cannot read.
    #[error(
        "its undo cannot read outputs that sagas in flight have recorded, {steps} in all ({examples}); \
         have its schema take these outputs, or have it serve all the same with --force: then each is undone by the component that executed it, or by an earlier one of the plugin that \
         can"
    )]
    #[serde(skip)]
    Unreadable {
        /// How many.
        steps: usize,
        /// Some of them, and why.
        examples: String,
    },
    /// Steps of definitions would fail with it.
    #[error(
        "it does not fit the definitions that use it: {flaws}; change the component or the definition, \
         or have it serve all the same with --force"
    )]
    #[serde(skip)]
    Unfit {
        /// Which steps, why, and what would be right.
        flaws: String,
    },
    /// Only signed components are loaded, and it has no signature.
    #[error(
        "it is not signed, and only components are loaded that a key of [plugins] trusted_keys has \
         signed; sign it with `amends plugin sign`, or get the signed one from whoever built it"
    )]
    #[serde(skip)]
    Unsigned,
    /// Only keys that are not trusted have signed it.
    #[error(
        "it is signed by key {keys}, which is not in [plugins] trusted_keys; sign it with a key that \
         is there, or add its key if you trust whoever holds it"
    )]
    #[serde(skip)]
    Untrusted {
        /// Their ids.
        keys: String,
    },
    /// A trusted key has signed other bytes.
    #[error(
        "its signature by key {key} does not fit its bytes: they were changed after it was signed; \
         get it again from whoever signed it, or sign it again"
    )]
    #[serde(skip)]
    SignatureMisfit {
        /// The key's id.
        key: KeyId,
    },
    /// What should be a signature is none.
    #[error(
        "its signature is damaged and cannot be read; get it again from whoever signed it, or sign \
         it again"
    )]
    #[serde(skip)]
    SignatureDamaged,
    /// Too many signatures.
    #[error(
        "it has {found} signatures, at most {max} are allowed; sign it as it was built, with the \
         keys that count"
    )]
    #[serde(skip)]
    TooManySignatures {
        /// The signatures that it has.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Its manifest names another component than the one that belongs to the plugin.
    #[error(
        "the component says that it is `{}`, {wanted}; name its file as it says, or write \
         component = \"{}\" in [plugin.NAME] if it is the right one",
        .says.escape_debug(), .says.escape_debug()
    )]
    Misnamed {
        /// The name in its manifest.
        says: String,
        /// What the plugin wants, in words.
        wanted: String,
    },
    /// The file is a link to somewhere else.
    #[error(
        "its file is a symbolic link that leaves the plugin folder, and the host does not follow \
         it; copy the component itself into the folder"
    )]
    Link,
    /// The file cannot be read.
    #[error("its file cannot be read: {0}; check the file, and the rights of the host's user")]
    NotReadable(String),
    /// Its manifest cannot be had or makes no sense.
    #[error("its manifest is not usable: {0}; correct what its `describe` answers")]
    Manifest(String),
}

impl Rejection {
    /// The rejection of bytes that the parser of WebAssembly does not take.
    ///
    /// A file that is still being written mostly ends in the middle of a section.
    pub(crate) fn broken(bytes: &[u8], error: &wasmparser::BinaryReaderError) -> Self {
        let text = error.message();
        if text.contains("unexpected end") || text.contains("unexpected-eof") {
            return Self::Truncated { bytes: bytes.len() };
        }
        Self::Invalid(format!("{text} (at byte {})", error.offset()))
    }

    /// Whether it says nothing of the component: the host could not look at it, and another try may do.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// In one line of at most so many bytes, whatever the component has put into it.
    pub(crate) fn cut(self) -> Self {
        match self {
            Self::Invalid(text) => Self::Invalid(one_line(text)),
            Self::Code(text) => Self::Code(one_line(text)),
            Self::Limit(text) => Self::Limit(one_line(text)),
            Self::Failed(text) => Self::Failed(one_line(text)),
            Self::Compile(text) => Self::Compile(one_line(text)),
            Self::Manifest(text) => Self::Manifest(one_line(text)),
            Self::MissingExport { missing, remedy } => {
                Self::MissingExport { missing: one_line(missing), remedy }
            }
            Self::PackageVersion { found, known } => {
                Self::PackageVersion { found: one_line(found), known }
            }
            Self::NotGranted { import, remedy } => {
                Self::NotGranted { import: one_line(import), remedy: one_line(remedy) }
            }
            // What they say is this host's own, or has been escaped and cut.
            Self::NotWasm { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::CoreModule
            | Self::Misnamed { .. }
            | Self::Link
            | Self::NotReadable(_)
            | Self::Unreadable { .. }
            | Self::Unfit { .. }
            | Self::Unsigned
            | Self::Untrusted { .. }
            | Self::SignatureMisfit { .. }
            | Self::SignatureDamaged
            | Self::TooManySignatures { .. } => self,
        }
    }
}

/// Bytes of the words of a rejection: they stand in events, logs and answers.
const REASON_BYTES_MAX: usize = 2_000;

/// Cuts a text, and escapes its control characters.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return cut(text, REASON_BYTES_MAX);
    }
    let mut line = String::new();
    for character in text.chars() {
        if line.len() > REASON_BYTES_MAX {
            break;
        }
        match character {
            '\n' => line.push(' '),
            other if other.is_control() => line.extend(other.escape_default()),
            other => line.push(other),
        }
    }
    cut(line, REASON_BYTES_MAX)
}

/// Why the sandbox cannot be used. An operator can act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SandboxError {
    /// The folder of compiled code is not the host's alone.
    #[error("the folder of compiled code {} cannot be used: {message}", .dir.display())]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// Why not, and what would be right.
        message: String,
    },
    /// The WebAssembly engine, its clock or its linker cannot be made.
    #[error("the WebAssembly sandbox cannot be set up: {0}")]
    SetUp(String),
}
