//! What a plugin says in each language, and its time and chance: planted into the project that
//! `amends plugin new` makes.

use std::fs;

use serde_json::Value;

use crate::place::stdout;
use crate::project::{built, made, one_at_a_time, path, run};

/// A language's project, with code at the beginning of its `execute` that does what the event of an order
/// is named by: `throw`, `print` or `draw`.
struct Planted {
    language: &'static str,
    file: &'static str,
    /// What stands in the source, and what is put behind it.
    after: &'static str,
    code: &'static str,
    /// What comes before the source.
    before: &'static str,
    /// What is heard of what was thrown: in the failure, and the function or place in the log.
    thrown: [&'static str; 2],
}

const RUST: Planted = Planted {
    language: "rust",
    file: "src/lib.rs",
    after: "let Order { event, seats } = order;\n",
    code: "match event.as_str() {
            \"throw\" => panic!(\"the ledger is inconsistent\"),
            \"print\" => log::error(\"to error\", &[]),
            \"draw\" => {
                let now = amends_sdk::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                let booking = format!(\"{} {}\", now.as_millis(), amends_sdk::random_u64());
                return Ok(Booking { booking, seats });
            }
            _ => {}
        }\n",
    before: "",
    thrown: ["panicked at src/lib.rs:", "the ledger is inconsistent"],
};

const JS: Planted = Planted {
    language: "js",
    file: "plugin.js",
    after: "const { event, seats } = JSON.parse(input);\n",
    code: "if (event === 'throw') throw new TypeError('the ledger is inconsistent');
    if (event === 'print') {
      console.log('to output');
      console.error('to error');
    }
    if (event === 'draw') {
      const booking = [Date.now(), Math.random(), crypto.randomUUID()].join(' ');
      return JSON.stringify({ booking, seats });
    }\n",
    before: "",
    thrown: ["TypeError: the ledger is inconsistent", "plugin.js:"],
};

const PYTHON: Planted = Planted {
    language: "python",
    file: "plugin.py",
    after: "order = json.loads(input)\n",
    code: "        if order['event'] == 'throw':
            raise KeyError('the ledger is inconsistent')
        if order['event'] == 'print':
            print('to output')
            print('to error', file=sys.stderr)
        if order['event'] == 'draw':
            drawn = [int(time.time() * 1000), random.random(), uuid.uuid4(), datetime.now()]
            booking = ' '.join(str(one) for one in drawn)
            return json.dumps({'booking': booking, 'seats': order['seats']})\n",
    before: "import random, sys, time, uuid\nfrom datetime import datetime\n",
    thrown: ["KeyError: 'the ledger is inconsistent'", "plugin.py\", line "],
};

const C: Planted = Planted {
    language: "c",
    file: "plugin.c",
    after: "return permanent(err, \"invalid_input\", \"an order has an event and seats\");\n    }\n",
    code: "    if (!strcmp(event, \"print\")) {
        printf(\"to output\\n\");
        fprintf(stderr, \"to error\\n\");
    }
    if (!strcmp(event, \"draw\")) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(text, sizeof text, \"{\\\"booking\\\":\\\"%lld %d %ld\\\",\\\"seats\\\":%ld}\",
                 now.tv_sec * 1000LL + now.tv_nsec / 1000000, rand(), random(), seats);
        plugin_string_dup(ret, text);
        return true;
    }
    assert(strcmp(event, \"throw\"));\n",
    before: "#include <assert.h>\n#include <time.h>\n",
    thrown: ["Assertion failed: strcmp(event, \"throw\")", "plugin.c"],
};

/// The checks of the first input, when it is tested with an order of that event.
fn tested(component: &std::path::Path, event: &str) -> Value {
    let order = format!("{{\"event\":\"{event}\",\"seats\":1}}");
    let output = run(&["plugin", "test", path(component), "--input", &order, "-o", "json"]);
    let all: Value = serde_json::from_str(&stdout(&output)).unwrap();
    // Behind the two examples of the schema.
    let is_its = |check: &&Value| check["input"] == 3;
    all["checks"].as_array().unwrap().iter().filter(is_its).cloned().collect()
}

fn check<'c>(checks: &'c Value, name: &str) -> &'c Value {
    let mut all = checks.as_array().unwrap().iter();
    all.find(|check| check["check"] == name).unwrap_or_else(|| panic!("no check `{name}`"))
}

fn log(check: &Value) -> String {
    let lines = check["log"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_heard(planted: &Planted) {
    let _one = one_at_a_time();
    let folder = made(&format!("seats-{}", planted.language), planted.language);
    let source = fs::read_to_string(folder.join(planted.file)).unwrap();
    assert_eq!(source.matches(planted.after).count(), 1, "{}", planted.language);
    let Planted { after, code, before, .. } = planted;
    let source = before.to_string() + &source.replace(after, &format!("{after}{code}"));
    fs::write(folder.join(planted.file), source).unwrap();
    let Some(component) = built(&folder) else { return };
    let built_at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();

    let checks = tested(&component, "throw");
    let execute = check(&checks, "execute");
    let why = execute["why"].as_str().unwrap();
    assert_eq!(execute["result"], "failed", "{why}");
    assert!(
        why.starts_with("it failed (unknown) with trap: ") && why.contains(planted.thrown[0]),
        "{why}"
    );
    assert!(log(execute).contains(planted.thrown[1]), "{}", log(execute));

    let checks = tested(&component, "print");
    let execute = check(&checks, "execute");
    assert_eq!(execute["result"], "ok", "{execute}");
    let said = log(execute);
    assert!(said.contains("to error"), "{said}");
    if planted.language != "rust" {
        assert!(said.contains("INFO  to output {\"stream\":\"stdout\"}"), "{said}");
        assert!(said.contains("WARN  to error {\"stream\":\"stderr\"}"), "{said}");
    }

    // Two calls, and two answers that have nothing in common.
    let checks = tested(&component, "draw");
    let why = check(&checks, "the same call again")["why"].as_str().unwrap().to_owned();
    let words: Vec<_> = why.split(['"', ' ']).filter(|word| word.len() > 4).collect();
    let drawn = |word: &&&str| word.bytes().any(|byte| byte.is_ascii_digit());
    let drawn: Vec<_> = words.iter().filter(drawn).collect();
    assert_eq!(drawn.len() % 2, 0, "{why}");
    let (first, second) = drawn.split_at(drawn.len() / 2);
    assert!(first.len() >= 2 && second.len() == first.len(), "{why}");
    for (one, other) in first.iter().zip(second).skip(1) {
        // The day may be the same.
        assert!(one != other || one.starts_with("20"), "{why}");
    }
    let called_at: u128 = first[0].parse().unwrap_or_else(|_| panic!("{why}"));
    assert!(called_at > built_at, "{why}: the time is that of the build or before, {built_at}");
}

#[test]
fn a_rust_plugin_is_heard() {
    is_heard(&RUST);
}

#[test]
fn a_javascript_plugin_is_heard() {
    is_heard(&JS);
}

#[test]
fn a_python_plugin_is_heard() {
    is_heard(&PYTHON);
}

#[test]
fn a_c_plugin_is_heard() {
    is_heard(&C);
}
