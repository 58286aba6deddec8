//! What an expression gives, and what in it cannot be right.
//!
//! Goes through the syntax tree of CEL (<https://github.com/google/cel-spec>) with what is known of
//! the variables. What may be right is taken to be right: a field that the expression asks for with
//! `has` or `in` before it is read is never reported.

use std::collections::{BTreeMap, BTreeSet};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue,
    SelectExpr, operators,
};

use super::kinds::Kinds;
use super::near::{cut, nearest, remedy};
use super::shape::{Field, Shape};
use crate::definition::{FUNCTIONS, MACROS};

/// Something in an expression that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) is_certain: bool,
    /// A field that a schema does not describe.
    pub(super) is_undescribed: bool,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// What an expression gives, and what in it cannot be right.
pub(super) fn infer<'s>(
    root: &IdedExpr,
    variables: &[(&'static str, Shape<'s>)],
) -> (Shape<'s>, Vec<Note>) {
    let scope = variables.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect();
    let mut asked = BTreeSet::new();
    find_asked(root, &mut asked);
    let mut inference = Inference { scope, asked, notes: Vec::new() };
    let shape = inference.of(root);
    (shape, inference.notes)
}

struct Inference<'s> {
    /// The variables, the innermost last.
    scope: Vec<(String, Shape<'s>)>,
    /// The fields that the expression asks for before it reads them.
    asked: BTreeSet<String>,
    notes: Vec<Note>,
}

impl<'s> Inference<'s> {
    fn note(&mut self, is_certain: bool, message: String, remedy: String) {
        let note = Note { is_certain, is_undescribed: false, message, remedy };
        self.add(note);
    }

    fn add(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn of(&mut self, node: &IdedExpr) -> Shape<'s> {
        match &node.expr {
            Expr::Unspecified | Expr::Struct(_) => Shape::any(),
            Expr::Literal(literal) => Shape::of(kind_of_literal(literal)),
            Expr::Ident(name) => {
                let found = self.scope.iter().rev().find(|(known, _)| known == name);
                found.map_or_else(Shape::any, |(_, shape)| shape.clone())
            }
            Expr::Select(select) => self.of_select(node, select),
            Expr::List(list) => {
                let elements = list.elements.iter().map(|element| self.of(element));
                let element = elements.collect::<Vec<_>>().into_iter().reduce(Shape::or);
                let is_plain = list.optional_indices.is_empty();
                let element = element.filter(|_| is_plain).unwrap_or_else(Shape::any);
                Shape::list(element)
            }
            Expr::Map(map) => self.of_map(&map.entries),
            Expr::Comprehension(comprehension) => self.of_comprehension(comprehension),
            Expr::Call(call) => self.of_call(node, call),
        }
    }

