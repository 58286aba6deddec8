//! Changes of WebAssembly that leave its sections whole, or break one thing about them.
//!
//! A component is a tree: its sections, and in some of them modules and components (the Component
//! Model's `Binary.md`). It is taken apart, changed in one place and put together again with the
//! right sizes.

use crate::bytes::{Around, change_bytes};
use crate::random::Random;

/// Components within one another that are made at once.
const NESTED_MAX: usize = 2_000;

/// Names of custom sections that somebody reads.
const CUSTOM: [&str; 9] = [
    "amends:signature",
    "name",
    "component-name",
    "component-type",
    "producers",
    "target_features",
    "dylink.0",
    "linking",
    "",
];

const CUSTOM_ID: u8 = 0;
const CODE_ID: u8 = 10;
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// A module or a component.
#[derive(Clone)]
struct Tree {
    header: [u8; 8],
    sections: Vec<Section>,
    /// What stands behind them and is no section.
    rest: Vec<u8>,
}

#[derive(Clone)]
struct Section {
    id: u8,
    body: Body,
    /// By how much its size is wrong.
    off_by: i64,
}

#[derive(Clone)]
enum Body {
    Bytes(Vec<u8>),
    Nested(Tree),
}

/// A custom section (WebAssembly core specification, 5.5.3).
#[must_use]
pub fn custom_section(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Section::custom(name, content).write(&mut bytes);
    bytes
}

/// One change of a component or module; of what is neither, a change of bytes.
pub(crate) fn change_wasm(random: &mut Random, input: &mut Vec<u8>, around: &Around<'_>) {
    let Some(mut tree) = Tree::read(input) else { return change_bytes(random, input, around) };
    tree.change(random, around);
    let mut bytes = Vec::new();
    tree.write(&mut bytes);
    *input = bytes;
}

impl Tree {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
        if !header.starts_with(b"\0asm") {
            return None;
        }
        let (mut sections, mut at) = (Vec::new(), 8);
        while let Some((section, length)) = Section::read(&bytes[at..], header == COMPONENT) {
            sections.push(section);
            at += length;
        }
        Some(Self { header, sections, rest: bytes[at..].to_vec() })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.header);
        self.sections.iter().for_each(|section| section.write(bytes));
        bytes.extend(&self.rest);
    }

    /// Changes this, or something in it.
    fn change(&mut self, random: &mut Random, around: &Around<'_>) {
        let nested: Vec<usize> = (0..self.sections.len())
            .filter(|at| matches!(self.sections[*at].body, Body::Nested(_)))
            .collect();
        if !nested.is_empty()
            && !random.once_in(3)
            && let Body::Nested(inner) = &mut self.sections[*random.pick(&nested)].body
        {
            return inner.change(random, around);
        }
        if self.sections.is_empty() {
            return self.sections.push(custom(random));
        }
        let (one, two) = (random.below(self.sections.len()), random.below(self.sections.len()));
        match random.below(16) {
            0 => drop(self.sections.remove(one)),
            1 => self.sections.swap(one, two),
            2 => self.sections.insert(two, self.sections[one].clone()),
            3 => {
                let section = custom(random);
                self.sections.insert(one, section);
            }
            4 => self.sections.push(custom(random)),
            5 => {
                if let Some(section) = Self::read(around.other).and_then(|tree| tree.any(random)) {
                    self.sections.insert(one, section);
                }
            }
            6 if random.once_in(4) => self.nest(random),
            7 if random.once_in(4) => self.repeat(random, one, around.bytes_max),
            8 if random.once_in(4) => {
                let at = random.below(8);
                self.header[at] ^= 1 << random.below(8);
            }
            9 => self.sections[one].off_by = if random.once_in(2) { 1 } else { -1 },
            10 if random.once_in(4) => {
                self.sections[one].off_by = random.number().cast_signed() >> random.below(64);
            }
            11 => self.sections[one].id = random.byte() % 16,
            _ => self.sections[one].change(random, around),
        }
    }

    /// Any section of it or of what is in it.
    fn any(mut self, random: &mut Random) -> Option<Section> {
        if self.sections.is_empty() {
            return None;
        }
        let section = self.sections.swap_remove(random.below(self.sections.len()));
        match section.body {
            Body::Nested(inner) if random.once_in(2) => inner.any(random),
            Body::Nested(_) | Body::Bytes(_) => Some(section),
        }
    }

    /// Puts it into a component, and that into another one.
    fn nest(&mut self, random: &mut Random) {
        let times = if random.once_in(8) { random.below(NESTED_MAX) } else { 1 };
        let id = if self.header == COMPONENT { 4 } else { 1 };
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        let mut section = Section { id, body: Body::Bytes(bytes), off_by: 0 };
        for _ in 0..times {
            let mut bytes = COMPONENT.to_vec();
            section.write(&mut bytes);
            section = Section { id: 4, body: Body::Bytes(bytes), off_by: 0 };
        }
        *self = Self { header: COMPONENT, sections: vec![section], rest: Vec::new() };
    }

    fn repeat(&mut self, random: &mut Random, at: usize, bytes_max: usize) {
        let section = self.sections[at].clone();
        let mut bytes = Vec::new();
        section.write(&mut bytes);
        let times = random.below((bytes_max / bytes.len().max(1)).max(2));
        self.sections.splice(at..at, std::iter::repeat_n(section, times));
    }
}

