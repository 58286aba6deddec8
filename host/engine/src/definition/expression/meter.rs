//! The limits on the cost of evaluating the expressions of a step.
//!
//! The CEL library always evaluates to the end, on the thread that runs all sagas of a shard. So
//! [`metered`] inserts functions that count into an expression: for each element that a macro such
//! as `all` visits, and around everything that operators and functions compare, join or copy. These
//! functions return their operand, so the expression keeps its value. The count depends only on the
//! expression and on the values that it sees, not on time. So it is the same on every host.

use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, operators,
};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelOptional, CelString, DYN_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};

use super::error::ExpressionError;
use crate::definition::functions::add_ours;

/// The most steps that expressions take when they are evaluated together: `when` and `input` of a
/// step, or its `each` and the inputs of all elements. One step here is an operator, function,
/// field or literal, evaluated for one element of a list. The limit is some 20 ms. A worker runs its
/// sagas on one thread, so all of them wait that long.
pub(crate) const EVALUATION_STEPS_MAX: u64 = 250_000;

/// The most bytes that expressions read, compare, join and copy when they are evaluated together. A
/// value counts 24 bytes and its text. A payload that is read counts its bytes, and twice its bytes
/// more when an operator or a function looks at it. So the largest payload with the smallest values
/// in it can be copied once.
pub(crate) const EVALUATION_BYTES_MAX: u64 = 16 << 20;

/// The bytes that every value counts apart from its content: its box, and its place in a list.
const VALUE_BYTES: u64 = 24;

/// The bytes that an index counts when it is no whole number: the library copies the whole list
/// into its error.
const BAD_INDEX_BYTES: u64 = 1 << 20;

const METER: &str = "@meter";
const SIZED: &str = "@sized";
const TEXT: &str = "@text";
const CONTAINER: &str = "@container";
const INDEX: &str = "@index";
const ELEMENTS: &str = "@elements";
const VISIT: &str = "@visit";
const MAY_GO_ON: &str = "@may_go_on";

/// What an evaluation has spent of [`EVALUATION_STEPS_MAX`] and [`EVALUATION_BYTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Meter {
    // Only one thread writes at a time. The counts are atomic because CEL wants values that are
    // `Sync`.
    steps: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// The name of the meter in metered expressions. No source text can contain it.
    pub(super) const NAME: &str = METER;

    /// Says which limit was exceeded, if one was.
    pub(super) fn exceeded(&self) -> Option<String> {
        if self.steps.load(Ordering::Relaxed) > EVALUATION_STEPS_MAX {
            return Some(format!("takes more than {EVALUATION_STEPS_MAX} steps"));
        }
        (self.bytes.load(Ordering::Relaxed) > EVALUATION_BYTES_MAX).then(|| {
            format!("reads, compares and copies more than {} MiB", EVALUATION_BYTES_MAX >> 20)
        })
    }

    /// Counts steps and bytes. Fails when a limit is exceeded.
    fn spend(&self, steps: u64, bytes: u64) -> Result<(), ExecutionError> {
        let add = |count: &AtomicU64, more: u64| {
            let sum = count.load(Ordering::Relaxed).saturating_add(more);
            count.store(sum, Ordering::Relaxed);
        };
        add(&self.steps, steps);
        add(&self.bytes, bytes);
        match self.exceeded() {
            None => Ok(()),
            // Operators such as `||` may swallow this error, so the caller also asks the meter.
            Some(limit) => Err(ExecutionError::InternalError(limit)),
        }
    }

    /// Counts a payload of so many bytes before it is read.
    pub(super) fn read(&self, bytes: usize) -> Result<(), ExpressionError> {
        self.spend(0, bytes as u64).map_err(|error| ExpressionError::Limit(error.to_string()))
    }

    /// Counts a payload of so many bytes before it is converted into values of CEL. Reading and
    /// converting take some three times as long as reading.
    pub(super) fn convert(&self, bytes: usize) -> Result<(), ExpressionError> {
        self.read(bytes.saturating_mul(2))
    }

    /// Counts a value that is looked at.
    fn look_at(&self, value: &dyn Val) -> Result<(), ExecutionError> {
        let left = EVALUATION_BYTES_MAX.saturating_sub(self.bytes.load(Ordering::Relaxed));
        self.spend(0, bytes(value, left))
    }
}

static METER_TYPE: Type = Type::new_unspecified_type("amends.meter");

