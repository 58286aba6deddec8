//! CEL expressions (Common Expression Language) in definitions.
//!
//! An expression sees `input`, `steps` and `saga`. Of `steps` it sees only those that are
//! done before, by the graph; so its value is the same whenever it is computed.

#![expect(
    clippy::disallowed_types,
    reason = "the CEL library keeps maps in a HashMap; what comes out of it is put in order here"
)]

mod meter;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, Program};
use serde_json::Value;

pub use meter::{EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX};

use crate::definition::Whole;
use crate::payload::PayloadError;
use meter::Meter;

/// An expression is at most this many bytes: it is code in a config file, not data.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;

/// What an expression sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    Input,
    Steps,
    Saga,
}

impl Variable {
    const ALL: [Self; 3] = [Self::Input, Self::Steps, Self::Saga];

    const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Steps => "steps",
            Self::Saga => "saga",
        }
    }
}

/// The names that those of an element may use as well.
const ITEM_NAMES: [&str; 2] = ["item", "index"];

/// CEL's own functions: some hundred, too many to be registered for every evaluation.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(meter::env()));

/// What an expression could not be computed for is told in at most this many bytes: the library
/// writes whole values into its errors.
const REASON_BYTES_MAX: usize = 500;

/// Why an expression has no value. The words are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    /// With this input it has none.
    #[error("{0}")]
    Failed(String),
    /// It costs more than [`EVALUATION_STEPS_MAX`] or [`EVALUATION_BYTES_MAX`].
    #[error("{0}")]
    Limit(String),
}

impl ExpressionError {
    /// The code of the failure that it is: `otherwise`, unless a limit was exceeded.
    pub(crate) fn code(&self, otherwise: &'static str) -> &'static str {
        match self {
            Self::Failed(_) => otherwise,
            Self::Limit(_) => "expression_limit",
        }
    }
}

/// One compiled expression.
pub(crate) struct Expression {
    source: String,
    /// As it was written.
    program: Program,
    /// With the functions that count what it costs.
    metered: IdedExpr,
    /// What it looks at: nothing else is read and converted for it.
    uses: Vec<Variable>,
    uses_item: bool,
    /// Of one that only names a field, `input.order.id`: most do, and need no interpreter.
    path: Option<Path>,
}

/// A variable and the fields that lead from it to a value.
struct Path {
    /// None: `item`.
    from: Option<Variable>,
    fields: Vec<String>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

/// What the values of variables are read from.
pub(crate) trait Source {
    /// The bytes of its text.
    fn bytes(&self, variable: Variable) -> usize;

    /// Its value.
    fn read(&self, variable: Variable) -> Read;
}

/// The values that the expressions of a step see, each made when the first of them looks at it, and
/// what they have cost.
pub(crate) struct Variables<'v> {
    source: Box<dyn Source + 'v>,
    /// As JSON has them, and as CEL has them.
    made: [OnceCell<Read>; 3],
    converted: [OnceCell<Box<dyn Val>>; 3],
    /// Of an element only.
    item: Option<Item>,
    meter: Meter,
    /// What is read was counted when the step was decided on.
    is_decided: bool,
}

/// A value that was read from a payload, which an earlier version may have recorded without one.
pub(crate) type Read = Result<Value, PayloadError>;

/// One element of a list and its number, from 0.
pub(crate) struct Item {
    value: Read,
    pub(crate) index: usize,
    converted: OnceCell<[Box<dyn Val>; 2]>,
}

impl Item {
    pub(crate) fn new(value: Read, index: usize) -> Self {
        Self { value, index, converted: OnceCell::new() }
    }

    pub(crate) fn value(&self) -> Result<&Value, ExpressionError> {
        self.value.as_ref().map_err(|error| unreadable("item", error))
    }

    fn converted(&self) -> Result<&[Box<dyn Val>; 2], ExpressionError> {
        let item = self.value()?;
        let made = || [to_cel(item), to_cel(&Value::from(self.index))];
        Ok(self.converted.get_or_init(made))
    }
}

fn unreadable(name: &str, error: &PayloadError) -> ExpressionError {
    ExpressionError::Failed(format!("what was recorded as `{name}` has no value: {error}"))
}

impl<'v> Variables<'v> {
    pub(crate) fn new(source: impl Source + 'v, item: Option<Item>) -> Self {
        let (made, converted) = Default::default();
        Self {
            source: Box::new(source),
            made,
            converted,
            item,
            meter: Meter::default(),
            is_decided: false,
        }
    }

    /// For what was decided on before, perhaps by a version that did not count what is read.
    pub(crate) fn decided(self) -> Self {
        Self { is_decided: true, ..self }
    }

    /// Counts what is about to be read, or looked at.
    fn count(
        &self,
        variable: Variable,
        count: impl Fn(&Meter, usize) -> Result<(), ExpressionError>,
    ) -> Result<(), ExpressionError> {
        if self.is_decided { Ok(()) } else { count(&self.meter, self.source.bytes(variable)) }
    }

