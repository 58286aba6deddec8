//! JSON that is given on the command line or in a file.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::value::RawValue;

/// The text of `flag`: JSON as it is, else a file, else with `-` standard input.
///
/// # Errors
/// What is wrong with the JSON, when it begins as JSON does; else that there is no such file.
pub(crate) fn read_input(flag: &str, input: &str) -> anyhow::Result<String> {
    if input == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    if Path::new(input).exists() {
        return std::fs::read_to_string(input)
            .with_context(|| format!("{flag} `{input}` cannot be read"));
    }
    match serde_json::from_str::<&RawValue>(input) {
        Ok(_) => Ok(input.to_owned()),
        Err(error) if input.trim_start().starts_with(['{', '[', '"']) => {
            Err(anyhow::anyhow!("{flag} is not JSON: {error}"))
        }
        Err(_) => Err(anyhow::anyhow!(
            "{flag} `{input}` is no JSON, and there is no such file\n  help: write JSON in single \
             quotes, such as '{{\"order_id\": \"7\"}}', name a file, or - for standard input"
        )),
    }
}

/// The JSON of `flag`: as it is, else of a file. Not of standard input, where ids may stand.
pub(crate) fn read_json(flag: &str, input: &str) -> anyhow::Result<Box<RawValue>> {
    anyhow::ensure!(input != "-", "{flag}: write JSON or a file; - stands for ids only");
    let text = read_input(flag, input)?;
    serde_json::from_str(&text).with_context(|| format!("{flag} is not JSON"))
}
