//! What the schemas of a component mark as personal, and which places of a saga that is.
//!
//! Where a schema leaves open at which field a marked value is, the object around it is personal. A place
//! may be found that has no personal value; none that has one is missed.

use std::collections::BTreeSet;
use std::ptr;

use serde_json::Value;

use super::flaw::Schemas;
use super::mark::PERSONAL_MARK;
use crate::definition::{Definition, Expression, ReadPlace, Step, StepInput, StepSpec, Variable};
use crate::personal::{PERSONAL_PATHS_MAX, PayloadPlace, PersonalPath};

/// Keywords with a schema for the same value, or for the elements of a list, which are passed through.
const ONE: [&str; 9] = [
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalItems",
    "unevaluatedItems",
    "contentSchema",
];

/// Keywords with a list of such schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];

/// Keywords with a map of such schemas.
const MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];

/// Keywords with schemas of fields whose names are not known.
const OF_ANY_NAME: [&str; 3] = ["additionalProperties", "unevaluatedProperties", "propertyNames"];

/// The most schemas that are visited in one document. In a larger one everything is personal.
const VISITS_MAX: usize = 10_000;

/// The places that the schemas of a component mark as personal. Each is a list of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonalMarks {
    input: Vec<Vec<String>>,
    output: Vec<Vec<String>>,
}

impl PersonalMarks {
    /// Returns the marks of a component with these schemas.
    #[must_use]
    pub fn of(schemas: &Schemas<'_>) -> Self {
        let (input, output) = (schemas.input.document(), schemas.output.document());
        Self { input: marked_fields(input), output: marked_fields(output) }
    }

