//! `context`: the hosts that a person works with, by name, and which of them verbs talk to.
//!
//! Deliberately absent: a variable that names the file, because `AMENDS_…` variables stand above the config of a
//! host; and verbs that write contexts, because an editor does.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use amends_config::suggest::did_you_mean;
use amends_config::{Contexts, HostContext, TokenSource, read_contexts};
use amends_engine::on_one_line;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::exit::{EXIT_DONE, EXIT_NOT_FOUND, EXIT_USAGE, Failed};
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};
use crate::commands::replace::replace;

/// The variable that names a context.
const VARIABLE: &str = "AMENDS_CONTEXT";

/// A file with a token has at most this many bytes: a token of a config has 1,024.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// The context that the flag `--context` names.
static NAMED_BY_FLAG: OnceLock<String> = OnceLock::new();

/// Takes the context that the flag names.
pub(crate) fn set_context(name: Option<String>) {
    if let Some(name) = name {
        // There is one command line.
        let _ = NAMED_BY_FLAG.set(name);
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// List the contexts
    List(List),
    /// Make a context the current one
    Use(Use),
    /// Show the context that verbs use now
    Show(Show),
}

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends context list")]
pub(crate) struct List {
    /// How to print them; `ids` are their names
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// The arguments of `use`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends context use production")]
pub(crate) struct Use {
    /// The name of the context
    pub(crate) name: String,
}

/// The arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends context show")]
pub(crate) struct Show {
    /// How to print it; `ids` is its name
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// A context as it is printed.
#[derive(Debug, Serialize)]
struct View<'a> {
    name: &'a str,
    is_current: bool,
    host: &'a str,
    /// Where the token is.
    token: Option<String>,
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

pub(crate) fn run(verb: ContextVerb) -> anyhow::Result<u8> {
    match verb {
        ContextVerb::List(List { output }) => list(output),
        ContextVerb::Use(Use { name }) => make_current(&name),
        ContextVerb::Show(Show { output }) => show(output),
    }
}

fn list(output: Format) -> anyhow::Result<u8> {
    let ContextFile { contexts, .. } = ContextFile::read()?;
    let views: Vec<_> = contexts
        .named
        .iter()
        .map(|(name, context)| view(name, context, contexts.current.as_ref() == Some(name)))
        .collect();
    print(output, &views)?;
    Ok(EXIT_DONE)
}

fn show(output: Format) -> anyhow::Result<u8> {
    let Some(chosen) = ChosenContext::read()? else {
        let wrong = "no context is chosen, so verbs talk to AMENDS_HOST or to 127.0.0.1:7070";
        let right =
            "`amends context list` lists the contexts, `amends context use NAME` chooses one";
        return Err(Failed::with_help(EXIT_NOT_FOUND, wrong, right).into());
    };
    let view = view(&chosen.name, &chosen.context, chosen.is_current);
    match output {
        Format::Json => print_json(&view)?,
        Format::Jsonl | Format::Ids | Format::Table => print(output, &[view])?,
    }
    Ok(EXIT_DONE)
}

fn make_current(name: &str) -> anyhow::Result<u8> {
    let file = ContextFile::read()?;
    let is_known = file.contexts.named.contains_key(name);
    let Some(path) = file.path.as_ref().filter(|_| is_known) else {
        return Err(file.unknown(name, "").into());
    };
    replace(path, path, file.contexts.with_current(name).as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    say!("{name} is the current context")?;
    Ok(EXIT_DONE)
}

fn view<'a>(name: &'a str, context: &'a HostContext, is_current: bool) -> View<'a> {
    let HostContext { host, token, user, namespace } = context;
    let token = token.as_ref().map(|token| match token {
        TokenSource::File(file) => format!("file {file}"),
        TokenSource::Variable(name) => format!("variable {name}"),
    });
    let (user, namespace) = (user.as_deref(), namespace.as_deref());
    View { name, is_current, host, token, user, namespace }
}

fn print(output: Format, views: &[View<'_>]) -> anyhow::Result<()> {
    match output {
        Format::Json => print_json(&views),
        Format::Jsonl => views.iter().try_for_each(print_json_line),
        Format::Ids => views.iter().try_for_each(|view| say!("{}", view.name)),
        Format::Table if views.is_empty() => say!("there are no contexts"),
        Format::Table => {
            let columns = ["name", "current", "host", "token", "user", "namespace"];
            // Most hosts have one namespace.
            let has_namespaces = views.iter().any(|view| view.namespace.is_some());
            let shown = if has_namespaces { columns.len() } else { columns.len() - 1 };
            let mut rows = table(columns.get(..shown).unwrap_or_default());
            rows.add_rows(views.iter().map(|view| {
                let none = || "none".to_owned();
                let cells = [
                    view.name.to_owned(),
                    if view.is_current { "yes" } else { "no" }.to_owned(),
                    view.host.to_owned(),
                    view.token.clone().unwrap_or_else(none),
                    view.user.map_or_else(none, str::to_owned),
                    view.namespace.map_or_else(none, str::to_owned),
                ];
                cells.into_iter().take(shown).collect::<Vec<_>>()
            }));
            print_table_as(&rows, Look::new())
        }
    }
}

/// The file of contexts, as it was read.
#[derive(Debug, Default)]
struct ContextFile {
    /// Where it is, or would be. None: the environment does not say where the user's files are.
    path: Option<PathBuf>,
    contexts: Contexts,
}

impl ContextFile {
    /// Reads the file, if there is one.
    fn read() -> Result<Self, Failed> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let contexts = if path.exists() {
            read_contexts(&path).map_err(|report| {
                let message = format!("the contexts cannot be read\n{report}");
                Failed { exit: EXIT_USAGE, message: message.trim_end().to_owned() }
            })?
        } else {
            Contexts::default()
        };
        Ok(Self { path: Some(path), contexts })
    }

    /// The error of a name that no context has. `by` says who named it.
    fn unknown(&self, name: &str, by: &str) -> Failed {
        let names = || self.contexts.named.keys().map(String::as_str);
        let help = did_you_mean(name, names(), || {
            if names().next().is_some() {
                return "`amends context list` lists the contexts".to_owned();
            }
            match &self.path {
                Some(path) => {
                    format!("write [context.{name}] with its host into {}", path.display())
                }
                None => "set HOME or XDG_CONFIG_HOME, below which the contexts are".to_owned(),
            }
        });
        let wrong = format!("there is no context `{}`{by}", on_one_line(name));
        Failed::with_help(EXIT_NOT_FOUND, &wrong, &on_one_line(&help))
    }
}

/// Where contexts are: the XDG Base Directory Specification says so. It has relative paths ignored.
fn path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let of_user = folder("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
    let of_user = of_user.or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(of_user.join("amends/config.toml"))
}

/// The context that a verb uses.
#[derive(Debug)]
pub(crate) struct ChosenContext {
    pub(crate) name: String,
    pub(crate) context: HostContext,
    /// Whether the flag names it.
    pub(crate) is_by_flag: bool,
    is_current: bool,
    /// The folder of the file.
    folder: PathBuf,
}

impl ChosenContext {
    /// Reads the context that the flag names, else the variable, else the file. None: nothing names one.
    ///
    /// # Errors
    /// When the file cannot be read, or has no context of that name.
    pub(crate) fn read() -> Result<Option<Self>, Failed> {
        let file = ContextFile::read()?;
        let flag = NAMED_BY_FLAG.get().cloned();
        let is_by_flag = flag.is_some();
        let variable = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        let current = file.contexts.current.clone();
        let (name, by) = match (flag, variable, current.clone()) {
            (Some(name), _, _) => (name, ""),
            (None, Some(name), _) => (name, ", which AMENDS_CONTEXT names"),
            (None, None, Some(name)) => (name, ", which current_context names"),
            (None, None, None) => return Ok(None),
        };
        let Some(context) = file.contexts.named.get(&name).cloned() else {
            return Err(file.unknown(&name, by));
        };
        let is_current = current.as_ref() == Some(&name);
        let folder = file.path.as_deref().and_then(Path::parent).map(Path::to_owned);
        let folder = folder.unwrap_or_default();
        Ok(Some(Self { name, context, is_by_flag, is_current, folder }))
    }

    /// Reads the token of the context. None: the context has none.
    ///
    /// # Errors
    /// When it is not where the context says, or others may read it.
    pub(crate) fn token(&self) -> Result<Option<String>, Failed> {
        let read = match &self.context.token {
            None => return Ok(None),
            Some(TokenSource::Variable(name)) => of_variable(name),
            Some(TokenSource::File(file)) => of_file(&self.resolve(file)),
        };
        read.map(Some).map_err(|(wrong, right)| {
            let wrong = format!("the token of the context `{}`: {wrong}", self.name);
            Failed::with_help(EXIT_USAGE, &wrong, &right)
        })
    }

    fn resolve(&self, file: &str) -> PathBuf {
        let home = || std::env::var_os("HOME").map(PathBuf::from);
        let below_home = file.strip_prefix("~/").and_then(|rest| Some(home()?.join(rest)));
        below_home.unwrap_or_else(|| self.folder.join(file))
    }
}

/// A token, or what is wrong and what would be right.
type ReadToken = Result<String, (String, String)>;

fn of_variable(name: &str) -> ReadToken {
    let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    value.ok_or_else(|| {
        let name = on_one_line(name);
        (format!("the variable `{name}` is not set"), format!("set {name} to a token of its host"))
    })
}

/// Reads a token from a file that nobody else may read, as ssh reads a key.
fn of_file(path: &Path) -> ReadToken {
    let shown = path.display();
    let see = || format!("put a token of its host into {shown}, and nothing else");
    let cannot = |error: std::io::Error| (format!("{shown} cannot be read: {error}"), see());
    let found = fs::metadata(path).map_err(cannot)?;
    // A pipe or a device may have no end.
    if !found.is_file() {
        return Err((format!("{shown} is not a file"), see()));
    }
    if found.permissions().mode() & 0o077 != 0 {
        let wrong = format!("other users of this machine may read {shown}");
        return Err((wrong, format!("chmod 600 {shown}, and make another token if they have")));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err((format!("{shown} has more than {TOKEN_FILE_BYTES_MAX} bytes"), see()));
    }
    if text.trim().is_empty() {
        return Err((format!("{shown} is empty"), see()));
    }
    Ok(text)
}
