//! What an object store says when it refuses, and what that means for a file.

use std::error::Error;

use crate::segment::{SegmentError, damaged};

/// The characters of an error that are shown.
const ERROR_CHARACTERS_MAX: usize = 300;

/// Makes the error of an object store that cannot be asked.
pub(super) fn unreachable(what: impl Into<String>) -> SegmentError {
    SegmentError::Unreachable(what.into())
}

/// Returns what the refusal of a request means for the file.
pub(super) fn refused(error: &object_store::Error) -> SegmentError {
    let text = short(error);
    if matches!(error, object_store::Error::NotFound { .. }) && !text.contains("NoSuchBucket") {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such object");
        return missing.into();
    }
    if text.contains("416 Range Not Satisfiable") {
        return damaged("it is shorter than its index says: the file is cut off or no segment");
    }
    unreachable(text)
}

/// Returns an error and its causes on one line. Of the answer of a server it has the code and the message
/// alone, and not more than some hundred characters.
pub(super) fn short(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    // Whoever shows it names the file; what was asked of the server says no more than that.
    if let Some((request, cause)) = text.split_once(" - ")
        && request.contains("Error performing ")
    {
        text = cause.to_owned();
    }
    if let Some(begin) = text.find("<?xml").or_else(|| text.find("<Error>")) {
        let answer = text.split_off(begin);
        let said = ["Code", "Message"].map(|name| {
            let inner = answer.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
            inner.split_once("</").map_or("", |(inner, _)| inner).to_owned()
        });
        text.push_str(&said.join(": "));
    }
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(ERROR_CHARACTERS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_short_and_on_one_line() {
        let answer = "refused: <?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>No.</Message>\
                      <Resource>/b</Resource></Error>";
        assert_eq!(short(&std::io::Error::other(answer)), "refused: AccessDenied: No.");
        let sent = "Generic S3 error: Error performing GET http://localhost/b/a-b in 2s - HTTP error: refused";
        assert_eq!(short(&std::io::Error::other(sent)), "HTTP error: refused");
        let long = short(&std::io::Error::other("ä\n".repeat(1_000)));
        assert_eq!(long.chars().count(), ERROR_CHARACTERS_MAX + 1);
        assert!(!long.contains('\n'));
    }
}
