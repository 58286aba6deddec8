//! Takes the secrets of a plugin out of what the plugin says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::settings::{SECRET_BYTES_MIN, Secret};

/// Knows the secrets of one plugin, and takes them out of texts.
pub(crate) struct Redactor {
    /// Each form in which a secret may stand in a text, and what is put in its place; the longest first.
    forms: Vec<(String, String)>,
}

impl Redactor {
    /// Looks for these secrets, by name, in each form in which a text may have them.
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let mut forms = Vec::new();
        for (name, secret) in secrets {
            let text = secret.reveal();
            if text.len() < SECRET_BYTES_MIN {
                continue;
            }
            let instead = format!("[secret {name}]");
            // As it stands inside a JSON text, where quotes and newlines are written otherwise.
            let json = Value::from(text).to_string();
            let json = json[1..json.len() - 1].to_owned();
            if json != text {
                forms.push((json, instead.clone()));
            }
            // As it stands in the name of a host.
            let lower = text.to_lowercase();
            if lower != text {
                forms.push((lower, instead.clone()));
            }
            // A log takes line by line: a key in PEM has many.
            for line in text.lines().map(str::trim).filter(|line| *line != text) {
                if line.len() >= SECRET_BYTES_MIN {
                    let json = Value::from(line).to_string();
                    let json = &json[1..json.len() - 1];
                    if json != line {
                        forms.push((json.to_owned(), instead.clone()));
                    }
                    forms.push((line.to_owned(), instead.clone()));
                }
            }
            forms.push((text.to_owned(), instead));
        }
        // One secret may be a part of another.
        forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        forms.dedup();
        Self { forms }
    }

    /// The text without the plugin's secrets.
    pub(crate) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // Most texts are shorter than most lines of a key.
        let longer = self.forms.partition_point(|(form, _)| form.len() > text.len());
        let mut text = Cow::Borrowed(text);
        for (form, instead) in &self.forms[longer..] {
            if text.contains(form.as_str()) {
                text = Cow::Owned(text.replace(form.as_str(), instead));
            }
        }
        text
    }

    /// As [`Self::redact`], of a text whose end was cut off: also without a secret that is cut there. What
    /// is too short to be surely one is left out without a word.
    pub(crate) fn redact_cut<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = self.redact(text);
        let cut = |(form, instead): &(String, String)| {
            let begins = |at: &usize| form.is_char_boundary(*at) && text.ends_with(&form[..*at]);
            let most = form.len().min(text.len() + 1);
            let begun = (1..most).rev().find(begins)?;
            Some((begun, instead.clone()))
        };
        let longest = self.forms.iter().filter_map(cut).max_by_key(|(begun, _)| *begun);
        let Some((begun, instead)) = longest else { return text };
        let end = text.len() - begun;
        if begun >= SECRET_BYTES_MIN {
            return format!("{}{instead}", &text[..end]).into();
        }
        match text {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        }
    }

    /// A JSON text without the plugin's secrets, however its strings are written (`\u00e4`, `\/`). A
    /// number that has one in it becomes a string.
    pub(crate) fn redact_json<'t>(&self, json: &'t str) -> Cow<'t, str> {
        if self.forms.is_empty() {
            return Cow::Borrowed(json);
        }
        let (mut clean, mut rest, mut is_changed) = (String::new(), json, false);
        while !rest.is_empty() {
            let (token, after) = rest.split_at(token_bytes(rest));
            rest = after;
            let said = match token.as_bytes()[0] {
                b'"' => serde_json::from_str(token).unwrap_or_else(|_| token.to_owned()),
                b'-' | b'0'..=b'9' => token.to_owned(),
                _ => String::new(),
            };
            if let Cow::Owned(without) = self.redact(&said) {
                clean += &Value::from(without).to_string();
                is_changed = true;
            } else {
                clean += token;
            }
        }
        // One that goes over several tokens is taken out as well, whatever is left of the JSON.
        match self.redact(&clean) {
            Cow::Owned(clean) => Cow::Owned(clean),
            Cow::Borrowed(_) if is_changed => Cow::Owned(clean),
            Cow::Borrowed(_) => Cow::Borrowed(json),
        }
    }
}

