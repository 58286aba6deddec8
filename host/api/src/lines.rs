//! The lines of a body, as they come.

use bytes::{Buf as _, BytesMut};

/// Bytes that have come and are not yet a line.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    bytes: BytesMut,
    /// So many of the bytes were looked at and are no end of a line.
    searched: usize,
}

impl LineBuffer {
    /// Adds what has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next line, with its end. Each byte is looked at once, in however many pieces a line
    /// comes.
    pub(crate) fn next(&mut self) -> Option<BytesMut> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return None;
        };
        // Copied, because a short line would keep the buffer that it came in.
        let line = BytesMut::from(&self.bytes[..=self.searched + end]);
        self.bytes.advance(line.len());
        self.searched = 0;
        Some(line)
    }

    /// Takes what is left: a last line without an end.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.searched = 0;
        std::mem::take(&mut self.bytes)
    }

    /// How many bytes there are of lines that were not taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn lines_are_the_same_in_however_many_pieces_they_come() {
        let text = b"one\n\ntwo and more\nthree\nrest";
        for size in 1..=text.len() {
            let (mut buffer, mut lines) = (LineBuffer::default(), Vec::new());
            for piece in text.chunks(size) {
                buffer.push(piece);
                lines.extend(std::iter::from_fn(|| buffer.next()));
            }
            lines.push(buffer.take());
            let expected: [&[u8]; 5] = [b"one\n", b"\n", b"two and more\n", b"three\n", b"rest"];
            assert_eq!(lines, expected, "in pieces of {size}");
        }
    }

    /// It is kept while its start waits, and its room is that of its bytes.
    #[test]
    fn a_short_line_does_not_keep_what_it_came_in() {
        let mut buffer = LineBuffer::default();
        buffer.push(&[b"short\n", &vec![b'x'; 1 << 20][..]].concat());
        let mut line = buffer.next().unwrap();
        assert_eq!(line, b"short\n"[..]);
        line.clear();
        drop(buffer);
        assert!(!line.try_reclaim(1 << 10), "it has the buffer");
    }

    #[test]
    fn a_line_of_single_bytes_is_searched_once() {
        let mut buffer = LineBuffer::default();
        let mut looked_at = 0;
        for length in 1..=100_000 {
            buffer.push(b"x");
            looked_at += length - buffer.searched;
            assert_eq!(buffer.next(), None);
        }
        assert_eq!(looked_at, 100_000, "bytes that were looked at");
        buffer.push(b"\nnext");
        assert_eq!(buffer.next().map(|line| line.len()), Some(100_001));
        assert_eq!((buffer.next(), buffer.len()), (None, 4));
    }
}
