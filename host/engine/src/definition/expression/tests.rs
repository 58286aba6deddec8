//! What expressions cost, and that counting it changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::time::Duration;

use amends_fuzz::{Random, Shape, Target};
use serde_json::json;

use super::convert::to_cel;
use super::*;
use crate::Payload;

impl Source for &Value {
    fn bytes(&self, _variable: Variable) -> usize {
        self.to_string().len()
    }

    fn read(&self, _variable: Variable) -> VariableValue {
        Ok((*self).clone())
    }
}

impl Source for Payload {
    fn bytes(&self, _variable: Variable) -> usize {
        self.as_str().len()
    }

    fn read(&self, _variable: Variable) -> VariableValue {
        self.to_value()
    }
}

fn variables(input: &Value) -> Variables<'_> {
    Variables::new(input, None)
}

fn evaluate(source: &str, input: &Value) -> Result<Value, ExpressionError> {
    Expression::compile(source).unwrap().evaluate(&variables(input))
}

/// The library's own value, of the expression as it was written.
fn plain(source: &str, input: &Value) -> Option<Value> {
    let program = Program::compile(source).unwrap();
    let converted = to_cel(input);
    let bound = BoundVariables(vec![("input", converted.as_ref())]);
    let mut context = Context::with_env(Arc::new(Env::stdlib()));
    context.set_variable_resolver(&bound);
    from_cel(cel::Value::resolve_val(program.expression(), &context).ok()?.as_ref())
}

fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements.iter().map(unordered).collect();
            elements.sort_by_key(ToString::to_string);
            elements.into()
        }
        Value::Object(object) => {
            object.iter().map(|(name, value)| (name.clone(), unordered(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_limit(result: &Result<Value, ExpressionError>, words: &str) -> bool {
    matches!(result, Err(ExpressionError::Limit(message)) if message.contains(words))
}

fn sample() -> Value {
    json!({
        "n": 7, "f": 2.5, "t": "ab", "yes": true, "none": null,
        "list": [1, 2, 3, 2], "texts": ["a", "ab", "b"], "empty": [],
        "mixed": [1, "a", null, [1], {"a": 1}, 1.5],
        "deep": {"a": {"b": [{"c": 1}, {"c": 2}, {}]}, "m": {"x": 1, "y": 2}},
    })
}

#[test]
fn counting_changes_no_value() {
    for source in [
        "input.list.map(x, x * 2)",
        "input.list.map(x, x > 1, x + 1)",
        "input.list.filter(x, x > 1).map(x, string(x))",
        "input.list.all(x, x > 0) && input.list.exists(x, x == 3)",
        "input.list.exists_one(x, x == 3) ? input.texts : []",
        "input.mixed.exists(x, x == 1 || x.a == 1)",
        "input.mixed.all(x, x > 0)",
        "input.mixed.exists(x, x > 1)",
        "input.list.map(x, input.list.filter(y, y < x))",
        "input.texts.map(optional, optional.contains('a'))",
        "optional.of(input.n).value() + 1",
        "{'a': input.list, 'c': {1: 'x', true: 'y'}}",
        "input.list[1.5]",
        "input.list[1.0]",
        "input.deep.a.b.map(x, has(x.c) ? x.c : 0)",
        "size(input.list) + size(input.t) + size(input.deep.m) + input.t.size()",
        "'x' in input.deep.m && 2 in input.list && !('z' in input.texts)",
        "type(input.n) == int && type(input.t) == string",
        "bytes(input.t) == b'ab' ? string(bytes(input.t)) : input.none",
        "false && (1 / 0 == 1) || input.list.exists(x, 1 / (x - 1) == 1)",
        "input.t + input.t.startsWith('a')",
        "dyn(input.list) == [1, 2, 3, 2]",
        "input.list + 1",
        "{}.missing",
    ] {
        let value = evaluate(source, &sample());
        assert_eq!(value.as_ref().ok(), plain(source, &sample()).as_ref(), "{source}: {value:?}");
    }
}

#[test]
fn lists_are_added_up_and_texts_change_their_case() {
    let input = json!({
        "lines": [{"cents": 100, "rate": 0.5}, {"cents": 250, "rate": 2}], "none": [],
        "large": [i64::MAX, 1], "mixed": [1, "a"], "city": "ZÜRICH eh",
    });
    for (source, value) in [
        ("sum(input.lines.map(l, l.cents))", json!(350)),
        ("input.lines.map(l, l.rate).sum()", json!(2.5)),
        ("sum(input.none)", json!(0)),
        ("sum(input.large)", json!(9_223_372_036_854_775_808_u64)),
        ("input.city.lowerAscii() + input.city.upperAscii()", json!("zÜrich ehZÜRICH EH")),
    ] {
        assert_eq!(evaluate(source, &input).unwrap(), value, "{source}");
    }
    let refused = evaluate("sum(input.mixed)", &input).unwrap_err().to_string();
    assert!(refused.contains("element 1 is of type string, and sum adds up numbers"), "{refused}");
    assert!(evaluate("sum(input.large + [-1, 9223372036854775807, 9])", &input).is_err());
    assert!(evaluate("sum(input.city)", &input).is_err());
    // What they look at is counted before.
    let many = json!({"a": vec![1; 100_000]});
    let thrice = evaluate("[1, 2, 3, 4, 5, 6, 7, 8].map(x, sum(input.a))", &many);
    assert!(is_limit(&thrice, "16 MiB"), "{thrice:?}");
}

#[test]
fn a_macro_over_an_object_runs_in_the_order_of_its_names() {
    let names: Vec<String> = (0..40).map(|number| format!("name-{number:02}")).collect();
    let input =
        json!({"m": names.iter().map(|name| (name.clone(), Value::Null)).collect::<Value>()});
    for _ in 0..20 {
        assert_eq!(evaluate("input.m.map(k, k)", &input), Ok(json!(names)));
        assert_eq!(evaluate("[] + input.m", &input), Ok(json!(names)));
    }
    let twice = evaluate("{1: 'a', '1': 'b'}", &input);
    assert_eq!(twice, evaluate("{'1': 'b', 1: 'a'}", &input), "and keys that look the same");
}

#[test]
fn a_loop_in_a_loop_ends_soon() {
    let numbers: Vec<u32> = (0..8_000).collect();
    let input = json!({"a": numbers, "b": numbers.iter().rev().collect::<Vec<_>>()});
    for source in [
        "input.a.all(x, input.b.exists(y, y == x))",
        "input.a.exists(x, input.b.exists(y, y == x + 9000))",
        "input.a.map(x, input.b.filter(y, y == x))",
        "input.a.exists_one(x, input.b.all(y, y != x))",
        "input.a.exists(x, input.a.exists(y, input.a.exists(z, z == x + y + 100000)))",
        // It would be true if what came of the limit were no error.
        "input.a.all(x, input.b.exists(y, y == x)) || true",
        "true || input.a.all(x, input.b.all(y, y != x)) && input.a.all(x, input.b.all(y, y != x))",
    ] {
        let result = evaluate(source, &input);
        if source.starts_with("true") {
            assert_eq!(result, Ok(true.into()), "what is not evaluated costs nothing");
        } else {
            assert!(is_limit(&result, "takes more than 250000 steps"), "{source}: {result:?}");
        }
    }
}

#[test]
fn what_is_compared_and_copied_is_counted_too() {
    let text = "x".repeat(100_000);
    let input = json!({"a": (0..5_000).collect::<Vec<_>>(), "big": [text], "t": text});
    for source in [
        "input.a.all(x, !(-1 in input.a))",
        "input.a.all(x, input.a == input.a + [])",
        "input.a.all(x, !input.t.contains('y'))",
        "input.a.all(x, input.t.size() > 0)",
        "input.a.map(x, input.big)",
        "input.a.map(x, {'t': input.t})",
        "input.a.exists(x, input.a[1.5] == 1)",
        "input.a.all(x, input.t + 'a' != '')",
        "input.a.all(x, optional.of(input.big).hasValue())",
        "input.a.exists(x, input.a + 1 == [])",
    ] {
        let result = evaluate(source, &input);
        assert!(
            is_limit(&result, "reads, compares and copies more than 16 MiB"),
            "{source}: {result:?}"
        );
    }
    for source in ["input.a.all(x, size(input.a) > 0 && input.a[x] == x)", "input.a.map(x, x + 1)"]
    {
        assert!(evaluate(source, &input).is_ok(), "{source}");
    }
}

#[test]
fn a_text_that_doubles_itself_ends_soon() {
    let mut source = "v25".to_owned();
    for number in (0..25).rev() {
        source = format!("[v{number} + v{number}].map(v{}, {source})[0]", number + 1);
    }
    let source = format!("[input.t].map(v0, {source})[0].size()");
    let Ok(expression) = Expression::compile(&source) else {
        panic!("too long or too deep: {} bytes", source.len())
    };
    let input = json!({"t": "a".repeat(64)});
    let result = expression.evaluate(&variables(&input));
    assert!(is_limit(&result, "reads, compares and copies more than 16 MiB"), "{result:?}");
}

#[test]
fn expressions_of_a_step_share_one_budget() {
    let input = json!({"a": (0..20_000).collect::<Vec<_>>()});
    let expression = Expression::compile("input.a.all(x, x >= 0)").unwrap();
    let one = variables(&input);
    let mut evaluated = 0;
    while expression.evaluate(&one).is_ok() {
        evaluated += 1;
        assert!(evaluated < 100, "it never ends");
    }
    assert!(evaluated > 0, "one is within the limit");
    let again = variables(&input);
    for _ in 0..evaluated {
        assert!(expression.evaluate(&again).is_ok(), "the count is the same each time");
    }
    assert!(expression.evaluate(&again).is_err());
}

#[test]
fn the_largest_payload_is_copied_once() {
    let many = format!("[{}]", ["1"].repeat(crate::PAYLOAD_BYTES_MAX / 2 - 1).join(","));
    let input = json!({"all": serde_json::from_str::<Value>(&many).unwrap()});
    assert!(evaluate("input.all + []", &input).is_ok());
    assert!(evaluate("{'all': input.all}", &input).is_ok());
}

/// What is too much to be read is not.
struct TooMuch;

impl Source for TooMuch {
    fn bytes(&self, _variable: Variable) -> usize {
        usize::MAX
    }

    fn read(&self, _variable: Variable) -> VariableValue {
        unreachable!("it is read")
    }
}

#[test]
fn what_is_read_is_counted_before() {
    for source in ["input", "steps.a.output", "size(steps)", "true || size(input) > 0"] {
        let expression = Expression::compile(source).unwrap();
        let result = expression.evaluate(&Variables::new(TooMuch, None));
        assert!(is_limit(&result, "reads, compares and copies"), "{source}: {result:?}");
    }
}

/// A step that an earlier version began has the same input when it is tried again, and undone.
#[test]
fn what_was_decided_on_is_read_whatever_it_costs() {
    struct Large;
    impl Source for Large {
        fn bytes(&self, _variable: Variable) -> usize {
            usize::MAX
        }

        fn read(&self, _variable: Variable) -> VariableValue {
            Ok(json!({"n": 1}))
        }
    }
    let expression = Expression::compile("input.n + 1").unwrap();
    let variables = Variables::new(Large, None).decided();
    assert_eq!(expression.evaluate(&variables), Ok(2.into()));
}

#[test]
fn an_expression_that_names_steps_reads_no_others() {
    for (source, names, all) in [
        ("steps.a.output.n + steps['b'].output.n", &["a", "b"][..], false),
        ("has(steps.a) && steps.a.output == null", &["a"], false),
        ("[1].map(steps, steps.a)", &[], false),
        ("steps", &[], true),
        ("steps[input.name]", &[], true),
        ("size(steps) + steps.a.output", &["a"], true),
        ("steps.map(name, steps[name])", &[], true),
        ("[steps].map(s, s.a)", &[], true),
    ] {
        let expression = Expression::compile(source).unwrap();
        assert_eq!(
            (&expression.steps()[..], expression.uses_all_steps()),
            (&names.iter().map(ToString::to_string).collect::<Vec<_>>()[..], all),
            "{source}"
        );
    }
}

/// Who may read a failure may not read every payload, and a payload may be personal.
#[test]
fn a_reason_quotes_no_value() {
    let input = json!({
        "text": "planted", "list": ["planted"], "map": {"planted": 7_654_321}, "number": 7_654_321,
        "max": i64::MAX, "zero": 0,
    });
    for (source, reason) in [
        ("input.text + 1", "`add` is not defined for string and int"),
        ("input.list + 1", "`add` is not defined for list and int"),
        ("input.text < 1", "no matching overload for '_<_' applied to '(string, int)'"),
        ("input.map[input.text + 'x']", "there is no such key"),
        ("input.mop", "No such key: mop"),
        ("input.list[input.number]", "an index is out of bounds"),
        ("input.list[input.list]", ""),
        ("{input.list: 1}", "list cannot be a key of a map"),
        ("input.number / input.zero", "it divides by zero"),
        ("input.number % input.zero", "it divides by zero"),
        ("input.max + input.number", "the result of `add` is out of range"),
        ("int(input.text)", "`int` does not accept this value"),
        ("timestamp(input.text)", ""),
        ("duration(input.text)", ""),
        ("input.text.matches('(')", ""),
        ("input.text.matches(input.text + '(')", ""),
        ("sum(input.list)", "`sum`: element 0 is of type string, and sum adds up numbers"),
        ("input.text.size(input.list)", ""),
        ("input.text()", ""),
        ("{input.text: 1, input.text: 2}", ""),
    ] {
        let Err(error) = evaluate(source, &input) else {
            assert_eq!(reason, "", "{source} has a value");
            continue;
        };
        let told = error.to_string();
        assert!(told.ends_with(reason), "{source}: {told}");
        assert!(!told.contains("planted") && !told.contains("7654321"), "{source}: {told}");
        assert_eq!(error.code("when_failed"), "when_failed");
    }
    for (source, reason) in [("input.text", "a string"), ("input.map", "an object")] {
        let wrong = Expression::compile(source).unwrap().evaluate_bool(&variables(&input));
        let told = format!("`{source}` is {reason}, not true or false");
        assert_eq!(wrong.unwrap_err().to_string(), told);
    }
}

#[test]
fn what_has_no_value_is_no_null() {
    let read = Payload::recorded(r#"{"n":1,"x":"\ud800"}"#).unwrap();
    let item = Item::new(read.to_value(), 0);
    let variables = Variables::new(read, Some(item));
    for source in ["input.n == 1", "input.n", "input", "has(input.x)", "item", "item.n", "index"] {
        let error = Expression::compile(source).unwrap().evaluate(&variables).unwrap_err();
        assert!(error.to_string().contains("has no value"), "{source}: {error}");
    }
}

/// An expression made of bytes: any bytes give one.
struct Made<'b> {
    bytes: std::slice::Iter<'b, u8>,
    source: String,
    bound: Vec<String>,
}

impl Made<'_> {
    fn source(bytes: &[u8]) -> String {
        let mut made = Made { bytes: bytes.iter(), source: String::new(), bound: Vec::new() };
        made.any(5);
        made.source
    }

    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn of<'t>(&mut self, words: &[&'t str]) -> &'t str {
        words[usize::from(self.next()) % words.len()]
    }

    fn say(&mut self, words: &str) {
        self.source.push_str(words);
    }

    /// The parts of a template: `$` is an expression.
    fn fill(&mut self, template: &str, depth: u8) {
        for (number, part) in template.split('$').enumerate() {
            if number > 0 {
                self.any(depth);
            }
            self.say(part);
        }
    }

    fn leaf(&mut self) {
        let bound = self.bound.clone();
        if !bound.is_empty() && self.next().is_multiple_of(2) {
            let name = bound[usize::from(self.next()) % bound.len()].clone();
            return self.say(&name);
        }
        let word = self.of(&[
            "0",
            "1",
            "2",
            "-1",
            "1.5",
            "1u",
            "'a'",
            "'ab'",
            "b'x'",
            "true",
            "false",
            "null",
            "[]",
            "input.n",
            "input.f",
            "input.t",
            "input.list",
            "input.texts",
            "input.mixed",
            "input.none",
            "input.deep",
            "input.deep.a.b",
            "input.missing",
            "input.empty",
            "input.yes",
            "int",
        ]);
        self.say(word);
    }

    fn any(&mut self, depth: u8) {
        if depth == 0 || self.source.len() > EXPRESSION_BYTES_MAX / 2 {
            return self.leaf();
        }
        let inner = depth - 1;
        match self.next() % 12 {
            0..=1 => self.leaf(),
            2..=4 => {
                let operator = self.of(&[
                    "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
                ]);
                self.fill(&format!("($ {operator} $)"), inner);
            }
            5 => {
                let template = self.of(&["!$", "-($)", "($ ? $ : $)", "($)[$]", "($)[?$]"]);
                self.fill(template, inner);
            }
            6 => {
                let template = self.of(&[
                    "[$, $]",
                    "[$]",
                    "[?$]",
                    "{'a': $, 'b': $}",
                    "{$: $}",
                    "{?'a': $}",
                    "($).a",
                    "($).?a",
                    "has(($).a)",
                    "($).?c.orValue($)",
                ]);
                self.fill(template, inner);
            }
            7..=8 => {
                let template = self.of(&[
                    "size($)",
                    "string($)",
                    "int($)",
                    "double($)",
                    "bytes($)",
                    "type($)",
                    "dyn($)",
                    "($).size()",
                    "($).contains($)",
                    "($).startsWith($)",
                    "($).endsWith($)",
                    "optional.of($)",
                    "optional.ofNonZeroValue($)",
                    "($).hasValue()",
                    "($).value()",
                    "($).or($)",
                    "optional.none()",
                    "uint($)",
                    "bool($)",
                ]);
                self.fill(template, inner);
            }
            _ => {
                let list = self.of(&[
                    "input.list",
                    "input.texts",
                    "input.mixed",
                    "input.deep.a.b",
                    "input.empty",
                    "[1, 2]",
                    "[input.n, 'a']",
                ]);
                let name = format!("v{}", self.bound.len());
                let call = self.of(&["all", "exists", "exists_one", "map", "filter", "map2"]);
                let mut head = String::new();
                let (call, template) = if call == "map2" { ("map", "$, $") } else { (call, "$") };
                let _ = write!(head, "{list}.{call}({name}, ");
                self.say(&head);
                self.bound.push(name);
                self.fill(template, inner);
                self.bound.pop();
                self.say(")");
            }
        }
    }
}

