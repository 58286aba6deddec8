//! Reads bundles: the head, the components and the lines of the events.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use amends_api_types::{
    BUNDLE_COMPONENTS_BYTES_MAX, BUNDLE_FORMAT, BundleBlob, BundleDigest, BundleHead,
};
use amends_engine::{Digest, PAYLOAD_BYTES_MAX, on_one_line};
use amends_sandbox::COMPONENT_BYTES_MAX;

/// The most bytes of the line of an event: twice the largest event of a store.
const EVENT_LINE_BYTES_MAX: u64 = 32 * PAYLOAD_BYTES_MAX as u64;

/// The most bytes of any line: a component as base64, and what stands around it.
const LINE_BYTES_MAX: u64 = COMPONENT_BYTES_MAX as u64 / 3 * 4 + 1_024;

/// How the line of a component begins.
const COMPONENT_LINE: &str = "{\"component\":";

/// A bundle that is being read.
pub(crate) struct Bundle {
    /// Its head.
    pub(crate) head: BundleHead,
    /// The text of its head.
    pub(crate) head_line: String,
    /// Its components, by digest.
    pub(crate) components: BTreeMap<Digest, Vec<u8>>,
    lines: Box<dyn BufRead>,
    /// The line of the first event, which was read to see that no component follows.
    next: Option<String>,
    /// The number of the line that was read last.
    number: u64,
    digest: BundleDigest,
}

impl Bundle {
    /// Opens a bundle, and reads its head and its components. `-` is standard input.
    pub(crate) fn open(path: &str) -> anyhow::Result<Self> {
        let lines: Box<dyn BufRead> = match path {
            "-" => Box::new(std::io::stdin().lock()),
            path => {
                let file = File::open(path).with_context(|| format!("{path} cannot be read"))?;
                Box::new(BufReader::new(file))
            }
        };
        Self::read(lines)
    }

    fn read(mut lines: Box<dyn BufRead>) -> anyhow::Result<Self> {
        let (head, head_line) = read_head(&mut lines)?;
        let (mut components, mut bytes_total, mut number) = (BTreeMap::new(), 0, 1);
        let next = loop {
            number += 1;
            let Some(line) = read_line(&mut lines, number, LINE_BYTES_MAX)? else { break None };
            if !line.starts_with(COMPONENT_LINE) {
                break Some(line);
            }
            let place = || format!("line {number}");
            let blob: BundleBlob = serde_json::from_str(&line).with_context(place)?;
            let bytes = STANDARD.decode(&blob.base64);
            let bytes =
                bytes.with_context(|| format!("{}: the component is not base64", place()))?;
            bytes_total += bytes.len();
            ensure!(
                bytes_total <= BUNDLE_COMPONENTS_BYTES_MAX,
                "line {number}: the components have more than {} MiB",
                BUNDLE_COMPONENTS_BYTES_MAX >> 20
            );
            let digest = Digest::of(&bytes);
            ensure!(
                digest.to_string() == blob.component,
                "line {number}: the component is damaged: its digest is {digest}, and not {}",
                on_one_line(&blob.component)
            );
            components.insert(digest, bytes);
        };
        let digest = BundleDigest::new(&head);
        Ok(Self { head, head_line, components, lines, next, number: number - 1, digest })
    }

    /// Returns the line of the next event, and its number. None at the end of the bundle.
    pub(crate) fn next_event(&mut self) -> anyhow::Result<Option<(u64, String)>> {
        let number = self.number + 1;
        let line = match self.next.take() {
            Some(line) => Some(line),
            None => read_line(&mut self.lines, number, EVENT_LINE_BYTES_MAX)?,
        };
        let Some(line) = line else { return Ok(None) };
        ensure!(
            line.len() as u64 <= EVENT_LINE_BYTES_MAX,
            "line {number}: it is longer than {} MiB",
            EVENT_LINE_BYTES_MAX >> 20
        );
        self.number = number;
        self.digest.add(&line);
        Ok(Some((number, line)))
    }

    /// Checks, at the end of a bundle, that all its events came as they were written. `count` came.
    pub(crate) fn check_end(&self, count: u64) -> anyhow::Result<()> {
        if let Some(events) = self.head.events.filter(|events| count < *events) {
            bail!("the bundle is cut off: it ends with event {count} of {events}");
        }
        // An earlier version wrote none.
        if let Some(told) = &self.head.digest {
            let found = self.digest.finish();
            ensure!(
                *told == found,
                "the bundle is damaged: its digest is {}, and that of its content {found}",
                on_one_line(told)
            );
        }
        Ok(())
    }
}

/// Reads the first line of a bundle.
fn read_head(lines: &mut dyn BufRead) -> anyhow::Result<(BundleHead, String)> {
    let help = "a bundle is what `amends store export ID` writes";
    let text = read_line(lines, 1, EVENT_LINE_BYTES_MAX)?
        .with_context(|| format!("the bundle is empty: {help}"))?;
    let format = serde_json::from_str::<serde_json::Value>(&text);
    let format = format.with_context(|| format!("line 1: {help}"))?;
    match format["format"].as_str() {
        Some(BUNDLE_FORMAT) => Ok((serde_json::from_str(&text).context("line 1")?, text)),
        Some(other) => bail!(
            "line 1: its format is {}, and this version reads {BUNDLE_FORMAT}",
            on_one_line(other)
        ),
        None => bail!("line 1: it has no format: {help}"),
    }
}

/// Reads a line of at most so many bytes, without its end; none at the end of the bundle.
fn read_line(
    lines: &mut dyn BufRead,
    number: u64,
    bytes_max: u64,
) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    let mut limited = lines.take(bytes_max + 1);
    let read = limited.read_line(&mut text).with_context(|| format!("line {number}"))?;
    ensure!(
        text.len() as u64 <= bytes_max,
        "line {number}: it is longer than {} MiB",
        bytes_max >> 20
    );
    if read == 0 {
        return Ok(None);
    }
    text.truncate(text.trim_end().len());
    Ok(Some(text))
}