impl Section {
    fn custom(name: &str, content: &[u8]) -> Self {
        let mut bytes = Vec::new();
        write_number(&mut bytes, name.len() as u64);
        bytes.extend(name.bytes());
        bytes.extend(content);
        Self { id: CUSTOM_ID, body: Body::Bytes(bytes), off_by: 0 }
    }

    /// With its length; none when there is no whole section.
    fn read(bytes: &[u8], is_in_component: bool) -> Option<(Self, usize)> {
        let id = *bytes.first()?;
        let (size, length) = read_number(&bytes[1..])?;
        let start = 1 + length;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        let content = bytes.get(start..end)?;
        let nested =
            if is_in_component && matches!(id, 1 | 4) { Tree::read(content) } else { None };
        let body = nested.map_or_else(|| Body::Bytes(content.to_vec()), Body::Nested);
        Some((Self { id, body, off_by: 0 }, end))
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let mut made = Vec::new();
        let content = match &self.body {
            Body::Bytes(bytes) => bytes,
            Body::Nested(tree) => {
                tree.write(&mut made);
                &made
            }
        };
        bytes.push(self.id);
        write_number(bytes, (content.len() as u64).wrapping_add_signed(self.off_by));
        bytes.extend(content);
    }

    fn change(&mut self, random: &mut Random, around: &Around<'_>) {
        let Body::Bytes(content) = &mut self.body else { return };
        match random.below(6) {
            0..=1 if self.id == CODE_ID => change_code(random, content, around),
            0..=1 => change_count(random, content),
            2..=3 => change_name(random, content, around),
            _ => change_bytes(random, content, around),
        }
    }
}

fn custom(random: &mut Random) -> Section {
    let content: Vec<u8> = (0..random.below(64)).map(|_| random.byte()).collect();
    let name: &&str = random.pick(&CUSTOM);
    Section::custom(name, &content)
}

/// Puts another number where one may be.
fn change_count(random: &mut Random, content: &mut Vec<u8>) {
    let at = if random.once_in(2) { 0 } else { random.below(content.len()) };
    let Some((number, length)) = read_number(content.get(at..).unwrap_or_default()) else { return };
    let new = match random.below(8) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => 0,
        3 => u64::from(u32::MAX),
        4 => 1 << random.below(40),
        5 => random.number(),
        _ => random.number() % 256,
    };
    let mut bytes = Vec::new();
    write_number(&mut bytes, new);
    if random.once_in(8) {
        // Longer than it needs to be.
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.extend(std::iter::repeat_n(0x80, random.below(4)));
        bytes.push(0);
    }
    content.splice(at..at + length, bytes);
}

/// Puts another name where one is, with its length.
fn change_name(random: &mut Random, content: &mut Vec<u8>, around: &Around<'_>) {
    let is_name = |at: usize| {
        let length = usize::from(content[at]);
        let name = content.get(at + 1..at + 1 + length);
        (1..128).contains(&length) && name.is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
    };
    let names: Vec<usize> = (0..content.len()).filter(|at| is_name(*at)).collect();
    if names.is_empty() {
        return change_count(random, content);
    }
    let at = *random.pick(&names);
    let end = at + 1 + usize::from(content[at]);
    let mut name = content[at + 1..end].to_vec();
    match random.below(4) {
        0 if !around.words.is_empty() => name = random.pick(around.words).as_bytes().to_vec(),
        1 => name = name.repeat(1 + random.below(300)),
        _ => change_bytes(random, &mut name, around),
    }
    let mut bytes = Vec::new();
    write_number(&mut bytes, name.len() as u64);
    bytes.extend(name);
    content.splice(at..end, bytes);
}

