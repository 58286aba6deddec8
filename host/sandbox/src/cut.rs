//! Texts that stand in events, logs and answers, cut to what has room there.

/// Cuts a text to at most so many bytes, and adds an ellipsis where something is missing.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = text.floor_char_boundary(bytes_max);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A failure's message is cut to this many bytes: it stands in events, logs and tables.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// Cuts the message of a failure.
pub(crate) fn cut_message(text: String) -> String {
    cut(text, MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("seats".to_owned(), 5), "seats");
        assert_eq!(cut("seats".to_owned(), 4), "seat…");
        assert_eq!(cut("s\u{e4}ts".to_owned(), 2), "s…");
        assert_eq!(cut("s".to_owned(), 0), "…");
    }
}
