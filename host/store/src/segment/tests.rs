//! The format of segments, and what is said of files that are none.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use amends_engine::{Digest, Position, SagaId, SagaStatus, Timestamp, Version};

use super::format::{FRAME_BYTES, SEGMENT_SUFFIX};
use super::{SagaLine, Segment, SegmentHeader, SegmentWriter, parse_line};
use crate::saga_row::SagaRow;

/// Ids that ascend with their numbers.
fn id(number: u8) -> SagaId {
    let at = Timestamp::from_millis(1_767_225_600_000 + i64::from(number / 16));
    SagaId::from_parts(at, &[number % 16; 10])
}

fn row(number: u8) -> SagaRow {
    SagaRow {
        id: id(number),
        definition: "order-fulfillment".parse().unwrap(),
        definition_digest: Digest::of(b"order-fulfillment"),
        status: SagaStatus::Compensated,
        reason: Some("the card was refused: naïve 💊".to_owned()),
        started_at: Timestamp::from_millis(1_767_225_600_000),
        ended_at: Some(Timestamp::from_millis(1_767_225_601_234)),
        deadline_at: None,
        wake_at: None,
        tags: BTreeMap::from([("customer".to_owned(), "7".to_owned())]),
        index: BTreeMap::new(),
        key: Some("key".to_owned()),
        subject_key: Some(amends_engine::SubjectKeyId::from_bytes([7; 16])),
    }
}

/// The appends of the golden file: the second one has line feeds between its tokens.
const APPENDS: [(u64, u64, &str); 2] = [
    (5, 1, r#"[["saga.started",{"input":{"n":1.50,"text":"\n \u0000"}}]]"#),
    (9, 3, "[[\"step.succeeded\",{\n \"a\": 1}],\r\n [\"saga.compensated\",{}]]"),
];

fn line(number: u8) -> SagaLine {
    let mut line = SagaLine::new(&row(number)).unwrap();
    for (position, version, events) in APPENDS {
        let at = Timestamp::from_millis(1_767_225_600_500);
        line.push(Position(position), Version(version), at, events).unwrap();
    }
    line
}

fn header() -> SegmentHeader {
    SegmentHeader { store: -7, fence: 3, at: Timestamp::from_millis(1_775_000_000_000) }
}

/// Writes a segment with these sagas, each with so many bytes more.
fn written(folder: &Path, numbers: impl IntoIterator<Item = u8>, padding: usize) -> PathBuf {
    let mut writer = SegmentWriter::create(folder, &header()).unwrap();
    for number in numbers {
        let mut line = line(number);
        // Bytes that compress badly.
        let words =
            (0..padding / 16).map(|word| Digest::of(&word.to_le_bytes()).hex()[..16].to_owned());
        let events =
            serde_json::json!([["step.succeeded", { "words": words.collect::<String>() }]]);
        let at = Timestamp::from_millis(1_767_225_600_900);
        line.push(Position(20), Version(4), at, &events.to_string()).unwrap();
        writer.add(id(number), &line.to_text().unwrap(), 4).unwrap();
    }
    folder.join(writer.finish().unwrap().unwrap().file)
}

#[test]
fn the_golden_segment_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment-1.amends.zst");
    if std::env::var_os("AMENDS_GOLDEN_SEGMENT").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(folder.path(), &header()).unwrap();
        for number in [1, 2] {
            writer.add(id(number), &line(number).to_text().unwrap(), 3).unwrap();
        }
        let file = writer.finish().unwrap().unwrap().file;
        fs::copy(folder.path().join(file), &golden).unwrap();
    }
    let mut segment = Segment::open(&golden).unwrap();
    assert_eq!(segment.header().unwrap(), header());
    assert_eq!(segment.check().unwrap(), Vec::<String>::new());
    assert_eq!(segment.ids().collect::<Vec<_>>(), [id(1), id(2)]);
    let saga = segment.saga(id(2)).unwrap().unwrap();
    // It was written before sagas had keys of subjects.
    assert_eq!(saga.row, SagaRow { subject_key: None, ..row(2) });
    let places: Vec<_> =
        saga.events.iter().map(|event| (event.position.0, event.version.0)).collect();
    assert_eq!(places, [(5, 1), (8, 2), (9, 3)]);
    assert_eq!(saga.events[0].data, r#"{"input":{"n":1.50,"text":"\n \u0000"}}"#);
    assert_eq!(saga.events[1].data, "{\n \"a\": 1}");
    // The columns of the store, to the byte.
    let text = segment.line(id(1)).unwrap().unwrap();
    let stored = SagaLine::from_text(&text).unwrap().appends().unwrap();
    let stored: Vec<_> = stored.iter().map(|(p, v, _, events)| (*p, *v, events.as_str())).collect();
    assert_eq!(stored, APPENDS);
    assert_eq!(segment.saga(id(3)).unwrap(), None);
}

