//! The shape of an expression's value, and what in the expression cannot be right.
//!
//! The inference walks the syntax tree of CEL (<https://github.com/google/cel-spec>) with the known
//! shapes of the variables. Whatever may be right counts as right. For example, it never reports a
//! field that the expression asks for with `has` or `in`.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, SelectExpr, operators,
};

use super::kinds::Kinds;
use super::near::{cut, nearest, remedy};
use super::shape::{FieldLookup, Shape};
use super::syntax::{
    appended, find_asked, is_filled, is_step, kind_of_literal, literal_text, path_of, shown,
};
use crate::definition::{FUNCTIONS, MACROS};

/// The most nodes of an expression that are looked at, more than any expression of the longest
/// length has. A node after them may be anything.
const NODES_MAX: usize = 10_000;

/// The most findings of one expression. Nobody reads more, and each is compared with many names.
const FINDINGS_MAX: usize = 20;

/// One thing in an expression that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// True when the evaluation certainly fails.
    pub(super) is_certain: bool,
    /// True when it is about a field that a schema does not describe.
    pub(super) is_undescribed: bool,
    /// The field or function that it is about.
    pub(super) subject: String,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) remedy: String,
}

/// Returns the shape of an expression's value, and what in the expression cannot be right.
/// `is_decided` is true when the expression is certainly evaluated; else its failure need not make
/// the step fail.
pub(super) fn infer<'s>(
    root: &IdedExpr,
    variables: &[(&'static str, Shape<'s>)],
    is_decided: bool,
) -> (Shape<'s>, Vec<Finding>) {
    let mut inference = Inference::new(root, variables, is_decided);
    let shape = inference.of(root);
    (shape, inference.findings)
}

/// The state of the walk through one expression.
struct Inference<'s> {
    /// The variables in scope, the innermost last.
    scope: Vec<(String, Shape<'s>)>,
    /// The fields that the expression asks for before it reads them.
    asked: BTreeSet<String>,
    /// The shapes of nodes that were visited before their turn, so that each node is visited once.
    /// Else the visits would double with each level of nested macros.
    known: BTreeMap<*const IdedExpr, Shape<'s>>,
    /// The number of enclosing branches of `?:`, sides of `&&` and `||`, and macros over lists that
    /// may be empty. A failure in any of these need not make the whole fail.
    undecided: usize,
    /// How many more nodes may be looked at.
    left: usize,
    findings: Vec<Finding>,
}