impl Val for Meter {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &METER_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        let copy = |count: &AtomicU64| AtomicU64::new(count.load(Ordering::Relaxed));
        Box::new(Self { steps: copy(&self.steps), bytes: copy(&self.bytes) })
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Meter {}

/// Returns the bytes of a value. The count stops soon after it has exceeded `max`.
fn bytes(value: &dyn Val, max: u64) -> u64 {
    let mut sum = VALUE_BYTES;
    if let Some(text) = value.downcast_ref::<CelString>() {
        sum += text.inner().len() as u64;
    } else if let Some(text) = value.downcast_ref::<CelBytes>() {
        sum += text.inner().len() as u64;
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        for item in list.inner() {
            if sum > max {
                break;
            }
            sum += bytes(item.as_ref(), max - sum);
        }
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        for (key, value) in map.inner() {
            if sum > max {
                break;
            }
            sum += bytes(key.inner(), max - sum);
            sum += bytes(value.as_ref(), max.saturating_sub(sum));
        }
    } else if let Some(value) = value.downcast_ref::<CelOptional>().and_then(CelOptional::option) {
        sum += bytes(value, max - sum.min(max));
    }
    sum
}

/// Returns the functions of CEL, ours, and those that count.
pub(super) fn env() -> Env {
    let mut env = Env::stdlib();
    add_ours(&mut env);
    let functions: [(&str, usize, cel::common::functions::Function); 7] = [
        (SIZED, 2, |args| counted(args, |meter, value| meter.look_at(value))),
        (TEXT, 2, |args| {
            counted(args, |meter, value| match value.downcast_ref::<CelList>() {
                None if value.downcast_ref::<CelMap>().is_none() => meter.look_at(value),
                // Lists and maps know their size.
                Some(_) | None => Ok(()),
            })
        }),
        (CONTAINER, 2, |args| {
            counted(args, |meter, value| match value.downcast_ref::<CelMap>() {
                None => meter.look_at(value),
                // A map looks a key up without a search.
                Some(_) => Ok(()),
            })
        }),
        (INDEX, 2, |args| {
            counted(args, |meter, value| match value.downcast_ref::<CelDouble>() {
                Some(number) if number.inner().fract() != 0.0 => meter.spend(0, BAD_INDEX_BYTES),
                Some(_) | None => meter.look_at(value),
            })
        }),
        (ELEMENTS, 2, elements),
        (VISIT, 4, visit),
        (MAY_GO_ON, 1, |args| Ok(CowVal::owned(CelBool::from(meter(&args)?.exceeded().is_none())))),
    ];
    for (name, arguments, function) in functions {
        let types = (0..arguments).map(|_| DYN_TYPE).collect();
        let declared = env.add_overload(name, name, types, function);
        assert!(declared.is_ok(), "{name} is no function of CEL");
    }
    env
}

/// Returns the meter, which is the first argument.
fn meter<'b>(args: &'b [CowVal<'_, '_>]) -> Result<&'b Meter, ExecutionError> {
    let meter = args.first().and_then(|arg| arg.as_ref().downcast_ref::<Meter>());
    meter.ok_or_else(|| ExecutionError::undeclared_reference(METER))
}

/// Counts the last argument, and returns it.
fn counted<'b, 'v>(
    mut args: Vec<CowVal<'b, 'v>>,
    count: impl Fn(&Meter, &dyn Val) -> Result<(), ExecutionError>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    count(meter(&args)?, value.as_ref())?;
    Ok(value)
}

/// Counts what a macro runs over, or what is added to a list, and returns it. A map is replaced by
/// its sorted keys, because the library has them in another order each time.
fn elements<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let keys = args.last().and_then(|range| {
        let map = range.as_ref().downcast_ref::<CelMap>()?;
        let mut keys: Vec<_> = map.inner().keys().cloned().collect();
        keys.sort_unstable();
        let keys: Vec<_> = keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
        Some(CelList::from(keys))
    });
    let Some(keys) = keys else {
        // Fails when a limit is exceeded already, so that no loop begins.
        return counted(args, |meter, _| meter.spend(0, 0));
    };
    meter(&args)?.look_at(&keys)?;
    Ok(CowVal::owned(keys))
}

