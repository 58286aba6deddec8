//! What is known of a value before it is computed.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::kinds::Kinds;
use super::schema::{Property, Schema};

/// What is known of a value.
#[derive(Debug, Clone)]
pub(super) struct Shape<'s> {
    /// It is one of these.
    pub(super) kinds: Kinds,
    pub(super) inner: Inner<'s>,
}

/// What is known of what is in a value.
#[derive(Debug, Clone)]
pub(super) enum Inner<'s> {
    Unknown,
    /// It fits this schema, if it is not null.
    Schema(Schema<'s>),
    /// Each element of the list.
    Elements(Rc<Self>, Kinds),
    /// All fields of the object.
    Fields(Rc<BTreeMap<String, Shape<'s>>>),
}

/// What a field of a value is.
#[derive(Debug)]
pub(super) enum Field<'s> {
    Is(Shape<'s>),
    Unknown,
    /// It is not one of these. Certain: it is not there; else nothing says that it is.
    Missing {
        is_certain: bool,
        names: Vec<String>,
    },
    /// The value has no fields.
    OfNoObject,
}

impl<'s> Shape<'s> {
    pub(super) const fn any() -> Self {
        Self::of(Kinds::ANY)
    }

    pub(super) const fn of(kinds: Kinds) -> Self {
        Self { kinds, inner: Inner::Unknown }
    }

    pub(super) fn of_schema(schema: Schema<'s>) -> Self {
        Self { kinds: schema.kinds(), inner: Inner::Schema(schema) }
    }

    pub(super) fn list(element: Self) -> Self {
        let inner = Inner::Elements(Rc::new(element.inner), element.kinds);
        Self { kinds: Kinds::LIST, inner }
    }

    pub(super) fn object(fields: BTreeMap<String, Self>) -> Self {
        Self { kinds: Kinds::OBJECT, inner: Inner::Fields(Rc::new(fields)) }
    }

    /// The same, or null.
    pub(super) fn or_null(mut self) -> Self {
        self.kinds = self.kinds.or(Kinds::NULL);
        self
    }

    /// One or the other.
    pub(super) fn or(self, other: Self) -> Self {
        let kinds = self.kinds.or(other.kinds);
        // What is known of null is true of anything.
        let inner = if other.kinds == Kinds::NULL {
            self.inner
        } else if self.kinds == Kinds::NULL {
            other.inner
        } else {
            Inner::Unknown
        };
        Self { kinds, inner }
    }

    pub(super) fn field(&self, name: &str) -> Field<'s> {
        if !self.kinds.intersects(Kinds::OBJECT.or(Kinds::OTHER)) {
            return Field::OfNoObject;
        }
        match &self.inner {
            Inner::Unknown | Inner::Elements(..) => Field::Unknown,
            Inner::Fields(fields) => match fields.get(name) {
                Some(field) => Field::Is(field.clone()),
                None => {
                    Field::Missing { is_certain: true, names: fields.keys().cloned().collect() }
                }
            },
            Inner::Schema(schema) => match schema.look_up(name) {
                Property::Described(property) => Field::Is(Self::of_schema(property)),
                Property::Undescribed { is_closed } => {
                    let names = schema.known_names().into_iter().map(str::to_owned).collect();
                    Field::Missing { is_certain: is_closed, names }
                }
                Property::Unknown => Field::Unknown,
            },
        }
    }

    /// An element of it, if it is a list.
    pub(super) fn element(&self) -> Self {
        match &self.inner {
            Inner::Elements(inner, kinds) => Self { kinds: *kinds, inner: (**inner).clone() },
            Inner::Schema(schema) => schema.elements().map_or_else(Self::any, Self::of_schema),
            Inner::Unknown | Inner::Fields(_) => Self::any(),
        }
    }

    /// What a macro such as `map` runs over: the elements of a list, the keys of an object.
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
