//! What verbs that change one thing have in common: a reason, and the thing printed as it is then.

use clap::Args;
use serde::Serialize;

use crate::commands::client::HostArgs;
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, say};

/// The arguments of a verb that changes one thing.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The reason, which is recorded with who asked
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// How to print what was changed
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// Prints what was changed: whole, by its id, or in `words`.
pub(crate) fn print_changed<T: Serialize>(
    output: Format,
    changed: &T,
    id: &str,
    words: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match output {
        Format::Json => print_json(changed),
        Format::Jsonl => print_json_line(changed),
        Format::Ids => say!("{id}"),
        Format::Table => say!("{}", words()),
    }
}