    /// Returns true when nothing is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}

/// Returns the places in sagas of a definition that are personal when a component with these marks
/// executes or undoes a step: the marked fields of the step's output and input, and what its input is
/// made of. Places that the definition names are left out.
#[must_use]
pub fn marked_places(
    definition: &Definition,
    step: &StepSpec,
    marks: &PersonalMarks,
) -> Vec<PersonalPath> {
    let Some(index) = definition.index_of(&step.name) else { return Vec::new() };
    let (compiled, name) = (definition.step(index), step.name.step());
    let mut found = BTreeSet::new();
    for fields in &marks.output {
        found.insert(PersonalPath::new(PayloadPlace::Output(name.to_owned()), fields.clone()));
    }
    for fields in &marks.input {
        found.insert(PersonalPath::new(PayloadPlace::StepInput(name.to_owned()), fields.clone()));
        add_sources(definition, compiled, fields, &mut found);
    }
    // A place sorts before those that lie in it.
    let mut places: Vec<PersonalPath> = Vec::new();
    for place in found {
        let known = definition.personal().iter().chain(&places).any(|known| known.covers(&place));
        if !known {
            places.push(place);
        }
    }
    if places.len() > PERSONAL_PATHS_MAX {
        places = places.iter().map(PersonalPath::whole).collect();
        places.dedup();
    }
    places
}

/// Adds what a field of a step's input is made of.
fn add_sources(
    definition: &Definition,
    step: &Step,
    fields: &[String],
    found: &mut BTreeSet<PersonalPath>,
) {
    let each = step.each.as_ref();
    let mut add = |expression: &Expression, rest: &[String]| {
        add_read((definition, each), expression, rest, found);
    };
    match (&step.input, fields.split_first()) {
        (StepInput::Whole(expression), _) => add(expression, fields),
        (StepInput::Fields(all), None) => all.iter().for_each(|(_, one)| add(one, &[])),
        (StepInput::Fields(all), Some((field, rest))) => {
            all.iter().filter(|(name, _)| name == field).for_each(|(_, one)| add(one, rest));
        }
        (StepInput::All, first) => {
            let (field, rest) =
                first.map_or((None, &[][..]), |(field, rest)| (Some(&**field), rest));
            if matches!(field, None | Some("input")) {
                found.insert(PersonalPath::new(PayloadPlace::Input, rest.to_vec()));
            }
            if matches!(field, None | Some("steps")) {
                found.extend(outputs(definition, rest, &[]));
            }
            if let (None | Some("item"), Some(each)) = (field, each) {
                add_read((definition, None), each, rest, found);
            }
        }
    }
}

/// Adds the places that an expression reads. `each` is the list that its step runs over. `rest` leads on from its value, when that is passed through.
fn add_read(
    (definition, each): (&Definition, Option<&Expression>),
    expression: &Expression,
    rest: &[String],
    found: &mut BTreeSet<PersonalPath>,
) {
    for ReadPlace { variable, mut fields, is_value } in expression.places() {
        if is_value {
            fields.extend_from_slice(rest);
        }
        match variable {
            Some(Variable::Input) => {
                found.insert(PersonalPath::new(PayloadPlace::Input, fields));
            }
            Some(Variable::Steps) => {
                found.extend(outputs(definition, &fields, &expression.steps()));
            }
            Some(Variable::Saga | Variable::Event) => {}
            // The expression of the list sees no element.
            None => {
                if let Some(each) = each {
                    add_read((definition, None), each, &fields, found);
                }
            }
        }
    }
}

/// Returns the outputs that `steps` with these fields leads to. `named` are the steps that the expression
/// names, in whichever way.
fn outputs(definition: &Definition, fields: &[String], named: &[String]) -> Vec<PersonalPath> {
    let output = |step: &str, fields: &[String]| {
        PersonalPath::new(PayloadPlace::Output(step.to_owned()), fields.to_vec())
    };
    match fields {
        [] if named.is_empty() => {
            definition.steps().iter().map(|step| output(step.name.as_str(), &[])).collect()
        }
        [] => named.iter().map(|step| output(step, &[])).collect(),
        [step] => vec![output(step, &[])],
        [step, _, rest @ ..] => vec![output(step, rest)],
    }
}

/// Returns the marked fields of a document, without those that lie in another one.
fn marked_fields(document: &Value) -> Vec<Vec<String>> {
    let mut search =
        Search { document, visits: VISITS_MAX, path: Vec::new(), found: BTreeSet::new() };
    if !search.reaches(document) {
        return Vec::new();
    }
    search.visit(document, &mut Vec::new());
    if search.visits == 0 || search.found.len() > PERSONAL_PATHS_MAX {
        return vec![Vec::new()];
    }
    let mut fields: Vec<Vec<String>> = Vec::new();
    for one in search.found {
        if !fields.iter().any(|known| one.starts_with(known)) {
            fields.push(one);
        }
    }
    fields
}

/// The search for marks in one document.
struct Search<'s> {
    document: &'s Value,
    /// How many more schemas are visited.
    visits: usize,
    /// The fields that lead to the schema that is visited.
    path: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl<'s> Search<'s> {
    /// Visits a schema. `above` are the schemas that led to it.
    fn visit(&mut self, schema: &'s Value, above: &mut Vec<*const Value>) {
        self.visits = self.visits.saturating_sub(1);
        if self.visits == 0 {
            return;
        }
        if is_marked(schema) {
            self.found.insert(self.path.clone());
            return;
        }
        // In a circle the fields have no end.
        if above.contains(&ptr::from_ref(schema)) {
            self.add_if_reaching(schema);
            return;
        }
        above.push(ptr::from_ref(schema));
        for next in self.same_value(schema) {
            self.visit(next, above);
        }
        for (name, property) in properties(schema) {
            // Such a name cannot stand in a path.
            if name.contains('"') {
                self.add_if_reaching(property);
                continue;
            }
            self.path.push(name.clone());
            self.visit(property, above);
            self.path.pop();
        }
        for property in any_name(schema) {
            self.add_if_reaching(property);
        }
        above.pop();
    }

    fn add_if_reaching(&mut self, schema: &'s Value) {
        if self.reaches(schema) {
            self.found.insert(self.path.clone());
        }
    }

    /// Returns the schemas for the same value or its elements.
    fn same_value(&self, schema: &'s Value) -> Vec<&'s Value> {
        let target = schema.get("$ref").and_then(Value::as_str).map(|reference| {
            // One that leads nowhere may lead to a mark.
            reference.strip_prefix('#').and_then(|path| self.document.pointer(&decoded(path)))
        });
        let target = target.map(|target| target.unwrap_or(self.document));
        let one = ONE.iter().filter_map(|key| schema.get(key)).filter(|one| !one.is_array());
        let lists = LISTS.iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
        let maps = MAPS.iter().filter_map(|key| schema.get(key)?.as_object());
        let maps = maps.flat_map(|all| all.values());
        target.into_iter().chain(one).chain(lists).chain(maps).collect()
    }

    /// Returns true when a schema, or one that it leads to, is marked.
    fn reaches(&self, schema: &'s Value) -> bool {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![schema]);
        while let Some(schema) = waiting.pop() {
            if is_marked(schema) {
                return true;
            }
            if seen.insert(ptr::from_ref(schema)) {
                waiting.extend(self.same_value(schema));
                waiting.extend(properties(schema).map(|(_, property)| property));
                waiting.extend(any_name(schema));
            }
        }
        false
    }
}

fn is_marked(schema: &Value) -> bool {
    schema.get(PERSONAL_MARK) == Some(&Value::Bool(true))
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// Returns the schemas of fields whose names are not known.
fn any_name(schema: &Value) -> impl Iterator<Item = &Value> {
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    let patterns = patterns.into_iter().flat_map(|all| all.values());
    OF_ANY_NAME.iter().filter_map(move |key| schema.get(key)).chain(patterns)
}

/// Returns a fragment of a URI without its percent signs (RFC 6901, section 6).
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use serde_json::json;

    use super::*;
    use crate::Schema;

    fn fields(schema: &Value) -> Vec<String> {
        marked_fields(schema).into_iter().map(|fields| fields.join("/")).collect()
    }

    #[test]
    fn marks_are_found_wherever_a_schema_says_them() {
        let personal = || json!({"type": "string", "x-amends-personal": true});
        let open = || json!({"type": "string", "x-amends-personal": false});
        let cases = [
            (json!(true), vec![]),
            (json!({"properties": {"a": open(), "x-amends-personal": {"const": true}}}), vec![]),
            (json!({"x-amends-personal": true, "properties": {"a": personal()}}), vec![""]),
            (
                json!({"properties": {"a": personal(), "b": {"properties": {"c": personal()}}}}),
                vec!["a", "b/c"],
            ),
            (json!({"items": {"properties": {"a": personal()}}}), vec!["a"]),
            (json!({"prefixItems": [open(), {"properties": {"a": personal()}}]}), vec!["a"]),
            (json!({"properties": {"a": {"anyOf": [{"type": "null"}, personal()]}}}), vec!["a"]),
            (json!({"allOf": [{"properties": {"a": personal()}}]}), vec!["a"]),
            (json!({"if": {"properties": {"a": personal()}}}), vec!["a"]),
            (
                json!({"properties": {"a": {"$ref": "#/$defs/p%20q"}}, "$defs": {"p q": personal()}}),
                vec!["a"],
            ),
            (
                json!({"properties": {"a": {"additionalProperties": personal()}, "b": open()}}),
                vec!["a"],
            ),
            (json!({"properties": {"a": {"patternProperties": {"^x": personal()}}}}), vec!["a"]),
            (json!({"properties": {"a": {"properties": {"q\"": personal()}}}}), vec!["a"]),
            // The fields of a tree have no end.
            (
                json!({"properties": {"name": personal(), "below": {"items": {"$ref": "#"}}}}),
                vec!["below", "name"],
            ),
            (
                json!({
                    "properties": {"tree": {"$ref": "#/$defs/tree"}, "name": personal()},
                    "$defs": {"tree": {"properties": {"below": {"$ref": "#/$defs/tree"}}}},
                }),
                vec!["name"],
            ),
            (json!({"$defs": {"unused": personal()}}), vec![]),
        ];
        for (schema, expected) in cases {
            assert_eq!(fields(&schema), expected, "{schema}");
        }
        let many = (0..=PERSONAL_PATHS_MAX).map(|number| (number.to_string(), personal()));
        let many: serde_json::Map<_, _> = many.collect();
        assert_eq!(fields(&json!({"properties": many})), [""]);
    }

    #[test]
    fn a_marked_input_leads_to_what_it_is_made_of() {
        let spec = json!({
            "name": "order",
            "index": {},
            "subject": "input.id",
            "personal": ["input.known"],
            "steps": [
                {"name": "first", "plugin": "first"},
                {"name": "second", "plugin": "second", "input": {
                    "to": "input.person.address",
                    "phone": "has(input.phone) ? string(input.phones[0]) : steps.first.output.phone",
                    "known": "input.known.deep",
                    "open": "input.open",
                    "all": "input.contacts.map(c, c.email)",
                }},
                {"name": "third", "plugin": "third", "each": {"list": "input.items"}, "input": "item.a"},
            ],
        });
        let definition = definition(spec);
        let places = |step: usize, input: Value, output: Value| {
            let schemas = Schemas { input: Schema::new(&input), output: Schema::new(&output) };
            let marks = PersonalMarks::of(&schemas);
            let places = marked_places(&definition, &definition.steps()[step], &marks);
            places.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let marked = |names: &[&str]| {
            let each =
                names.iter().map(|name| ((*name).to_owned(), json!({"x-amends-personal": true})));
            json!({"properties": each.collect::<serde_json::Map<_, _>>()})
        };
        assert_eq!(
            places(1, marked(&["open"]), json!(true)),
            ["input.open", "steps.second.input.open"]
        );
        assert_eq!(
            places(1, json!({"properties": {"to": marked(&["street"])}}), marked(&["label"])),
            [
                "input.person.address.street",
                "steps.second.input.to.street",
                "steps.second.output.label"
            ]
        );
        assert_eq!(
            places(1, marked(&["phone"]), json!(true)),
            ["input.phones", "steps.second.input.phone", "steps.first.output.phone"]
        );
        assert_eq!(places(1, marked(&["known"]), json!(true)), ["steps.second.input.known"]);
        assert_eq!(
            places(1, marked(&["all"]), json!(true)),
            ["input.contacts", "steps.second.input.all"]
        );
        assert_eq!(
            places(2, marked(&["email"]), json!(true)),
            ["input.items.a.email", "steps.third.input.email"]
        );
        // The default input.
        assert_eq!(
            places(0, json!({"properties": {"input": marked(&["a"])}}), json!(true)),
            ["input.a", "steps.first.input.input.a"]
        );
        let all = json!({"x-amends-personal": true});
        assert!(places(0, all, json!(true)).contains(&"input".to_owned()));
    }

    /// A definition whose steps a test writes in short.
    fn definition(mut spec: Value) -> Definition {
        let mut before = Vec::new();
        for step in spec["steps"].as_array_mut().unwrap() {
            step["timeout"] = json!(30_000);
            step["retry"] = serde_json::to_value(crate::RetrySpec::default()).unwrap();
            step["after"] = json!(before);
            if step["each"].is_object() {
                step["each"]["concurrency"] = json!(1);
            }
            before = vec![step["name"].clone()];
        }
        Definition::new(serde_json::from_value(spec).unwrap()).unwrap()
    }
}
