//! Why a component is refused, and what else can go wrong.

use std::path::PathBuf;

use amends_engine::{Digest, PluginName};
use amends_store::StoreError;

use crate::signature::KeyId;

/// Why bytes are not a component that can serve. The author of the component can act, or whoever
/// grants capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not WebAssembly.
    #[error(
        "it is not WebAssembly: it does not begin with \\0asm; put the built .wasm file there, not its \
         source or text form"
    )]
    NotWasm,
    /// Cut off.
    #[error("it is incomplete: it ends in the middle, after {bytes} bytes; copy it again")]
    Truncated {
        /// The bytes that are there.
        bytes: usize,
    },
    /// Broken otherwise.
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
    /// A core module that nobody can turn into a component.
    #[error(
        "it is a core module without component types: {0}; build it with the SDK's macro, or run \
         wit-component over it"
    )]
    CoreModule(String),
    /// It lacks something that every component must have.
    #[error("it does not export {missing}; {remedy}")]
    MissingExport {
        /// What it lacks.
        missing: String,
        /// What would be right.
        remedy: &'static str,
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
        known: &'static str,
    },
    /// It wants what it was not granted.
    #[error("it imports {import}, which is not granted; {remedy}")]
    NotGranted {
        /// What it wants.
        import: String,
        /// What would be right.
        remedy: String,
    },
    /// The compiler refuses it.
    #[error("it cannot be compiled: {0}; build it again with a released compiler")]
    Compile(String),
    /// Sagas in flight have recorded outputs that it cannot read.
    #[error(
        "its undo cannot read what {steps} steps of sagas in flight have recorded ({examples}); \
         have its schema take these outputs, or have it serve all the same with --force: then each is undone by the component that executed it, or by an earlier one of the plugin that \
         can"
    )]
    Unreadable {
        /// How many.
        steps: usize,
        /// Some of them, and why.
        examples: String,
    },
    /// Only signed components are loaded, and it has no signature.
    #[error(
        "it is not signed, and only components are loaded that a key of [plugins] trusted_keys has \
         signed; sign it with `amends plugin sign`, or get the signed one from whoever built it"
    )]
    Unsigned,
    /// Only keys that are not trusted have signed it.
    #[error(
        "it is signed by key {keys}, which is not in [plugins] trusted_keys; sign it with a key that \
         is there, or add its key if you trust whoever holds it"
    )]
    Untrusted {
        /// Their ids.
        keys: String,
    },
    /// A trusted key has signed other bytes.
    #[error(
        "its signature by key {key} does not fit its bytes: they were changed after it was signed; \
         get it again from whoever signed it, or sign it again"
    )]
    SignatureMisfit {
        /// The key's id.
        key: KeyId,
    },
    /// What should be a signature is none.
    #[error(
        "its signature is damaged and cannot be read; get it again from whoever signed it, or sign \
         it again"
    )]
    SignatureDamaged,
    /// Too many signatures.
    #[error(
        "it has {found} signatures, at most {max} are allowed; sign it as it was built, with the \
         keys that count"
    )]
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

/// What else can go wrong. Operator, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin folder cannot be read.
    #[error("the plugin folder {} cannot be read: {message}; name another in [plugins] dir", .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        message: String,
    },
    /// The sandbox cannot be set up.
    #[error("the WebAssembly sandbox cannot be set up: {0}")]
    Sandbox(String),
    /// Nobody has the bytes of a digest.
    #[error("plugin {plugin}: the component {digest} is neither in the folder nor in the store")]
    Lost {
        /// The plugin.
        plugin: PluginName,
        /// The digest.
        digest: Digest,
    },
    /// A component is refused.
    #[error("plugin {plugin}: {rejection}")]
    Rejected {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        rejection: Rejection,
    },
    /// There is no component to go back to.
    #[error("plugin {plugin} cannot be rolled back: {message}")]
    NoRollback {
        /// The plugin.
        plugin: PluginName,
        /// Why not.
        message: String,
    },
    /// A canary cannot be started or promoted.
    #[error("plugin {plugin}: {message}")]
    Canary {
        /// The plugin.
        plugin: PluginName,
        /// Why not.
        message: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
