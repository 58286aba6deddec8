//! Reads tables of a config key by key, and collects what is wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use amends_api_types::parse_duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::overrides::Environment;
use crate::report::{Finding, Place, Position, Severity};
use crate::size::parse_size;
use crate::source::Source;
use crate::suggest::{list, nearest};

/// Findings that are told, errors and warnings apart. Nobody reads more, and a file that is no config
/// has one in every few bytes.
pub(super) const FINDINGS_MAX: usize = 1_000;

/// Words that are looked for among what is known. Each takes up to a millisecond.
const SUGGESTIONS_MAX: usize = 100;

/// Characters of one name in a key that are told: more than a name may have.
const NAME_SHOWN_CHARS: usize = 80;

/// Characters of a message and of its help that are told: both may have a text of the file in them.
const MESSAGE_SHOWN_CHARS: usize = 1_000;

/// What the reading of one file shares.
pub(super) struct Context<'a> {
    pub(super) source: &'a Source,
    pub(super) environment: &'a Environment,
    /// How bad it is that a secret is not there.
    pub(super) lacking_secrets: Severity,
    pub(super) findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    suggestions: usize,
    pub(super) places: Places,
    /// The folder, beside the file, of what is not said elsewhere. With its last `/`; empty at the top of the file.
    home: String,
}

/// Where each key stands that was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(BTreeMap<String, Position>);

impl Places {
    /// Of this key, or of the table that it would be in.
    pub(super) fn of(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(position) = self.0.get(key) {
                return Place::At(*position);
            }
            let Some((table, _)) = key.rsplit_once('.') else { return Place::File };
            key = table;
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(
        source: &'a Source,
        environment: &'a Environment,
        lacking_secrets: Severity,
    ) -> Self {
        let (findings, places) = (Vec::new(), Places::default());
        let (errors, warnings, suggestions, home) = (0, 0, 0, String::new());
        Self {
            source,
            environment,
            lacking_secrets,
            findings,
            errors,
            warnings,
            suggestions,
            places,
            home,
        }
    }

    /// Reads a table as if it were a file of its own: keys count from it, and what is not said is in `home`, a folder
    /// beside the file. Findings get the whole key, and the place of the table where they have none. Returns what was
    /// found without that, and where the keys of the table stand.
    pub(super) fn within<T>(
        &mut self,
        table: &Item<'_>,
        home: String,
        read: impl FnOnce(&mut Self) -> T,
    ) -> (T, Vec<Finding>, Places) {
        let (outer, count) = (std::mem::take(&mut self.places), self.findings.len());
        let outer_home = std::mem::replace(&mut self.home, home);
        let value = read(self);
        self.home = outer_home;
        let places = std::mem::replace(&mut self.places, outer);
        let place = table.place(self);
        let mut found = Vec::new();
        for finding in self.findings.iter_mut().skip(count) {
            found.push(finding.clone());
            finding.put_below(&table.key, place);
        }
        (value, found, places)
    }

    /// The path of what is not said elsewhere.
    pub(super) fn default_path(&self, path: &str) -> PathBuf {
        self.source.resolve(&format!("{}{path}", self.home))
    }

    /// A secret is not there.
    pub(super) fn lacks_secret(
        &mut self,
        item: &Item<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = item.place(self);
        self.add(self.lacking_secrets, place, &item.key, message.into(), help.into());
    }

    /// Something stops the host.
    pub(super) fn error(
        &mut self,
        place: Place,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, place, key, message.into(), help.into());
    }

