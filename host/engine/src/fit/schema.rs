//! A JSON Schema (2020-12), as far as it says plainly what values are.
//!
//! What a schema says otherwise, with `if`, `allOf` and the like, only makes fewer values fit. So
//! the types that are answered here are never too few; where something cannot be known, the answer
//! is that it is not known.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::kinds::Kinds;

/// Schemas within one another that are looked at. A circle of `$ref`s ends here.
pub(super) const DEPTH_MAX: usize = 8;

/// Alternatives and listed values that are looked at to say of what kind a value is. Alternatives that
/// refer to one another make very many. What comes after them may be of any kind.
const ALTERNATIVES_MAX: usize = 1_000;

/// Alternatives of a value that may be absent: what it is, and null.
const OPTIONAL_MAX: usize = 8;

/// Keywords that only say something to people, or hold schemas that others refer to. They may stand
/// beside a `$ref` without changing what it means.
const ASIDE: [&str; 13] = [
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
];

/// Keywords that may describe properties which `properties` does not name.
const ELSEWHERE: [&str; 12] = [
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

/// A schema in its document.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'s> {
    document: &'s Value,
    /// With `$ref`s followed.
    here: &'s Value,
    /// Something stands beside a `$ref`, or one leads nowhere.
    is_part: bool,
}

/// What a schema says of one property.
#[derive(Debug, Clone)]
pub(super) enum Property<'s> {
    Described(Schema<'s>),
    /// It is not one of those that are described. Closed: no other is there.
    Undescribed {
        is_closed: bool,
    },
    /// Nothing can be said of it.
    Unknown,
}

impl<'s> Schema<'s> {
    /// The schema that a document is.
    #[must_use]
    pub fn new(document: &'s Value) -> Self {
        Self { document, here: document, is_part: false }.at(document)
    }

    fn at(self, mut schema: &'s Value) -> Self {
        let mut is_part = false;
        for _ in 0..DEPTH_MAX {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let keys = schema.as_object().into_iter().flat_map(Map::keys);
            is_part |= keys.into_iter().any(|key| !ASIDE.contains(&key.as_str()));
            let target = reference.strip_prefix('#').and_then(|path| self.document.pointer(path));
            let Some(target) = target else { break };
            schema = target;
        }
        is_part |= schema.get("$ref").is_some();
        Self { document: self.document, here: schema, is_part }
    }

    pub(super) fn value(self) -> &'s Value {
        self.here
    }

    /// The properties that must be there.
    pub fn required(self) -> impl Iterator<Item = &'s str> {
        let required = self.here.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The properties that it describes.
    pub fn names(self) -> impl Iterator<Item = &'s str> {
        self.properties().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    pub(super) fn properties(self) -> Option<&'s Map<String, Value>> {
        self.here.get("properties")?.as_object()
    }

    pub(super) fn property(self, name: &str) -> Option<Self> {
        self.properties()?.get(name).map(|schema| self.at(schema))
    }

    /// What the elements of a list are, when all of them are alike.
    pub(super) fn elements(self) -> Option<Self> {
        let items = self.here.get("items").filter(|_| self.here.get("prefixItems").is_none());
        items.map(|schema| self.at(schema))
    }

    /// Whether it takes this property.
    #[must_use]
    pub fn takes(self, name: &str) -> bool {
        let is_closed = self.here.get("additionalProperties") == Some(&Value::Bool(false));
        let has_patterns = self.here.get("patternProperties").is_some();
        !is_closed || has_patterns || self.properties().is_some_and(|all| all.contains_key(name))
    }

    /// Whether `properties` is all that it says of properties.
    pub(super) fn is_whole(self) -> bool {
        !self.is_part && ELSEWHERE.iter().all(|key| self.here.get(key).is_none())
    }

    /// What it says of the property `name` of a value that is an object.
    pub(super) fn look_up(self, name: &str) -> Property<'s> {
        self.look_up_within(name, DEPTH_MAX)
    }

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

    /// Of a value that may be absent, such as `anyOf: [{$ref: …}, {type: null}]`, the alternative
    /// that is an object.
    fn only_object(self) -> Option<Self> {
        let alternatives = ["anyOf", "oneOf"].into_iter().find_map(|key| self.here.get(key))?;
        let only_they = |key: &String| {
            ["anyOf", "oneOf"].contains(&key.as_str()) || ASIDE.contains(&key.as_str())
        };
        if self.is_part || !self.here.as_object()?.keys().all(only_they) {
            return None;
        }
        let alternatives = alternatives.as_array().filter(|all| all.len() <= OPTIONAL_MAX)?;
        let alternatives = alternatives.iter().map(|schema| self.at(schema));
        let mut objects = alternatives.filter(|schema| schema.kinds().intersects(Kinds::OBJECT));
        objects.next().filter(|_| objects.next().is_none())
    }

    /// The names that [`Self::look_up`] would find.
    pub(super) fn known_names(self) -> Vec<&'s str> {
        self.only_object().unwrap_or(self).names().collect()
    }

    /// The kinds of values that may fit.
    pub(super) fn kinds(self) -> Kinds {
        let mut left = ALTERNATIVES_MAX;
        self.kinds_within(DEPTH_MAX, &mut left)
    }

    /// `left`: so many alternatives and listed values may still be looked at.
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

    /// The types that it takes; none when it does not say.
    pub(super) fn types(self) -> Option<BTreeSet<&'s str>> {
        match self.here.get("type")? {
            Value::String(one) => Some(BTreeSet::from([one.as_str()])),
            Value::Array(several) => Some(several.iter().filter_map(Value::as_str).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }
}

/// Counts so many more, when so many are left.
fn spend(left: &mut usize, count: usize) -> bool {
    let rest = left.checked_sub(count);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

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
