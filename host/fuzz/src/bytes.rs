//! Changes of bytes and of text.

use crate::random::Random;

/// Bytes that parsers treat in a way of their own.
const TELLING: [u8; 14] =
    [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'\n', b'\r', b'{', b'}', b'[', b' ', b'.'];

/// Numbers at which something ends.
const NUMBERS: [&str; 22] = [
    "0",
    "-0",
    "1",
    "-1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "0.1e-999",
];

/// What one change has at hand.
pub(crate) struct Around<'a> {
    /// Another input.
    pub(crate) other: &'a [u8],
    /// The words of the target.
    pub(crate) words: &'a [&'a str],
    /// Bytes of an input at most.
    pub(crate) bytes_max: usize,
}

/// One change that looks at nothing but bytes.
pub(crate) fn change_bytes(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    if input.is_empty() {
        let length = random.below(8);
        input.extend((0..length).map(|_| random.byte()));
        return insert_word(random, input, around);
    }
    let at = random.below(input.len());
    match random.below(13) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = *random.pick(&TELLING),
        2 => input[at] = random.byte(),
        3 => {
            let more = if random.once_in(2) { 1 } else { u8::MAX };
            input[at] = input[at].wrapping_add(more);
        }
        4 => {
            let part = random.part(input.len(), input.len());
            input.drain(part);
        }
        5 => {
            let part = random.part(input.len(), 4_096);
            let copy = input[part].to_vec();
            input.splice(at..at, copy);
        }
        6 => {
            let part = random.part(input.len(), 64);
            let copy = input[part].to_vec();
            let end = (at + copy.len()).min(input.len());
            input.splice(at..end, copy);
        }
        7 => {
            let length = 1 + random.below(8);
            let new: Vec<u8> = (0..length).map(|_| random.byte()).collect();
            input.splice(at..at, new);
        }
        8 => insert_word(random, input, around),
        9 if !around.other.is_empty() => {
            let part = random.part(around.other.len(), 4_096);
            input.splice(at..at, around.other[part].iter().copied());
        }
        10 if !around.other.is_empty() => {
            input.truncate(at);
            let from = random.below(around.other.len());
            input.extend(&around.other[from..]);
        }
        11 if random.once_in(8) => input.truncate(at),
        12 if random.once_in(16) => repeat(random, input, around.bytes_max),
        _ => {
            let end = (at + 4).min(input.len());
            input[at..end].fill(*random.pick(&TELLING));
        }
    }
}

/// One change of a text: its lines, numbers and words.
pub(crate) fn change_text(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    match random.below(10) {
        0..=1 => change_lines(random, input, around),
        2..=3 => replace_number(random, input),
        4..=6 => replace_word(random, input, around),
        7 => insert_word(random, input, around),
        _ => change_bytes(random, input, around),
    }
}

fn insert_word(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    if around.words.is_empty() {
        return;
    }
    let word = random.pick(around.words).bytes();
    let at = random.below(input.len() + 1);
    if random.once_in(2) {
        input.splice(at..at, word);
    } else {
        let end = (at + word.len()).min(input.len());
        input.splice(at..end, word);
    }
}

/// A part as often as fits: what costs more than its length shows.
fn repeat(random: &mut Random, input: &mut Vec<u8>, bytes_max: usize) {
    let part = random.part(input.len(), 256);
    let copy = input[part.clone()].to_vec();
    let room = bytes_max.saturating_sub(input.len()) / copy.len().max(1);
    let times = 1 + random.below(room.max(1));
    input.splice(part.end..part.end, copy.repeat(times));
}

fn change_lines(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    let mut lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() {
        return;
    }
    let (one, two) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(5) {
        0 => {
            lines.remove(one);
        }
        1 => lines.swap(one, two),
        2 => lines.insert(two, lines[one]),
        3 => {
            let others: Vec<&[u8]> = around.other.split_inclusive(|byte| *byte == b'\n').collect();
            if !others.is_empty() {
                let part = random.part(others.len(), others.len());
                lines.splice(one..one, others[part].iter().copied());
            }
        }
        _ if random.once_in(8) => return *input = numbered(random, &lines, one, around.bytes_max),
        _ => lines.insert(two, lines[one]),
    }
    *input = lines.concat();
}

/// Some lines as often as fits, with a number of its own in each of their names: many things instead
/// of one.
fn numbered(random: &mut Random, lines: &[&[u8]], from: usize, bytes_max: usize) -> Vec<u8> {
    let count = (1 + random.below(6)).min(lines.len() - from);
    let block = lines[from..from + count].concat();
    let names: Vec<usize> = block
        .windows(2)
        .enumerate()
        .filter(|(_, two)| two[0].is_ascii_alphanumeric() && two[1] == b'"')
        .map(|(at, _)| at + 1)
        .collect();
    let length: usize = lines.iter().map(|line| line.len()).sum();
    let room = bytes_max.saturating_sub(length) / (block.len() + 5 * names.len()).max(1);
    let mut made = lines[..from].concat();
    for number in 0..=random.below(room.max(1)) {
        let mut last = 0;
        for at in &names {
            made.extend(&block[last..*at]);
            made.extend(number.to_string().bytes());
            last = *at;
        }
        made.extend(&block[last..]);
    }
    made.extend(lines[from..].concat());
    made
}

/// Where the words of a text are that consist of such bytes.
fn words(text: &[u8], is_of_word: impl Fn(u8) -> bool) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut start) = (Vec::new(), None);
    for (at, byte) in text.iter().enumerate() {
        match (is_of_word(*byte), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                found.push(from..at);
                start = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    found.extend(start.map(|from| from..text.len()));
    found
}

fn replace_number(random: &mut Random, input: &mut Vec<u8>) {
    let numbers = words(input, |byte| byte.is_ascii_digit());
    if !numbers.is_empty() {
        let at = random.pick(&numbers).clone();
        let number = *random.pick(&NUMBERS);
        input.splice(at, number.bytes());
    }
}

/// By a word of the target, of the same text or of another one.
fn replace_word(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let here = words(input, is_of_word);
    if here.is_empty() {
        return;
    }
    let at = random.pick(&here).clone();
    let there = words(around.other, is_of_word);
    let new = match random.below(3) {
        0 if !around.words.is_empty() => random.pick(around.words).as_bytes().to_vec(),
        1 if !there.is_empty() => around.other[random.pick(&there).clone()].to_vec(),
        _ => input[random.pick(&here).clone()].to_vec(),
    };
    input.splice(at, new);
}
