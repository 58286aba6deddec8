//! "Did you mean …?"

/// One measure of what is near, here and where the engine says what does not fit.
pub(crate) use amends_engine::nearest;

/// Words of a list that are told.
const LISTED_MAX: usize = 40;

/// Asks ``did you mean `x`?`` when a candidate is near to the word; else it says `otherwise`.
#[must_use]
pub fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, candidates).map_or_else(otherwise, |near| format!("did you mean `{near}`?"))
}

/// Lists words, each in backquotes: the first of them, and how many more there are.
#[must_use]
pub fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    let mut words = words.into_iter();
    let first = words.by_ref().take(LISTED_MAX).map(|word| format!("`{word}`"));
    let first = first.collect::<Vec<_>>().join(", ");
    match words.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let keys = ["timeout", "retry", "plugin", "pivot"];
        assert_eq!(nearest("timout", keys), Some("timeout"));
        assert_eq!(nearest("retyr", keys), Some("retry"));
        assert_eq!(nearest("plugins", keys), Some("plugin"));
        assert_eq!(nearest("deadline", keys), None);
        assert_eq!(nearest("a", ["b"]), Some("b"));
    }
}
