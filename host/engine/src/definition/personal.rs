//! The subject of a definition's sagas, and the places of their personal values.

use super::error::Mistakes;
use super::expression::{Expression, Variable, Variables};
use super::index::InputSource;
use super::spec::DefinitionSpec;
use crate::payload::Payload;
use crate::personal::{PERSONAL_PATHS_MAX, PersonalPath, SUBJECT_BYTES_MAX};

const SUBJECT_REMEDY: &str = "write CEL over input, such as \"input.customer_id\"";
const PATH_REMEDY: &str = "write a path such as \"input.address\" or \"steps.NAME.output.account\"";

/// What a definition says about personal values.
#[derive(Debug, Default)]
pub(crate) struct Personal {
    subject: Option<Expression>,
    paths: Vec<PersonalPath>,
}

impl Personal {
    /// Compiles what a spec says.
    pub(super) fn compile(spec: &DefinitionSpec, mistakes: &mut Mistakes) -> Self {
        if spec.personal.len() > PERSONAL_PATHS_MAX {
            let count = spec.personal.len();
            let message = format!("{count} paths, at most {PERSONAL_PATHS_MAX} are allowed");
            mistakes.add(None, "personal", message, "name an object in the place of its fields");
            return Self::default();
        }
        if spec.subject.is_none() && !spec.personal.is_empty() {
            let message = "personal values are sealed with the key of a subject, and there is none";
            let remedy = "add subject = \"input.customer_id\": whose values these are";
            mistakes.add(None, "personal", message, remedy);
        }
        let subject = spec.subject.as_deref().and_then(|source| subject(source, mistakes));
        let mut paths = Vec::new();
        for text in &spec.personal {
            match text.parse::<PersonalPath>() {
                Err(message) => mistakes.add(None, "personal", message, PATH_REMEDY),
                Ok(path) => {
                    if let Some(name) = path.step()
                        && !spec.steps.iter().any(|step| step.name.as_str() == name)
                    {
                        let message = format!("`{text}` reads step `{name}`, which does not exist");
                        mistakes.add(None, "personal", message, PATH_REMEDY);
                    }
                    paths.push(path);
                }
            }
        }
        for (name, source) in &spec.index {
            let Ok(expression) = Expression::compile(source) else { continue };
            let is_personal = |path: &&PersonalPath| {
                path.in_input().is_some_and(|fields| expression.reads(Variable::Input, fields))
            };
            if paths.iter().any(|path| is_personal(&path)) {
                let message = format!(
                    "`{source}` indexes a personal value as `{name}`, and the index is not sealed"
                );
                let remedy = "index something that is not personal, or do not index it";
                mistakes.add(None, "index", message, remedy);
            }
        }
        Self { subject, paths }
    }

    /// Returns the places of the personal values.
    pub(super) fn paths(&self) -> &[PersonalPath] {
        &self.paths
    }

    /// Returns the subject of a saga with this input. None when the definition has none.
    ///
    /// # Errors
    /// A clause for people, when the input has no subject.
    pub(super) fn subject(&self, input: &Payload) -> Result<Option<String>, String> {
        let Some(expression) = &self.subject else { return Ok(None) };
        let source = expression.source();
        let value = expression.evaluate(&Variables::new(InputSource(input), None));
        let value = value.map_err(|error| error.to_string())?;
        match value.as_str() {
            Some(text) if (1..=SUBJECT_BYTES_MAX).contains(&text.len()) => {
                Ok(Some(text.to_owned()))
            }
            Some(text) => Err(format!(
                "`{source}` gives a text of {} bytes, and a subject has 1 to {SUBJECT_BYTES_MAX}",
                text.len()
            )),
            None => Err(format!("`{source}` gives no text")),
        }
    }
}

fn subject(source: &str, mistakes: &mut Mistakes) -> Option<Expression> {
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(message) => {
            mistakes.add(None, "subject", message, SUBJECT_REMEDY);
            return None;
        }
    };
    for name in expression.unknown_variables(&[Variable::Input], false) {
        let message =
            format!("`{source}` uses `{name}`, and a subject is computed of `input` alone");
        mistakes.add(None, "subject", message, SUBJECT_REMEDY);
    }
    Some(expression)
}
