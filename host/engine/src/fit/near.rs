//! Suggestions for mistyped names: "Did you mean …?"

/// The most names that a message lists when none is near. Nobody reads more.
const NAMES_LISTED: usize = 20;

/// The most bytes of a name that are shown and compared. Names of properties come from components.
const NAME_BYTES_MAX: usize = 100;

/// The most names that a wrong one is compared with. Each takes about a microsecond.
const COMPARED_MAX: usize = 1_000;

/// The fewest characters of a beginning of a word that counts as near to it.
const BEGINNING_CHARS_MIN: usize = 3;

/// Suggests what would be right in the place of `word`: the nearest name, or all names.
pub(super) fn remedy(word: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(|name| cut(name)).collect();
    if let Some(near) = nearest(cut(word), names.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if names.is_empty() {
        return "it has no fields".to_owned();
    }
    let listed: Vec<_> = names.iter().take(NAMES_LISTED).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMES_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("it has {}{more}", listed.join(", "))
}

/// Returns the beginning of a name.
pub(super) fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// Returns the name that is nearest to `word`, when it is near enough to be a typing mistake. One
/// of them begins with the other, or at most a third of the characters are added, left out, changed
/// or swapped.
#[must_use]
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let length = word.chars().count();
    let allowed = (length / 3).max(1);
    let is_beginning = |name: &str| {
        let (shorter, longer) = if name.len() < word.len() { (name, word) } else { (word, name) };
        longer.starts_with(shorter) && shorter.chars().count() >= BEGINNING_CHARS_MIN
    };
    // A name that is much longer or shorter is no typing mistake, and comparing long words takes
    // long.
    let is_as_long = |name: &str| name.chars().count().abs_diff(length) <= allowed;
    names
        .into_iter()
        .filter(|name| is_beginning(name) || is_as_long(name))
        .take(COMPARED_MAX)
        .map(|name| (if is_beginning(name) { 1 } else { changes(word, name) }, name))
        .filter(|(changes, _)| *changes <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Returns the distance of two words by optimal string alignment.
fn changes(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let (mut last, mut before): (Vec<usize>, Vec<usize>) = ((0..=other.len()).collect(), vec![]);
    for (row, left) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, right) in other.iter().enumerate() {
            let change = last[column] + usize::from(left != right);
            let mut cheapest = change.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swap =
                row > 0 && column > 0 && one[row - 1] == *right && other[column - 1] == *left;
            if is_swap {
                cheapest = cheapest.min(before[column - 1] + 1);
            }
            next.push(cheapest);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_beginnings_are_found_and_other_words_are_not() {
        let names = ["price_cents", "upperAscii", "charge_id", "size"];
        assert_eq!(nearest("price_cent", names), Some("price_cents"));
        assert_eq!(nearest("upper", names), Some("upperAscii"));
        assert_eq!(nearest("chrage_id", names), Some("charge_id"));
        assert_eq!(nearest("payment_id", names), None);
        for (one, other, apart) in
            [("ab", "ba", 1), ("", "ab", 2), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(changes(one, other), apart, "{one} {other}");
        }
    }
}
