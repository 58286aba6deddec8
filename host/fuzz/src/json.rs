//! Changes of JSON that leave it JSON.

use serde_json::{Value, json};

use crate::random::Random;

/// Objects and lists within one another that are made at once: past what any reader takes.
const NESTED_MAX: usize = 200;

/// Items that are made of one at once: more than a list of ours has.
const REPEATED_MAX: usize = 1_200;

/// One change of a JSON text. A text that is not JSON is left as it is, and told by `false`.
pub fn change_json(random: &mut Random, text: &mut Vec<u8>, words: &[&str]) -> bool {
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return false };
    let count = count(&value);
    let copies = copy(&value, random.below(count));
    let mut left = random.below(count);
    if let Some(found) = nth(&mut value, &mut left) {
        change(random, found, copies, words);
    }
    *text = value.to_string().into_bytes();
    true
}

/// How many values there are, each object and list with those in it.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn copy(value: &Value, mut number: usize) -> Value {
    let mut copied = value.clone();
    nth(&mut copied, &mut number).map_or(Value::Null, Value::take)
}

fn nth<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn change(random: &mut Random, value: &mut Value, other: Value, words: &[&str]) {
    let word = |random: &mut Random| {
        if words.is_empty() { "a".to_owned() } else { (*random.pick(words)).to_owned() }
    };
    match (random.below(6), &mut *value) {
        (0..=2, Value::Object(fields)) if !fields.is_empty() => {
            let at = random.below(fields.len());
            let name = fields.keys().nth(at).cloned().unwrap_or_default();
            match random.below(4) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let field = fields.remove(&name).unwrap_or_default();
                    fields.insert(word(random), field);
                }
                2 => drop(fields.insert(word(random), other)),
                _ => drop(fields.insert(name, other)),
            }
        }
        (0..=2, Value::Array(items)) if !items.is_empty() => {
            let (one, two) = (random.below(items.len()), random.below(items.len()));
            match random.below(5) {
                0 => drop(items.remove(one)),
                1 => items.swap(one, two),
                2 => items.insert(one, other),
                3 => items.insert(one, items[two].clone()),
                _ => {
                    let times = if random.once_in(8) { random.below(REPEATED_MAX) } else { 2 };
                    let item = items[two].clone();
                    items.splice(one..one, std::iter::repeat_n(item, times));
                }
            }
        }
        (0..=2, Value::String(text)) => {
            let word = word(random);
            change_text(random, text, &word);
        }
        (0..=2, Value::Number(_)) => *value = number(random),
        (3, _) => {
            let depth = if random.once_in(8) { random.below(NESTED_MAX) } else { 1 };
            for _ in 0..depth {
                let inner = value.take();
                *value = if random.once_in(2) { json!([inner]) } else { json!({"a": inner}) };
            }
        }
        (4, _) => *value = other,
        _ => {
            *value = match random.below(8) {
                0 => Value::Null,
                1 => random.once_in(2).into(),
                2 => number(random),
                3 => json!([]),
                4 => json!({}),
                5 => word(random).into(),
                6 => "x".repeat(random.below(5_000)).into(),
                _ => "".into(),
            }
        }
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(10) {
        0 => 0.into(),
        1 => (-1).into(),
        2 => i64::MAX.into(),
        3 => i64::MIN.into(),
        4 => u64::MAX.into(),
        5 => u32::MAX.into(),
        6 => (u64::from(u32::MAX) + 1).into(),
        7 => json!(1e300),
        8 => json!(0.5),
        _ => random.below(2_000).into(),
    }
}

fn change_text(random: &mut Random, text: &mut String, word: &str) {
    const CHARACTERS: [char; 12] =
        ['\0', '\n', '\r', '\u{1b}', '\u{7f}', '\u{202e}', '\u{feff}', '"', '\\', '`', 'é', '💊'];
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let at = *random.pick(&places);
    match random.below(5) {
        0 => text.insert(at, *random.pick(&CHARACTERS)),
        1 => text.truncate(at),
        2 => text.insert_str(at, word),
        3 => word.clone_into(text),
        _ => {
            if at < text.len() {
                text.remove(at);
            }
        }
    }
}
