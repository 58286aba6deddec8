//! Asks the engine about a definition, and finds the places of what it says.

use amends_engine::{
    Definition, DefinitionError, DefinitionSpec, Flaw, FlawKind, IndexFlaw, RetrySpec,
    TIMEOUT_DEFAULT, flaws, index_flaws,
};

use crate::report::{Finding, Severity};
use crate::table::{Context, Places, join};

/// Checks a definition; none when something was reported.
pub(super) fn check_definition(
    spec: &DefinitionSpec,
    names_are_unique: bool,
    context: &mut Context<'_>,
) -> Option<Definition> {
    let again = without_limits(spec);
    let saga = spec.name.clone();
    match Definition::new(spec.clone()) {
        Ok(definition) => {
            // What is wrong whatever the plugins are; with them the lint says more.
            for flaw in flaws(&definition, &|_| None) {
                let Finding { severity, place, key, message, help } =
                    finding_of(&definition, flaw, &context.places);
                match severity {
                    Severity::Error => context.error(place, &key, message, help),
                    Severity::Warning => context.warn(place, &key, message, help),
                }
            }
            for IndexFlaw { name, is_certain, message, remedy } in index_flaws(&definition) {
                let key = join(&format!("saga.{saga}.index"), name.as_str());
                let place = context.places.of(&key);
                if is_certain {
                    context.error(place, &key, message, remedy);
                } else {
                    context.warn(place, &key, message, remedy);
                }
            }
            names_are_unique.then_some(definition)
        }
        Err(mut errors) => {
            // The engine looks at expressions and the pivot only when limits and graph are sound.
            // With limits that are, the rest of what is wrong is told at once.
            let graph_is_sound =
                errors.iter().all(|error| !matches!(error.field, "after" | "name" | "step"));
            if graph_is_sound && let Err(more) = Definition::new(again) {
                errors.extend(
                    more.into_iter().filter(|error| !errors.contains(error)).collect::<Vec<_>>(),
                );
            }
            // A name that is there twice was reported with both its lines.
            errors.retain(|error| !error.message.starts_with("two steps are named"));
            for error in errors {
                report(&saga.to_string(), spec, &error, context);
            }
            None
        }
    }
}

/// A flaw with its place.
pub(super) fn finding_of(definition: &Definition, flaw: Flaw, places: &Places) -> Finding {
    let Flaw { step, key, field, kind, is_certain, message, remedy, .. } = flaw;
    let key = format!("saga.{}.step.{step}.{key}", definition.name());
    let list = join(&key, "list");
    let key = match field {
        Some(field) => join(&key, &field),
        None if key.rsplit('.').next() == Some("each") && places.has(&list) => list,
        None => key,
    };
    let severity = match kind {
        FlawKind::Expression | FlawKind::Undescribed | FlawKind::Undo if is_certain => {
            Severity::Error
        }
        // Which component is behind a plugin may change; what is recorded in clear stays.
        FlawKind::Personal => Severity::Error,
        // Fields are never an error: which component is behind a plugin may change while the config stays.
        FlawKind::Expression | FlawKind::Undescribed | FlawKind::Undo | FlawKind::Fields => {
            Severity::Warning
        }
    };
    Finding { severity, place: places.of(&key), key, message, help: remedy }
}

/// The same graph and expressions, with limits that are right.
fn without_limits(spec: &DefinitionSpec) -> DefinitionSpec {
    let mut spec = spec.clone();
    spec.deadline = None;
    for step in &mut spec.steps {
        step.timeout = TIMEOUT_DEFAULT;
        step.retry = RetrySpec::default();
        if let Some(undo) = &mut step.undo {
            undo.timeout = TIMEOUT_DEFAULT;
            undo.retry = RetrySpec::default();
        }
    }
    spec
}

fn report(saga: &str, spec: &DefinitionSpec, error: &DefinitionError, context: &mut Context<'_>) {
    let table = match &error.step {
        Some(step) => format!("saga.{saga}.step.{step}"),
        None => format!("saga.{saga}"),
    };
    let key = narrow(&format!("{table}.{}", error.field), spec, error, context);
    let message = plain(&error.message);
    let names = || spec.steps.iter().map(|step| step.name.as_str());
    let near = unknown_step(&message).and_then(|name| context.nearest(name, names()));
    let help = match near {
        Some(near) => format!("did you mean `{near}`? {}", error.remedy),
        None => error.remedy.clone(),
    };
    context.error(context.places.of(&key), &key, message, help);
}

/// The CEL parser lists every token that could have stood there: nobody reads that.
fn plain(message: &str) -> String {
    let message = message.split(" expecting {").next().unwrap_or(message);
    message.replace("Syntax error: mismatched input '<EOF>'", "it ends in the middle")
}

/// The name in "there is no step `NAME`" and "reads step `NAME`, which does not exist".
fn unknown_step(message: &str) -> Option<&str> {
    let rest = match message.split_once("there is no step `") {
        Some((_, rest)) => rest,
        None => message.strip_suffix(", which does not exist")?.rsplit_once("reads step `")?.1,
    };
    rest.split('`').next()
}

/// The engine names `retry`, `after` or `input`; the message tells which part of it.
fn narrow(
    key: &str,
    spec: &DefinitionSpec,
    error: &DefinitionError,
    context: &Context<'_>,
) -> String {
    let has = |key: &String| context.places.has(key);
    if error.field.ends_with("retry") {
        let parts = ["attempts", "backoff", "initial", "factor", "max", "jitter"];
        let part = parts.iter().find(|part| error.message.starts_with(**part));
        return part
            .map(|part| format!("{key}.{part}"))
            .filter(has)
            .unwrap_or_else(|| key.to_owned());
    }
    if error.field == "index" {
        let named =
            spec.index.iter().find(|(_, source)| error.message.contains(&format!("`{source}`")));
        let field = named.map(|(name, _)| join(key, name.as_str()));
        return field.filter(has).unwrap_or_else(|| key.to_owned());
    }
    let step = spec.steps.iter().find(|step| Some(&step.name) == error.step.as_ref());
    let Some(step) = step else { return key.to_owned() };
    let quoted = |text: &str| error.message.contains(&format!("`{text}`"));
    match (error.field, &step.input) {
        ("each", _) => Some(join(key, "list")).filter(has).unwrap_or_else(|| key.to_owned()),
        ("after", _) => {
            let part =
                step.after.iter().position(|name| quoted(name.as_str()) || *name == step.name);
            part.map(|part| format!("{key}[{part}]")).filter(has).unwrap_or_else(|| key.to_owned())
        }
        ("input", Some(amends_engine::InputSpec::Fields(fields))) => {
            let field = fields.iter().find(|(_, source)| quoted(source));
            let field = field.map(|(name, _)| join(key, name));
            field.filter(has).unwrap_or_else(|| key.to_owned())
        }
        _ => key.to_owned(),
    }
}
