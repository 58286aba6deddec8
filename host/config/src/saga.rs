//! `[[saga]]` and `[[saga.step]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends_engine::{
    Definition, DefinitionName, DefinitionSpec, EACH_CONCURRENCY_DEFAULT, ELEMENTS_MAX, EachSpec,
    IdError, IndexName, InputSpec, PluginName, RetrySpec, STEPS_MAX, StepKind, StepName, StepSpec,
    TIMEOUT_DEFAULT, UndoSpec,
};

use crate::children::Children;
use crate::definition::check_definition;
use crate::graph::check_graphs;
use crate::kind::read_kind;
use crate::report::Place;
use crate::retry::read_retry;
use crate::suggest::list;
use crate::table::{Context, Item, Table};

const SAGA_HELP: &str = "begin each saga with [[saga]], in two brackets, then name = \"…\"";
const STEP_HELP: &str = "begin each step with [[saga.step]], in two brackets, below its [[saga]]";
const INPUT_HELP: &str = "write a CEL expression, such as \"input.order\", or a table of them, \
                          such as { drug = \"input.drug\" }";
const INDEX_HELP: &str = "write a table of CEL expressions over input, such as { customer = \
                          \"input.customer_id\" }";
const PERSONAL_HELP: &str =
    "write a list of paths, such as [\"input.address\", \"steps.NAME.output.account\"]";
const EACH_HELP: &str = "write a CEL expression that gives a list, such as \"input.items\", or \
                         { list = \"input.items\", concurrency = 4 }";
const UNDO_HELP: &str = "write the name of a plugin, { plugin = \"…\", retry = …, timeout = … }, \
                         or false for none";

/// A step as far as it could be read.
struct Step {
    spec: StepSpec,
    /// Whether `undo` was said.
    undo_is_said: bool,
}

/// What the `[[saga]]` tables say.
#[derive(Default)]
pub(super) struct ReadSagas {
    /// The definitions that are sound.
    pub(super) definitions: Vec<Definition>,
    /// All that could be read, sound or not.
    pub(super) specs: Vec<DefinitionSpec>,
    /// How long sagas stay in the store after their end, by definition.
    pub(super) keep: BTreeMap<DefinitionName, Duration>,
}

/// Reads every `[[saga]]`.
pub(super) fn read_sagas(item: Option<&Item<'_>>, context: &mut Context<'_>) -> ReadSagas {
    let sagas = match item {
        Some(item) => item.list(context, SAGA_HELP),
        None => Some(Vec::new()),
    };
    let Some(sagas) = sagas else { return ReadSagas::default() };
    if sagas.is_empty() {
        let place = item.map_or(Place::File, |item| item.place(context));
        context.error(place, "saga", "there is no saga, so there is nothing to run", SAGA_HELP);
    }
    let ReadSagas { mut definitions, mut specs, mut keep } = ReadSagas::default();
    let mut seen = BTreeMap::new();
    for saga in &sagas {
        let Some(mut table) = saga.table(context, SAGA_HELP) else { continue };
        let (name, is_first) = take_name::<DefinitionName>(
            &mut table,
            &mut seen,
            ("order-fulfillment", "sagas"),
            context,
        );
        if let (Some(name), true) = (&name, is_first) {
            table.key = format!("saga.{name}");
            context.remember(&table.key, &table.span);
        }
        let kept = table.take("keep", context).and_then(|item| item.duration(context, "365d"));
        keep.extend(name.clone().zip(kept));
        let Some(spec) = read_saga(table, name, context) else { continue };
        definitions.extend(check_definition(&spec, is_first, context));
        specs.push(spec);
    }
    let children = Children::of(&definitions);
    check_children(&definitions, &children, &seen, context);
    check_graphs(&definitions, &children, context);
    ReadSagas { definitions, specs, keep }
}

