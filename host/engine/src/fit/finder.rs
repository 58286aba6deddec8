//! Finds flaws.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{ShapeMisfit, compare};
use super::describe::{and, kinds_of, quoted, source_of};
use super::flaw::{Flaw, FlawKind, Schemas};
use super::infer::{Finding, infer};
use super::kinds::Kinds;
use super::marks::{PersonalMarks, marked_places};
use super::misfit::{Misfit, misfits};
use super::near::{cut, nearest};
use super::schema::Schema;
use super::shape::Shape;
use super::syntax::is_filled;
use crate::definition::{
    Definition, Expression, InputSpec, StepInput, StepKind, StepSpec, Variable,
};
use crate::ids::PluginName;
use crate::personal::PersonalPath;

/// The most flaws of one definition that are reported. Nobody reads more, and rejections are
/// stored.
const FLAWS_MAX: usize = 200;

/// Returns what in a definition cannot be right, or may not be: at most some hundred flaws, in the
/// order of the steps. `schemas` returns the schemas of a plugin, or none when they are unknown.
#[must_use]
pub fn flaws<'s>(
    definition: &Definition,
    schemas: &dyn Fn(&PluginName) -> Option<Schemas<'s>>,
) -> Vec<Flaw> {
    let mut finder = FlawFinder { definition, schemas, found: Vec::new() };
    for (index, step) in definition.steps().iter().enumerate() {
        finder.check_step(index, step);
        if finder.found.len() >= FLAWS_MAX {
            break;
        }
    }
    finder.found.truncate(FLAWS_MAX);
    finder.found
}

/// The search for flaws in one definition.
struct FlawFinder<'f, 's> {
    definition: &'f Definition,
    schemas: &'f dyn Fn(&PluginName) -> Option<Schemas<'s>>,
    found: Vec<Flaw>,
}

/// The place of a flaw in its definition.
#[derive(Clone, Copy)]
struct FlawPlace<'p> {
    step: &'p StepSpec,
    key: &'static str,
    field: Option<&'p str>,
    /// True when this is certainly computed once the step is reached.
    is_decided: bool,
}

