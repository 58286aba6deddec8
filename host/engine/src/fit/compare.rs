//! Whether what an expression gives fits the schema of whoever takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use serde_json::Value;

use super::kinds::Kinds;
use super::near::cut;
use super::schema::{DEPTH_MAX, Property, Schema};
use super::shape::{Inner, Shape};

/// Properties that are compared: of schemas that refer to one another there are many pairs, and they
/// are compared while somebody waits.
const COMPARED_MAX: usize = 100_000;

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
    /// Where: `lines[].sku`; empty for the whole.
    pub(super) subject: String,
    /// What is wrong, of `it`.
    pub(super) message: String,
}

/// Where values of this shape do not fit a schema.
pub(super) fn compare(made: &Shape<'_>, wanted: Schema<'_>) -> Vec<Unfit> {
    let mut comparison = Comparison::new();
    comparison.compare(made, wanted, "", true, DEPTH_MAX);
    comparison.found.truncate(MISFITS_MAX);
    comparison.found
}

struct Comparison {
    found: Vec<Unfit>,
    /// So many properties may still be compared.
    left: usize,
    /// Each pair of schemas, with the depth that was left for it and whether there is such a value for
    /// certain: many ways lead to one.
    compared: BTreeMap<(*const Value, *const Value), (usize, bool)>,
}

impl Comparison {
    fn new() -> Self {
        Self { found: Vec::new(), left: COMPARED_MAX, compared: BTreeMap::new() }
    }

    fn add(&mut self, is_certain: bool, subject: String, message: String) {
        let (is_undescribed, kinds) = (false, None);
        self.found.push(Unfit { is_certain, is_undescribed, kinds, subject, message });
    }

    /// Whether a pair was compared as closely before.
    fn is_known(
        &mut self,
        made: &Shape<'_>,
        wanted: Schema<'_>,
        is_there: bool,
        depth: usize,
    ) -> bool {
        let Inner::Schema(schema) = &made.inner else { return false };
        let pair = (ptr::from_ref(schema.value()), ptr::from_ref(wanted.value()));
        let known = self.compared.entry(pair).or_default();
        let (known_depth, was_there) = *known;
        if known_depth >= depth && (was_there || !is_there) {
            return true;
        }
        *known = (depth, is_there);
        false
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
        // The whole may be null where what it was made of is not.
        if depth < DEPTH_MAX && self.is_known(made, wanted, is_there, depth) {
            return;
        }
        self.left -= 1;
        let takes = wanted.kinds();
        // Nobody knows what becomes of bytes.
        if !made.kinds.intersects(takes.or(Kinds::OTHER)) {
            let place = if path.is_empty() { "it" } else { path };
            let message = format!("{place} is {}, where {takes} is taken", made.kinds);
            let kinds = path.is_empty().then_some((made.kinds, takes));
            let (is_undescribed, subject) = (false, path.to_owned());
            self.found.push(Unfit {
                is_certain: is_there,
                is_undescribed,
                kinds,
                subject,
                message,
            });
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
        let fields: BTreeMap<String, (bool, Shape<'_>)> = match &made.inner {
            Inner::Unknown | Inner::Elements(..) => return,
            // An expression has a limit, and so have the fields that it writes out.
            Inner::Fields(fields) => {
                let all = fields.iter();
                all.map(|(name, shape)| (name.clone(), (true, shape.clone()))).collect()
            }
            Inner::Schema(schema) => {
                let required: BTreeSet<_> = schema.required().collect();
                let names = schema.names().take(self.left);
                let fields = names.filter_map(|name| match schema.look_up(name) {
                    Property::Described(property) => {
                        let is_required = required.contains(name);
                        Some((name.to_owned(), (is_required, Shape::of_schema(property))))
                    }
                    Property::Undescribed { .. } | Property::Unknown => None,
                });
                fields.collect()
            }
        };
        self.left = self.left.saturating_sub(fields.len() + wanted.required().count());
        for name in wanted.required() {
            if self.found.len() >= MISFITS_MAX {
                return;
            }
            if fields.contains_key(name) {
                continue;
            }
            let (is_closed, is_undescribed) = match &made.inner {
                Inner::Schema(schema) => match schema.look_up(name) {
                    Property::Undescribed { is_closed } => (is_closed, true),
                    Property::Described(_) | Property::Unknown => continue,
                },
                Inner::Unknown | Inner::Elements(..) | Inner::Fields(_) => (true, false),
            };
            let verb = if is_closed { "is not" } else { "is not said to be" };
            let message = format!("it needs `{}`, which {verb} in it", name_of(name));
            self.found.push(Unfit {
                is_certain: is_there && is_closed,
                is_undescribed,
                kinds: None,
                subject: name_of(name),
                message,
            });
        }
        for (name, (is_always_there, shape)) in fields {
            if self.found.len() >= MISFITS_MAX {
                return;
            }
            if !wanted.takes(&name) {
                if is_always_there {
                    let message = format!("it does not take `{}`, which is in it", name_of(&name));
                    self.add(is_there, name_of(&name), message);
                }
            } else if let Some(wanted) = wanted.property(&name) {
                let path = name_of(&name);
                self.compare(&shape, wanted, &path, is_there && is_always_there, deeper);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// So many properties are compared when values of a schema are handed to one that says the same.
    fn compared(schema: &Value) -> usize {
        let (made, wanted) = (schema.clone(), schema.clone());
        let (made, wanted) = (Schema::new(&made), Schema::new(&wanted));
        let mut comparison = Comparison::new();
        comparison.compare(&Shape::of_schema(made), wanted, "", true, DEPTH_MAX);
        assert!(comparison.found.is_empty(), "{:?}", comparison.found);
        COMPARED_MAX - comparison.left
    }

    /// Names are counted, and each pair is compared once, and not once for each of the ways that lead to it.
    #[test]
    fn schemas_of_many_names_are_compared_in_few_steps() {
        let names: Vec<_> = (0..10_000).map(|n| format!("p{n}")).collect();
        let all = |count: usize, property: &Value| -> Map<String, Value> {
            names[..count].iter().map(|name| (name.clone(), property.clone())).collect()
        };
        let wide = all(10_000, &json!({}));
        let wide = json!({"type": "object", "required": names, "properties": wide});
        assert_eq!(compared(&wide), 1 + 20_000 + 10_000);
        let circle = all(250, &json!({"$ref": "#"}));
        let circle = json!({"type": "object", "required": names[..250], "properties": circle});
        // The first pair is remembered when it is met again.
        assert_eq!(compared(&circle), 2 * (1 + 500));
    }
}
