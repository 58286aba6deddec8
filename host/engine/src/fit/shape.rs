//! Shapes: what is known of a value before it is computed.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::kinds::Kinds;
use super::schema::{Property, Schema};

/// What is known of a value.
#[derive(Debug, Clone)]
pub(super) struct Shape<'s> {
    /// The kinds that the value may have.
    pub(super) kinds: Kinds,
    /// What the value contains.
    pub(super) contents: Contents<'s>,
}

/// What is known of the contents of a value.
#[derive(Debug, Clone)]
pub(super) enum Contents<'s> {
    /// Nothing is known.
    Unknown,
    /// The value fits this schema, if it is not null.
    Schema(Schema<'s>),
    /// The value is a list, and each element has these contents and kinds.
    Elements(Rc<Self>, Kinds),
    /// The value is an object with exactly these fields.
    Fields(Rc<BTreeMap<String, Shape<'s>>>),
}

/// The result of looking up a field of a value.
#[derive(Debug)]
pub(super) enum FieldLookup<'s> {
    /// The field has this shape.
    Is(Shape<'s>),
    /// Nothing is known of the field.
    Unknown,
    /// The field is not among the known names. When certain, there is no such field; else nothing
    /// says that there is one.
    Missing { is_certain: bool, names: Vec<String> },
    /// The value is not an object.
    OfNoObject,
}

impl<'s> Shape<'s> {
    /// Returns the shape of which nothing is known.
    pub(super) const fn any() -> Self {
        Self::of(Kinds::ANY)
    }

    /// Returns the shape of values of some kinds.
    pub(super) const fn of(kinds: Kinds) -> Self {
        Self { kinds, contents: Contents::Unknown }
    }

    /// Returns the shape of values of a schema.
    pub(super) fn of_schema(schema: Schema<'s>) -> Self {
        Self { kinds: schema.kinds(), contents: Contents::Schema(schema) }
    }

    /// Returns the shape of a list.
    pub(super) fn list(element: Self) -> Self {
        let contents = Contents::Elements(Rc::new(element.contents), element.kinds);
        Self { kinds: Kinds::LIST, contents }
    }

    /// Returns the shape of an object with exactly these fields.
    pub(super) fn object(fields: BTreeMap<String, Self>) -> Self {
        Self { kinds: Kinds::OBJECT, contents: Contents::Fields(Rc::new(fields)) }
    }

    /// Returns the shape of the same value or null.
    pub(super) fn or_null(mut self) -> Self {
        self.kinds = self.kinds.or(Kinds::NULL);
        self
    }

    /// Returns the shape of a value that has one shape or the other.
    pub(super) fn or(self, other: Self) -> Self {
        let kinds = self.kinds.or(other.kinds);
        // Null has no contents, so the contents of the other stay true.
        let contents = if other.kinds == Kinds::NULL {
            self.contents
        } else if self.kinds == Kinds::NULL {
            other.contents
        } else {
            Contents::Unknown
        };
        Self { kinds, contents }
    }

    /// Looks up a field.
    pub(super) fn field(&self, name: &str) -> FieldLookup<'s> {
        if !self.kinds.intersects(Kinds::OBJECT.or(Kinds::OTHER)) {
            return FieldLookup::OfNoObject;
        }
        match &self.contents {
            Contents::Unknown | Contents::Elements(..) => FieldLookup::Unknown,
            Contents::Fields(fields) => match fields.get(name) {
                Some(field) => FieldLookup::Is(field.clone()),
                None => FieldLookup::Missing {
                    is_certain: true,
                    names: fields.keys().cloned().collect(),
                },
            },
            Contents::Schema(schema) => match schema.look_up(name) {
                Property::Described(property) => FieldLookup::Is(Self::of_schema(property)),
                Property::Undescribed { is_closed } => {
                    let names = schema.known_names().into_iter().map(str::to_owned).collect();
                    FieldLookup::Missing { is_certain: is_closed, names }
                }
                Property::Unknown => FieldLookup::Unknown,
            },
        }
    }

    /// Returns the shape of an element, if the value is a list.
    pub(super) fn element(&self) -> Self {
        match &self.contents {
            Contents::Elements(contents, kinds) => {
                Self { kinds: *kinds, contents: (**contents).clone() }
            }
            Contents::Schema(schema) => schema.elements().map_or_else(Self::any, Self::of_schema),
            Contents::Unknown | Contents::Fields(_) => Self::any(),
        }
    }

    /// Returns the shape of what a macro such as `map` visits: the elements of a list, or the keys
    /// of an object.
    pub(super) fn visited(&self) -> Self {
        if self.kinds.is_within(Kinds::LIST.or(Kinds::NULL)) {
            self.element()
        } else if self.kinds.is_within(Kinds::OBJECT.or(Kinds::NULL)) {
            Self::of(Kinds::TEXT)
        } else {
            Self::any()
        }
    }
}
