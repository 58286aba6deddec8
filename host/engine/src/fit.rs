//! Whether a definition fits the plugins that it names, and whether its expressions can be right.
//!
//! Whoever checks a config and whoever takes a component that is to become active ask the same
//! function, [`flaws`]. It knows the definitions' expressions and the schemas of the plugins'
//! manifests, and computes nothing: what it calls certain fails whenever the step is reached, or calls a
//! function that there is not.
//!
//! Deliberately absent: what payloads hold. The host checks each against its schema.

mod compare;
mod infer;
mod kinds;
mod misfit;
mod near;
mod schema;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use kinds::Kinds;
pub use misfit::{Misfit, misfits};
pub use near::nearest;
pub use schema::Schema;

use crate::definition::{Definition, Expression, Input};
use crate::fit::compare::{Unfit, compare};
use crate::fit::infer::{Note, infer, is_filled};
use crate::fit::near::cut;
use crate::fit::shape::Shape;
use crate::ids::{PluginName, StepName};
use crate::{InputSpec, StepKind, StepSpec};

/// Flaws of one definition that are told. Nobody reads more, and a refusal is kept.
const FLAWS_MAX: usize = 200;

/// Characters of an expression that are told.
const SOURCE_BYTES_TOLD: usize = 200;

/// The schemas of a plugin's component.
#[derive(Debug, Clone, Copy)]
pub struct Schemas<'s> {
    /// What `execute` takes.
    pub input: Schema<'s>,
    /// What `execute` answers, and `compensate` reads.
    pub output: Schema<'s>,
}

/// What a flaw is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlawKind {
    /// An expression, or what it gives.
    Expression,
    /// An expression, or an undo by another plugin, reads a field that the schema of a step's output does
    /// not describe.
    Undescribed,
    /// The fields of an input are not those that its plugin takes. Which component is behind a plugin
    /// may change while the config stays.
    Fields,
    /// The undo by another plugin.
    Undo,
}

/// Something in a definition that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The step.
    pub step: StepName,
    /// The key in the step's table: `when`, `each`, `input`, `undo`.
    pub key: &'static str,
    /// The key within that: a field of the input.
    pub field: Option<String>,
    /// Whether the step fails for certain when it is reached; else it may. What is computed of the elements
    /// of a list only may fail, because there may be none. What no value makes right is certain everywhere.
    pub is_certain: bool,
    /// What it is about.
    pub kind: FlawKind,
    /// The plugins whose schemas are concerned.
    pub plugins: BTreeSet<PluginName>,
    /// The field or the function that it is about, whatever else the schemas say. Two flaws are the same one
    /// when their subjects, kinds and places are the same.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl Flaw {
    /// Whether this flaw, found before, is the same as `other`, found now, and as bad: then `other` is
    /// nothing new. The words do not count, because they tell what else the schemas hold.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        (self.is_certain || !other.is_certain)
            && self.step == other.step
            && self.key == other.key
            && self.field == other.field
            && self.kind == other.kind
            && self.subject == other.subject
    }
}

/// What in a definition cannot be right, or may not be: at most some hundred things, in the order
/// of the steps. `schemas` answers the schemas of a plugin; none when they are not known.
#[must_use]
pub fn flaws<'s>(
    definition: &Definition,
    schemas: &dyn Fn(&PluginName) -> Option<Schemas<'s>>,
) -> Vec<Flaw> {
    let mut finder = Finder { definition, schemas, found: Vec::new() };
    for (index, step) in definition.steps().iter().enumerate() {
        finder.check_step(index, step);
        if finder.found.len() >= FLAWS_MAX {
            break;
        }
    }
    finder.found.truncate(FLAWS_MAX);
    finder.found
}

struct Finder<'f, 's> {
    definition: &'f Definition,
    schemas: &'f dyn Fn(&PluginName) -> Option<Schemas<'s>>,
    found: Vec<Flaw>,
}