impl<'s> FlawFinder<'_, 's> {
    /// Checks one step.
    fn check_step(&mut self, index: usize, step: &StepSpec) {
        let compiled = self.definition.step(index);
        let mut variables = vec![
            ("input", Shape::any()),
            ("steps", self.steps_before(index)),
            ("saga", saga_shape()),
        ];
        let place = |key| FlawPlace { step, key, field: None, is_decided: true };
        if let Some(when) = &compiled.when {
            let shape = self.check_expression(place("when"), when, &variables);
            if !shape.kinds.intersects(Kinds::BOOL) {
                let message =
                    format!("`{}` is {}, never true or false", source_of(when), kinds_of(&shape));
                let remedy = "compare it with something, such as \"input.quantity > 0\"";
                self.add(
                    place("when"),
                    (FlawKind::Expression, true),
                    &reads(when),
                    "when",
                    (message, remedy.to_owned()),
                );
            }
        }
        if let Some(each) = &compiled.each {
            let shape = self.check_expression(place("each"), each, &variables);
            if !shape.kinds.intersects(Kinds::LIST) {
                let message = format!("`{}` is {}, not a list", source_of(each), kinds_of(&shape));
                let remedy = "name a list, such as \"input.items\"";
                self.add(
                    place("each"),
                    (FlawKind::Expression, true),
                    &reads(each),
                    "each",
                    (message, remedy.to_owned()),
                );
            }
            variables.push(("item", shape.element()));
            variables.push(("index", Shape::of(Kinds::NUMBER)));
        }
        // An empty list has no element whose input could be computed.
        let is_decided = compiled.each.as_ref().is_none_or(|each| is_filled(each.root()));
        let place = FlawPlace { is_decided, ..place("input") };
        self.check_input(place, &compiled.input, &variables);
        self.check_undo(step);
        self.check_personal(step);
    }

    /// Checks that what the components of a step mark as personal can be sealed.
    fn check_personal(&mut self, step: &StepSpec) {
        let definition = self.definition;
        for (plugin, key) in [(step.plugin(), "plugin"), (step.undo_plugin(), "undo")] {
            let Some(plugin) =
                plugin.filter(|plugin| key == "plugin" || step.plugin() != Some(*plugin))
            else {
                continue;
            };
            let Some(schemas) = (self.schemas)(plugin) else { continue };
            let places = marked_places(definition, step, &PersonalMarks::of(&schemas));
            let place = FlawPlace { step, key, field: None, is_decided: true };
            if let Some(first) = places.iter().find(|_| definition.spec().subject.is_none()) {
                let message = format!(
                    "the plugin `{plugin}` marks `{first}` as personal, and the saga `{}` has no subject",
                    definition.name()
                );
                let remedy = "add subject to the saga, such as subject = \"input.customer_id\": whose \
                              values these are";
                let kind = (FlawKind::Personal, true);
                self.add_of(plugin, place, kind, "subject", (message, remedy.to_owned()));
            }
            for (name, expression) in definition.index().expressions() {
                let mut in_input = places.iter().filter_map(PersonalPath::in_input);
                if in_input.any(|fields| expression.reads(Variable::Input, fields)) {
                    let source = expression.source();
                    let message = format!(
                        "the plugin `{plugin}` marks a value as personal that `{source}` indexes as \
                         `{name}`, and the index is not sealed"
                    );
                    let remedy = "index something that is not personal, or do not index it";
                    let kind = (FlawKind::Personal, true);
                    self.add_of(plugin, place, kind, name.as_str(), (message, remedy.to_owned()));
                }
            }
        }
    }

    /// Adds a flaw that depends on one plugin alone.
    fn add_of(
        &mut self,
        plugin: &PluginName,
        place: FlawPlace<'_>,
        (kind, is_certain): (FlawKind, bool),
        subject: &str,
        (message, remedy): (String, String),
    ) {
        self.found.push(Flaw {
            step: place.step.name.clone(),
            key: place.key,
            field: None,
            is_certain,
            kind,
            plugins: BTreeSet::from([plugin.clone()]),
            subject: subject.to_owned(),
            message,
            remedy,
        });
    }

    /// Returns the shape of an expression's value, and adds what in the expression cannot be right.
    fn check_expression(
        &mut self,
        place: FlawPlace<'_>,
        expression: &Expression,
        variables: &[(&'static str, Shape<'s>)],
    ) -> Shape<'s> {
        let (shape, findings) = infer(expression.root(), variables, place.is_decided);
        for Finding { is_certain, is_undescribed, subject, message, remedy } in findings {
            let plugins = self.plugins_of(&reads(expression));
            let (step, field) = (place.step.name.clone(), place.field.map(str::to_owned));
            let message = format!("`{}`: {message}", source_of(expression));
            let key = place.key;
            let kind = if is_undescribed { FlawKind::Undescribed } else { FlawKind::Expression };
            self.found.push(Flaw {
                step,
                key,
                field,
                is_certain,
                kind,
                plugins,
                subject,
                message,
                remedy,
            });
        }
        shape
    }

    /// Adds a flaw. `reads` names the steps whose outputs matter for it.
    fn add(
        &mut self,
        place: FlawPlace<'_>,
        (kind, is_certain): (FlawKind, bool),
        reads: &[String],
        subject: &str,
        (message, remedy): (String, String),
    ) {
        let mut plugins = self.plugins_of(reads);
        if place.key == "input" {
            plugins.extend(place.step.plugin().cloned());
        }
        if place.key == "undo" {
            plugins
                .extend(place.step.plugin().into_iter().chain(place.step.undo_plugin()).cloned());
        }
        self.found.push(Flaw {
            step: place.step.name.clone(),
            key: place.key,
            field: place.field.map(str::to_owned),
            is_certain: is_certain && place.is_decided,
            kind,
            plugins,
            subject: subject.to_owned(),
            message,
            remedy,
        });
    }

    /// Returns the plugins of the steps of these names.
    fn plugins_of(&self, steps: &[String]) -> BTreeSet<PluginName> {
        let steps = self
            .definition
            .steps()
            .iter()
            .filter(|step| steps.iter().any(|name| *name == step.name.as_str()));
        steps.filter_map(StepSpec::plugin).cloned().collect()
    }

    /// Returns the shape of `steps` as the expressions of the step at `index` see it.
    fn steps_before(&self, index: usize) -> Shape<'s> {
        // Steps that no expression names do not matter.
        let named = self.definition.step(index).reads.iter();
        let fields = named.map(|before| {
            let step = &self.definition.steps()[before];
            let fields = BTreeMap::from([("output".to_owned(), self.output_of(step))]);
            (step.name.to_string(), Shape::object(fields))
        });
        Shape::object(fields.collect())
    }

    /// Returns the shape of a step's output.
    fn output_of(&self, step: &StepSpec) -> Shape<'s> {
        let one = match &step.kind {
            StepKind::Call { plugin, .. } => {
                (self.schemas)(plugin).map_or_else(Shape::any, |all| Shape::of_schema(all.output))
            }
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => Shape::any(),
        };
        // An element that an operator skipped has no output.
        let all = if step.each.is_some() { Shape::list(one.or_null()) } else { one };
        // An operator or its `when` may skip the step.
        all.or_null()
    }

    /// Checks the input of a step.
    fn check_input(
        &mut self,
        place: FlawPlace<'_>,
        input: &StepInput,
        variables: &[(&'static str, Shape<'s>)],
    ) {
        let schemas = place.step.plugin().and_then(|plugin| (self.schemas)(plugin));
        let wanted = place.step.plugin().zip(schemas.map(|schemas| schemas.input));
        match input {
            StepInput::All => {
                if let Some((plugin, schema)) = wanted {
                    self.check_default_input(place, plugin, schema);
                }
            }
            StepInput::Whole(expression) => {
                let shape = self.check_expression(place, expression, variables);
                if let Some((plugin, schema)) = wanted {
                    for misfit in compare(&shape, schema) {
                        self.add_misfit(place, expression, plugin, &misfit);
                    }
                }
            }
            StepInput::Fields(fields) => {
                for (name, expression) in fields {
                    let place = FlawPlace { field: Some(name), ..place };
                    let shape = self.check_expression(place, expression, variables);
                    let wanted =
                        wanted.and_then(|(plugin, all)| Some((plugin, all.property(name)?)));
                    for misfit in wanted.iter().flat_map(|(_, one)| compare(&shape, *one)) {
                        if let Some((plugin, _)) = wanted {
                            self.add_misfit(place, expression, plugin, &misfit);
                        }
                    }
                }
                if let Some((plugin, schema)) = wanted {
                    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
                    self.check_names(place, plugin, schema, &names);
                }
            }
        }
    }

    /// Adds a value that does not fit the schema of a plugin.
    fn add_misfit(
        &mut self,
        place: FlawPlace<'_>,
        expression: &Expression,
        plugin: &PluginName,
        misfit: &ShapeMisfit,
    ) {
        let source = source_of(expression);
        let (message, remedy) = match misfit.kinds {
            Some((made, takes)) => {
                let remedy = if made == Kinds::NUMBER && takes.intersects(Kinds::TEXT) {
                    format!("make it text: string({source})")
                } else if made == Kinds::TEXT && takes.intersects(Kinds::NUMBER) {
                    format!("make it a number: int({source})")
                } else {
                    format!("give it {takes}")
                };
                (format!("`{source}` is {made}, and the plugin `{plugin}` takes {takes}"), remedy)
            }
            None => (
                format!("`{source}` does not fit the plugin `{plugin}`: {}", misfit.message),
                "give it what its input schema says, field by field: { drug = \"input.drug\" }"
                    .to_owned(),
            ),
        };
        let kind = if misfit.is_undescribed { FlawKind::Undescribed } else { FlawKind::Expression };
        let (certainty, reads) = ((kind, misfit.is_certain), reads(expression));
        self.add(place, certainty, &reads, &misfit.subject, (message, remedy));
    }

    /// Checks that a table of expressions has all fields that the plugin needs, and no others.
    fn check_names(
        &mut self,
        place: FlawPlace<'_>,
        plugin: &PluginName,
        schema: Schema<'_>,
        names: &[&str],
    ) {
        let from = if place.step.each.is_some() { "item" } else { "input" };
        for name in schema.required().filter(|name| !names.contains(name)).take(FLAWS_MAX) {
            let name = cut(name);
            let message = format!("`{name}` is missing, which the plugin `{plugin}` needs");
            let remedy = format!("add an expression, such as {name} = \"{from}.{name}\"");
            self.add(place, (FlawKind::Fields, true), &[], name, (message, remedy));
        }
        let known: Vec<_> = schema.names().collect();
        for name in names.iter().copied().filter(|name| !schema.takes(name)) {
            let remedy = nearest(cut(name), known.iter().copied().map(cut)).map_or_else(
                || format!("leave it out; it takes {}", quoted(&known)),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("the plugin `{plugin}` does not take `{name}`");
            let place = FlawPlace { field: Some(name), ..place };
            self.add(place, (FlawKind::Fields, true), &[], "", (message, remedy));
        }
    }

    /// Checks the default input of a step.
    fn check_default_input(
        &mut self,
        place: FlawPlace<'_>,
        plugin: &PluginName,
        schema: Schema<'_>,
    ) {
        let names = input_fields(place.step).unwrap_or_default();
        let missing: Vec<_> = schema.required().filter(|name| !names.contains(name)).collect();
        let why = if !missing.is_empty() {
            format!("needs {}", quoted(&missing))
        } else if names.iter().any(|name| !schema.takes(name)) {
            format!("takes {} only", quoted(&schema.names().collect::<Vec<_>>()))
        } else {
            return;
        };
        let whole: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let step = &place.step.name;
        let whole = and(&whole);
        let message =
            format!("the step `{step}` has no input, so `{plugin}` is given {whole}, and it {why}");
        let remedy = if place.step.each.is_some() {
            "write input = \"item\" when each element is what the plugin needs, else a table such as \
             { drug = \"item.drug\" }"
        } else {
            "write input = \"input\" when the saga is given what the plugin needs, else a table such \
             as { order_id = \"input.order_id\" }"
        };
        // The flaw is about the input as a whole, whichever fields are missing.
        self.add(place, (FlawKind::Fields, true), &[], "", (message, remedy.to_owned()));
    }

    /// Checks an undo by another plugin: it gets the input of its step, and reads the output.
    fn check_undo(&mut self, step: &StepSpec) {
        let (Some(plugin), Some(undo)) = (step.plugin(), step.undo_plugin()) else { return };
        if undo == plugin {
            return;
        }
        let Some(undoing) = (self.schemas)(undo) else { return };
        let place = FlawPlace { step, key: "undo", field: None, is_decided: true };
        if let Some(names) = input_fields(step) {
            let missing: Vec<_> =
                undoing.input.required().filter(|name| !names.contains(name)).collect();
            if !missing.is_empty() {
                let missing = quoted(&missing);
                let message = format!(
                    "the undo `{undo}` needs {missing}, which the input of its step has not"
                );
                let remedy = "an undo is given the input of its step: add it there".to_owned();
                self.add(place, (FlawKind::Undo, false), &[], "its input", (message, remedy));
            }
        }
        let Some(schemas) = (self.schemas)(plugin) else { return };
        for misfit in misfits(schemas.output, undoing.output) {
            let Misfit { is_certain, is_undescribed, place: of, message: what } = misfit;
            let kind = if is_undescribed { FlawKind::Undescribed } else { FlawKind::Undo };
            let verb = if is_certain { "cannot" } else { "may not be able to" };
            let message =
                format!("the undo `{undo}` {verb} read the output of `{plugin}`: it {what}");
            let remedy = format!(
                "name an undo that reads what `{plugin}` answers, or change its type of the output"
            );
            self.add(place, (kind, is_certain), &[], &of, (message, remedy));
        }
    }
}

/// Returns the shape of `saga` as expressions see it.
fn saga_shape<'s>() -> Shape<'s> {
    let text = || Shape::of(Kinds::TEXT);
    let fields = [
        ("id", text()),
        ("definition", text()),
        ("started_at", Shape::any()),
        ("tags", Shape::of(Kinds::OBJECT)),
    ];
    Shape::object(fields.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect())
}

/// Returns the fields of a step's input: those of its table, or those of the default input. None
/// when one expression gives the whole input.
fn input_fields(step: &StepSpec) -> Option<Vec<&str>> {
    match &step.input {
        None if step.each.is_some() => Some(vec!["input", "steps", "item", "index"]),
        None => Some(vec!["input", "steps"]),
        Some(InputSpec::Fields(fields)) => Some(fields.keys().map(String::as_str).collect()),
        Some(InputSpec::Whole(_)) => None,
    }
}

/// Returns the steps whose outputs an expression names.
fn reads(expression: &Expression) -> Vec<String> {
    expression.steps()
}
