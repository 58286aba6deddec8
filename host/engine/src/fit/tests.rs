#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::definition::{Definition, Expression, FUNCTIONS, MACROS};
use crate::ids::PluginName;

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
        ("steps.hotel.output.nights.map(n, n.cents)[0].x == saga.idd", "`id`?"),
        ("steps.hotel.output.price_cents + ' EUR' == ''", "string(steps.hotel.output.price_cents)"),
        ("steps.hotel.output.price_cents.all(x, x > 1)", "is a number, not a list"),
    ] {
        let told = of_when(source, &closed);
        assert!(told.len() == 1 && told[0].starts_with("error"), "{told:?}");
        assert!(told[0].contains(words), "{told:?}");
    }
    let told = of_when("steps.hotel.output.nights.exists(n, n.cent > 1)", &closed);
    assert!(told.len() == 1 && told[0].contains("`n` has no field `cent`"), "{told:?}");
}

/// Alternatives that refer to one another make very many.
#[test]
fn kinds_of_alternatives_in_a_circle_are_found_soon() {
    let all = vec![json!({"$ref": "#"}); 20];
    let circle = json!({"anyOf": all});
    assert_eq!(Schema::new(&circle).kinds(), Kinds::JSON);
    let many: Vec<_> = (0..2_000).map(|n| json!({"const": n})).collect();
    assert_eq!(Schema::new(&json!({"anyOf": many})).kinds(), Kinds::JSON);
    assert_eq!(Schema::new(&json!({"anyOf": many[..100]})).kinds(), Kinds::NUMBER);
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
    use crate::definition::{Source, Variable, VariableValue, Variables};
    struct Nothing;
    impl Source for Nothing {
        fn bytes(&self, _: Variable) -> usize {
            0
        }
        fn read(&self, _: Variable) -> VariableValue {
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

/// The table of the book has all of them, and no others.
#[test]
fn the_functions_that_are_listed_are_those_of_the_book() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/expressions.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page.split("These functions exist").nth(1).unwrap();
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
    // A list that is not written out may be empty, and a function that there is not is wrong all
    // the same.
    for (list, input, severity) in [
        ("['a']", "{'seat': 7}", "error: "),
        ("input.seats", "{'seat': 7}", "warning: "),
        ("input.seats", "7", "warning: "),
        ("input.seats", "{'seat': upper(item)}", "error: "),
    ] {
        let told = told(list, input, "true");
        assert!(told.len() == 1 && told[0].starts_with(severity), "{list} {input}: {told:?}");
    }
}

#[test]
fn another_undo_reads_what_the_step_answers() {
    let open = |name: &str| json!({"type": "object", "required": [name], "properties": {name: {"type": "string"}}});
    let closed = |name: &str| {
        let mut charge = open(name);
        charge["additionalProperties"] = json!(false);
        charge
    };
    let undo = json!({"plugin": "refund", "timeout": 1_000,
        "retry": {"attempts": 1, "backoff": {"listed": []}}});
    let step = json!({"name": "pay", "plugin": "payment", "undo": undo, "input": "input"});
    let told = |answers: Value| {
        let plugins = [("payment", json!({}), answers), ("refund", json!({}), open("charge_id"))];
        told(std::slice::from_ref(&step), &plugins)
    };
    assert_eq!(told(open("charge_id")), [""; 0]);
    assert_eq!(
        told(closed("payment_id")),
        ["error: pay.undo: the undo `refund` cannot read the output of `payment`: it needs \
          `charge_id`, which is not in it; name an undo that reads what `payment` answers, or change \
          its type of the output"]
    );
    assert_eq!(
        told(open("payment_id")),
        [
            "warning: pay.undo: the undo `refund` may not be able to read the output of `payment`: it \
          needs `charge_id`, which is not said to be in it; name an undo that reads what `payment` \
          answers, or change its type of the output"
        ]
    );
}

/// Each node is visited once, and not twice as often at each level.
#[test]
fn macros_within_one_another_are_looked_at_in_no_time() {
    let mut source = "a39.gone".to_owned();
    for number in (0..40).rev() {
        source = format!("[steps.hotel.output].map(a{number}, {source})");
    }
    let output =
        json!({"type": "object", "properties": {"room": {}}, "additionalProperties": false});
    let (tell, told) = std::sync::mpsc::channel();
    // The parser needs much of the stack when it is not optimised.
    let deep = std::thread::Builder::new().stack_size(64 << 20);
    let look = move || tell.send(of_when(&format!("size({source}) > 0"), &output));
    deep.spawn(look).unwrap();
    let told = told.recv_timeout(std::time::Duration::from_mins(1)).expect("it ends");
    assert!(told.len() == 1 && told[0].starts_with("error: "), "{told:?}");
    assert!(told[0].contains("`a39` has no field `gone`"), "{told:?}");
}

/// Written so that both versions of a plugin work.
#[test]
fn what_need_not_be_computed_is_no_error() {
    let output = json!({"type": "object", "required": ["price"], "additionalProperties": false,
        "properties": {"price": {"type": "number"}}});
    let read = "steps.hotel.output";
    for source in [
        format!("(type({read}.price) == string ? {read}.price + ' EUR' : '') != ''"),
        format!("input.kind == 'x' && {read}.gone == 1"),
        format!("{read}.gone == 1 || true"),
        format!("input.list.map(x, {read}.gone) == []"),
        format!("input.list.filter(x, x == {read}.gone) == []"),
        format!("[1].map(x, x > 1, {read}.gone) == []"),
        format!("[1].all(x, x == {read}.gone)"),
    ] {
        let told = of_when(&source, &output);
        assert!(told.len() == 1 && told[0].starts_with("warning: "), "{source}: {told:?}");
    }
    for source in [
        format!("[1].map(x, {read}.gone) == []"),
        format!("{read}.gone == 1 ? true : false"),
        format!("[{read}.gone].map(x, 1) == []"),
    ] {
        let told = of_when(&source, &output);
        assert!(told.len() == 1 && told[0].starts_with("error: "), "{source}: {told:?}");
    }
    // What no value makes right.
    for source in [
        "input.kind == 'x' && upper('eur') == ''",
        "(input.kind == 'x' ? upper('eur') : '') == ''",
        "input.list.exists(x, contains(x, 'a'))",
    ] {
        let told = of_when(source, &output);
        assert!(told.len() == 1 && told[0].starts_with("error: "), "{source}: {told:?}");
    }
}

/// What is wrong with the component of before as well is known, whatever else its schemas say.
#[test]
fn a_flaw_covers_the_same_one_in_other_words() {
    let found = |output: Value| {
        let steps = [
            json!({"name": "hotel", "plugin": "hotel"}),
            json!({"name": "mail", "plugin": "mail", "when": "steps.hotel.output.rom == 1"}),
        ];
        let definition = definition(&steps);
        let input = json!({});
        let schemas = |_: &PluginName| {
            Some(Schemas { input: Schema::new(&input), output: Schema::new(&output) })
        };
        flaws(&definition, &schemas).remove(0)
    };
    let open = |names: &[&str]| {
        let all: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({"type": "object", "properties": all})
    };
    let (before, after) = (found(open(&["a", "b"])), found(open(&["a", "b", "c"])));
    assert_ne!(before.remedy, after.remedy);
    assert!(before.covers(&after) && after.covers(&before));
    // What was possible and is certain now is worse.
    let mut closed = open(&["a", "b"]);
    closed["additionalProperties"] = json!(false);
    let certain = found(closed);
    assert!(!before.covers(&certain) && certain.covers(&before));
}

/// So it is with inputs, and with undos by another plugin.
#[test]
fn flaws_of_inputs_and_undos_cover_those_that_are_no_worse() {
    let undo = json!({"plugin": "refund", "timeout": 1_000,
        "retry": {"attempts": 1, "backoff": {"listed": []}}});
    let steps = [
        json!({"name": "pay", "plugin": "payment", "undo": undo, "input": "input"}),
        json!({"name": "mail", "plugin": "mail", "input": "steps.pay.output"}),
        json!({"name": "print", "plugin": "print"}),
    ];
    let definition = definition(&steps);
    let needs = |names: &[&str]| json!({"type": "object", "required": names});
    let found = |output: &Value, print: &Value| {
        let (any, charge) = (json!({}), needs(&["charge_id"]));
        let schemas = |name: &PluginName| {
            let (input, output) = match name.as_str() {
                "payment" => (&any, output),
                "refund" => (&any, &charge),
                "mail" => (&charge, &any),
                _ => (print, &any),
            };
            Some(Schemas { input: Schema::new(input), output: Schema::new(output) })
        };
        flaws(&definition, &schemas)
    };
    let answer = |names: &[&str], is_closed: bool| {
        let all: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({"type": "object", "properties": all, "additionalProperties": !is_closed})
    };
    let mut open = answer(&["payment_id"], false);
    open.as_object_mut().unwrap().remove("additionalProperties");
    let closed = answer(&["payment_id", "total"], true);
    let before = found(&closed, &needs(&["order", "customer"]));
    assert_eq!(before.len(), 3, "{before:?}");
    // What is said of fewer fields, and is possible where it was certain, is no worse.
    let after = found(&open, &needs(&["customer"]));
    assert_eq!(after.len(), 3, "{after:?}");
    for (before, after) in before.iter().zip(&after) {
        assert!(before.message != after.message && before.covers(after), "{before:?} {after:?}");
    }
    let is_worse = before.iter().zip(&after).map(|(before, after)| !after.covers(before));
    assert_eq!(is_worse.collect::<Vec<_>>(), [true, true, false]);
}

/// A schema comes from the component.
#[test]
fn inputs_of_many_names_are_compared_in_no_time() {
    let names: Vec<_> = (0..10_000).map(|n| format!("p{n}")).collect();
    let all: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!({}))).collect();
    let wide = json!({"type": "object", "required": names, "properties": all});
    let circle: serde_json::Map<_, _> =
        names.iter().take(250).map(|name| (name.clone(), json!({"$ref": "#"}))).collect();
    let circle = json!({"type": "object", "required": names[..250], "properties": circle});
    for schema in [wide, circle] {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let steps = [
                json!({"name": "a", "plugin": "a"}),
                json!({"name": "b", "plugin": "b", "input": "steps.a.output"}),
            ];
            let plugins = [("a", json!({}), schema.clone()), ("b", schema.clone(), json!({}))];
            tell.send(self::told(&steps, &plugins))
        });
        let told = told.recv_timeout(std::time::Duration::from_mins(1)).expect("it ends");
        assert!(told.iter().all(|told| told.starts_with("warning: ")), "{:?}", told.first());
    }
}
