#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};

use super::*;
use crate::definition::{FUNCTIONS, MACROS};

/// A definition of steps that each have `{name, plugin, …}` and come one after the other.
fn definition(steps: &[Value]) -> Definition {
    let retry = json!({"attempts": 1, "backoff": {"listed": []}});
    let mut before: Vec<String> = Vec::new();
    let steps: Vec<Value> = steps
        .iter()
        .map(|step| {
            let mut step = step.clone();
            step["after"] = json!(before);
            step["timeout"] = json!(1_000);
            step["retry"] = retry.clone();
            before = vec![step["name"].as_str().unwrap().to_owned()];
            step
        })
        .collect();
    let text = json!({"name": "trip", "steps": steps}).to_string();
    Definition::from_canonical(&text).unwrap()
}

fn told(steps: &[Value], plugins: &[(&str, Value, Value)]) -> Vec<String> {
    let definition = definition(steps);
    let schemas = |name: &PluginName| {
        let (_, input, output) = plugins.iter().find(|(known, ..)| *known == name.as_str())?;
        Some(Schemas { input: Schema::new(input), output: Schema::new(output) })
    };
    let told = |Flaw { step, key, field, is_certain, message, remedy, .. }: Flaw| {
        let severity = if is_certain { "error" } else { "warning" };
        let field = field.map(|field| format!(".{field}")).unwrap_or_default();
        format!("{severity}: {step}.{key}{field}: {message}; {remedy}")
    };
    flaws(&definition, &schemas).into_iter().map(told).collect()
}

/// What is said of one expression that is the `when` of a step after `hotel`, which is of this
/// output.
fn of_when(source: &str, output: &Value) -> Vec<String> {
    let steps = [
        json!({"name": "hotel", "plugin": "hotel"}),
        json!({"name": "mail", "plugin": "mail", "when": source}),
    ];
    told(&steps, &[("hotel", json!({}), output.clone())])
        .into_iter()
        .map(|told| told.replace("mail.when: ", ""))
        .collect()
}