    fn of_select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Shape<'s> {
        let of = self.of(&select.operand);
        if select.test {
            return Shape::of(Kinds::BOOL);
        }
        self.field(node, &select.operand, &of, &select.field)
    }

    /// `node` is the field `name` of `operand`, which is `of`.
    fn field(
        &mut self,
        node: &IdedExpr,
        operand: &IdedExpr,
        of: &Shape<'s>,
        name: &str,
    ) -> Shape<'s> {
        let is_asked = path_of(node).is_some_and(|path| self.asked.contains(&path));
        match of.field(name) {
            Field::Is(shape) => return shape,
            _ if is_asked => {}
            Field::Unknown => {}
            Field::OfNoObject => {
                let (path, kinds) = (shown(operand), of.kinds);
                let message = format!("{path} is {kinds}, which has no field `{}`", cut(name));
                let of = path_of(operand).unwrap_or_else(|| "…".to_owned());
                let remedy = if kinds.intersects(Kinds::LIST) {
                    let (of, name) = (cut(&of), cut(name));
                    format!(
                        "take it of one element, {of}[0].{name}, or of each: {of}.map(x, x.{name})"
                    )
                } else {
                    "read a value that has fields, or leave the field out".to_owned()
                };
                self.note(true, message, remedy);
            }
            Field::Missing { is_certain, names } => {
                let path = shown(operand);
                if is_step(operand) {
                    let message = format!("{path} has no field `{}`", cut(name));
                    let of = path_of(operand).unwrap_or_default();
                    let remedy = format!(
                        "what a step answered is its `output`: write {}.output.{}",
                        cut(&of),
                        cut(name)
                    );
                    self.note(true, message, remedy);
                } else {
                    let verb =
                        if is_certain { "has no field" } else { "is not said to have a field" };
                    let message = format!("{path} {verb} `{}`", cut(name));
                    let remedy = remedy(name, &names);
                    self.add(Note { is_certain, is_undescribed: true, message, remedy });
                }
            }
        }
        Shape::any()
    }

    fn of_map(&mut self, entries: &[IdedEntryExpr]) -> Shape<'s> {
        let (mut fields, mut is_plain) = (BTreeMap::new(), true);
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => {
                    self.of(&field.value);
                    is_plain = false;
                }
                EntryExpr::MapEntry(entry) => {
                    self.of(&entry.key);
                    let value = self.of(&entry.value);
                    is_plain &= !entry.optional;
                    match literal_text(&entry.key) {
                        Some(key) => drop(fields.insert(key.to_owned(), value)),
                        None => is_plain = false,
                    }
                }
            }
        }
        if is_plain { Shape::object(fields) } else { Shape::of(Kinds::OBJECT) }
    }

    /// What a macro such as `map` was expanded to.
    fn of_comprehension(&mut self, comprehension: &ComprehensionExpr) -> Shape<'s> {
        let range = self.of(&comprehension.iter_range);
        let may_be_run_over = Kinds::LIST.or(Kinds::OBJECT).or(Kinds::OTHER);
        if !range.kinds.intersects(may_be_run_over) {
            let message =
                format!("{} is {}, not a list", shown(&comprehension.iter_range), range.kinds);
            self.note(true, message, "name a list before `.map`, `.all` and the like".to_owned());
        }
        let start = self.of(&comprehension.accu_init);
        let outer = self.scope.len();
        let visited =
            if comprehension.iter_var2.is_some() { Shape::any() } else { range.visited() };
        self.scope.push((comprehension.iter_var.clone(), visited));
        self.scope.extend(comprehension.iter_var2.clone().map(|name| (name, Shape::any())));
        let appended = appended(&comprehension.loop_step);
        let folded = match appended {
            Some(element) => Shape::list(self.of(element)),
            None => Shape::of(start.kinds),
        };
        self.scope.push((comprehension.accu_var.clone(), folded));
        self.of(&comprehension.loop_cond);
        self.of(&comprehension.loop_step);
        let result = self.of(&comprehension.result);
        self.scope.truncate(outer);
        result
    }

    fn of_call(&mut self, node: &IdedExpr, call: &CallExpr) -> Shape<'s> {
        if call.target.is_some() {
            return self.of_method(call);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [of, index]) => {
                let shape = self.of(of);
                self.of(index);
                match literal_text(index) {
                    Some(name) => self.field(node, of, &shape, name),
                    None if shape.kinds.is_within(Kinds::LIST.or(Kinds::NULL)) => shape.element(),
                    None => Shape::any(),
                }
            }
            (operators::CONDITIONAL, [condition, one, other]) => {
                self.of(condition);
                let one = self.of(one);
                one.or(self.of(other))
            }
            (operators::ADD, [one, other]) => {
                let (left, right) = (self.of(one), self.of(other));
                self.sum(one, &left, other, &right)
            }
            (name, args) => {
                for arg in args {
                    self.of(arg);
                }
                match name {
                    operators::LOGICAL_AND
                    | operators::LOGICAL_OR
                    | operators::LOGICAL_NOT
                    | operators::EQUALS
                    | operators::NOT_EQUALS
                    | operators::LESS
                    | operators::LESS_EQUALS
                    | operators::GREATER
                    | operators::GREATER_EQUALS
                    | operators::IN => Shape::of(Kinds::BOOL),
                    operators::SUBSTRACT
                    | operators::MULTIPLY
                    | operators::DIVIDE
                    | operators::MODULO
                    | operators::NEGATE => Shape::of(Kinds::NUMBER),
                    operators::NOT_STRICTLY_FALSE => Shape::any(),
                    name => self.of_function(name, false),
                }
            }
        }
    }

    fn of_method(&mut self, call: &CallExpr) -> Shape<'s> {
        if let Some(target) = &call.target {
            self.of(target);
        }
        for arg in &call.args {
            self.of(arg);
        }
        self.of_function(&call.func_name, true)
    }

    fn of_function(&mut self, name: &str, is_method: bool) -> Shape<'s> {
        if let Some(known) = FUNCTIONS.iter().find(|function| function.name == name) {
            if if is_method { known.is_method } else { known.is_global } {
                return Shape::of(known.gives);
            }
            let message = format!("`{name}` is called in another way");
            self.note(true, message, format!("write such as {}", known.example));
        } else if let Some((_, example)) = MACROS.iter().find(|(known, _)| *known == name) {
            let message = format!("`{name}` is called in another way");
            self.note(true, message, format!("write such as {example}"));
        } else {
            let names = FUNCTIONS.iter().map(|function| function.name);
            let names: Vec<_> = names.chain(MACROS.iter().map(|(name, _)| *name)).collect();
            let remedy = nearest(cut(name), &names).map_or_else(
                || format!("the functions are {}", names.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.note(true, format!("there is no function `{}`", cut(name)), remedy);
        }
        Shape::any()
    }

    fn sum(
        &mut self,
        one: &IdedExpr,
        left: &Shape<'s>,
        other: &IdedExpr,
        right: &Shape<'s>,
    ) -> Shape<'s> {
        let (number, text) = (Kinds::NUMBER, Kinds::TEXT);
        for (numeric, textual, which) in [(left, right, one), (right, left, other)] {
            if numeric.kinds == number && textual.kinds == text {
                let message = format!("{} is a number, and text is added to it", shown(which));
                let path = path_of(which).unwrap_or_else(|| "…".to_owned());
                let remedy = format!("make it text: string({})", cut(&path));
                self.note(true, message, remedy);
                return Shape::any();
            }
        }
        let kinds = number.or(text).or(Kinds::LIST).or(Kinds::OTHER);
        if left.kinds == Kinds::LIST {
            return Shape::of(Kinds::LIST);
        }
        let both = left.kinds.and(right.kinds).and(kinds);
        Shape::of(if both == Kinds::NONE { kinds } else { both })
    }
}