/// A saga that a step runs is there, and none comes to run itself.
fn check_children(
    definitions: &[Definition],
    children: &Children,
    names: &BTreeMap<DefinitionName, usize>,
    context: &mut Context<'_>,
) {
    for (index, definition) in definitions.iter().enumerate() {
        for step in definition.steps() {
            let StepKind::Saga { saga: name } = &step.kind else { continue };
            let key = format!("saga.{}.step.{}.saga", definition.name(), step.name);
            if !names.contains_key(name) {
                let all = || names.keys().map(DefinitionName::as_str);
                let otherwise = || format!("name one of {}", list(all()));
                let help = context.did_you_mean(name.as_str(), all(), otherwise);
                let message = format!("there is no saga `{name}`");
                context.error(context.places.of(&key), &key, message, help);
            } else if children.comes_back(index, name) {
                let message =
                    format!("`{name}` comes to run `{}` again, without end", definition.name());
                let help = "a saga may not run itself, also not by way of another";
                context.error(context.places.of(&key), &key, message, help);
            } else if let Some(child) = children.index_of(name)
                && let Some((message, help)) = personal_leak(definition, &definitions[child])
            {
                context.error(context.places.of(&key), &key, message, help);
            }
        }
    }
}

/// Returns what is wrong when personal values of a saga, or of one that it runs, would be stored in clear by
/// the other one.
fn personal_leak(parent: &Definition, child: &Definition) -> Option<(String, String)> {
    let (parent_name, name) = (parent.name(), child.name());
    let has_subject = |definition: &Definition| definition.spec().subject.is_some();
    match (has_subject(parent), has_subject(child)) {
        (true, false) => Some((
            format!(
                "`{parent_name}` has a subject and `{name}` has none, so what it passes on is not sealed"
            ),
            format!("add subject and personal to the saga `{name}`"),
        )),
        (false, true) => Some((
            format!(
                "`{name}` has a subject and `{parent_name}`, which runs it, has none, so what `{name}` \
                 answers is not sealed there"
            ),
            format!("add subject and personal to the saga `{parent_name}`"),
        )),
        (true, true) if !child.personal().iter().any(|path| path.in_input().is_some()) => Some((
            format!(
                "`{parent_name}` has personal values, and `{name}` names none in its input, so what it \
                 is given is not sealed"
            ),
            format!("name them in personal of the saga `{name}`, or \"input\" for all of it"),
        )),
        (true, true) | (false, false) => None,
    }
}

/// The name of a saga or a step, and whether it is the first of this name.
fn take_name<N: Ord + Clone + std::fmt::Display + std::str::FromStr>(
    table: &mut Table<'_>,
    seen: &mut BTreeMap<N, usize>,
    (example, what): (&str, &str),
    context: &mut Context<'_>,
) -> (Option<N>, bool)
where
    N::Err: std::fmt::Display,
{
    let Some(item) = table.require("name", &format!("\"{example}\""), context) else {
        return (None, false);
    };
    let Some(name) = item.name::<N>(context, example) else { return (None, false) };
    let line = context.source.position(&item.span).line;
    if let Some(first) = seen.get(&name) {
        let message = format!("two {what} are named `{name}`; the first is in line {first}");
        item.error(context, message, "give each a name of its own");
        return (Some(name), false);
    }
    seen.insert(name.clone(), line);
    (Some(name), true)
}

/// None when steps lack what the graph needs; that was reported.
fn read_saga(
    mut table: Table<'_>,
    name: Option<DefinitionName>,
    context: &mut Context<'_>,
) -> Option<DefinitionSpec> {
    let deadline = table.take("deadline", context).and_then(|item| item.duration(context, "24h"));
    let compensate_within =
        table.take("compensate_within", context).and_then(|item| item.duration(context, "30d"));
    let index = table.take("index", context).and_then(|item| read_index(&item, context));
    let index = index.unwrap_or_default();
    let subject = table.take("subject", context);
    let subject = subject.and_then(|item| item.text(context, "\"input.customer_id\""));
    let personal = table.take("personal", context).and_then(|item| read_paths(&item, context));
    let personal = personal.unwrap_or_default();
    let place = Place::At(context.source.position(&table.span));
    let steps = table.take("step", context);
    let key = table.key.clone();
    table.finish(context);
    let steps = match &steps {
        Some(item) => item.list(context, STEP_HELP)?,
        None => Vec::new(),
    };
    if steps.is_empty() {
        let message = "a saga without steps does nothing";
        context.error(place, &format!("{key}.step"), message, STEP_HELP);
        return None;
    }
    if steps.len() > STEPS_MAX {
        let message = format!("{} steps, at most {STEPS_MAX} are allowed", steps.len());
        context.error(place, &format!("{key}.step"), message, "split the saga");
        return None;
    }
    let mut read = Vec::with_capacity(steps.len());
    let mut seen = BTreeMap::new();
    let mut before = Before::Nothing;
    for step in &steps {
        let step = read_step(&key, step, before.clone(), &mut seen, context);
        before =
            step.as_ref().map_or(Before::Unreadable, |step| Before::Step(step.spec.name.clone()));
        read.push(step);
    }
    let mut steps: Vec<Step> = read.into_iter().collect::<Option<_>>()?;
    drop_needless_undo(&mut steps);
    let steps = steps.into_iter().map(|step| step.spec).collect();
    let subject = subject.map(str::to_owned);
    let name = name?;
    Some(DefinitionSpec { name, deadline, compensate_within, index, subject, personal, steps })
}