/// Counts one element of a loop and the steps that are evaluated for it, and returns the value. The
/// library copies the element.
fn visit<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let meter = meter(&args)?;
    let steps = args.get(1).and_then(|steps| steps.as_ref().downcast_ref::<CelInt>());
    meter.spend(steps.map_or(1, |steps| steps.inner().unsigned_abs()), 0)?;
    if let Some(element) = args.get(2) {
        meter.look_at(element.as_ref())?;
    }
    Ok(value)
}

/// Inserts the functions that count into an expression. Its value stays the same.
pub(super) fn metered(node: &IdedExpr) -> IdedExpr {
    let all = |nodes: &[IdedExpr]| nodes.iter().map(metered).collect::<Vec<_>>();
    let expr = match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => node.expr.clone(),
        Expr::Select(select) => {
            let mut select = select.clone();
            select.operand = Box::new(metered(&select.operand));
            Expr::Select(select)
        }
        // Elements of lists and values of maps are copied.
        Expr::List(list) => {
            let mut list = list.clone();
            list.elements = list.elements.iter().map(|element| sized(metered(element))).collect();
            Expr::List(list)
        }
        Expr::Map(map) => {
            let mut map = map.clone();
            map.entries.iter_mut().for_each(meter_entry);
            Expr::Map(map)
        }
        Expr::Struct(structure) => {
            let mut structure = structure.clone();
            structure.entries.iter_mut().for_each(meter_entry);
            Expr::Struct(structure)
        }
        Expr::Comprehension(comprehension) => {
            Expr::Comprehension(Box::new(meter_loop(comprehension)))
        }
        Expr::Call(call) => {
            let target = call.target.as_deref();
            // A method can have the name of an operator.
            let name = if target.is_some() { "" } else { call.func_name.as_str() };
            let args = match (name, call.args.as_slice()) {
                (
                    operators::CONDITIONAL
                    | operators::LOGICAL_AND
                    | operators::LOGICAL_OR
                    | operators::LOGICAL_NOT
                    | operators::NOT_STRICTLY_FALSE
                    | operators::NEGATE
                    | operators::OPT_SELECT,
                    args,
                ) => all(args),
                (operators::INDEX | operators::OPT_INDEX, [of, index]) => {
                    vec![metered(of), wrapped(INDEX, metered(index))]
                }
                (operators::IN, [value, container]) => {
                    vec![sized(metered(value)), wrapped(CONTAINER, metered(container))]
                }
                // An object that is added to a list adds its keys.
                (operators::ADD, [one, other]) => {
                    vec![sized(metered(one)), sized(wrapped(ELEMENTS, metered(other)))]
                }
                (_, args) => args.iter().map(|arg| argument(&call.func_name, arg)).collect(),
            };
            let target = target.map(|target| {
                // `optional.of` is a function, not a method of a value.
                let is_name = matches!(&target.expr, Expr::Ident(name) if name == "optional");
                if is_name { target.clone() } else { argument(&call.func_name, target) }
            });
            let target = target.map(Box::new);
            let metered = Expr::Call(CallExpr { func_name: call.func_name.clone(), target, args });
            if [operators::OPT_INDEX, operators::OPT_SELECT].contains(&name) {
                // The result of these operators is copied.
                return sized(IdedExpr { id: node.id, expr: metered });
            }
            metered
        }
    };
    IdedExpr { id: node.id, expr }
}

/// Meters an argument of a function, or the target of a method.
fn argument(function: &str, argument: &IdedExpr) -> IdedExpr {
    match function {
        // These functions look at no more than one value.
        "type" | "dyn" | "hasValue" | "value" | "or" | "orValue" => metered(argument),
        "size" => wrapped(TEXT, metered(argument)),
        _ => sized(metered(argument)),
    }
}

/// Meters an entry of a map.
fn meter_entry(entry: &mut IdedEntryExpr) {
    match &mut entry.expr {
        EntryExpr::StructField(field) => field.value = sized(metered(&field.value)),
        EntryExpr::MapEntry(entry) => {
            entry.key = sized(metered(&entry.key));
            entry.value = sized(metered(&entry.value));
        }
    }
}

