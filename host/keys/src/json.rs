//! Walks through a JSON text and replaces values in it. All else stays as it was written.
//!
//! The texts are sound JSON: payloads that were checked, and what the engine wrote. They nest no deeper
//! than a payload does.

use std::borrow::Cow;

/// Decides about the values of a text.
pub(crate) trait Rewrite {
    /// Returns what stands in the place of a value. None keeps it; then its parts are looked at.
    /// `path` has the names and numbers that lead to it, `fields` the names alone.
    fn value(&mut self, path: &str, fields: &[Cow<'_, str>], json: &str) -> Option<String>;

    /// Returns what stands in the place of an object that has a field of this name. None keeps it.
    fn object_of(&mut self, name: &str, path: &str, json: &str) -> Option<String>;
}

/// The text of a JSON string, decoded.
pub(crate) fn decoded(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if inner.contains('\\') {
        serde_json::from_str(token).map_or(Cow::Borrowed(inner), Cow::Owned)
    } else {
        Cow::Borrowed(inner)
    }
}

/// Returns the fields of an object, each with its text; none when the text is no object.
pub(crate) fn fields(json: &str) -> Option<Vec<(&str, &str)>> {
    let mut reader = Reader { text: json, at: 0 };
    let mut fields = Vec::new();
    reader.take(b'{')?;
    if reader.take(b'}').is_some() {
        return Some(fields);
    }
    loop {
        let name = reader.value()?;
        reader.take(b':')?;
        fields.push((name, reader.value()?));
        if reader.take(b',').is_none() {
            return Some(fields);
        }
    }
}

/// Returns the elements of a list; none when the text is no list.
pub(crate) fn elements(json: &str) -> Option<Vec<&str>> {
    let mut reader = Reader { text: json, at: 0 };
    let mut elements = Vec::new();
    reader.take(b'[')?;
    if reader.take(b']').is_some() {
        return Some(elements);
    }
    loop {
        elements.push(reader.value()?);
        if reader.take(b',').is_none() {
            return Some(elements);
        }
    }
}

/// Rewrites a value, which stands at a path.
pub(crate) fn rewrite(json: &str, path: &str, rewrite: &mut impl Rewrite) -> String {
    let mut out = String::with_capacity(json.len());
    let walk = Walk { path: path.to_owned(), fields: Vec::new(), out: &mut out };
    walk.go(json, rewrite);
    out
}

struct Walk<'t, 'o> {
    path: String,
    fields: Vec<Cow<'t, str>>,
    out: &'o mut String,
}

impl<'t> Walk<'t, '_> {
    fn go(mut self, json: &'t str, rewrite: &mut impl Rewrite) {
        self.value(json, rewrite);
    }

    fn value(&mut self, json: &'t str, rewrite: &mut impl Rewrite) {
        if let Some(other) = rewrite.value(&self.path, &self.fields, json) {
            self.out.push_str(&other);
            return;
        }
        let length = self.path.len();
        if let Some(fields) = fields(json) {
            let names: Vec<_> = fields.iter().map(|(name, _)| decoded(name)).collect();
            let whole = names.iter().find_map(|name| rewrite.object_of(name, &self.path, json));
            if let Some(whole) = whole {
                self.out.push_str(&whole);
                return;
            }
            self.out.push('{');
            for (at, ((token, value), name)) in fields.into_iter().zip(names).enumerate() {
                self.out.push_str(if at > 0 { "," } else { "" });
                self.out.push_str(token);
                self.out.push(':');
                self.path.push('.');
                self.path.push_str(&name);
                self.fields.push(name);
                self.value(value, rewrite);
                let _ = self.fields.pop();
                self.path.truncate(length);
            }
            self.out.push('}');
        } else if let Some(elements) = elements(json) {
            self.out.push('[');
            for (at, value) in elements.into_iter().enumerate() {
                self.out.push_str(if at > 0 { "," } else { "" });
                self.path.push('.');
                self.path.push_str(&at.to_string());
                self.value(value, rewrite);
                self.path.truncate(length);
            }
            self.out.push(']');
        } else {
            self.out.push_str(json);
        }
    }
}

/// Reads the parts of one text.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn skip_space(&mut self) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Takes one character, if it is the next.
    fn take(&mut self, character: u8) -> Option<()> {
        self.skip_space();
        let is_next = self.text.as_bytes().get(self.at) == Some(&character);
        self.at += usize::from(is_next);
        is_next.then_some(())
    }

    /// Takes one value, whatever it is.
    fn value(&mut self) -> Option<&'t str> {
        self.skip_space();
        let (begin, bytes) = (self.at, self.text.as_bytes());
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        while let Some(byte) = bytes.get(self.at) {
            let is_end = depth == 0 && !in_string;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => {
                    in_string = !in_string;
                    if !in_string && depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                _ if in_string => {}
                b'[' | b'{' => depth += 1,
                b',' | b':' | b']' | b'}' if is_end => break,
                b']' | b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                byte if is_end && byte.is_ascii_whitespace() => break,
                _ => {}
            }
            self.at += 1;
        }
        self.text.get(begin..self.at).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    /// Replaces nothing, and writes down what it sees.
    struct Seen(Vec<(String, String)>);

    impl Rewrite for Seen {
        fn value(&mut self, path: &str, _: &[Cow<'_, str>], json: &str) -> Option<String> {
            self.0.push((path.to_owned(), json.to_owned()));
            None
        }

        fn object_of(&mut self, _: &str, _: &str, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn what_is_not_replaced_stays_as_it_was_written() {
        let texts = [
            r#"{"a":[1.0e2,{"b\u0041":"x\"]}"},[]],"c":{},"d":null,"e":-0}"#,
            r#""one""#,
            "[[],[[]],{}]",
            "12",
            r#"{"\\":"\\"}"#,
        ];
        for text in texts {
            assert_eq!(rewrite(text, "at", &mut Seen(Vec::new())), text);
        }
    }

    #[test]
    fn each_value_has_its_path() {
        let mut seen = Seen(Vec::new());
        let _ = rewrite(r#"{"a":[{"b":7}]}"#, "input", &mut seen);
        let paths: Vec<_> = seen.0.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["input", "input.a", "input.a.0", "input.a.0.b"]);
        assert_eq!(seen.0[3].1, "7");
    }

    proptest::proptest! {
        #[test]
        fn any_json_stays_as_it_is(text in ".{0,40}", number in proptest::prelude::any::<f64>()) {
            let value = serde_json::json!({ &text: [text, number, { "x": [true, null, {}] }], "": "" });
            let json = value.to_string();
            proptest::prop_assert_eq!(rewrite(&json, "", &mut Seen(Vec::new())), json);
        }
    }
}