/// Nothing is undone after the pivot, so a step there has no undo unless one is said (and is
/// then refused).
fn drop_needless_undo(steps: &mut [Step]) {
    let pivots = steps.iter().filter(|step| step.spec.pivot);
    let mut reached: BTreeSet<StepName> = pivots.map(|step| step.spec.name.clone()).collect();
    // Once through for each step finds every path, whatever the order of the file.
    for _ in 0..steps.len() {
        for Step { spec, undo_is_said } in steps.iter_mut() {
            if spec.after.iter().any(|name| reached.contains(name)) {
                reached.insert(spec.name.clone());
                if !*undo_is_said {
                    spec.undo = None;
                }
            }
        }
    }
}

/// What stands before a step in the config.
#[derive(Debug, Clone)]
enum Before {
    Nothing,
    Step(StepName),
    Unreadable,
}

/// Reads one step. A mistake in anything but its name and place in the graph is reported, and
/// the step goes on with a default, so that the rest of the saga can be checked as well.
fn read_step(
    saga: &str,
    item: &Item<'_>,
    before: Before,
    seen: &mut BTreeMap<StepName, usize>,
    context: &mut Context<'_>,
) -> Option<Step> {
    let mut table = item.table(context, STEP_HELP)?;
    let (name, is_first) =
        take_name::<StepName>(&mut table, seen, ("inventory", "steps of the saga"), context);
    if let (Some(name), true) = (&name, is_first) {
        table.key = format!("{saga}.step.{name}");
        context.remember(&table.key, &table.span);
    }
    let kind = read_kind(&mut table, context);
    let after = match table.take("after", context) {
        Some(item) => read_after(&item, context),
        None => match before {
            Before::Nothing => Some(Vec::new()),
            Before::Step(name) => Some(vec![name]),
            Before::Unreadable => None,
        },
    };
    let each = table.take("each", context).and_then(|item| read_each(&item, context));
    let when = table.take("when", context);
    let when = when.and_then(|item| item.text(context, "\"input.ship == true\""));
    let input = table.take("input", context).and_then(|item| read_input(&item, context));
    let timeout = table.take("timeout", context).and_then(|item| item.duration(context, "30s"));
    let retry = table.take("retry", context).and_then(|item| read_retry(&item, context));
    let undo = table.take("undo", context);
    let pivot = table.take("pivot", context).and_then(|item| item.bool(context));
    table.finish(context);

    // The result is thrown away when the kind is missing: that was reported.
    let stand_in = || {
        let plugin = name.as_ref()?.as_str().parse().ok()?;
        Some(StepKind::Call { plugin, service: None })
    };
    let kind = kind.or_else(stand_in)?;
    let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT);
    let (plugin, has_undo) = match &kind {
        StepKind::Call { plugin, .. } => (Some(plugin.clone()), true),
        StepKind::Saga { .. } => (None, true),
        StepKind::Wait { .. } | StepKind::Sleep { .. } => (None, false),
    };
    let default =
        UndoSpec { plugin, timeout: timeout.max(TIMEOUT_DEFAULT), retry: RetrySpec::default() };
    let undo_is_said = undo.is_some();
    let undo = match undo {
        None => Some(default).filter(|_| has_undo),
        Some(item) => read_undo(&item, default, context),
    };
    let spec = StepSpec {
        name: name?,
        kind,
        after: after?,
        each,
        when: when.map(str::to_owned),
        input,
        timeout,
        retry: retry.unwrap_or_default(),
        undo,
        pivot: pivot.unwrap_or(false),
    };
    Some(Step { spec, undo_is_said })
}

