//! "Did you mean …?"

/// Candidates that are looked at. Each takes about a microsecond, for each word that is wrong.
const CANDIDATES_MAX: usize = 1_000;

/// Words of a list that are told.
const LISTED_MAX: usize = 40;

/// The candidate that is nearest to `word`, when it is near enough to be a slip: at most a third
/// of its characters are added, left out, changed or swapped.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let length = word.chars().count();
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        // What is longer or shorter by more is no slip, and comparing long words takes long.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .take(CANDIDATES_MAX)
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

/// `a, b, c`, each in backquotes: the first of them, and how many more there are.
pub(crate) fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
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
