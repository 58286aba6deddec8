//! A JSON Schema (2020-12), as far as it says plainly what values are.
//!
//! The rest of a schema, with `if`, `allOf` and the like, only makes fewer values fit. So the types
//! that are returned here are never too few. Where something cannot be known, the answer says so.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::kinds::Kinds;
use super::mark::PERSONAL_MARK;

/// The most nested schemas that are looked at. This also ends circles of `$ref`s.
pub(super) const DEPTH_MAX: usize = 8;

/// The most alternatives and listed values that are looked at to find the kinds of a value.
/// Alternatives that refer to each other can be very many. After this, a value may have any kind.
const ALTERNATIVES_MAX: usize = 1_000;

/// The most alternatives of an optional value, which are usually two: the value and null.
const OPTIONAL_MAX: usize = 8;

/// Keywords that are for people, or hold schemas that others refer to. They may stand beside a
/// `$ref` without changing its meaning.
const WITHOUT_MEANING: [&str; 14] = [
    "$ref",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    PERSONAL_MARK,
];

/// Keywords that may describe properties that `properties` does not name.
const DESCRIBING_ELSEWHERE: [&str; 12] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "unevaluatedProperties",
    "$dynamicRef",
];

/// One schema within its document.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'s> {
    document: &'s Value,
    /// The schema, after following its `$ref`s.
    here: &'s Value,
    /// True when this is only a part of the schema: something stands beside a `$ref`, or a `$ref`
    /// leads nowhere.
    is_part: bool,
}

/// What a schema says of one property.
#[derive(Debug, Clone)]
pub(super) enum Property<'s> {
    /// The property has this schema.
    Described(Schema<'s>),
    /// The property is not described. When closed, there are no other properties than the described
    /// ones.
    Undescribed { is_closed: bool },
    /// Nothing is known of the property.
    Unknown,
}

impl<'s> Schema<'s> {
    /// Returns the schema that a whole document is.
    #[must_use]
    pub fn new(document: &'s Value) -> Self {
        Self { document, here: document, is_part: false }.at(document)
    }

    /// Returns a schema of the same document, with its `$ref`s followed.
    fn at(self, mut schema: &'s Value) -> Self {
        let mut is_part = false;
        for _ in 0..DEPTH_MAX {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let keys = schema.as_object().into_iter().flat_map(Map::keys);
            is_part |= keys.into_iter().any(|key| !WITHOUT_MEANING.contains(&key.as_str()));
            let target = reference.strip_prefix('#').and_then(|path| self.document.pointer(path));
            let Some(target) = target else { break };
            schema = target;
        }
        is_part |= schema.get("$ref").is_some();
        Self { document: self.document, here: schema, is_part }
    }

