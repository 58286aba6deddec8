//! What a component says about itself, and how much it may say.
//!
//! The texts of a manifest stand in events, logs, tables and answers of every host of the store, for
//! as long as the store is there. So each has a limit, and none has a control character.

use amends_engine::{IdError, NAME_BYTES_MAX, PluginName, Schema, Schemas, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::component::schema;
use crate::error::Rejection;

/// Bytes of a version. What people write has some ten.
const VERSION_BYTES_MAX: usize = 64;

/// Bytes of a summary: one sentence.
const SUMMARY_BYTES_MAX: usize = 500;

/// Capabilities in `needs`: there are four.
const NEEDS_MAX: usize = 16;

/// Bytes of one of them.
const NEED_BYTES_MAX: usize = 32;

/// What a component says about itself.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence on what it does.
    pub summary: String,
    /// JSON Schema of the input of `execute`.
    pub input_schema: Value,
    /// JSON Schema of the output of `execute`.
    pub output_schema: Value,
    /// The service that it calls.
    pub service: Option<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
}

impl Manifest {
    /// The schemas, for whoever holds them against definitions.
    #[must_use]
    pub fn schemas(&self) -> Schemas<'_> {
        Schemas { input: Schema::new(&self.input_schema), output: Schema::new(&self.output_schema) }
    }
}

/// A manifest as the component answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Texts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
    pub(crate) input_schema: String,
    pub(crate) output_schema: String,
    pub(crate) service: Option<String>,
    pub(crate) needs: Vec<String>,
}

impl Texts {
    /// Holds each text against its limit, and reads the schemas.
    ///
    /// # Errors
    /// Which text is not usable, and what would be right.
    pub(crate) fn read(&self) -> Result<Manifest, Rejection> {
        let wrong = |why: String| Err(Rejection::Manifest(why));
        if self.name.is_empty() || self.version.is_empty() {
            return wrong("it has no name or no version".to_owned());
        }
        within("name", &self.name, NAME_BYTES_MAX)?;
        if self.name.parse::<PluginName>().is_err() {
            return wrong(not_a_name("name", &self.name));
        }
        within("version", &self.version, VERSION_BYTES_MAX)?;
        // Not all of SemVer's grammar: components that say `1.0` are in stores.
        let is_of_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if !self.version.chars().all(is_of_version) {
            let version = self.version.escape_debug();
            return wrong(format!(
                "`{version}` is not a version: write one such as 1.2.3 or 1.2.3-beta.1"
            ));
        }
        within("summary", &self.summary, SUMMARY_BYTES_MAX)?;
        if self.summary.chars().any(char::is_control) {
            return wrong("its summary has a control character: write one line of text".to_owned());
        }
        if let Some(service) = &self.service {
            within("service", service, NAME_BYTES_MAX)?;
            if service.parse::<ServiceName>().is_err() {
                return wrong(not_a_name("service", service));
            }
        }
        if self.needs.len() > NEEDS_MAX {
            let found = self.needs.len();
            return wrong(format!(
                "it needs {found} capabilities, at most {NEEDS_MAX} are allowed"
            ));
        }
        for need in &self.needs {
            within("need", need, NEED_BYTES_MAX)?;
            if need.chars().any(char::is_control) {
                return wrong("a need of it has a control character".to_owned());
            }
        }
        Ok(Manifest {
            name: self.name.clone(),
            version: self.version.clone(),
            summary: self.summary.clone(),
            input_schema: schema::parse(&self.input_schema, "input")?,
            output_schema: schema::parse(&self.output_schema, "output")?,
            service: self.service.clone(),
            needs: self.needs.clone(),
        })
    }
}

fn not_a_name(what: &str, text: &str) -> String {
    format!("of its {what}, {}", IdError::Name(text.escape_debug().to_string()))
}

fn within(what: &str, text: &str, bytes_max: usize) -> Result<(), Rejection> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    let bytes = text.len();
    let why = format!("its {what} has {bytes} bytes, at most {bytes_max} are allowed");
    Err(Rejection::Manifest(why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn texts() -> Texts {
        Texts {
            name: "test".to_owned(),
            version: "1.2.3-beta.1+7".to_owned(),
            summary: "Für Tests, „kurz“.".to_owned(),
            input_schema: "{}".to_owned(),
            output_schema: "true".to_owned(),
            service: Some("carrier".to_owned()),
            needs: vec!["state".to_owned()],
        }
    }

    #[test]
    fn each_text_has_a_limit_and_none_has_control_characters() {
        texts().read().unwrap();
        let longest = Texts {
            name: "n".repeat(63),
            version: "1".repeat(VERSION_BYTES_MAX),
            summary: "s".repeat(SUMMARY_BYTES_MAX),
            service: Some("s".repeat(63)),
            needs: vec!["n".repeat(NEED_BYTES_MAX); NEEDS_MAX],
            ..texts()
        };
        longest.read().unwrap();
        let refused = |texts: Texts, words: &str| {
            let rejection = texts.read().unwrap_err().to_string();
            assert!(rejection.contains(words), "{rejection}");
            assert!(rejection.len() < 1_000, "{} bytes", rejection.len());
            assert!(!rejection.contains('\u{1b}'), "{rejection:?}");
        };
        let long = || "1".repeat(1_900_000);
        refused(Texts { name: String::new(), ..texts() }, "it has no name or no version");
        refused(Texts { name: long(), ..texts() }, "its name has 1900000 bytes, at most 63");
        refused(Texts { name: "Not A Name".to_owned(), ..texts() }, "`Not A Name` is not a name");
        refused(Texts { version: long(), ..texts() }, "its version has 1900000 bytes, at most 64");
        let escape = "1\u{1b}[2J".to_owned();
        refused(
            Texts { version: escape.clone(), ..texts() },
            "is not a version: write one such as",
        );
        refused(Texts { summary: long(), ..texts() }, "its summary has 1900000 bytes, at most 500");
        refused(Texts { summary: escape.clone(), ..texts() }, "has a control character");
        refused(Texts { service: Some(long()), ..texts() }, "its service has 1900000 bytes");
        refused(Texts { service: Some(escape.clone()), ..texts() }, "is not a name");
        refused(Texts { service: Some("a b".to_owned()), ..texts() }, "`a b` is not a name");
        refused(Texts { needs: vec![long()], ..texts() }, "its need has 1900000 bytes, at most 32");
        refused(Texts { needs: vec![escape], ..texts() }, "has a control character");
        let many = vec!["state".to_owned(); NEEDS_MAX + 1];
        refused(Texts { needs: many, ..texts() }, "it needs 17 capabilities, at most 16");
    }
}
