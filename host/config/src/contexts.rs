//! The contexts of the command line: the hosts that a person works with, by name.
//!
//! The file is read by the same rules as the config of a host. It is another file, of the person who types.
//!
//! Deliberately absent: a token in the file itself. So the file may be shown, copied and kept with other settings.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use amends_engine::NamespaceName;

use crate::overrides::Environment;
use crate::parse;
use crate::report::{Place, Report, Severity};
use crate::source::Source;
use crate::table::{Context, Item, Table};

/// A name is at most this many bytes, as that of a token.
const NAME_BYTES_MAX: usize = 64;

const CONTEXT_HELP: &str =
    "write [context.production], and below it host = \"https://amends.example.com\"";

const TOKEN_HELP: &str = "write { file = \"production.token\" } or { env = \"NAME\" }: a token is never written into \
                          this file";

const USER_HELP: &str = "write a name in ASCII, on one line, such as \"ada\"";

/// The contexts of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contexts {
    /// The name of the context that verbs use when nothing else names one. The file may lack that context.
    pub current: Option<String>,
    /// The contexts, by name.
    pub named: BTreeMap<String, HostContext>,
    text: String,
    /// Where the name of the current one stands in the text, with its quotes.
    current_at: Option<Range<usize>>,
}

/// One context: a host, and who asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostContext {
    /// The address of the host, as it is written.
    pub host: String,
    /// Where the token for this host is.
    pub token: Option<TokenSource>,
    /// The name that is kept with orders.
    pub user: Option<String>,
    /// The namespace in which verbs work.
    pub namespace: Option<String>,
}

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// In this file. A relative path counts from the folder of the contexts; `~/` is the home of the user.
    File(String),
    /// In this variable of the environment.
    Variable(String),
}

impl Contexts {
    /// Returns the text of the file with another current context, whose name the file has. All else stays as it is.
    #[must_use]
    pub fn with_current(&self, name: &str) -> String {
        let mut text = self.text.clone();
        if let Some(span) = &self.current_at {
            text.replace_range(span.clone(), &format!("\"{name}\""));
        } else {
            // Keys of the top stand before the first table, and behind a byte order mark.
            let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
            text.insert_str(start, &format!("current_context = \"{name}\"\n"));
        }
        text
    }
}

/// Reads the contexts of a file.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines.
pub fn read_contexts(path: &Path) -> Result<Contexts, Report> {
    let source = Source::read(path)?;
    let document = parse(&source)?;
    let environment = Environment::default();
    let mut context = Context::new(&source, &environment, Severity::Error);
    let mut top = Table::new(String::new(), document.span(), document.get_ref());
    let current = top.take("current_context", &mut context);
    let named = top.take("context", &mut context);
    top.finish(&mut context);
    let current_at = current.as_ref().map(|item| item.span.clone());
    let current = current.and_then(|item| item.text(&mut context, "\"production\""));
    let contexts = Contexts {
        current: current.map(str::to_owned),
        named: named.map(|item| read_named(&item, &mut context)).unwrap_or_default(),
        text: source.text.clone(),
        current_at,
    };
    let (findings, _) = context.into_findings();
    if findings.is_empty() { Ok(contexts) } else { Err(Report::new(path, findings)) }
}

fn read_named(item: &Item<'_>, context: &mut Context<'_>) -> BTreeMap<String, HostContext> {
    let mut named = BTreeMap::new();
    let Some(table) = item.table(context, CONTEXT_HELP) else { return named };
    for (name, span, item) in table.entries(context) {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(is_plain) {
            let place = Place::At(context.source.position(&span));
            let help = format!("use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`");
            context.error(place, &item.key, "this cannot be the name of a context", help);
        }
        if let Some(one) = read_context(&item, context) {
            named.insert(name.to_owned(), one);
        }
    }
    named
}

fn read_context(item: &Item<'_>, context: &mut Context<'_>) -> Option<HostContext> {
    let mut table = item.table(context, CONTEXT_HELP)?;
    let host = table.require("host", "\"https://amends.example.com\"", context);
    let token = table.take("token", context);
    let user = table.take("user", context);
    let namespace = table.take("namespace", context);
    table.finish(context);
    let host = host.and_then(|item| item.text(context, "\"https://amends.example.com\""));
    let token = token.and_then(|item| read_token(&item, context));
    let user = user.and_then(|item| read_user(&item, context));
    let namespace = namespace.and_then(|item| item.name::<NamespaceName>(context, "shop"));
    let namespace = namespace.map(|name| name.to_string());
    Some(HostContext { host: host?.to_owned(), token, user, namespace })
}

