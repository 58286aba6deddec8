//! The syntax tree of an expression, as far as it matters for flaws.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, operators,
};

use super::kinds::Kinds;
use super::near::cut;

/// Returns true for a literal list with at least one element.
pub(super) fn is_filled(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::List(list) if list.elements.len() > list.optional_indices.len())
}

/// Returns the kind of a literal.
pub(super) fn kind_of_literal(literal: &LiteralValue) -> Kinds {
    match literal {
        LiteralValue::Boolean(_) => Kinds::BOOL,
        LiteralValue::Bytes(_) => Kinds::OTHER,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kinds::NUMBER,
        LiteralValue::Null => Kinds::NULL,
        LiteralValue::String(_) => Kinds::TEXT,
    }
}

/// Returns the text of a literal.
pub(super) fn literal_text(node: &IdedExpr) -> Option<&str> {
    if let Expr::Literal(LiteralValue::String(text)) = &node.expr {
        Some(text.inner())
    } else {
        None
    }
}

/// Returns the element that the step of `map` or `filter` appends to its result, and whether it
/// always does.
pub(super) fn appended(step: &IdedExpr) -> Option<(&IdedExpr, bool)> {
    let Expr::Call(CallExpr { func_name, target: None, args }) = &step.expr else { return None };
    match (func_name.as_str(), args.as_slice()) {
        (operators::CONDITIONAL, [_, then, _]) => {
            appended(then).map(|(element, _)| (element, false))
        }
        (operators::ADD, [_, IdedExpr { expr: Expr::List(list), .. }]) => {
            match list.elements.as_slice() {
                [element] => Some((element, true)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns a variable with the fields that lead from it, as it is written: `steps["a-b"].output`.
pub(super) fn path_of(node: &IdedExpr) -> Option<String> {
    if let Expr::Ident(name) = &node.expr {
        return Some(name.clone());
    }
    if let Expr::Select(select) = &node.expr {
        return Some(join(&path_of(&select.operand)?, &select.field));
    }
    if let Expr::Call(call) = &node.expr
        && call.func_name == operators::INDEX
        && let [of, index] = call.args.as_slice()
    {
        return Some(join(&path_of(of)?, literal_text(index)?));
    }
    None
}

/// Returns true for `steps.NAME`, with any name.
pub(super) fn is_step(node: &IdedExpr) -> bool {
    let is_steps = |of: &IdedExpr| matches!(&of.expr, Expr::Ident(name) if name == "steps");
    if let Expr::Select(select) = &node.expr {
        return is_steps(&select.operand);
    }
    if let Expr::Call(call) = &node.expr
        && call.func_name == operators::INDEX
        && let [of, _] = call.args.as_slice()
    {
        return is_steps(of);
    }
    false
}

/// Returns an expression as a message shows it.
pub(super) fn shown(node: &IdedExpr) -> String {
    path_of(node).map_or_else(|| "what stands there".to_owned(), |path| format!("`{}`", cut(&path)))
}

/// Adds a field to a path.
fn join(path: &str, field: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if field.chars().all(is_plain) && !field.is_empty() {
        format!("{path}.{field}")
    } else {
        format!("{path}[{field:?}]")
    }
}

/// Collects the fields that an expression asks for: `has(a.b)`, `'b' in a`.
pub(super) fn find_asked(node: &IdedExpr, asked: &mut BTreeSet<String>) {
    let mut children = Vec::new();
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => {
            if select.test {
                asked.extend(path_of(node));
            }
            children.push(&*select.operand);
        }
        Expr::Call(call) => {
            let asks_for = match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::IN, [name, of]) => Some((of, name)),
                _ => None,
            };
            let path =
                asks_for.and_then(|(of, name)| Some(join(&path_of(of)?, literal_text(name)?)));
            asked.extend(path);
            children.extend(call.target.iter().map(AsRef::as_ref).chain(&call.args));
        }
        Expr::List(list) => children.extend(&list.elements),
        Expr::Map(map) => children.extend(map.entries.iter().flat_map(entry_parts)),
        Expr::Struct(structure) => children.extend(structure.entries.iter().flat_map(entry_parts)),
        Expr::Comprehension(comprehension) => children.extend([
            &comprehension.iter_range,
            &comprehension.accu_init,
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ]),
    }
    for child in children {
        find_asked(child, asked);
    }
}

/// Returns the expressions of an entry.
fn entry_parts(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
