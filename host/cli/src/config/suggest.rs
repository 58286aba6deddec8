//! "Did you mean …?"

/// The candidate that is nearest to `word`, when it is near enough to be a slip: at most a third
/// of its characters are added, left out, changed or swapped.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean `x`?` when something is near, else `otherwise`.
pub(crate) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, candidates).map_or_else(otherwise, |near| format!("did you mean `{near}`?"))
}

/// `a, b, c`, each in backquotes.
pub(crate) fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
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