#[test]
fn any_tool_reads_a_segment_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 0..40, 20_000);
    // As `zstd -dc` does: all frames one after the other, without the skippable ones.
    let text = zstd::stream::decode_all(fs::File::open(&path).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let first: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&first["format"], &first["version"]), (&"amends-archive".into(), &1.into()));
    for (number, line) in (0..40).zip(lines.by_ref()) {
        assert_eq!(parse_line(line.as_bytes(), id(number)).unwrap().row, row(number));
    }
    assert_eq!(lines.next(), None);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("segment-") && name.ends_with(SEGMENT_SUFFIX), "{name}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft is left");
    // Several frames, and each saga is found in its own.
    assert!(text.len() > 3 * FRAME_BYTES);
    let mut segment = Segment::open(&path).unwrap();
    for number in 0..40 {
        assert_eq!(segment.saga(id(number)).unwrap().unwrap().events.len(), 4);
    }
}

/// Reads everything of a file: nothing panics, and a sound file is sound.
fn findings(path: &Path) -> Vec<String> {
    match Segment::open(path) {
        Err(error) => vec![error.to_string()],
        Ok(mut segment) => {
            let mut findings = segment.check().unwrap();
            for number in 0..8 {
                if let Err(error) = segment.saga(id(number)) {
                    findings.push(error.to_string());
                }
            }
            findings
        }
    }
}

#[test]
fn each_flipped_byte_and_each_cut_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 0..8, 0);
    let sound = fs::read(&path).unwrap();
    assert_eq!(findings(&path), Vec::<String>::new());
    for place in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        let is_found = !findings(&path).is_empty();
        assert!(is_found || is_in_index_head(&sound, place), "byte {place}");
    }
    for length in 0..sound.len() {
        fs::write(&path, &sound[..length]).unwrap();
        assert_eq!(findings(&path).len(), 1, "cut to {length}");
    }
    fs::write(&path, [&sound[..], b"more"].concat()).unwrap();
    assert!(!findings(&path).is_empty());
}

/// Whether a byte is of the head of the index's skippable frame: it says only that other tools pass over
/// the index. The hash of the whole file, which the store has, tells also this.
fn is_in_index_head(bytes: &[u8], place: usize) -> bool {
    let index = bytes.windows(8).position(|window| window == b"AMNDIDX1").unwrap();
    (index - 8..index).contains(&place)
}

/// An index whose hash is right and whose places are wrong, as somebody would make it on purpose.
#[test]
fn a_wrong_index_is_an_error_and_costs_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 0..8, 0);
    let sound = fs::read(&path).unwrap();
    let index = sound.windows(8).position(|window| window == b"AMNDIDX1").unwrap();
    let footer = sound.len() - 64;
    let mut tried = 0;
    for place in index + 8..footer {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = sound.clone();
            if bytes[place] == value {
                continue;
            }
            bytes[place] = value;
            let hash = blake3::hash(&bytes[index..footer]);
            bytes[footer + 24..footer + 56].copy_from_slice(hash.as_bytes());
            fs::write(&path, &bytes).unwrap();
            assert!(!findings(&path).is_empty(), "byte {place} of the index as {value}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
    // A footer that names a huge index.
    for (place, value) in [(8, u64::MAX), (16, u64::MAX), (16, 1 << 40), (8, 0)] {
        let mut bytes = sound.clone();
        bytes[footer + place..footer + place + 8].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        assert!(findings(&path)[0].contains("footer"), "{:?}", findings(&path));
    }
}

#[test]
fn a_newer_format_is_refused() {
    let line = br#"{"format":"amends-archive","version":2,"store":"1","fence":1,"made_at":"x"}"#;
    let error = SegmentHeader::from_line(line).unwrap_err();
    assert!(error.contains("version 2"), "{error}");
}
