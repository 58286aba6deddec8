//! JSON that is given on the command line or in a file.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::value::RawValue;

/// The text of `flag`: JSON as it is, else a file, else with `-` standard input.
pub(crate) fn read_input(flag: &str, input: &str) -> anyhow::Result<String> {
    if input == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    if serde_json::from_str::<&RawValue>(input).is_ok() && !Path::new(input).exists() {
        return Ok(input.to_owned());
    }
    std::fs::read_to_string(input)
        .with_context(|| format!("{flag} `{input}` is neither JSON nor a file that can be read"))
}

/// The JSON of `flag`: as it is, else of a file. Not of standard input, where ids may stand.
pub(crate) fn read_json(flag: &str, input: &str) -> anyhow::Result<Box<RawValue>> {
    anyhow::ensure!(input != "-", "{flag}: write JSON or a file; - stands for ids only");
    let text = read_input(flag, input)?;
    serde_json::from_str(&text).with_context(|| format!("{flag} is not JSON"))
}