/// Where something is found.
#[derive(Clone, Copy)]
struct Place<'p> {
    step: &'p StepSpec,
    key: &'static str,
    field: Option<&'p str>,
    /// Whether it is computed for certain when the step is reached.
    is_decided: bool,
}

impl<'s> Finder<'_, 's> {
    fn check_step(&mut self, index: usize, step: &StepSpec) {
        let compiled = self.definition.step(index);
        let mut variables = vec![
            ("input", Shape::any()),
            ("steps", self.steps_before(index)),
            ("saga", saga_shape()),
        ];
        let place = |key| Place { step, key, field: None, is_decided: true };
        if let Some(when) = &compiled.when {
            let shape = self.check_expression(place("when"), when, &variables);
            if !shape.kinds.intersects(Kinds::BOOL) {
                let message = format!("`{}` is {}, never true or false", told(when), words(&shape));
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
                let message = format!("`{}` is {}, not a list", told(each), words(&shape));
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
        // There is no input of an element when there is no element.
        let is_decided = compiled.each.as_ref().is_none_or(|each| is_filled(each.root()));
        let place = Place { is_decided, ..place("input") };
        self.check_input(place, &compiled.input, &variables);
        self.check_undo(step);
    }

    /// What an expression gives; what in it cannot be right is added.
    fn check_expression(
        &mut self,
        place: Place<'_>,
        expression: &Expression,
        variables: &[(&'static str, Shape<'s>)],
    ) -> Shape<'s> {
        let (shape, notes) = infer(expression.root(), variables, place.is_decided);
        for Note { is_certain, is_undescribed, subject, message, remedy } in notes {
            let plugins = self.plugins_of(&reads(expression));
            let (step, field) = (place.step.name.clone(), place.field.map(str::to_owned));
            let message = format!("`{}`: {message}", told(expression));
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

    fn add(
        &mut self,
        place: Place<'_>,
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

    /// The plugins of the steps of these names.
    fn plugins_of(&self, steps: &[String]) -> BTreeSet<PluginName> {
        let steps = self
            .definition
            .steps()
            .iter()
            .filter(|step| steps.iter().any(|name| *name == step.name.as_str()));
        steps.filter_map(StepSpec::plugin).cloned().collect()
    }

    /// `steps`, as the expressions of the step at `index` see it.
    fn steps_before(&self, index: usize) -> Shape<'s> {
        // Those that no expression names need not be known.
        let named = self.definition.step(index).reads.iter();
        let fields = named.map(|before| {
            let step = &self.definition.steps()[before];
            let fields = BTreeMap::from([("output".to_owned(), self.output_of(step))]);
            (step.name.to_string(), Shape::object(fields))
        });
        Shape::object(fields.collect())
    }

    /// What the step leaves as its output.
    fn output_of(&self, step: &StepSpec) -> Shape<'s> {
        let one = match &step.kind {
            StepKind::Call { plugin, .. } => {
                (self.schemas)(plugin).map_or_else(Shape::any, |all| Shape::of_schema(all.output))
            }
            StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => Shape::any(),
        };
        // An element that was skipped by hand has none.
        let all = if step.each.is_some() { Shape::list(one.or_null()) } else { one };
        // An operator may skip the step, and so may its `when`.
        all.or_null()
    }

    fn check_input(
        &mut self,
        place: Place<'_>,
        input: &Input,
        variables: &[(&'static str, Shape<'s>)],
    ) {
        let schemas = place.step.plugin().and_then(|plugin| (self.schemas)(plugin));
        let wanted = place.step.plugin().zip(schemas.map(|schemas| schemas.input));
        match input {
            Input::All => {
                if let Some((plugin, schema)) = wanted {
                    self.check_input_not_said(place, plugin, schema);
                }
            }
            Input::Whole(expression) => {
                let shape = self.check_expression(place, expression, variables);
                if let Some((plugin, schema)) = wanted {
                    for unfit in compare(&shape, schema) {
                        self.add_unfit(place, expression, plugin, &unfit);
                    }
                }
            }
            Input::Fields(fields) => {
                for (name, expression) in fields {
                    let place = Place { field: Some(name), ..place };
                    let shape = self.check_expression(place, expression, variables);
                    let wanted =
                        wanted.and_then(|(plugin, all)| Some((plugin, all.property(name)?)));
                    for unfit in wanted.iter().flat_map(|(_, one)| compare(&shape, *one)) {
                        if let Some((plugin, _)) = wanted {
                            self.add_unfit(place, expression, plugin, &unfit);
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

    fn add_unfit(
        &mut self,
        place: Place<'_>,
        expression: &Expression,
        plugin: &PluginName,
        unfit: &Unfit,
    ) {
        let source = told(expression);
        let (message, remedy) = match unfit.kinds {
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
                format!("`{source}` does not fit the plugin `{plugin}`: {}", unfit.message),
                "give it what its input schema says, field by field: { drug = \"input.drug\" }"
                    .to_owned(),
            ),
        };
        let kind = if unfit.is_undescribed { FlawKind::Undescribed } else { FlawKind::Expression };
        let (certainty, reads) = ((kind, unfit.is_certain), reads(expression));
        self.add(place, certainty, &reads, &unfit.subject, (message, remedy));
    }

    /// A table of expressions has all that the plugin needs, and no more than it takes.
    fn check_names(
        &mut self,
        place: Place<'_>,
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
            let place = Place { field: Some(name), ..place };
            self.add(place, (FlawKind::Fields, true), &[], "", (message, remedy));
        }
    }

    fn check_input_not_said(&mut self, place: Place<'_>, plugin: &PluginName, schema: Schema<'_>) {
        let names = given(place.step).unwrap_or_default();
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
        // It is about the input as a whole: which fields are missing makes it no worse.
        self.add(place, (FlawKind::Fields, true), &[], "", (message, remedy.to_owned()));
    }

    /// An undo by another plugin is given the input of its step, and reads its output.
    fn check_undo(&mut self, step: &StepSpec) {
        let (Some(plugin), Some(undo)) = (step.plugin(), step.undo_plugin()) else { return };
        if undo == plugin {
            return;
        }
        let Some(undoing) = (self.schemas)(undo) else { return };
        let place = Place { step, key: "undo", field: None, is_decided: true };
        if let Some(names) = given(step) {
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
        let Some(own) = (self.schemas)(plugin) else { return };
        for misfit in misfits(own.output, undoing.output) {
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

/// `saga`, as expressions see it.
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

/// The keys of a step's input: those of its table, or those of an input that is not said. None when
/// one expression makes it.
fn given(step: &StepSpec) -> Option<Vec<&str>> {
    match &step.input {
        None if step.each.is_some() => Some(vec!["input", "steps", "item", "index"]),
        None => Some(vec!["input", "steps"]),
        Some(InputSpec::Fields(fields)) => Some(fields.keys().map(String::as_str).collect()),
        Some(InputSpec::Whole(_)) => None,
    }
}

/// The steps whose outputs it names.
fn reads(expression: &Expression) -> Vec<String> {
    expression.steps()
}

/// The beginning of an expression's text.
fn told(expression: &Expression) -> &str {
    let source = expression.source();
    &source[..source.floor_char_boundary(SOURCE_BYTES_TOLD)]
}

/// What a value is, in words.
fn words(shape: &Shape<'_>) -> String {
    let numbers_or = Kinds::NUMBER.or(Kinds::TEXT).or(Kinds::LIST).or(Kinds::OTHER);
    if shape.kinds == numbers_or {
        return "the result of a calculation".to_owned();
    }
    shape.kinds.to_string()
}

/// `a`, `b`, `c`, each in backquotes: the first of them, and how many more there are.
fn quoted(names: &[&str]) -> String {
    const TOLD: usize = 40;
    let told: Vec<_> = names.iter().take(TOLD).map(|name| format!("`{}`", cut(name))).collect();
    let more = names.len().saturating_sub(TOLD);
    let told = told.join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

/// `a`, `a and b`, `a, b and c`.
fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