    /// Something is worth knowing.
    pub(super) fn warn(
        &mut self,
        place: Place,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, place, key, message.into(), help.into());
    }

    fn add(&mut self, severity: Severity, place: Place, key: &str, message: String, help: String) {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count > FINDINGS_MAX {
            return;
        }
        let shortened = |text| shortened(text, MESSAGE_SHOWN_CHARS);
        let (key, message, help) = (key.to_owned(), shortened(message), shortened(help));
        self.findings.push(Finding { severity, place, key, message, help });
    }

    /// What was found, and how much more there is.
    pub(super) fn into_findings(self) -> (Vec<Finding>, Places) {
        let mut findings = self.findings;
        for (severity, count) in
            [(Severity::Error, self.errors), (Severity::Warning, self.warnings)]
        {
            if count > FINDINGS_MAX {
                findings.push(Finding {
                    severity,
                    place: Place::File,
                    key: String::new(),
                    message: format!("{count} findings, and the first {FINDINGS_MAX} are told"),
                    help: "is it a config? Mend those first".to_owned(),
                });
            }
        }
        (findings, self.places)
    }

    /// The candidate that is nearest to `word`, as [`nearest`] finds it; for the first words only.
    pub(super) fn nearest<'c>(
        &mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<&'c str> {
        self.suggestions += 1;
        if self.suggestions > SUGGESTIONS_MAX { None } else { nearest(word, candidates) }
    }

    /// `did you mean `x`?` when something is near, else `otherwise`.
    pub(super) fn did_you_mean<'c>(
        &mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
        otherwise: impl FnOnce() -> String,
    ) -> String {
        let near = self.nearest(word, candidates);
        near.map_or_else(otherwise, |near| format!("did you mean `{near}`?"))
    }

    /// Keeps the place of a key for what is found later.
    pub(super) fn remember(&mut self, key: &str, span: &Range<usize>) {
        let position = self.source.position(span);
        self.places.0.entry(key.to_owned()).or_insert(position);
    }
}

/// One value of the file.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    /// From the top of the file.
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

/// One table of the file, being read.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// From the top of the file; empty at the top.
    pub(super) key: String,
    pub(super) span: Range<usize>,
    entries: &'a DeTable<'a>,
    known: BTreeSet<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(key: String, span: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Self { key, span, entries, known: BTreeSet::new() }
    }

    /// The value of a key, if it is there. Each key that may be there is taken, whatever the
    /// others say: [`Self::finish`] reports those that were not.
    pub(super) fn take(
        &mut self,
        name: &'static str,
        context: &mut Context<'_>,
    ) -> Option<Item<'a>> {
        self.known.insert(name);
        let value = self.entries.get(name)?;
        let item = Item { key: join(&self.key, name), span: value.span(), value: value.get_ref() };
        context.remember(&item.key, &item.span);
        Some(item)
    }

    /// The value of a key that must be there.
    pub(super) fn require(
        &mut self,
        name: &'static str,
        example: &str,
        context: &mut Context<'_>,
    ) -> Option<Item<'a>> {
        let item = self.take(name, context);
        if item.is_none() {
            context.error(
                Place::At(context.source.position(&self.span)),
                &join(&self.key, name),
                format!("`{name}` is missing"),
                format!("add {name} = {example}"),
            );
        }
        item
    }

    /// Every key with its value, for tables whose keys are names.
    pub(super) fn entries(
        &self,
        context: &mut Context<'_>,
    ) -> Vec<(&'a str, Range<usize>, Item<'a>)> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for (name, value) in self.entries {
            let key = join(&self.key, name.get_ref());
            context.remember(&key, &value.span());
            let item = Item { key, span: value.span(), value: value.get_ref() };
            entries.push((name.get_ref().as_ref(), name.span(), item));
        }
        entries
    }

    /// Reports the keys that nobody asked for; true when there are none.
    pub(super) fn finish(self, context: &mut Context<'_>) -> bool {
        let mut is_clean = true;
        for name in self.entries.keys() {
            let text = name.get_ref().as_ref();
            if self.known.contains(text) {
                continue;
            }
            is_clean = false;
            let known = || self.known.iter().copied();
            let place = Place::At(context.source.position(&name.span()));
            let otherwise = || format!("the keys here are {}", list(known()));
            let help = context.did_you_mean(text, known(), otherwise);
            context.error(place, &join(&self.key, text), format!("there is no key `{text}`"), help);
        }
        is_clean
    }
}