    pub(crate) fn value(&self, variable: Variable) -> Result<&Value, ExpressionError> {
        let made = &self.made[variable as usize];
        if made.get().is_none() {
            self.count(variable, Meter::read)?;
        }
        made.get_or_init(|| self.source.read(variable))
            .as_ref()
            .map_err(|error| unreadable(variable.name(), error))
    }

    pub(crate) fn item(&self) -> Option<&Item> {
        self.item.as_ref()
    }

    /// The next element; what was used up stays used up.
    pub(crate) fn set_item(&mut self, item: Item) {
        self.item = Some(item);
    }

    fn converted(&self, variable: Variable) -> Result<&dyn Val, ExpressionError> {
        let value = self.value(variable)?;
        let converted = &self.converted[variable as usize];
        if converted.get().is_none() {
            self.count(variable, Meter::convert)?;
        }
        Ok(converted.get_or_init(|| to_cel(value)).as_ref())
    }
}

/// The variables of one evaluation, by name.
struct Bound<'b>(Vec<(&'static str, &'b dyn Val)>);

impl VariableResolver for Bound<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let found = self.0.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| CowVal::Borrowed(*value))
    }
}

impl Expression {
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

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Its syntax tree, as it was written.
    pub(crate) fn root(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// Names that are used and that are neither ours nor bound by a macro such as `map`.
    pub(crate) fn unknown_variables(&self, of_element: bool) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            if let Expr::Ident(name) = expr {
                let known = Variable::ALL.iter().any(|variable| variable.name() == name)
                    || of_element && ITEM_NAMES.contains(&name.as_str())
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

    /// The steps that it names: `steps.NAME` and `steps["NAME"]`.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.named_steps().0
    }

    /// Whether it looks at `steps` in another way, and so at all of them.
    pub(crate) fn uses_all_steps(&self) -> bool {
        let (_, named) = self.named_steps();
        let mut uses = 0;
        walk(self.program.expression(), &mut Vec::new(), &mut |expr, bound| {
            let is_steps = matches!(expr, Expr::Ident(name) if name == "steps");
            uses += usize::from(is_steps && !bound.contains(&"steps"));
        });
        uses > named
    }

    /// The steps that it names, and in how many places it does.
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

    /// Its value. The expressions that are given the same variables share one budget.
    pub(crate) fn evaluate(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        let value = self.evaluate_counted(variables);
        // Whatever came of it: an operator such as `||` may have swallowed the error.
        if let Some(limit) = variables.meter.exceeded() {
            return Err(ExpressionError::Limit(format!(
                "`{}` {limit}, counted together with the other expressions of the step; give it less \
                 data, shorter lists and texts, take loops out of loops, or compute it in a plugin",
                self.source
            )));
        }
        value
    }

    fn evaluate_counted(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        if let Some(path) = &self.path
            && let Some(found) = path.find(variables)?
        {
            return Ok(found.clone());
        }
        let meter: &dyn Val = &variables.meter;
        let mut bound = Bound(vec![(Meter::NAME, meter)]);
        for variable in &self.uses {
            bound.0.push((variable.name(), variables.converted(*variable)?));
        }
        if let Some(item) = variables.item.as_ref().filter(|_| self.uses_item) {
            let values = item.converted()?.iter().map(|value| -> &dyn Val { value.as_ref() });
            bound.0.extend(ITEM_NAMES.into_iter().zip(values));
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&bound);
        let value = cel::Value::resolve_val(&self.metered, &context);
        let failed = |what: &dyn std::fmt::Display| {
            ExpressionError::Failed(format!("`{}`{}", self.source, Short::of(what)))
        };
        let value = value.map_err(|error| failed(&format_args!(": {error}")))?;
        from_cel(value.as_ref()).ok_or_else(|| failed(&" is not a JSON value"))
    }

    /// What it is the whole of, when it is the whole of something.
    pub(crate) fn whole(&self) -> Option<Whole<'_>> {
        let path = self.path.as_ref()?;
        match (path.from, path.fields.as_slice()) {
            (Some(Variable::Input), []) => Some(Whole::Input),
            (None, []) => Some(Whole::Item),
            (Some(Variable::Steps), [step, output]) if output == "output" => {
                Some(Whole::Output(step))
            }
            (Some(Variable::Input | Variable::Steps | Variable::Saga) | None, _) => None,
        }
    }

    pub(crate) fn evaluate_bool(&self, variables: &Variables<'_>) -> Result<bool, ExpressionError> {
        let value = self.evaluate(variables)?;
        value.as_bool().ok_or_else(|| {
            let value = Short::of(&value);
            ExpressionError::Failed(format!("`{}` is {value}, not true or false", self.source))
        })
    }
}

impl Path {
    /// None when something is missing on the way: CEL has the words for it.
    fn find<'v>(&self, variables: &'v Variables<'_>) -> Result<Option<&'v Value>, ExpressionError> {
        let from = match (self.from, variables.item()) {
            (Some(variable), _) => variables.value(variable)?,
            (None, Some(item)) => item.value()?,
            (None, None) => return Ok(None),
        };
        Ok(self.fields.iter().try_fold(from, |value, field| value.as_object()?.get(field)))
    }
}