impl<'s> Inference<'s> {
    fn new(root: &IdedExpr, variables: &[(&'static str, Shape<'s>)], is_decided: bool) -> Self {
        let scope = variables.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone()));
        let mut asked = BTreeSet::new();
        find_asked(root, &mut asked);
        Self {
            scope: scope.collect(),
            asked,
            known: BTreeMap::new(),
            undecided: usize::from(!is_decided),
            left: NODES_MAX,
            findings: Vec::new(),
        }
    }

    /// Adds a failure of the evaluation.
    fn add_failure(&mut self, subject: String, message: String, remedy: String) {
        let is_certain = self.undecided == 0;
        self.add(Finding { is_certain, is_undescribed: false, subject, message, remedy });
    }

    /// Adds a finding, unless it is known.
    fn add(&mut self, finding: Finding) {
        if !self.is_over() && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Returns true when there are enough findings.
    fn is_over(&self) -> bool {
        self.findings.len() >= FINDINGS_MAX
    }

    /// Returns true when the expression asks for this field before it reads it.
    fn is_asked(&self, node: &IdedExpr) -> bool {
        !self.asked.is_empty() && path_of(node).is_some_and(|path| self.asked.contains(&path))
    }

    /// Returns the shape of a node that need not be evaluated, or whose failure need not count.
    fn of_undecided(&mut self, node: &IdedExpr) -> Shape<'s> {
        self.undecided += 1;
        let shape = self.of(node);
        self.undecided -= 1;
        shape
    }

    /// Returns the shape of a node.
    fn of(&mut self, node: &IdedExpr) -> Shape<'s> {
        if let Some(known) = self.known.remove(&ptr::from_ref(node)) {
            return known;
        }
        let Some(left) = self.left.checked_sub(1) else { return Shape::any() };
        self.left = left;
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

    /// Returns the shape of a field access.
    fn of_select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Shape<'s> {
        let of = self.of(&select.operand);
        if select.test {
            return Shape::of(Kinds::BOOL);
        }
        self.field(node, &select.operand, &of, &select.field)
    }

    /// Returns the shape of `node`, which reads the field `name` of `operand`, which has the shape
    /// `of`.
    fn field(
        &mut self,
        node: &IdedExpr,
        operand: &IdedExpr,
        of: &Shape<'s>,
        name: &str,
    ) -> Shape<'s> {
        let found = of.field(name);
        if let FieldLookup::Is(shape) = found {
            return shape;
        }
        if matches!(found, FieldLookup::Unknown) || self.is_over() || self.is_asked(node) {
            return Shape::any();
        }
        let path = shown(operand);
        let subject = format!("{path}.{}", cut(name));
        match found {
            FieldLookup::Is(_) | FieldLookup::Unknown => {}
            FieldLookup::OfNoObject => {
                let kinds = of.kinds;
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
                self.add_failure(subject, message, remedy);
            }
            FieldLookup::Missing { is_certain, names } => {
                if is_step(operand) {
                    let message = format!("{path} has no field `{}`", cut(name));
                    let of = path_of(operand).unwrap_or_default();
                    let remedy = format!(
                        "what a step answered is its `output`: write {}.output.{}",
                        cut(&of),
                        cut(name)
                    );
                    self.add_failure(subject, message, remedy);
                } else {
                    let verb =
                        if is_certain { "has no field" } else { "is not said to have a field" };
                    let message = format!("{path} {verb} `{}`", cut(name));
                    let remedy = remedy(name, &names);
                    let is_certain = is_certain && self.undecided == 0;
                    self.add(Finding {
                        is_certain,
                        is_undescribed: true,
                        subject,
                        message,
                        remedy,
                    });
                }
            }
        }
        Shape::any()
    }

    /// Returns the shape of a literal object.
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

    /// Returns the shape of what a macro such as `map` was expanded to.
    fn of_comprehension(&mut self, comprehension: &ComprehensionExpr) -> Shape<'s> {
        let range = self.of(&comprehension.iter_range);
        let may_be_run_over = Kinds::LIST.or(Kinds::OBJECT).or(Kinds::OTHER);
        if !range.kinds.intersects(may_be_run_over) {
            let message =
                format!("{} is {}, not a list", shown(&comprehension.iter_range), range.kinds);
            let subject = shown(&comprehension.iter_range);
            let remedy = "name a list before `.map`, `.all` and the like".to_owned();
            self.add_failure(subject, message, remedy);
        }
        let start = self.of(&comprehension.accu_init);
        let outer = self.scope.len();
        let visited =
            if comprehension.iter_var2.is_some() { Shape::any() } else { range.visited() };
        self.scope.push((comprehension.iter_var.clone(), visited));
        self.scope.extend(comprehension.iter_var2.clone().map(|name| (name, Shape::any())));
        // Nothing of the loop is evaluated for an empty list.
        let undecided = usize::from(!is_filled(&comprehension.iter_range));
        self.undecided += undecided;
        let folded = match appended(&comprehension.loop_step) {
            Some((element, is_always)) => {
                let shape = if is_always { self.of(element) } else { self.of_undecided(element) };
                self.known.insert(ptr::from_ref(element), shape.clone());
                Shape::list(shape)
            }
            None => Shape::of(start.kinds),
        };
        self.scope.push((comprehension.accu_var.clone(), folded));
        self.of(&comprehension.loop_cond);
        self.of(&comprehension.loop_step);
        self.undecided -= undecided;
        let result = self.of(&comprehension.result);
        self.scope.truncate(outer);
        result
    }

    /// Returns the shape of a call or an operator.
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
                let one = self.of_undecided(one);
                one.or(self.of_undecided(other))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, sides) => {
                for side in sides {
                    self.of_undecided(side);
                }
                Shape::of(Kinds::BOOL)
            }
            (operators::ADD, [one, other]) => {
                let (left, right) = (self.of(one), self.of(other));
                self.of_sum(one, &left, other, &right)
            }
            (name, args) => {
                for arg in args {
                    self.of(arg);
                }
                match name {
                    operators::LOGICAL_NOT
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

    /// Returns the shape of a method call.
    fn of_method(&mut self, call: &CallExpr) -> Shape<'s> {
        if let Some(target) = &call.target {
            self.of(target);
        }
        for arg in &call.args {
            self.of(arg);
        }
        self.of_function(&call.func_name, true)
    }

    /// Returns the shape of the result of a function.
    fn of_function(&mut self, name: &str, is_method: bool) -> Shape<'s> {
        if let Some(known) = FUNCTIONS.iter().find(|function| function.name == name) {
            if if is_method { known.is_method } else { known.is_global } {
                return Shape::of(known.gives);
            }
            let message = format!("`{name}` is called in another way");
            self.never_right(name, message, format!("write such as {}", known.example));
        } else if let Some((_, example)) = MACROS.iter().find(|(known, _)| *known == name) {
            let message = format!("`{name}` is called in another way");
            self.never_right(name, message, format!("write such as {example}"));
        } else {
            let names = FUNCTIONS.iter().map(|function| function.name);
            let names: Vec<_> = names.chain(MACROS.iter().map(|(name, _)| *name)).collect();
            let remedy = nearest(cut(name), names.iter().copied()).map_or_else(
                || format!("the functions are {}", names.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.never_right(name, format!("there is no function `{}`", cut(name)), remedy);
        }
        Shape::any()
    }

    /// Adds a mistake that no value makes right, wherever it stands.
    fn never_right(&mut self, function: &str, message: String, remedy: String) {
        let subject = cut(function).to_owned();
        self.add(Finding { is_certain: true, is_undescribed: false, subject, message, remedy });
    }

    /// Returns the shape of a sum.
    fn of_sum(
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
                self.add_failure(format!("{} + text", shown(which)), message, remedy);
                return Shape::any();
            }
        }
        let kinds = number.or(text).or(Kinds::LIST).or(Kinds::OTHER);
        if left.kinds == Kinds::LIST {
            return Shape::of(Kinds::LIST);
        }
        let shared = left.kinds.and(right.kinds).and(kinds);
        Shape::of(if shared == Kinds::NONE { kinds } else { shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Expression;

    #[test]
    fn what_is_not_looked_at_may_be_anything() {
        let expression = Expression::compile("[1, 2].map(x, x.gone)").expect("it is CEL");
        let look = |nodes: usize| {
            let mut inference = Inference::new(expression.root(), &[], true);
            inference.left = nodes;
            let shape = inference.of(expression.root());
            (shape.kinds, inference.findings.len())
        };
        assert_eq!(look(NODES_MAX), (Kinds::LIST, 1));
        assert_eq!(look(2), (Kinds::ANY, 0));
    }
}
