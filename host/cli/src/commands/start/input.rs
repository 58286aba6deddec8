//! What a saga is given: JSON on the command line, in a file, or on standard input.

use std::path::Path;

use serde_json::value::RawValue;

/// The one JSON text of an input.
///
/// # Errors
/// What is wrong with it, and that `--each` takes several lines when that seems to be meant.
pub(super) fn parse<'t>(text: &'t str, input: &str) -> anyhow::Result<&'t RawValue> {
    serde_json::from_str(text).map_err(|error| {
        let what = match input {
            "-" => "standard input is not JSON".to_owned(),
            file if Path::new(file).exists() => format!("{file} is not JSON"),
            _ => "--input is not JSON".to_owned(),
        };
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let is_one_a_line = lines.len() > 1 && serde_json::from_str::<&RawValue>(lines[0]).is_ok();
        if is_one_a_line {
            let lines = lines.len();
            anyhow::anyhow!(
                "{what}: its first line is, and it has {lines} lines\n  help: with --each, one \
                 saga is started for each line"
            )
        } else {
            anyhow::anyhow!("{what}: {error}")
        }
    })
}

/// What is wrong with one line of a file. The line's number in the file is the caller's to tell.
pub(super) fn parse_line(line: &str) -> anyhow::Result<&RawValue> {
    serde_json::from_str(line).map_err(|error| {
        let told = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let told = told.strip_suffix(&place).unwrap_or(&told);
        anyhow::anyhow!("it is not JSON: {told}, at column {}", error.column())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::{parse, parse_line};
    use crate::commands::input::read_input;

    fn read(input: &str) -> anyhow::Result<String> {
        read_input("--input", input)
    }

    #[test]
    fn json_that_is_not_says_where() {
        let told = read("{bad").unwrap_err().to_string();
        assert_eq!(told, "--input is not JSON: key must be a string at line 1 column 2");
        let told = read("no-such-file.json").unwrap_err().to_string();
        assert!(told.contains("there is no such file\n  help: "), "{told}");
        assert_eq!(read("7").unwrap(), "7");
    }

    #[test]
    fn several_lines_suggest_each() {
        let told = parse("{\"a\": 1}\n\n{\"a\": 2}\n", "-").unwrap_err().to_string();
        assert!(told.contains("it has 2 lines\n  help: with --each"), "{told}");
        let told = parse("{\n \"a\":\n}\n", "-").unwrap_err().to_string();
        assert_eq!(told, "standard input is not JSON: expected value at line 3 column 1");
        assert_eq!(parse(" [1,\n2]\n", "-").unwrap().get(), "[1,\n2]");
    }

    #[test]
    fn a_line_has_no_number_of_its_own() {
        let told = parse_line("{\"a\": tru}").unwrap_err().to_string();
        assert!(told.starts_with("it is not JSON: ") && !told.contains("line"), "{told}");
        assert!(told.ends_with(", at column 10"), "{told}");
    }
}