fn path(node: &IdedExpr) -> Option<Path> {
    if let Expr::Ident(name) = &node.expr {
        let variable = Variable::ALL.into_iter().find(|variable| variable.name() == name);
        let is_known = variable.is_some() || name == "item";
        return is_known.then(|| Path { from: variable, fields: Vec::new() });
    }
    let Expr::Select(select) = &node.expr else { return None };
    let mut path = path(&select.operand).filter(|_| !select.test)?;
    path.fields.push(select.field.clone());
    Some(path)
}

/// Whether a `=` stands alone, outside of texts: people write it for `==`.
fn has_lone_equals(source: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            Some(_) if character == '\\' => drop(characters.next()),
            Some(open) if character == open => quote = None,
            None if character == '"' || character == '\'' => quote = Some(character),
            None if character == '=' => {
                if !"=!<>".contains(before) && characters.peek() != Some(&'=') {
                    return true;
                }
            }
            Some(_) | None => {}
        }
        before = character;
    }
    false
}

/// Names of types, which CEL lets stand where a value may.
const TYPES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

fn literal_text(expr: &Expr) -> Option<String> {
    if let Expr::Literal(LiteralValue::String(text)) = expr {
        Some(text.inner().to_owned())
    } else {
        None
    }
}

/// Visits every node, with the names that macros have bound there.
fn walk<'e>(
    node: &'e IdedExpr,
    bound: &mut Vec<&'e str>,
    visit: &mut impl FnMut(&'e Expr, &[&'e str]),
) {
    visit(&node.expr, bound);
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            for child in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                walk(child, bound, visit);
            }
        }
        Expr::Comprehension(comprehension) => {
            walk(&comprehension.iter_range, bound, visit);
            walk(&comprehension.accu_init, bound, visit);
            let outer = bound.len();
            bound.push(&comprehension.iter_var);
            bound.extend(comprehension.iter_var2.as_deref());
            bound.push(&comprehension.accu_var);
            walk(&comprehension.loop_cond, bound, visit);
            walk(&comprehension.loop_step, bound, visit);
            walk(&comprehension.result, bound, visit);
            bound.truncate(outer);
        }
        Expr::List(list) => {
            for child in &list.elements {
                walk(child, bound, visit);
            }
        }
        Expr::Map(map) => walk_entries(&map.entries, bound, visit),
        Expr::Struct(structure) => walk_entries(&structure.entries, bound, visit),
        Expr::Select(select) => walk(&select.operand, bound, visit),
    }
}

fn walk_entries<'e>(
    entries: &'e [cel::common::ast::IdedEntryExpr],
    bound: &mut Vec<&'e str>,
    visit: &mut impl FnMut(&'e Expr, &[&'e str]),
) {
    for entry in entries {
        match &entry.expr {
            EntryExpr::StructField(field) => walk(&field.value, bound, visit),
            EntryExpr::MapEntry(entry) => {
                walk(&entry.key, bound, visit);
                walk(&entry.value, bound, visit);
            }
        }
    }
}

/// The beginning of a text that may be very long, which is not made to its end.
struct Short(String);

impl Short {
    fn of(text: &dyn std::fmt::Display) -> String {
        let mut short = Self(String::new());
        if write!(short, "{text}").is_err() {
            short.0.push('…');
        }
        short.0
    }
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        let left = REASON_BYTES_MAX.saturating_sub(self.0.len());
        if more.len() <= left {
            self.0.push_str(more);
            return Ok(());
        }
        let end = (0..=left).rev().find(|end| more.is_char_boundary(*end));
        self.0.push_str(&more[..end.unwrap_or(0)]);
        Err(std::fmt::Error)
    }
}

/// Whole numbers become `int`, so that `input.quantity + 1` works without a cast.
fn to_cel(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Box::new(CelInt::from(whole)),
            (None, Some(whole)) => Box::new(CelUInt::from(whole)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(items) => {
            Box::new(CelList::from(items.iter().map(to_cel).collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| (CelMapKey::from(name.clone()), to_cel(value)));
            Box::new(CelMap::from(fields.collect::<HashMap<_, _>>()))
        }
    }
}

/// With the keys of maps in order, so that the text is the same whenever it is computed.
fn from_cel(value: &dyn Val) -> Option<Value> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Some(Value::from(text.inner()));
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        let items = list.inner().iter();
        return items.map(|item| from_cel(item.as_ref())).collect::<Option<_>>().map(Value::Array);
    }
    let Some(map) = value.downcast_ref::<CelMap>() else {
        let value = cel::Value::try_from(value).ok()?;
        return value.json().ok();
    };
    // Keys of different types may have the same text; the last one stays.
    let mut entries: Vec<_> = map.inner().iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    let mut fields = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        fields.push((cel::objects::Key::from(key.clone()).to_string(), from_cel(value.as_ref())?));
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    Some(Value::Object(fields.into_iter().collect()))
}