fn read_token(item: &Item<'_>, context: &mut Context<'_>) -> Option<TokenSource> {
    let mut table = item.table(context, TOKEN_HELP)?;
    let variable = table.take("env", context);
    let file = table.take("file", context);
    let is_clean = table.finish(context);
    match (variable, file) {
        (Some(variable), None) => {
            let name = variable.text(context, "\"PRODUCTION_TOKEN\"")?;
            Some(TokenSource::Variable(name.to_owned()))
        }
        (None, Some(file)) => {
            let path = file.text(context, "\"production.token\"")?;
            Some(TokenSource::File(path.to_owned()))
        }
        (Some(_), Some(_)) => {
            item.error(context, "a token comes from one place, and two are named", TOKEN_HELP);
            None
        }
        (None, None) => {
            // A misspelt key was reported with what would be right.
            if is_clean {
                item.error(context, "nothing says where the token is", TOKEN_HELP);
            }
            None
        }
    }
}

/// Reads a name that a header can say (RFC 9110, 5.5).
fn read_user(item: &Item<'_>, context: &mut Context<'_>) -> Option<String> {
    let name = item.text(context, "\"ada\"")?;
    if name.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic()) {
        return Some(name.to_owned());
    }
    item.error(context, "a header cannot say this name", USER_HELP);
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    const FILE: &str = "# Mine.
current_context = \"staging\"   # until the test is over

[context.staging]
host = \"127.0.0.1:7070\"

[context.production]
host = \"https://amends.example.com\"
token = { file = \"~/.config/amends/production.token\" }
user = \"ada\"
namespace = \"shop\"

[context.remote-2]
host = \"https://two.example\"
token = { env = \"TWO\" }
";

    fn read(text: &str) -> Result<Contexts, Report> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        read_contexts(&path)
    }

    #[test]
    fn contexts_are_read() {
        let contexts = read(FILE).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("staging"));
        let names: Vec<_> = contexts.named.keys().map(String::as_str).collect();
        assert_eq!(names, ["production", "remote-2", "staging"]);
        let production = HostContext {
            host: "https://amends.example.com".to_owned(),
            token: Some(TokenSource::File("~/.config/amends/production.token".to_owned())),
            user: Some("ada".to_owned()),
            namespace: Some("shop".to_owned()),
        };
        assert_eq!(contexts.named["production"], production);
        let variable = TokenSource::Variable("TWO".to_owned());
        assert_eq!(contexts.named["remote-2"].token, Some(variable));
        assert_eq!(read("").unwrap(), Contexts::default());
    }

    #[test]
    fn another_context_becomes_the_current_one_and_all_else_stays() {
        let text = read(FILE).unwrap().with_current("production");
        let expected = FILE.replacen("\"staging\"", "\"production\"", 1);
        assert_eq!(text, expected);
        assert_eq!(read(&text).unwrap().current.as_deref(), Some("production"));
        let without = "[context.a]\nhost = \"a\"\n";
        let text = read(without).unwrap().with_current("a");
        assert_eq!(text, format!("current_context = \"a\"\n{without}"));
        assert_eq!(read(&text).unwrap().current.as_deref(), Some("a"));
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
        for (text, place, told) in [
            ("curent_context = \"a\"", ":1:1", "did you mean `current_context`?"),
            ("current_context = 7", ":1:19", "text belongs here"),
            ("context = \"a\"", ":1:11", "write [context.production]"),
            ("[context.a]", ":1:", "`host` is missing"),
            ("[context.a]\nhost = \"a\"\ntokn = {}", ":3:1", "did you mean `token`?"),
            ("[context.a]\nhost = \"a\"\ntoken = {}", ":3:9", "nothing says where the token is"),
            ("[context.a]\nhost = \"a\"\ntoken = { fil = \"a\" }", ":3:11", "did you mean `file`?"),
            (
                "[context.a]\nhost = \"a\"\ntoken = { file = \"a\", env = \"B\" }",
                ":3:9",
                "two are named",
            ),
            ("[context.a]\nhost = \"a\"\nuser = \"Zo\u{eb}\"", ":3:8", "a name in ASCII"),
            ("[context.\"a b\"]\nhost = \"a\"", ":1:", "the name of a context"),
            ("[context.a]\nhost = \"a\"\nnamespace = \"Shop\"", ":3:13", "such as `shop`"),
        ] {
            let report = read(text).unwrap_err().to_string();
            assert!(report.contains(place) && report.contains(told), "{text}: {report}");
        }
        let written = "[context.a]\nhost = \"a\"\ntoken = \"amends_secret\"";
        let report = read(written).unwrap_err().to_string();
        assert!(report.contains("never written into this file"), "{report}");
        assert!(!report.contains("amends_secret"), "{report}");
    }
}
