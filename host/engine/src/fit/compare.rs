//! Whether the value of an expression fits the schema of the plugin that takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use serde_json::Value;

use super::kinds::Kinds;
use super::near::cut;
use super::schema::{DEPTH_MAX, Property, Schema};
use super::shape::{Contents, Shape};

/// The most properties that are compared. Schemas that refer to each other have many pairs of
/// properties, and a caller waits for the comparison.
const COMPARED_MAX: usize = 100_000;

/// The most misfits of one input that are reported.
const MISFITS_MAX: usize = 20;

/// One place where a value does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShapeMisfit {
    /// True when no value fits, false when some may not fit.
    pub(super) is_certain: bool,
    /// True when a schema does not describe a property that is needed.
    pub(super) is_undescribed: bool,
    /// The kinds that the value has and the kinds that are wanted, when the value as a whole has
    /// the wrong kind.
    pub(super) kinds: Option<(Kinds, Kinds)>,
    /// The place, such as `lines[].sku`; empty for the whole value.
    pub(super) subject: String,
    /// What is wrong; the value is called `it`.
    pub(super) message: String,
}

/// Returns where values of a shape do not fit a schema.
pub(super) fn compare(made: &Shape<'_>, wanted: Schema<'_>) -> Vec<ShapeMisfit> {
    let mut comparison = ShapeComparison::new();
    comparison.compare(made, wanted, "", true, DEPTH_MAX);
    comparison.found.truncate(MISFITS_MAX);
    comparison.found
}

/// The state of one comparison.
struct ShapeComparison {
    found: Vec<ShapeMisfit>,
    /// How many more properties may be compared.
    left: usize,
    /// The pairs of schemas that were compared, because many ways may lead to one pair. Each has
    /// the depth that was left for it, and whether there certainly is such a value.
    compared: BTreeMap<(*const Value, *const Value), (usize, bool)>,
}

impl ShapeComparison {
    fn new() -> Self {
        Self { found: Vec::new(), left: COMPARED_MAX, compared: BTreeMap::new() }
    }

    /// Adds a misfit.
    fn add(&mut self, is_certain: bool, subject: String, message: String) {
        let (is_undescribed, kinds) = (false, None);
        self.found.push(ShapeMisfit { is_certain, is_undescribed, kinds, subject, message });
    }

    /// Returns true when a pair was compared as closely before.
    fn is_known(
        &mut self,
        made: &Shape<'_>,
        wanted: Schema<'_>,
        is_there: bool,
        depth: usize,
    ) -> bool {
        let Contents::Schema(schema) = &made.contents else { return false };
        let pair = (ptr::from_ref(schema.value()), ptr::from_ref(wanted.value()));
        let known = self.compared.entry(pair).or_default();
        let (known_depth, was_there) = *known;
        if known_depth >= depth && (was_there || !is_there) {
            return true;
        }
        *known = (depth, is_there);
        false
    }

    /// Compares a shape with a schema. `is_there` is true when there certainly is such a value.
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
        // The value as a whole may be null where its schema does not allow null.
        if depth < DEPTH_MAX && self.is_known(made, wanted, is_there, depth) {
            return;
        }
        self.left -= 1;
        let takes = wanted.kinds();
        // It is unknown what bytes become as JSON.
        if !made.kinds.intersects(takes.or(Kinds::OTHER)) {
            let place = if path.is_empty() { "it" } else { path };
            let message = format!("{place} is {}, where {takes} is taken", made.kinds);
            let kinds = path.is_empty().then_some((made.kinds, takes));
            let (is_undescribed, subject) = (false, path.to_owned());
            self.found.push(ShapeMisfit {
                is_certain: is_there,
                is_undescribed,
                kinds,
                subject,
                message,
            });
            return;
        }
        if made.kinds.is_within(Kinds::OBJECT.or(Kinds::NULL)) {
            // Null does not fit either, unless the schema allows it.
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

    /// Compares the fields of an object.
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
        let fields: BTreeMap<String, (bool, Shape<'_>)> = match &made.contents {
            Contents::Unknown | Contents::Elements(..) => return,
            // The length of an expression limits the fields of its literals.
            Contents::Fields(fields) => {
                let all = fields.iter();
                all.map(|(name, shape)| (name.clone(), (true, shape.clone()))).collect()
            }
            Contents::Schema(schema) => {
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
            let (is_closed, is_undescribed) = match &made.contents {
                Contents::Schema(schema) => match schema.look_up(name) {
                    Property::Undescribed { is_closed } => (is_closed, true),
                    Property::Described(_) | Property::Unknown => continue,
                },
                Contents::Unknown | Contents::Elements(..) | Contents::Fields(_) => (true, false),
            };
            let verb = if is_closed { "is not" } else { "is not said to be" };
            let message = format!("it needs `{}`, which {verb} in it", name_of(name));
            self.found.push(ShapeMisfit {
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

    /// Returns how many properties are compared when a schema is compared with itself.
    fn compared(schema: &Value) -> usize {
        let (made, wanted) = (schema.clone(), schema.clone());
        let (made, wanted) = (Schema::new(&made), Schema::new(&wanted));
        let mut comparison = ShapeComparison::new();
        comparison.compare(&Shape::of_schema(made), wanted, "", true, DEPTH_MAX);
        assert!(comparison.found.is_empty(), "{:?}", comparison.found);
        COMPARED_MAX - comparison.left
    }

    /// Names are counted, and each pair is compared once, however many ways lead to it.
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