/// Meters the loop of a macro. The library recognises the steps of its macros by their shape, so
/// the shape is kept. Each element is counted in the part that is evaluated for every element.
fn meter_loop(comprehension: &ComprehensionExpr) -> ComprehensionExpr {
    let mut metered_loop = comprehension.clone();
    metered_loop.iter_range = wrapped(ELEMENTS, metered(&comprehension.iter_range));
    metered_loop.accu_init = metered(&comprehension.accu_init);
    metered_loop.result = metered(&comprehension.result);
    if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
        // `all` and `exists` go on after an error, because a later element may decide.
        let may_go_on = call(MAY_GO_ON, vec![ident(METER)]);
        let condition = metered(&comprehension.loop_cond);
        metered_loop.loop_cond = call(operators::LOGICAL_AND, vec![may_go_on, condition]);
    }
    let steps = 1 + nodes(&comprehension.loop_cond) + nodes(&comprehension.loop_step);
    let steps = i64::try_from(steps).unwrap_or(i64::MAX);
    let steps = Expr::Literal(LiteralValue::Int(CelInt::from(steps)));
    let element = ident(&comprehension.iter_var);
    let visited = |node: IdedExpr| {
        let steps = IdedExpr { id: 0, expr: steps.clone() };
        call(VISIT, vec![ident(METER), steps, element.clone(), node])
    };
    metered_loop.loop_step =
        meter_step(&comprehension.loop_step, &comprehension.accu_var, &visited);
    metered_loop
}

/// Meters the step of a loop, which `visited` wraps into the function that counts an element.
fn meter_step(
    step: &IdedExpr,
    accumulator: &str,
    visited: &dyn Fn(IdedExpr) -> IdedExpr,
) -> IdedExpr {
    let is_accumulator =
        |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if name == accumulator);
    let Expr::Call(CallExpr { func_name, target: None, args }) = &step.expr else {
        return visited(metered(step));
    };
    let args = match (func_name.as_str(), args.as_slice()) {
        // `all` and `exists`.
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [folded, each])
            if is_accumulator(folded) =>
        {
            vec![folded.clone(), visited(metered(each))]
        }
        // `filter`, `exists_one` and `map` with a condition.
        (operators::CONDITIONAL, [condition, then, otherwise]) => {
            let then = meter_step(then, accumulator, &|each| each);
            vec![visited(metered(condition)), then, otherwise.clone()]
        }
        // `map`, and the lists that the macros before append to.
        (operators::ADD, [appended_to, IdedExpr { id, expr: Expr::List(list) }])
            if is_accumulator(appended_to) =>
        {
            let mut list = list.clone();
            list.elements =
                list.elements.iter().map(|each| visited(sized(metered(each)))).collect();
            vec![appended_to.clone(), IdedExpr { id: *id, expr: Expr::List(list) }]
        }
        _ => return visited(metered(step)),
    };
    call(func_name, args)
}

/// Returns how many nodes are evaluated once with an expression. Nodes in loops do not count.
fn nodes(node: &IdedExpr) -> u64 {
    let inner = match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
        Expr::Select(select) => nodes(&select.operand),
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Map(map) => map.entries.iter().map(entry_nodes).sum(),
        Expr::Struct(structure) => structure.entries.iter().map(entry_nodes).sum(),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).map(nodes).sum::<u64>()
        }
        Expr::Comprehension(inner) => {
            nodes(&inner.iter_range) + nodes(&inner.accu_init) + nodes(&inner.result)
        }
    };
    1 + inner
}

fn entry_nodes(entry: &IdedEntryExpr) -> u64 {
    match &entry.expr {
        EntryExpr::StructField(field) => nodes(&field.value),
        EntryExpr::MapEntry(entry) => nodes(&entry.key) + nodes(&entry.value),
    }
}

/// Wraps a node so that its value is counted. Literal numbers are too small to be worth that.
fn sized(node: IdedExpr) -> IdedExpr {
    let is_text = |literal: &LiteralValue| {
        matches!(literal, LiteralValue::String(_) | LiteralValue::Bytes(_))
    };
    let is_worth_it = match &node.expr {
        Expr::Literal(literal) => is_text(literal),
        Expr::Call(call) => call.func_name != SIZED,
        Expr::Unspecified
        | Expr::Comprehension(_)
        | Expr::Ident(_)
        | Expr::List(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_) => true,
    };
    if is_worth_it { wrapped(SIZED, node) } else { node }
}

/// Wraps a node into a function that counts.
fn wrapped(function: &str, node: IdedExpr) -> IdedExpr {
    call(function, vec![ident(METER), node])
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let expr = Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args });
    IdedExpr { id: 0, expr }
}

fn ident(name: &str) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) }
}
