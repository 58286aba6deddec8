//! Whether what an expression gives fits the schema of whoever takes it.

use super::kinds::Kinds;
use super::near::cut;
use super::schema::{DEPTH_MAX, Property, Schema};
use super::shape::{Inner, Shape};

/// Values that are compared: of schemas that refer to one another there are many pairs, and they are
/// compared while somebody waits.
const COMPARED_MAX: usize = 10_000;

/// Misfits that are told of one input.
const MISFITS_MAX: usize = 20;

/// Where a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    /// Whether no value fits; else some may not.
    pub(super) is_certain: bool,
    /// Whether a schema does not describe a property that is needed.
    pub(super) is_undescribed: bool,
    /// The kinds of values that there are and that are wanted, when these are what does not fit, of
    /// the value as a whole.
    pub(super) kinds: Option<(Kinds, Kinds)>,
    /// What is wrong, of `it`.
    pub(super) message: String,
}

/// Where values of this shape do not fit a schema.
pub(super) fn compare(made: &Shape<'_>, wanted: Schema<'_>) -> Vec<Unfit> {
    let mut comparison = Comparison { found: Vec::new(), left: COMPARED_MAX };
    comparison.compare(made, wanted, "", true, DEPTH_MAX);
    comparison.found.truncate(MISFITS_MAX);
    comparison.found
}

struct Comparison {
    found: Vec<Unfit>,
    left: usize,
}

impl Comparison {
    fn add(&mut self, is_certain: bool, message: String) {
        self.found.push(Unfit { is_certain, is_undescribed: false, kinds: None, message });
    }

    /// `is_there`: whether there is such a value for certain.
    fn compare(
        &mut self,
        made: &Shape<'_>,
        wanted: Schema<'_>,
        path: &str,
        is_there: bool,
        depth: usize,
    ) {
        let Some(deeper) = depth.checked_sub(1) else { return };
        if self.left == 0 || self.found.len() >= MISFITS_MAX {
            return;
        }
        self.left -= 1;
        let takes = wanted.kinds();
        // Nobody knows what becomes of bytes.
        if !made.kinds.intersects(takes.or(Kinds::OTHER)) {
            let place = if path.is_empty() { "it" } else { path };
            let message = format!("{place} is {}, where {takes} is taken", made.kinds);
            let kinds = path.is_empty().then_some((made.kinds, takes));
            let is_undescribed = false;
            self.found.push(Unfit { is_certain: is_there, is_undescribed, kinds, message });
            return;
        }
        if made.kinds.is_within(Kinds::OBJECT.or(Kinds::NULL)) {
            // Null does not fit either, unless it is taken.
            let may_be_null = made.kinds.intersects(Kinds::NULL) && takes.intersects(Kinds::NULL);
            let is_there = is_there && !may_be_null;
            self.compare_fields(made, wanted, path, is_there, deeper);
        } else if made.kinds.is_within(Kinds::LIST.or(Kinds::NULL))
            && let Some(wanted) = wanted.elements()
        {
            // The list may be empty.
            self.compare(&made.element(), wanted, &format!("{path}[]"), false, deeper);
        }
    }

    fn compare_fields(
        &mut self,
        made: &Shape<'_>,
        wanted: Schema<'_>,
        path: &str,
        is_there: bool,
        deeper: usize,
    ) {
        let name_of = |name: &str| {
            let name = cut(name);
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        let fields: Vec<(String, bool, Shape<'_>)> = match &made.inner {
            Inner::Unknown | Inner::Elements(..) => return,
            Inner::Fields(fields) => {
                fields.iter().map(|(name, shape)| (name.clone(), true, shape.clone())).collect()
            }
            Inner::Schema(schema) => {
                let required: Vec<_> = schema.required().collect();
                let names = schema.names();
                let fields = names.filter_map(|name| match schema.look_up(name) {
                    Property::Described(property) => {
                        let is_required = required.contains(&name);
                        Some((name.to_owned(), is_required, Shape::of_schema(property)))
                    }
                    Property::Undescribed { .. } | Property::Unknown => None,
                });
                fields.take(COMPARED_MAX).collect()
            }
        };
        for name in wanted.required() {
            if fields.iter().any(|(field, ..)| field == name) {
                continue;
            }
            let is_missing = match &made.inner {
                Inner::Schema(schema) => match schema.look_up(name) {
                    Property::Undescribed { is_closed } => Some(is_closed),
                    Property::Described(_) | Property::Unknown => None,
                },
                Inner::Unknown | Inner::Elements(..) | Inner::Fields(_) => Some(true),
            };
            match is_missing {
                None => {}
                Some(true) => {
                    self.add(is_there, format!("it needs `{}`, which is not in it", name_of(name)));
                }
                Some(false) => {
                    let message =
                        format!("it needs `{}`, which is not said to be in it", name_of(name));
                    let (is_certain, is_undescribed) = (false, true);
                    self.found.push(Unfit { is_certain, is_undescribed, kinds: None, message });
                }
            }
        }
        for (name, is_always_there, shape) in fields {
            if !wanted.takes(&name) {
                if is_always_there {
                    let message = format!("it does not take `{}`, which is in it", name_of(&name));
                    self.add(is_there, message);
                }
            } else if let Some(wanted) = wanted.property(&name) {
                let path = name_of(&name);
                self.compare(&shape, wanted, &path, is_there && is_always_there, deeper);
            }
        }
    }
}
