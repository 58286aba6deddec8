//! Limits of a component's code, for which a look at its bytes is enough.
//!
//! The time and memory of the compiler grow faster than the code that it is given: about with the
//! cube of the depth of nested loops, with the product of a function's locals and its branches, and
//! with the targets of branch tables. Its process has limits of its own; these are met within
//! milliseconds, and say what is wrong.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use crate::error::Rejection;

/// Bytes of one function. The largest of CPython, as componentize-py builds it, has 427 kB, the
/// largest of SpiderMonkey 172 kB; those of the Rust components here have 6 kB.
const FUNCTION_BYTES_MAX: usize = 1 << 20;

/// Local variables of one function. CPython has up to 271.
const LOCALS_MAX: u32 = 5_000;

/// Blocks, loops and branches within one another: a `switch` makes one of each of its cases. CPython
/// has up to 781. So many loops take the compiler some ten seconds.
const NESTING_MAX: u32 = 2_000;

/// Targets of all branch tables of one function. CPython has up to 15,805.
const BRANCH_TARGETS_MAX: u32 = 100_000;

/// Functions of all modules of a component. CPython has 13,500. The host keeps a table of them.
const FUNCTIONS_MAX: u32 = 200_000;

/// # Errors
/// Which limit the code goes past, or that it cannot be read.
pub(crate) fn check(component: &[u8]) -> Result<(), Rejection> {
    let mut functions = 0;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| Rejection::broken(component, &error))?;
        let Payload::CodeSectionEntry(body) = payload else { continue };
        within(functions, "functions", functions + 1, FUNCTIONS_MAX)?;
        function(component, functions, &body)?;
        functions += 1;
    }
    Ok(())
}

/// `number` counts from the first function of the first module.
fn function(component: &[u8], number: u32, body: &FunctionBody<'_>) -> Result<(), Rejection> {
    let failed = |error: wasmparser::BinaryReaderError| Rejection::broken(component, &error);
    let bytes = body.as_bytes().len();
    within(number, "bytes", bytes, FUNCTION_BYTES_MAX)?;
    let mut locals = 0_u32;
    for group in body.get_locals_reader().map_err(failed)? {
        let (count, _) = group.map_err(failed)?;
        locals = locals.saturating_add(count);
    }
    within(number, "local variables", locals, LOCALS_MAX)?;
    let (mut depth, mut deepest, mut targets) = (0_u32, 0_u32, 0_u32);
    for operator in body.get_operators_reader().map_err(failed)? {
        let operator = operator.map_err(failed)?;
        if let Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Try { .. }
        | Operator::TryTable { .. } = operator
        {
            depth += 1;
            deepest = deepest.max(depth);
        } else if let Operator::End | Operator::Delegate { .. } = operator {
            depth = depth.saturating_sub(1);
        } else if let Operator::BrTable { targets: more } = operator {
            targets = targets.saturating_add(more.len());
        }
    }
    within(number, "blocks within one another", deepest, NESTING_MAX)?;
    within(number, "targets of branch tables", targets, BRANCH_TARGETS_MAX)
}

fn within<N: PartialOrd + std::fmt::Display + Copy>(
    number: u32,
    what: &str,
    found: N,
    max: N,
) -> Result<(), Rejection> {
    if found <= max {
        return Ok(());
    }
    Err(Rejection::Code(format!(
        "its function {number} has {found} {what}, at most {max} are allowed"
    )))
}