/// The bytes are not the expression, but what it is made of: so most of them say something.
#[test]
fn any_expression_has_the_library_s_value_or_meets_a_limit() {
    let mut random = Random::new(1);
    let mut any = |length| (0..length).map(|_| random.byte()).collect();
    Target {
        name: "expressions",
        seeds: [0, 10, 40, 80, 120, 160, 200].into_iter().map(&mut any).collect(),
        words: &[],
        shape: Shape::Bytes,
        bytes_max: 200,
        time_max: Duration::from_secs(2),
    }
    .run(|bytes| {
        let source = Made::source(bytes);
        let expression = match Expression::compile(&source) {
            Ok(expression) => expression,
            Err(error) => return error,
        };
        let input = sample();
        let (one, other) = (variables(&input), variables(&input));
        let value = expression.evaluate(&one);
        // The library's errors have maps in them, in another order each time.
        let again = expression.evaluate(&other);
        assert_eq!(value.as_ref().ok(), again.as_ref().ok(), "{source}");
        match value {
            Err(ExpressionError::Limit(message)) => message,
            value => {
                let librarys = plain(&source, &input);
                // Of an object that is added to a list, the library adds the keys in any order.
                let is_same = value.as_ref().ok() == librarys.as_ref()
                    || source.contains('+')
                        && value.as_ref().ok().map(unordered) == librarys.as_ref().map(unordered);
                assert!(is_same, "{source}: {value:?}, {librarys:?}");
                value.map_or_else(|error| error.to_string(), |value| value.to_string())
            }
        }
    });
}