/// Changes one function of a code section, and puts the right sizes around it.
fn change_code(random: &mut Random, content: &mut Vec<u8>, around: &Around<'_>) {
    let Some((count, mut at)) = read_number(content) else { return };
    let mut bodies = Vec::new();
    while let Some((size, length)) = read_number(content.get(at..).unwrap_or_default()) {
        let start = at + length;
        let Some(body) =
            usize::try_from(size).ok().and_then(|size| content.get(start..start + size))
        else {
            break;
        };
        bodies.push(body.to_vec());
        at = start + body.len();
    }
    if bodies.is_empty() {
        return change_bytes(random, content, around);
    }
    let chosen = random.below(bodies.len());
    let body = &mut bodies[chosen];
    let end = body.len().saturating_sub(1);
    let most = if random.once_in(4) { 3_000 } else { 8 };
    let times = 1 + random.below(most);
    match random.below(6) {
        // Blocks, loops and branches within one another.
        0 => {
            let opening = *random.pick(&[0x02, 0x03, 0x04]);
            let start =
                read_number(body).filter(|(groups, _)| *groups == 0).map_or(1, |(_, at)| at);
            body.splice(end..end, std::iter::repeat_n(0x0b, times));
            let start = start.min(body.len());
            body.splice(start..start, [opening, 0x40].repeat(times));
        }
        // More groups of local variables.
        1 => {
            let mut locals = Vec::new();
            write_number(&mut locals, times as u64);
            for _ in 0..times {
                write_number(&mut locals, 1 << random.below(20));
                locals.push(0x7f);
            }
            body.splice(..1.min(body.len()), locals);
        }
        // A branch table.
        2 => {
            let mut table = vec![0x41, 0, 0x0e];
            write_number(&mut table, times as u64);
            table.extend(std::iter::repeat_n(0, times + 1));
            body.splice(end..end, table);
        }
        3 => {
            let copied = body.clone();
            bodies.extend(std::iter::repeat_n(copied, times));
        }
        _ => change_bytes(random, body, around),
    }
    content.clear();
    let count = if random.once_in(2) { bodies.len() as u64 } else { count };
    write_number(content, count);
    for body in bodies {
        write_number(content, body.len() as u64);
        content.extend(body);
    }
}

/// LEB128: seven bits a byte, the lowest first, with a mark on all but the last.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | number.to_le_bytes()[0]);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// The number, and how many bytes it takes.
fn read_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_component_is_put_together_as_it_was() {
        let inner = [&b"\0asm\x01\0\0\0"[..], &custom_section("name", b"\x00")].concat();
        let mut bytes = COMPONENT.to_vec();
        Section { id: 1, body: Body::Bytes(inner), off_by: 0 }.write(&mut bytes);
        bytes.extend(custom_section("amends:signature", &[7; 300]));
        bytes.extend(b"no section");
        let tree = Tree::read(&bytes).unwrap();
        assert!(matches!(tree.sections[0].body, Body::Nested(_)));
        assert_eq!(tree.rest, b"no section");
        let mut written = Vec::new();
        tree.write(&mut written);
        assert_eq!(written, bytes);
    }

    #[test]
    fn changes_keep_most_sections_whole() {
        let mut seed = COMPONENT.to_vec();
        seed.extend(custom_section("name", b"content"));
        seed.extend(custom_section("producers", &[1; 40]));
        let mut random = Random::new(7);
        let around = Around { other: &seed, words: &["word"], bytes_max: 4_096 };
        let mut whole = 0;
        for _ in 0..1_000 {
            let mut changed = seed.clone();
            change_wasm(&mut random, &mut changed, &around);
            let tree = Tree::read(&changed);
            whole += usize::from(tree.is_some_and(|tree| tree.rest.is_empty()));
            assert!(changed.len() < 200_000, "{} bytes", changed.len());
        }
        assert!((500..1_000).contains(&whole), "{whole}");
    }
}
