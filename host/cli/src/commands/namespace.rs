//! `--namespace`: which namespace a verb works in.

use std::sync::OnceLock;

use amends_engine::{NAME_BYTES_MAX, NamespaceName};
use amends_runtime::DEFAULT_NAMESPACE;

use crate::commands::exit::{EXIT_USAGE, Failed};

/// The variable that says which namespace.
const VARIABLE: &str = "AMENDS_NAMESPACE";

/// The flag.
static FLAG: OnceLock<String> = OnceLock::new();

/// Takes the flag.
pub(crate) fn set(namespace: Option<String>) {
    if let Some(namespace) = namespace {
        // There is one command line.
        let _ = FLAG.set(namespace);
    }
}

/// Returns the namespace that the flag names, or else the variable. None: neither does.
///
/// # Errors
/// When it is no name.
pub(crate) fn said() -> Result<Option<String>, Failed> {
    let variable = || std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    let flag = FLAG.get().map(|name| ("--namespace", name.clone()));
    let Some((by, name)) = flag.or_else(|| Some((VARIABLE, variable()?))) else { return Ok(None) };
    check(by, &name)?;
    Ok(Some(name))
}

/// Returns the names of the flag, for a verb that takes several: `*` among them stands for all.
pub(crate) fn several() -> Vec<String> {
    let names = FLAG.get().map(String::as_str).unwrap_or_default().split(',');
    names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Checks the name of a namespace. `by` says who names it.
///
/// # Errors
/// When it is none.
pub(crate) fn check(by: &str, name: &str) -> Result<(), Failed> {
    if name.parse::<NamespaceName>().is_ok() {
        return Ok(());
    }
    let help = format!(
        "use 1 to {NAME_BYTES_MAX} of a-z, 0-9, `-` and `_`, beginning with a letter or digit; without a name it is \
         `{DEFAULT_NAMESPACE}`"
    );
    Err(Failed::with_help(
        EXIT_USAGE,
        &format!("{by} {name}: this is no name of a namespace"),
        &help,
    ))
}
