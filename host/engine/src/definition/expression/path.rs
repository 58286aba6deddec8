//! Expressions that only name a field, such as `input.order.id`. Most do, and need no interpreter.

use cel::common::ast::{Expr, IdedExpr, operators};
use serde_json::Value;

use super::error::ExpressionError;
use super::syntax::literal_text;
use super::variables::{Variable, Variables};

/// A variable, and the fields that lead from it to a value.
pub(super) struct Path {
    /// The variable; none for `item`.
    from: Option<Variable>,
    fields: Vec<String>,
}

/// A place that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadPlace {
    /// The variable; none for `item`.
    pub(crate) variable: Option<Variable>,
    /// The fields that lead from the variable to the place.
    pub(crate) fields: Vec<String>,
    /// True when what is there is the value of the expression.
    pub(crate) is_value: bool,
}

/// A payload that a step passes through unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedThrough<'d> {
    /// The input of the saga.
    Input,
    /// The element.
    Item,
    /// The output of the step of this name.
    Output(&'d str),
}

impl Path {
    /// Returns the value at the end of the path. None when a field is missing: then the interpreter
    /// makes the error.
    pub(super) fn find<'v>(
        &self,
        variables: &'v Variables<'_>,
    ) -> Result<Option<&'v Value>, ExpressionError> {
        let from = match (self.from, variables.item()) {
            (Some(variable), _) => variables.value(variable)?,
            (None, Some(item)) => item.value()?,
            (None, None) => return Ok(None),
        };
        Ok(self.fields.iter().try_fold(from, |value, field| value.as_object()?.get(field)))
    }

    /// Returns true when the path leads to this place of a variable, into it, or to something that has it.
    pub(super) fn has_part_of(&self, variable: Variable, fields: &[String]) -> bool {
        self.from == Some(variable)
            && self.fields.iter().zip(fields).all(|(one, other)| one == other)
    }

    /// Returns true when this text is on the path, at its end, or in what is there.
    pub(super) fn leads_to_text(&self, text: &str, variables: &Variables<'_>) -> bool {
        let from = match (self.from, variables.item()) {
            (Some(variable), _) => variables.value(variable).ok(),
            (None, item) => item.and_then(|item| item.value().ok()),
        };
        from.is_some_and(|value| has_text(value, &self.fields, text))
    }

    /// Returns the place at the end of the path.
    pub(super) fn place(&self, is_value: bool) -> ReadPlace {
        ReadPlace { variable: self.from, fields: self.fields.clone(), is_value }
    }

    /// Returns how many fields the path has.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns the name that the path begins with, which a macro may have bound.
    pub(super) fn name(&self) -> &'static str {
        self.from.map_or("item", Variable::name)
    }

    /// Returns the payload that the path passes through unchanged, if it names a whole payload.
    pub(super) fn passed_through(&self) -> Option<PassedThrough<'_>> {
        match (self.from, self.fields.as_slice()) {
            (Some(Variable::Input), []) => Some(PassedThrough::Input),
            (None, []) => Some(PassedThrough::Item),
            (Some(Variable::Steps), [step, output]) if output == "output" => {
                Some(PassedThrough::Output(step))
            }
            (
                Some(Variable::Input | Variable::Steps | Variable::Saga | Variable::Event) | None,
                _,
            ) => None,
        }
    }
}

/// Returns true when this text is on the way that the fields lead from a value, at its end, or in what is
/// there. Lists on the way are passed through.
pub(crate) fn has_text(value: &Value, fields: &[String], text: &str) -> bool {
    match (value, fields) {
        (Value::String(found), _) => found == text,
        (Value::Array(items), _) => items.iter().any(|item| has_text(item, fields, text)),
        (Value::Object(all), []) => all.values().any(|value| has_text(value, &[], text)),
        (Value::Object(all), [field, rest @ ..]) => {
            all.get(field).is_some_and(|value| has_text(value, rest, text))
        }
        (Value::Null | Value::Bool(_) | Value::Number(_), _) => false,
    }
}

/// Returns the path that an expression is, if it is one.
pub(super) fn path(node: &IdedExpr) -> Option<Path> {
    path_of(&node.expr)
}

/// Returns the path that a part of an expression is, if it is one.
pub(super) fn path_of(expr: &Expr) -> Option<Path> {
    if let Expr::Ident(name) = expr {
        let variable = Variable::ALL.into_iter().find(|variable| variable.name() == name);
        let is_known = variable.is_some() || name == "item";
        return is_known.then(|| Path { from: variable, fields: Vec::new() });
    }
    let Expr::Select(select) = expr else { return None };
    let mut path = path(&select.operand).filter(|_| !select.test)?;
    path.fields.push(select.field.clone());
    Some(path)
}

/// Returns the path that a part of an expression reads, if it is one. An index with a text is a field, and
/// one with anything else leads through a list, as a path to personal values does.
pub(super) fn read_path(expr: &Expr) -> Option<Path> {
    let Some(operand) = operand(expr) else { return path_of(expr) };
    let mut path = read_path(operand)?;
    if let Expr::Select(select) = expr {
        path.fields.push(select.field.clone());
    } else if let Expr::Call(call) = expr {
        path.fields.extend(call.args.get(1).and_then(|index| literal_text(&index.expr)));
    }
    Some(path)
}

/// Returns the part of a path that leads to its last field.
pub(super) fn operand(expr: &Expr) -> Option<&Expr> {
    if let Expr::Select(select) = expr {
        return Some(&select.operand.expr);
    }
    let Expr::Call(call) = expr else { return None };
    let is_index = call.target.is_none() && call.func_name == operators::INDEX;
    call.args.first().filter(|_| is_index).map(|operand| &operand.expr)
}
