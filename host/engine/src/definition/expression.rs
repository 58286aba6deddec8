//! CEL expressions (Common Expression Language) in definitions.
//!
//! An expression of a step sees `input`, `steps` and `saga`. Of `steps` it sees only those that the
//! graph puts before it. So its value is the same whenever it is computed. An expression over an event
//! (`event_expression.rs`) sees `event` only.

mod convert;
mod error;
mod meter;
mod path;
mod syntax;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, operators};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, Program};
use serde_json::Value;

use convert::from_cel;
use error::{json_type, reason};
use meter::Meter;
use path::{Path, operand, path, path_of, read_path};
use syntax::{TYPES, has_lone_equals, literal_text, walk};
use variables::ITEM_NAMES;

pub(crate) use error::ExpressionError;
pub(crate) use path::{PassedThrough, ReadPlace, has_text};
pub(crate) use variables::{Item, Source, Variable, VariableValue, Variables};

/// The longest expression, in bytes: it is code in a config file, not data.
pub(super) const EXPRESSION_BYTES_MAX: usize = 4_096;

/// The functions of CEL and ours. There are some hundred, too many to register for every
/// evaluation.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(meter::env()));

/// One compiled expression.
pub(crate) struct Expression {
    source: String,
    /// The expression as it was written.
    program: Program,
    /// The expression with the functions that count its cost.
    metered: IdedExpr,
    /// The variables that it looks at. Only these are read and converted.
    uses: Vec<Variable>,
    uses_item: bool,
    /// The path, when the expression only names a field.
    path: Option<Path>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

impl Expression {
    /// Compiles an expression. The error is a sentence.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(format!(
                "the expression has {} bytes, at most {EXPRESSION_BYTES_MAX} are allowed",
                source.len()
            ));
        }
        let program = Program::compile(source).map_err(|errors| {
            if has_lone_equals(source) {
                return format!("`{source}` has `=`, which compares nothing: write `==`");
            }
            let first = errors.errors.first().map_or_else(String::new, |error| error.msg.clone());
            format!("`{source}` is not a CEL expression: {first}")
        })?;
        let (mut uses, mut uses_item) = (Vec::new(), false);
        walk(program.expression(), &mut Vec::new(), &mut |expr, bound| {
            let Expr::Ident(name) = expr else { return };
            if bound.contains(&name.as_str()) {
                return;
            }
            uses_item |= ITEM_NAMES.contains(&name.as_str());
            let ours = Variable::ALL.into_iter().find(|variable| variable.name() == name);
            uses.extend(ours.filter(|variable| !uses.contains(variable)));
        });
        let path = path(program.expression());
        let metered = meter::metered(program.expression());
        Ok(Self { source: source.to_owned(), program, metered, uses, uses_item, path })
    }

    /// Returns the expression as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Returns the syntax tree of the expression as it was written.
    pub(crate) fn root(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// Returns the names that the expression uses and that nothing defines: no variable of ours, no
    /// type, no macro such as `map`.
    pub(crate) fn unknown_variables(&self, known: &[Variable], is_of_element: bool) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            if let Expr::Ident(name) = expr {
                let known = known.iter().any(|variable| variable.name() == name)
                    || is_of_element && ITEM_NAMES.contains(&name.as_str())
                    || name.starts_with('@')
                    || bound.contains(&name.as_str())
                    || TYPES.contains(&name.as_str());
                if !known && !found.contains(name) {
                    found.push(name.clone());
                }
            }
        });
        found
    }

    /// Returns the steps that the expression names: `steps.NAME` and `steps["NAME"]`.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.named_steps().0
    }

    /// Returns true when the expression uses `steps` in another way, and so all of them.
    pub(crate) fn uses_all_steps(&self) -> bool {
        let (_, named) = self.named_steps();
        let mut uses = 0;
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            let is_steps = matches!(expr, Expr::Ident(name) if name == "steps");
            uses += usize::from(is_steps && !bound.contains(&"steps"));
        });
        uses > named
    }

    /// Returns the steps that the expression names, and in how many places it names one.
    fn named_steps(&self) -> (Vec<String>, usize) {
        let (mut found, mut places) = (Vec::new(), 0);
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            let is_steps = |expr: &Expr| {
                matches!(expr, Expr::Ident(name) if name == "steps") && !bound.contains(&"steps")
            };
            let name = if let Expr::Select(select) = expr {
                is_steps(&select.operand.expr).then(|| select.field.clone())
            } else if let Expr::Call(call) = expr {
                match call.args.as_slice() {
                    [operand, index]
                        if call.func_name == operators::INDEX && is_steps(&operand.expr) =>
                    {
                        literal_text(&index.expr)
                    }
                    _ => None,
                }
            } else {
                None
            };
            if let Some(name) = name {
                places += 1;
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        });
        (found, places)
    }

    /// Returns the value of the expression. Expressions with the same variables share one budget.
    pub(crate) fn evaluate(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        let value = self.evaluate_counted(variables);
        // Checked also after a success: an operator such as `||` may have swallowed the error.
        if let Some(limit) = variables.meter.exceeded() {
            return Err(ExpressionError::Limit(format!(
                "`{}` {limit}, counted together with the other expressions of the step; give it less \
                 data, shorter lists and texts, take loops out of loops, or compute it in a plugin",
                self.source
            )));
        }
        value
    }

    /// Returns the value of the expression, however much it cost.
    fn evaluate_counted(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        if let Some(path) = &self.path
            && let Some(found) = path.find(variables)?
        {
            return Ok(found.clone());
        }
        let meter: &dyn Val = &variables.meter;
        let mut bound = BoundVariables(vec![(Meter::NAME, meter)]);
        for variable in &self.uses {
            bound.0.push((variable.name(), variables.converted(*variable)?));
        }
        if let Some(item) = variables.item().filter(|_| self.uses_item) {
            let values = item.converted()?.iter().map(|value| -> &dyn Val { value.as_ref() });
            bound.0.extend(ITEM_NAMES.into_iter().zip(values));
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&bound);
        let value = cel::Value::resolve_val(&self.metered, &context);
        let source = &self.source;
        let value = value.map_err(|error| {
            ExpressionError::Failed(format!("`{source}`: {}", reason(&error, source)))
        })?;
        from_cel(value.as_ref())
            .ok_or_else(|| ExpressionError::Failed(format!("`{source}` is not a JSON value")))
    }

    /// Returns the payload that the expression passes through unchanged, if any.
    pub(crate) fn passed_through(&self) -> Option<PassedThrough<'_>> {
        self.path.as_ref()?.passed_through()
    }

    /// Returns the places that the expression reads, as far as it names them by fields alone.
    pub(crate) fn places(&self) -> Vec<ReadPlace> {
        if let Some(path) = &self.path {
            return vec![path.place(true)];
        }
        let (mut places, mut skip) = (Vec::new(), 0);
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            // What a path consists of is visited after it.
            if skip > 0 {
                skip -= 1;
                return;
            }
            // Whether a field is there says nothing of its value.
            if let Expr::Select(select) = expr
                && select.test
                && let Some(path) = path(&select.operand)
            {
                skip = path.len() + 1;
                return;
            }
            if let Some(path) = path_of(expr) {
                skip = path.len();
                if !bound.contains(&path.name()) {
                    places.push(path.place(false));
                }
            }
        });
        places
    }

    /// Returns true when the expression reads a value at this path of a variable, a part of it, or something
    /// that it is a part of.
    pub(crate) fn reads(&self, variable: Variable, fields: &[String]) -> bool {
        self.reads_any(|path| path.has_part_of(variable, fields))
    }

    /// Returns true when the expression reads a value that has this text in it, or something of it.
    pub(crate) fn reads_text(&self, text: &str, variables: &Variables<'_>) -> bool {
        self.reads_any(|path| path.leads_to_text(text, variables))
    }

    /// Returns true when the expression reads such a path.
    fn reads_any(&self, is_such: impl Fn(&Path) -> bool) -> bool {
        let (mut reads, mut operands) = (false, Vec::new());
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            let Some(path) = read_path(expr) else { return };
            if bound.contains(&path.name()) {
                return;
            }
            // `input` is read of `input.order.id`, but of `input` no more than that.
            operands.extend(operand(expr).map(std::ptr::from_ref));
            let is_whole = !operands.contains(&std::ptr::from_ref(expr));
            reads |= is_whole && is_such(&path);
        });
        reads
    }

    /// Returns the value of an expression that must be true or false.
    pub(crate) fn evaluate_bool(&self, variables: &Variables<'_>) -> Result<bool, ExpressionError> {
        let value = self.evaluate(variables)?;
        value.as_bool().ok_or_else(|| {
            let (source, found) = (&self.source, json_type(&value));
            ExpressionError::Failed(format!("`{source}` is {found}, not true or false"))
        })
    }
}

/// The variables of one evaluation, by name.
struct BoundVariables<'b>(Vec<(&'static str, &'b dyn Val)>);

impl VariableResolver for BoundVariables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let found = self.0.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| CowVal::Borrowed(*value))
    }
}
