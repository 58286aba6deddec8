//! The functions that expressions may call.
//!
//! These are the functions of CEL, and `sum`, `lowerAscii` and `upperAscii` of ours. The library
//! knows them by the types of their arguments. This list is for checks of an expression before it
//! is evaluated.

use cel::common::functions::Function as Implementation;
use cel::common::types::{CelDouble, CelInt, CelList, CelString, CelUInt, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use crate::fit::Kinds;

/// One function, and how it is called.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// True when it can be called as `name(value)`.
    pub(crate) is_global: bool,
    /// True when it can be called as `value.name(…)`.
    pub(crate) is_method: bool,
    /// The kinds of its result.
    pub(crate) gives: Kinds,
    pub(crate) example: &'static str,
}

/// Makes a function that is called as `name(value)`.
const fn global(name: &'static str, gives: Kinds, example: &'static str) -> Function {
    Function { name, is_global: true, is_method: false, gives, example }
}

/// Makes a function that is called as `value.name(…)`.
const fn method(name: &'static str, gives: Kinds, example: &'static str) -> Function {
    Function { name, is_global: false, is_method: true, gives, example }
}

/// Makes a function that is called in both ways.
const fn global_or_method(name: &'static str, gives: Kinds, example: &'static str) -> Function {
    Function { name, is_global: true, is_method: true, gives, example }
}

/// All functions, by name.
pub(crate) const FUNCTIONS: [Function; 15] = [
    global("bool", Kinds::BOOL, "bool('true')"),
    global("bytes", Kinds::OTHER, "bytes('text')"),
    method("contains", Kinds::BOOL, "'text'.contains('ex')"),
    global("double", Kinds::NUMBER, "double(1)"),
    global("dyn", Kinds::ANY, "dyn(1)"),
    method("endsWith", Kinds::BOOL, "'text'.endsWith('xt')"),
    global("int", Kinds::NUMBER, "int('7')"),
    method("lowerAscii", Kinds::TEXT, "'EUR'.lowerAscii()"),
    global_or_method("size", Kinds::NUMBER, "size([1, 2])"),
    method("startsWith", Kinds::BOOL, "'text'.startsWith('te')"),
    global("string", Kinds::TEXT, "string(7)"),
    global_or_method("sum", Kinds::NUMBER, "sum([1, 2])"),
    global("type", Kinds::OTHER, "type(1) == int"),
    global("uint", Kinds::NUMBER, "uint(7)"),
    method("upperAscii", Kinds::TEXT, "'eur'.upperAscii()"),
];

/// The macros, each with an example. They look like functions, and are expanded when an expression
/// is read.
pub(crate) const MACROS: [(&str, &str); 7] = [
    ("all", "[1, 2].all(x, x > 0)"),
    ("exists", "[1, 2].exists(x, x > 1)"),
    ("existsOne", "[1, 2].existsOne(x, x > 1)"),
    ("exists_one", "[1, 2].exists_one(x, x > 1)"),
    ("filter", "[1, 2].filter(x, x > 1)"),
    ("has", "has({'a': 1}.a)"),
    ("map", "[1, 2].map(x, x * 2)"),
];

/// Adds our functions. Each looks once at a value whose bytes were counted before.
pub(super) fn add_ours(env: &mut Env) {
    let sums: [(&str, bool); 2] = [("sum_list", false), ("list_sum", true)];
    for (id, is_method) in sums {
        let declared = if is_method {
            env.add_member_overload("sum", id, LIST_TYPE, Vec::new(), sum)
        } else {
            env.add_overload("sum", id, vec![LIST_TYPE], sum)
        };
        assert!(declared.is_ok(), "sum is no function of CEL");
    }
    let texts: [(&str, Implementation); 2] = [
        ("lowerAscii", |args| text(args, str::to_ascii_lowercase)),
        ("upperAscii", |args| text(args, str::to_ascii_uppercase)),
    ];
    for (name, function) in texts {
        let declared = env.add_member_overload(name, name, STRING_TYPE, Vec::new(), function);
        assert!(declared.is_ok(), "{name} is no function of CEL");
    }
}

/// Returns true for a function of this file: the messages of its errors contain no values. CEL's own quote
/// what they were given.
pub(super) fn has_safe_messages(function: &str) -> bool {
    function == "sum"
}

/// Adds up the numbers of a list; 0 for an empty list. The sum of whole numbers is exact, every
/// other sum is rounded as numbers of JSON are.
#[expect(clippy::needless_pass_by_value, reason = "the library hands them over")]
fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let list = args.first().and_then(|list| list.as_ref().downcast_ref::<CelList>());
    let list = list.ok_or_else(ExecutionError::missing_argument_or_target)?;
    let (mut whole, mut rounded, mut is_whole) = (0_i128, 0_f64, true);
    for (index, item) in list.inner().iter().enumerate() {
        let number = Number::of(item.as_ref()).ok_or_else(|| {
            let what = item.get_type().name().to_owned();
            let message = format!("element {index} is of type {what}, and sum adds up numbers");
            ExecutionError::function_error("sum", message)
        })?;
        match number {
            // A payload has too few elements to overflow this.
            Number::Whole(number) => {
                whole += number;
                #[expect(clippy::cast_precision_loss, reason = "as CEL's own double() does")]
                let number = number as f64;
                rounded += number;
            }
            Number::Fraction(number) => {
                is_whole = false;
                rounded += number;
            }
        }
    }
    if !is_whole {
        return Ok(CowVal::owned(CelDouble::from(rounded)));
    }
    if let Ok(number) = i64::try_from(whole) {
        return Ok(CowVal::owned(CelInt::from(number)));
    }
    let number = u64::try_from(whole).map_err(|_| {
        ExecutionError::function_error("sum", "the sum is too large for a whole number")
    })?;
    Ok(CowVal::owned(CelUInt::from(number)))
}

/// A number in a list.
enum Number {
    Whole(i128),
    Fraction(f64),
}

impl Number {
    /// Returns the number that a value is, if it is one.
    fn of(value: &dyn Val) -> Option<Self> {
        if let Some(number) = value.downcast_ref::<CelInt>() {
            return Some(Self::Whole((*number.inner()).into()));
        }
        if let Some(number) = value.downcast_ref::<CelUInt>() {
            return Some(Self::Whole((*number.inner()).into()));
        }
        value.downcast_ref::<CelDouble>().map(|number| Self::Fraction(*number.inner()))
    }
}

/// Changes a text.
#[expect(clippy::needless_pass_by_value, reason = "the library hands them over")]
fn text<'b, 'v>(
    args: Vec<CowVal<'b, 'v>>,
    change: impl Fn(&str) -> String,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|text| text.as_ref().downcast_ref::<CelString>());
    let text = text.ok_or_else(ExecutionError::missing_argument_or_target)?;
    Ok(CowVal::owned(CelString::from(change(text.inner()))))
}