/// How long the string, the number or what is between them is that a JSON text begins with.
fn token_bytes(json: &str) -> usize {
    let bytes = json.as_bytes();
    let in_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let end = match bytes[0] {
        b'"' => {
            let mut is_escaped = true;
            let end = bytes.iter().position(|byte| match byte {
                _ if is_escaped => {
                    is_escaped = false;
                    false
                }
                b'\\' => {
                    is_escaped = true;
                    false
                }
                byte => *byte == b'"',
            });
            end.map(|end| end + 1)
        }
        b'-' | b'0'..=b'9' => bytes.iter().position(|byte| !in_number(byte)),
        _ => bytes.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9')),
    };
    end.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::settings::Secret;

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        let of =
            |(name, text): &(&str, &str)| ((*name).to_owned(), Secret::new((*text).to_owned()));
        Redactor::new(&secrets.iter().map(of).collect())
    }

    #[test]
    fn secrets_are_taken_out_in_every_form() {
        let redactor = redactor(&[("short", "abc"), ("key", "k-123456"), ("long", "k-123456\"7")]);
        assert_eq!(redactor.redact("an abc and k-123456."), "an abc and [secret key].");
        assert_eq!(redactor.redact("k-123456\"7"), "[secret long]");
        let json = serde_json::json!({"a": "k-123456\"7", "b": "k-123456"}).to_string();
        let redacted = redactor.redact(&json);
        assert_eq!(redacted, r#"{"a":"[secret long]","b":"[secret key]"}"#);
        assert!(matches!(redactor.redact("nothing"), Cow::Borrowed(_)));
    }

    #[test]
    fn each_line_of_a_secret_is_one_and_so_is_its_beginning_at_a_cut() {
        let pem = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2Vw\n  BCIEIHx\nab\n";
        let redactor = redactor(&[("key", pem)]);
        assert_eq!(redactor.redact("it is MC4CAQAwBQYDK2Vw."), "it is [secret key].");
        assert_eq!(redactor.redact("BCIEIHx ab"), "[secret key] ab");
        let account = self::redactor(&[("key", "{\n  \"id\": \"s-1\"\n}")]);
        assert_eq!(account.redact(r#"it is \"id\": \"s-1\"."#), "it is [secret key].");
        assert_eq!(redactor.redact_cut("xxx MC4CAQA"), "xxx [secret key]");
        assert!(matches!(redactor.redact_cut("xxx MC4C"), Cow::Borrowed("xxx ")));
        assert_eq!(redactor.redact_cut("BCIEIHx MC4C"), "[secret key] ");
        assert_eq!(redactor.redact_cut("BCIEIHx and more"), "[secret key] and more");
    }

    #[test]
    fn secrets_are_taken_out_of_json_however_it_is_written() {
        let secrets =
            [("word", "p\u{e4}ss/w\u{f6}rter"), ("pin", "123456"), ("host", "Secret-Host")];
        let redactor = redactor(&secrets);
        for (json, clean) in [
            (r#"{"a":"p\u00e4ss\/w\u00F6rter!"}"#, r#"{"a":"[secret word]!"}"#),
            (r#"{"p\u00e4ss\/w\u00F6rter":1}"#, r#"{"[secret word]":1}"#),
            (r#"["\u0031\u0032\u0033456"]"#, r#"["[secret pin]"]"#),
            (r#"{"a":-9123456.5e1,"b":2}"#, r#"{"a":"-9[secret pin].5e1","b":2}"#),
            (r#"{"a":"secret-host"}"#, r#"{"a":"[secret host]"}"#),
            (r#"{"a":123456"#, r#"{"a":"[secret pin]""#),
        ] {
            assert_eq!(redactor.redact_json(json), clean);
        }
        for json in [r#"{"a":"\u00e4\\","b":[1,-2.5e3,true,null,""]}"#, "", "\"", "\"\\", "-"] {
            assert!(matches!(redactor.redact_json(json), Cow::Borrowed(same) if same == json));
        }
    }
}