    /// Returns the document that the schema is in.
    pub(super) fn document(self) -> &'s Value {
        self.document
    }

    /// Returns the schema as JSON.
    pub(super) fn value(self) -> &'s Value {
        self.here
    }

    /// Returns the names of the properties that a value must have.
    pub(crate) fn required(self) -> impl Iterator<Item = &'s str> {
        let required = self.here.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the names of the properties that the schema describes.
    pub fn names(self) -> impl Iterator<Item = &'s str> {
        self.properties().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// Returns the schemas of the properties.
    pub(super) fn properties(self) -> Option<&'s Map<String, Value>> {
        self.here.get("properties")?.as_object()
    }

    /// Returns the schema of a property.
    pub(super) fn property(self, name: &str) -> Option<Self> {
        self.properties()?.get(name).map(|schema| self.at(schema))
    }

    /// Returns the schema of the elements of a list, when all elements have the same.
    pub(super) fn elements(self) -> Option<Self> {
        let items = self.here.get("items").filter(|_| self.here.get("prefixItems").is_none());
        items.map(|schema| self.at(schema))
    }

    /// Returns true when a value may have this property.
    #[must_use]
    pub(crate) fn takes(self, name: &str) -> bool {
        let is_closed = self.here.get("additionalProperties") == Some(&Value::Bool(false));
        let has_patterns = self.here.get("patternProperties").is_some();
        !is_closed || has_patterns || self.properties().is_some_and(|all| all.contains_key(name))
    }

    /// Returns true when only `properties` describes properties.
    pub(super) fn is_whole(self) -> bool {
        !self.is_part && DESCRIBING_ELSEWHERE.iter().all(|key| self.here.get(key).is_none())
    }

    /// Returns what the schema says of a property of an object.
    pub(super) fn look_up(self, name: &str) -> Property<'s> {
        self.look_up_within(name, DEPTH_MAX)
    }

    /// The same, through at most `depth` nested schemas.
    fn look_up_within(self, name: &str, depth: usize) -> Property<'s> {
        let Some(deeper) = depth.checked_sub(1) else { return Property::Unknown };
        if let Some(property) = self.property(name) {
            return Property::Described(property);
        }
        if let Some(only) = self.only_object() {
            return only.look_up_within(name, deeper);
        }
        if !self.is_whole() {
            return Property::Unknown;
        }
        match (self.here.get("additionalProperties"), self.properties()) {
            (Some(Value::Bool(false)), _) => Property::Undescribed { is_closed: true },
            (None, Some(_)) => Property::Undescribed { is_closed: false },
            (_, _) => Property::Unknown,
        }
    }

    /// Returns the only alternative that is an object, for an optional value such as
    /// `anyOf: [{$ref: …}, {type: null}]`.
    fn only_object(self) -> Option<Self> {
        let alternatives = ["anyOf", "oneOf"].into_iter().find_map(|key| self.here.get(key))?;
        let only_they = |key: &String| {
            ["anyOf", "oneOf"].contains(&key.as_str()) || WITHOUT_MEANING.contains(&key.as_str())
        };
        if self.is_part || !self.here.as_object()?.keys().all(only_they) {
            return None;
        }
        let alternatives = alternatives.as_array().filter(|all| all.len() <= OPTIONAL_MAX)?;
        let alternatives = alternatives.iter().map(|schema| self.at(schema));
        let mut objects = alternatives.filter(|schema| schema.kinds().intersects(Kinds::OBJECT));
        objects.next().filter(|_| objects.next().is_none())
    }

    /// Returns the names that [`Self::look_up`] finds.
    pub(super) fn known_names(self) -> Vec<&'s str> {
        self.only_object().unwrap_or(self).names().collect()
    }

    /// Returns the kinds of values that may fit.
    pub(super) fn kinds(self) -> Kinds {
        let mut left = ALTERNATIVES_MAX;
        self.kinds_within(DEPTH_MAX, &mut left)
    }

    /// The same, through at most `depth` nested schemas and `left` alternatives and listed values.
    fn kinds_within(self, depth: usize, left: &mut usize) -> Kinds {
        let Some(deeper) = depth.checked_sub(1) else { return Kinds::JSON };
        let mut kinds = self.types().map_or(Kinds::JSON, |types| {
            types.into_iter().fold(Kinds::NONE, |kinds, one| kinds.or(kind_of_word(one)))
        });
        if let Some(value) = self.here.get("const") {
            kinds = kinds.and(Kinds::of(value));
        }
        if let Some(values) = self.here.get("enum").and_then(Value::as_array)
            && spend(left, values.len())
        {
            kinds = kinds.and(values.iter().map(Kinds::of).fold(Kinds::NONE, Kinds::or));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(alternatives) = self.here.get(key).and_then(Value::as_array)
                && spend(left, alternatives.len())
            {
                let each = alternatives.iter().map(|one| self.at(one).kinds_within(deeper, left));
                kinds = kinds.and(each.fold(Kinds::NONE, Kinds::or));
            }
        }
        kinds
    }

    /// Returns the types that the schema allows; none when it does not say.
    pub(super) fn types(self) -> Option<BTreeSet<&'s str>> {
        match self.here.get("type")? {
            Value::String(one) => Some(BTreeSet::from([one.as_str()])),
            Value::Array(several) => Some(several.iter().filter_map(Value::as_str).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }
}

/// Counts `count` more. Returns false, and counts nothing, when fewer are left.
fn spend(left: &mut usize, count: usize) -> bool {
    let rest = left.checked_sub(count);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// Returns the kinds of a type of JSON Schema.
fn kind_of_word(word: &str) -> Kinds {
    match word {
        "null" => Kinds::NULL,
        "boolean" => Kinds::BOOL,
        // A number such as 3.0 is an integer.
        "integer" | "number" => Kinds::NUMBER,
        "string" => Kinds::TEXT,
        "array" => Kinds::LIST,
        "object" => Kinds::OBJECT,
        _ => Kinds::JSON,
    }
}