fn read_each(item: &Item<'_>, context: &mut Context<'_>) -> Option<EachSpec> {
    if let Some(list) = item.value.as_str() {
        return Some(EachSpec { list: list.to_owned(), concurrency: EACH_CONCURRENCY_DEFAULT });
    }
    if !item.value.is_table() {
        item.wrong_type(context, "an expression or a table", EACH_HELP);
        return None;
    }
    let mut table = item.table(context, EACH_HELP)?;
    let list = table
        .require("list", "\"input.items\"", context)
        .and_then(|item| item.text(context, "\"input.items\""));
    let most = u32::try_from(ELEMENTS_MAX).unwrap_or(u32::MAX);
    let concurrency = table.take("concurrency", context).map(|item| item.whole(context, 1..=most));
    table.finish(context);
    let concurrency = match concurrency {
        None => EACH_CONCURRENCY_DEFAULT,
        Some(concurrency) => concurrency? as usize,
    };
    Some(EachSpec { list: list?.to_owned(), concurrency })
}

fn read_after(item: &Item<'_>, context: &mut Context<'_>) -> Option<Vec<StepName>> {
    let help = "write a list of steps, such as [\"inventory\"], or [] to start at once";
    let steps = item.list(context, help)?;
    let names: Vec<_> = steps.iter().map(|step| step.name(context, "inventory")).collect();
    names.into_iter().collect()
}

fn read_input(item: &Item<'_>, context: &mut Context<'_>) -> Option<InputSpec> {
    if let Some(expression) = item.value.as_str() {
        return Some(InputSpec::Whole(expression.to_owned()));
    }
    if !item.value.is_table() {
        item.wrong_type(context, "an expression or a table of them", INPUT_HELP);
        return None;
    }
    let mut fields = BTreeMap::new();
    for (name, _, field) in item.table(context, INPUT_HELP)?.entries(context) {
        if let Some(expression) = field.value.as_str() {
            fields.insert(name.to_owned(), expression.to_owned());
        } else {
            let help =
                "write CEL in quotes: \"input.drug\", or \"'text'\" for a text, \"7\" for a number";
            field.wrong_type(context, "an expression", help);
        }
    }
    Some(InputSpec::Fields(fields))
}

fn read_index(item: &Item<'_>, context: &mut Context<'_>) -> Option<BTreeMap<IndexName, String>> {
    if !item.value.is_table() {
        item.wrong_type(context, "a table of expressions", INDEX_HELP);
        return None;
    }
    let mut index = BTreeMap::new();
    for (name, _, field) in item.table(context, INDEX_HELP)?.entries(context) {
        let Some(expression) = field.value.as_str() else {
            field.wrong_type(context, "an expression", INDEX_HELP);
            continue;
        };
        match name.parse() {
            Ok(name) => drop(index.insert(name, expression.to_owned())),
            Err(error @ IdError::Name(_)) => {
                let message = error.to_string();
                let (message, help) = message.split_once(": ").unwrap_or((&message, INDEX_HELP));
                field.error(context, message, help);
            }
            Err(error) => field.error(context, error.to_string(), INDEX_HELP),
        }
    }
    Some(index)
}

fn read_paths(item: &Item<'_>, context: &mut Context<'_>) -> Option<Vec<String>> {
    let paths = item.list(context, PERSONAL_HELP)?;
    let texts = paths.iter().map(|path| path.text(context, "\"input.address\""));
    texts.map(|text| text.map(str::to_owned)).collect()
}

fn read_undo(item: &Item<'_>, default: UndoSpec, context: &mut Context<'_>) -> Option<UndoSpec> {
    use toml::de::DeValue;
    match item.value {
        DeValue::Boolean(false) => None,
        DeValue::Boolean(true) => Some(default),
        DeValue::String(_) => {
            let plugin = item.name(context, "inventory-release")?;
            Some(UndoSpec { plugin: Some(plugin), ..default })
        }
        DeValue::Table(_) => {
            let mut table = item.table(context, UNDO_HELP)?;
            let plugin = table
                .take("plugin", context)
                .map(|item| item.name::<PluginName>(context, "inventory-release"));
            let retry = table.take("retry", context).map(|item| read_retry(&item, context));
            let timeout: Option<Option<Duration>> =
                table.take("timeout", context).map(|item| item.duration(context, "30s"));
            table.finish(context);
            Some(UndoSpec {
                plugin: match plugin {
                    Some(plugin) => Some(plugin?),
                    None => default.plugin,
                },
                retry: retry.unwrap_or(Some(default.retry))?,
                timeout: timeout.unwrap_or(Some(default.timeout))?,
            })
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => {
            item.wrong_type(context, "a plugin's name, a table or false", UNDO_HELP);
            None
        }
    }
}