#[test]
fn what_can_never_be_true_or_false() {
    for (source, what) in [
        ("7", "a number"),
        ("-1.5", "a number"),
        ("((7))", "a number"),
        ("'ship'", "text"),
        (r#"r"a\" "#, "text"),
        ("'it\\'s == b'", "text"),
        ("\"\"\"a\"b\"\"\"", "text"),
        ("null", "null"),
        ("[true]", "a list"),
        ("{'a': true}", "an object"),
        ("input.a + 1", "a number"),
        ("input.a + input.b", "the result of a calculation"),
        ("input.items[0] * 2", "a number"),
        ("size(input.items)", "a number"),
        ("input.items.map(i, i > 2)", "a list"),
        ("input.items.filter(i, i > 2)", "a list"),
        ("sum(input.items)", "a number"),
        ("input.ship ? 1 : input.b ? 'a' : 'b'", "a number or text"),
        ("bytes(input.a)", "bytes or a type"),
    ] {
        let told = of_when(source, &json!({}));
        assert!(told.len() == 1 && told[0].contains(&format!("` is {what}, never")), "{told:?}");
    }
}

/// No false errors: what may be right is taken to be right.
#[test]
fn what_may_be_right_is_left_alone() {
    let open = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    for source in [
        "true",
        "input.ship",
        "!input.ship",
        "input.a + 1 > 2",
        "size(input.items) > 0",
        "input.items.exists(i, i + 1 > 2)",
        "input.items.all(i, i.ok)",
        "input.items.exists_one(i, i > 2) && input.items.existsOne(i, i > 2)",
        "'a' in input.list",
        "has(input.a)",
        "(input.a) || (input.b)",
        "[1, 2][0] == 1",
        "[true, false][0]",
        "{'a': true}.a",
        "input.ship ? 1 : input.other",
        "int(input.a) == 7 // an int",
        "input['a+b']",
        "-input.a < 3",
        "steps.hotel.output.a > 1",
        "steps['hotel'].output['a'] > 1",
        "has(steps.hotel.output.b) && steps.hotel.output.b > 1",
        "'b' in steps.hotel.output && steps.hotel.output.b > 1",
        "steps.hotel.output == null || steps.hotel.output.a == 1",
        "steps.exists(name, steps[name].output == null)",
        "steps.hotel.output.exists(key, key == 'b')",
        "saga.tags.customer == 'x'",
        "saga.id.startsWith('01')",
        "type(input.a) == int && dyn(input.a) == 1",
        "[input.a, 2].sum() > 2 && 'EUR'.lowerAscii() == 'eur'",
        "{'a': [{'b': 1}]}.a.exists(x, x.b == 1)",
    ] {
        assert_eq!(of_when(source, &open), [""; 0], "{source}");
    }
    // Another part of the schema may describe the field.
    for (key, value) in [
        ("additionalProperties", json!(true)),
        ("additionalProperties", json!({"type": "string"})),
        ("anyOf", json!([{"required": ["b"]}])),
        ("patternProperties", json!({"^b": {}})),
        ("if", json!({})),
    ] {
        let mut schema = open.clone();
        schema[key] = value;
        assert_eq!(of_when("steps.hotel.output.b > 1", &schema), [""; 0], "{schema}");
    }
    let referred = json!({
        "$ref": "#/$defs/a", "properties": {"b": {}},
        "$defs": {"a": {"properties": {"a": {}}, "additionalProperties": false}},
    });
    assert_eq!(of_when("steps.hotel.output.c > 1", &referred), [""; 0]);
    assert_eq!(of_when("steps.hotel.output.c > 1", &json!({"type": "object"})), [""; 0]);
}

#[test]
fn fields_are_held_against_the_schemas_of_outputs() {
    let open = json!({
        "type": "object",
        "properties": {
            "price_cents": {"type": "integer"},
            "guest": {"anyOf": [{"$ref": "#/$defs/guest"}, {"type": "null"}]},
            "nights": {"type": "array", "items": {"$ref": "#/$defs/night"}},
        },
        "$defs": {
            "guest": {
                "type": "object", "properties": {"name": {}}, "additionalProperties": false,
            },
            "night": {
                "type": "object", "properties": {"cents": {}}, "additionalProperties": false,
            },
        },
    });
    let mut closed = open.clone();
    closed["additionalProperties"] = json!(false);
    let source = "steps.hotel.output.price_cent > 1";
    assert_eq!(
        of_when(source, &closed),
        ["error: `steps.hotel.output.price_cent > 1`: `steps.hotel.output` has no field \
          `price_cent`; did you mean `price_cents`?"]
    );
    assert_eq!(
        of_when(source, &open),
        [
            "warning: `steps.hotel.output.price_cent > 1`: `steps.hotel.output` is not said to have a \
          field `price_cent`; did you mean `price_cents`?"
        ]
    );
    for (source, words) in [
        ("steps.hotel.price_cents > 1", "write steps.hotel.output.price_cents"),
        ("steps['hotel'].price_cents > 1", "write steps.hotel.output.price_cents"),
        ("steps.hotel.output.guest.nam == ''", "has no field `nam`; did you mean `name`?"),
        ("steps.hotel.output['guest']['nam'] == ''", "did you mean `name`?"),
        ("steps.hotel.output.price_cents.eur == 1", "is a number, which has no field `eur`"),
        ("steps.hotel.output.nights.cents == 1", "is a list, which has no field `cents`; take"),
        ("steps.hotel.output.nights[0].cent == 1", "did you mean `cents`?"),
        ("steps.hotel.output.nights.exists(n, n.cent > 1)", "`n` has no field `cent`"),
        ("steps.hotel.output.nights.map(n, n.cents)[0].x == 1 && saga.idd == ''", "`id`?"),
        ("steps.hotel.output.price_cents + ' EUR' == ''", "string(steps.hotel.output.price_cents)"),
        ("steps.hotel.output.price_cents.all(x, x > 1)", "is a number, not a list"),
    ] {
        let told = of_when(source, &closed);
        assert!(told.len() == 1 && told[0].starts_with("error"), "{told:?}");
        assert!(told[0].contains(words), "{told:?}");
    }
}

#[test]
fn functions_that_there_are_not() {
    for (source, words) in [
        ("upper('eur') == ''", "there is no function `upper`; did you mean `upperAscii`?"),
        ("input.a.summ() > 1", "there is no function `summ`; did you mean `sum`?"),
        ("now() > 1", "there is no function `now`; the functions are bool, bytes, "),
        ("contains('a', 'b')", "`contains` is called in another way; write such as 'text'."),
        ("input.a.int() > 1", "`int` is called in another way; write such as int('7')"),
    ] {
        let told = of_when(source, &json!({}));
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
    let told = of_when("input.a.filter(1)", &json!({}));
    assert!(told.len() == 1 && told[0].contains("[1, 2].filter(x, x > 1)"), "{told:?}");
}

/// What is listed is what the library has: each example has a value.
#[test]
fn the_functions_that_are_listed_are_there() {
    use crate::definition::{Read, Source, Variable, Variables};
    struct Nothing;
    impl Source for Nothing {
        fn bytes(&self, _: Variable) -> usize {
            0
        }
        fn read(&self, _: Variable) -> Read {
            Ok(Value::Null)
        }
    }
    let functions = FUNCTIONS.iter().map(|function| (function.name, function.example));
    for (name, example) in functions.chain(MACROS) {
        assert!(example.contains(&format!("{name}(")), "{example}");
        let told = of_when(&format!("[{example}].size() > 0"), &json!({}));
        assert_eq!(told, [""; 0], "{example}");
        let expression = Expression::compile(&format!("[{example}].size()")).unwrap();
        let value = expression.evaluate(&Variables::new(Nothing, None));
        assert_eq!(value.unwrap(), json!(1), "{example}");
    }
}

/// The README's table has all of them, and no others.
#[test]
fn the_functions_that_are_listed_are_those_of_the_readme() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
    let table = readme.split("these functions are in force").nth(1).unwrap();
    let rows: Vec<_> = table
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| !line.is_empty())
        .collect();
    let calls =
        rows.iter().filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`'));
    let named: BTreeSet<&str> =
        calls.filter_map(|call| call.split_once('(')?.0.rsplit('.').next()).collect();
    let listed = FUNCTIONS.iter().map(|function| function.name);
    let listed: BTreeSet<&str> = listed.chain(MACROS.iter().map(|(name, _)| *name)).collect();
    assert_eq!(named, listed);
}

#[test]
fn inputs_are_held_against_the_schemas_of_plugins() {
    let hotel = json!({
        "type": "object", "required": ["id", "price"],
        "properties": {"id": {"type": "string"}, "price": {"type": "integer"}, "note": {}},
        "additionalProperties": false,
    });
    let payment = json!({
        "type": "object", "required": ["customer_id", "price"],
        "properties": {
            "customer_id": {"type": "string"},
            "price": {"type": "integer"},
            "lines": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": false,
    });
    let plugins = [("hotel", json!({}), hotel), ("payment", payment, json!({}))];
    let told = |input: Value| {
        let steps = [
            json!({"name": "hotel", "plugin": "hotel"}),
            json!({"name": "pay", "plugin": "payment", "input": input}),
        ];
        told(&steps, &plugins)
    };
    assert_eq!(
        told(json!({"customer_id": "input.customer_id", "price": "steps.hotel.output.price"})),
        [""; 0]
    );
    assert_eq!(
        told(json!({
            "customer_id": "steps.hotel.output.price", "price": "'7'", "price_": "1",
            "lines": "[1]",
        })),
        [
            "error: pay.input.customer_id: `steps.hotel.output.price` is a number, and the plugin \
             `payment` takes text; make it text: string(steps.hotel.output.price)",
            "warning: pay.input.lines: `[1]` does not fit the plugin `payment`: [] is a number, \
             where text is taken; give it what its input schema says, field by field: { drug = \
             \"input.drug\" }",
            "error: pay.input.price: `'7'` is text, and the plugin `payment` takes a number; make \
             it a number: int('7')",
            "error: pay.input.price_: the plugin `payment` does not take `price_`; did you mean \
             `price`?",
        ]
    );
    assert_eq!(
        told(json!({"price": "1"})),
        ["error: pay.input: `customer_id` is missing, which the plugin `payment` needs; add an \
          expression, such as customer_id = \"input.customer_id\""]
    );
    let whole = told(json!("steps.hotel.output"));
    assert!(
        whole.len() == 2
            && whole[0]
                .starts_with("error: pay.input: `steps.hotel.output` does not fit the plugin")
            && whole[0].contains("it needs `customer_id`, which is not in it")
            && whole[1].contains("it does not take `id`, which is in it"),
        "{whole:?}"
    );
    let number = told(json!("7"));
    assert!(number[0].contains("`7` is a number, and the plugin `payment` takes an object"));
    let element = "{'customer_id': 'a', 'price': 1}";
    assert_eq!(told(json!(element)), [""; 0]);
    assert_eq!(told(json!("input")), [""; 0]);
}

/// Each element of a list is an input, and the step's output is a list of what each answered.
#[test]
fn lists_are_looked_into() {
    let seat = json!({"type": "object", "properties": {"seat": {}}, "additionalProperties": false});
    let wants = json!({"type": "object", "properties": {"seat": {"type": "string"}}});
    let plugins = [("seat", wants, seat)];
    let each = |list: &str, input: &str| {
        json!({"name": "seats", "plugin": "seat", "each": {"list": list, "concurrency": 1},
            "input": input})
    };
    let told = |list: &str, input: &str, when: &str| {
        let mail = json!({"name": "mail", "plugin": "mail", "when": when});
        told(&[each(list, input), mail], &plugins)
    };
    assert_eq!(told("input.seats", "item", "steps.seats.output[0].seat == ''"), [""; 0]);
    let number = told("7", "item", "true");
    assert!(number[0].starts_with("error: seats.each: `7` is a number, not a list"), "{number:?}");
    let element = told("[{'seat': 7}]", "item", "true");
    assert!(element[0].contains("seat is a number, where text is taken"), "{element:?}");
    let field = told("input.seats", "item", "steps.seats.output.seat == ''");
    assert!(field[0].contains("of each: steps.seats.output.map(x, x.seat)"), "{field:?}");
    let misspelt = told("input.seats", "item", "steps.seats.output.exists(s, s.sea == '')");
    assert!(misspelt[0].contains("did you mean `seat`?"), "{misspelt:?}");
}

#[test]
fn another_undo_reads_what_the_step_answers() {
    let charge = |name: &str| json!({"type": "object", "required": [name], "properties": {name: {"type": "string"}}});
    let undo = json!({"plugin": "refund", "timeout": 1_000,
        "retry": {"attempts": 1, "backoff": {"listed": []}}});
    let step = json!({"name": "pay", "plugin": "payment", "undo": undo, "input": "input"});
    let told = |answers: &str| {
        let plugins =
            [("payment", json!({}), charge(answers)), ("refund", json!({}), charge("charge_id"))];
        told(std::slice::from_ref(&step), &plugins)
    };
    assert_eq!(told("charge_id"), [""; 0]);
    assert_eq!(
        told("payment_id"),
        ["error: pay.undo: the undo `refund` cannot read the output of `payment`: it needs \
          `charge_id`, which is not in it; name an undo that reads what `payment` answers, or change \
          its type of the output"]
    );
}
