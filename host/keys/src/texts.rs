//! The personal texts of a saga, and where else they stand.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::json::{Rewrite, decoded, rewrite};

/// The shortest text that is looked for elsewhere, in bytes. A shorter one is in many texts by chance.
pub(crate) const TEXT_BYTES_MIN: usize = 4;

/// The most texts that are looked for. In a saga that has more, every payload and every message is
/// sealed as a whole.
pub(crate) const TEXTS_MAX: usize = 256;

/// The bytes of a long text that are looked for: the host's own errors are cut, and a text that is cut
/// begins as the whole one does.
const TEXT_BYTES_LOOKED_FOR: usize = 64;

/// The personal texts of a saga.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    found: BTreeSet<String>,
    /// There are more than [`TEXTS_MAX`].
    are_too_many: bool,
}

impl Texts {
    /// Takes the texts and numbers at these paths of a payload.
    pub(crate) fn gather(&mut self, json: &str, paths: &[&[String]]) {
        if !paths.is_empty() && !self.are_too_many {
            let _ = rewrite(json, "", &mut Gather { texts: self, paths });
        }
    }

    fn add(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_LOOKED_FOR)];
        if text.len() < TEXT_BYTES_MIN || self.found.contains(text) {
            return;
        }
        // As JSON writes it, too: the host's own errors show values like that.
        if let Ok(written) = serde_json::to_string(text)
            && written.len() > text.len() + 2
        {
            self.found.insert(written[1..written.len() - 1].to_owned());
        }
        self.found.insert(text.to_owned());
        self.are_too_many = self.found.len() > TEXTS_MAX;
    }

    /// Takes a number, as it is written and as the host writes it.
    fn add_number(&mut self, json: &str) {
        self.add(json);
        if let Ok(number) = serde_json::from_str::<serde_json::Number>(json) {
            self.add(&number.to_string());
        }
    }

    pub(crate) const fn are_too_many(&self) -> bool {
        self.are_too_many
    }

    /// Returns true when a text has a personal text in it.
    pub(crate) fn are_in(&self, text: &str) -> bool {
        self.are_too_many
            || self.found.iter().any(|one| one.len() <= text.len() && text.contains(one.as_str()))
    }

    /// Returns true when a JSON number is a personal one.
    pub(crate) fn is_number(&self, json: &str) -> bool {
        json.len() >= TEXT_BYTES_MIN && self.found.contains(json)
    }
}

struct Gather<'t, 'p> {
    texts: &'t mut Texts,
    paths: &'p [&'p [String]],
}

impl Rewrite for Gather<'_, '_> {
    fn value(&mut self, _: &str, fields: &[Cow<'_, str>], json: &str) -> Option<String> {
        let is_in = |path: &&[String]| {
            fields.len() >= path.len() && path.iter().zip(fields).all(|(one, is)| one == is)
        };
        if self.paths.iter().any(is_in) {
            match json.as_bytes().first() {
                Some(b'"') => self.texts.add(&decoded(json)),
                Some(b'-' | b'0'..=b'9') => self.texts.add_number(json),
                Some(_) | None => {}
            }
        }
        None
    }

    fn object_of(&mut self, _: &str, _: &str, _: &str) -> Option<String> {
        None
    }
}