fn kind_of_literal(literal: &LiteralValue) -> Kinds {
    match literal {
        LiteralValue::Boolean(_) => Kinds::BOOL,
        LiteralValue::Bytes(_) => Kinds::OTHER,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kinds::NUMBER,
        LiteralValue::Null => Kinds::NULL,
        LiteralValue::String(_) => Kinds::TEXT,
    }
}

fn literal_text(node: &IdedExpr) -> Option<&str> {
    if let Expr::Literal(LiteralValue::String(text)) = &node.expr {
        Some(text.inner())
    } else {
        None
    }
}

/// The element that a macro's step appends to its result, of `map` and `filter`.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(CallExpr { func_name, target: None, args }) = &step.expr else { return None };
    match (func_name.as_str(), args.as_slice()) {
        (operators::CONDITIONAL, [_, then, _]) => appended(then),
        (operators::ADD, [_, IdedExpr { expr: Expr::List(list), .. }]) => {
            match list.elements.as_slice() {
                [element] => Some(element),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A variable with the fields that lead from it, as it is written: `steps["a-b"].output`.
fn path_of(node: &IdedExpr) -> Option<String> {
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

/// Whether it is `steps.NAME`, with whatever name.
fn is_step(node: &IdedExpr) -> bool {
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

fn join(path: &str, field: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if field.chars().all(is_plain) && !field.is_empty() {
        format!("{path}.{field}")
    } else {
        format!("{path}[{field:?}]")
    }
}

/// An expression in a message.
pub(super) fn shown(node: &IdedExpr) -> String {
    path_of(node).map_or_else(|| "what stands there".to_owned(), |path| format!("`{}`", cut(&path)))
}

/// Fields that are asked for: `has(a.b)`, `'b' in a`.
fn find_asked(node: &IdedExpr, asked: &mut BTreeSet<String>) {
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

fn entry_parts(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
