//! CEL expressions (Common Expression Language) in definitions.
//!
//! An expression sees `input`, `steps` and `saga`. Of `steps` it sees only those that are
//! done before, by the graph; so its value is the same whenever it is computed.

#![expect(
    clippy::disallowed_types,
    reason = "the CEL library keeps maps in a HashMap; what comes out of it is put in order here"
)]

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program};
use serde_json::Value;

use crate::definition::Whole;

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
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One compiled expression.
pub(crate) struct Expression {
    source: String,
    program: Program,
    /// What it looks at: nothing else is read and converted for it.
    uses: Vec<Variable>,
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

/// The values that expressions see, each made when the first of them looks at it.
pub(crate) struct Variables<'v> {
    source: Box<dyn Fn(Variable) -> Value + 'v>,
    /// As JSON has them, and as CEL has them.
    made: [OnceCell<Value>; 3],
    converted: [OnceCell<cel::Value>; 3],
    /// Of an element only.
    pub(crate) item: Option<Item>,
}

/// One element of a list and its number, from 0.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) item: Value,
    pub(crate) index: usize,
}

impl<'v> Variables<'v> {
    pub(crate) fn new(source: impl Fn(Variable) -> Value + 'v, item: Option<Item>) -> Self {
        let (made, converted) = Default::default();
        Self { source: Box::new(source), made, converted, item }
    }

    pub(crate) fn value(&self, variable: Variable) -> &Value {
        self.made[variable as usize].get_or_init(|| (self.source)(variable))
    }

    fn converted(&self, variable: Variable) -> cel::Value {
        let converted = &self.converted[variable as usize];
        converted.get_or_init(|| to_cel(self.value(variable))).clone()
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
            let first = errors.errors.first().map_or_else(String::new, |error| error.msg.clone());
            format!("`{source}` is not a CEL expression: {first}")
        })?;
        let mut uses = Vec::new();
        walk(program.expression(), &mut Vec::new(), &mut |expr, bound| {
            if let Expr::Ident(name) = expr {
                let free = Variable::ALL.into_iter().filter(|_| !bound.contains(&name.as_str()));
                uses.extend(free.filter(|variable| variable.name() == name));
            }
        });
        uses.dedup();
        let path = path(program.expression());
        Ok(Self { source: source.to_owned(), program, uses, path })
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
        let mut found = Vec::new();
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
            if let Some(name) = name
                && !found.contains(&name)
            {
                found.push(name);
            }
        });
        found
    }

    pub(crate) fn evaluate(&self, variables: &Variables<'_>) -> Result<Value, String> {
        if let Some(found) = self.path.as_ref().and_then(|path| path.find(variables)) {
            return Ok(found.clone());
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        for variable in &self.uses {
            context.add_variable_from_value(variable.name(), variables.converted(*variable));
        }
        if let Some(Item { item, index }) = &variables.item {
            context.add_variable_from_value("item", to_cel(item));
            context.add_variable_from_value("index", to_cel(&Value::from(*index)));
        }
        let value = self
            .program
            .execute(&context)
            .map_err(|error| format!("`{}`: {error}", self.source))?;
        from_cel(&value).ok_or_else(|| format!("`{}` is not a JSON value", self.source))
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

    pub(crate) fn evaluate_bool(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let value = self.evaluate(variables)?;
        value.as_bool().ok_or_else(|| format!("`{}` is {value}, not true or false", self.source))
    }
}

impl Path {
    /// None when something is missing on the way: CEL has the words for it.
    fn find<'v>(&self, variables: &'v Variables<'_>) -> Option<&'v Value> {
        let from = match self.from {
            Some(variable) => variables.value(variable),
            None => &variables.item.as_ref()?.item,
        };
        self.fields.iter().try_fold(from, |value, field| value.as_object()?.get(field))
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

/// Whole numbers become `int`, so that `input.quantity + 1` works without a cast.
fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => cel::Value::Int(whole),
            (None, Some(whole)) => cel::Value::UInt(whole),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<Key, cel::Value> = fields
                .iter()
                .map(|(name, value)| (Key::String(Arc::new(name.clone())), to_cel(value)))
                .collect();
            cel::Value::Map(Map { map: Arc::new(fields) })
        }
    }
}

/// With the keys of maps in order, so that the text is the same whenever it is computed.
fn from_cel(value: &cel::Value) -> Option<Value> {
    if let cel::Value::List(items) = value {
        return items.iter().map(from_cel).collect::<Option<_>>().map(Value::Array);
    }
    let cel::Value::Map(map) = value else { return value.json().ok() };
    let mut fields = Vec::with_capacity(map.map.len());
    for (key, value) in map.map.iter() {
        fields.push((key.to_string(), from_cel(value)?));
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    Some(Value::Object(fields.into_iter().collect()))
}