/// The text, or the beginning of it and `…`.
fn shortened(text: String, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// The key of a value in a table: bare where TOML lets it be, else quoted.
pub(super) fn join(table: &str, name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_plain = !name.is_empty() && name.chars().all(is_bare);
    // What is in a table has its name in its key: in all of them it would be many times the file.
    let name = shortened(name.to_owned(), NAME_SHOWN_CHARS);
    let name = if is_plain { name } else { format!("{name:?}") };
    if table.is_empty() { name } else { format!("{table}.{name}") }
}

impl<'a> Item<'a> {
    pub(super) fn place(&self, context: &Context<'_>) -> Place {
        Place::At(context.source.position(&self.span))
    }

    /// Reports this value.
    pub(super) fn error(
        &self,
        context: &mut Context<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        context.error(self.place(context), &self.key, message, help);
    }

    /// The value is not of the type that belongs here. Never says the value: it may be a secret.
    pub(super) fn wrong_type(&self, context: &mut Context<'_>, wanted: &str, help: &str) {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(context, format!("this is {found}; {wanted} belongs here"), help);
    }

    pub(super) fn text(&self, context: &mut Context<'_>, example: &str) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(context, "text", &format!("write text in quotes, such as {example}"));
        }
        text
    }

    pub(super) fn bool(&self, context: &mut Context<'_>) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type(context, "true or false", "write true or false, without quotes");
        }
        value
    }

    /// A whole number in `range`.
    pub(super) fn whole(
        &self,
        context: &mut Context<'_>,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let Some(integer) = self.value.as_integer() else {
            let help = format!("write a number from {} to {}", range.start(), range.end());
            self.wrong_type(context, "a whole number", &help);
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.error(
                context,
                format!("{integer} is out of range"),
                format!("write a number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    /// Any number.
    pub(super) fn number(&self, context: &mut Context<'_>, example: &str) -> Option<f64> {
        let number = match self.value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => {
                i32::from_str_radix(integer.as_str(), integer.radix()).ok().map(f64::from)
            }
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if number.is_none() {
            self.wrong_type(context, "a number", &format!("write a number such as {example}"));
        }
        number
    }

    pub(super) fn duration(&self, context: &mut Context<'_>, example: &str) -> Option<Duration> {
        let help = format!("write a whole number and ms, s, m, h or d, such as \"{example}\"");
        let Some(text) = self.value.as_str() else {
            self.wrong_type(context, "a duration", &help);
            return None;
        };
        let duration = parse_duration(text).ok();
        if duration.is_none() {
            self.error(context, format!("`{text}` is not a duration"), help);
        }
        duration
    }

    pub(super) fn size(&self, context: &mut Context<'_>, example: &str) -> Option<u64> {
        let help = format!("write a whole number and B, KiB, MiB or GiB, such as \"{example}\"");
        let Some(text) = self.value.as_str() else {
            self.wrong_type(context, "a size", &help);
            return None;
        };
        let size = parse_size(text);
        if size.is_none() {
            self.error(context, format!("`{text}` is not a size"), help);
        }
        size
    }

    /// A name of the engine's rules: `a-z`, `0-9`, `-` and `_`.
    pub(super) fn name<N: FromStr>(&self, context: &mut Context<'_>, example: &str) -> Option<N>
    where
        N::Err: Display,
    {
        let text = self.text(context, &format!("\"{example}\""))?;
        check_name(text, &self.key, self.place(context), context)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &self,
        context: &mut Context<'_>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let texts = || words.iter().map(|(word, _)| *word);
        let text = self.text(context, &format!("\"{}\"", words[0].0))?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = format!("write one of {}", list(texts()));
            self.error(context, format!("`{text}` is none of the words that belong here"), help);
        }
        found
    }

    pub(super) fn table(&self, context: &mut Context<'_>, help: &str) -> Option<Table<'a>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.wrong_type(context, "a table", help);
        }
        table.map(|table| Table::new(self.key.clone(), self.span.clone(), table))
    }

    pub(super) fn list(&self, context: &mut Context<'_>, help: &str) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type(context, "a list", help);
            return None;
        };
        Some(
            array
                .iter()
                .enumerate()
                .map(|(index, value)| self.element(index, value, context))
                .collect(),
        )
    }

    fn element(
        &self,
        index: usize,
        value: &'a Spanned<DeValue<'a>>,
        context: &mut Context<'_>,
    ) -> Item<'a> {
        let key = format!("{}[{index}]", self.key);
        context.remember(&key, &value.span());
        Item { key, span: value.span(), value: value.get_ref() }
    }
}

/// Checks a name of the engine's rules.
pub(super) fn check_name<N: FromStr>(
    text: &str,
    key: &str,
    place: Place,
    context: &mut Context<'_>,
) -> Option<N> {
    let name = text.parse().ok();
    if name.is_none() {
        let plain: String = text
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect();
        let plain = plain.trim_matches(|c| c == '-' || c == '_').to_owned();
        let such =
            if plain.parse::<N>().is_ok() { format!(", such as `{plain}`") } else { String::new() };
        context.error(
            place,
            key,
            format!("`{text}` is not a name"),
            format!(
                "use 1 to {} of a-z, 0-9, `-` and `_`, beginning with a letter or digit{such}",
                amends_engine::NAME_BYTES_MAX
            ),
        );
    }
    name
}
