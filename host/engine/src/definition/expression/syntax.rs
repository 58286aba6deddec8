//! The syntax tree of an expression.

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};

/// The names of types, which CEL allows in the place of values.
pub(super) const TYPES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// Returns true when a single `=` stands outside of texts. People write it for `==`.
pub(super) fn has_lone_equals(source: &str) -> bool {
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

/// Returns the text of a literal.
pub(super) fn literal_text(expr: &Expr) -> Option<String> {
    if let Expr::Literal(LiteralValue::String(text)) = expr {
        Some(text.inner().to_owned())
    } else {
        None
    }
}

/// Visits every node, with the names that macros have bound there.
pub(super) fn walk<'e>(
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
    entries: &'e [IdedEntryExpr],
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
