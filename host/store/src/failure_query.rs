//! Which failures a list of sagas looks for.

use amends_engine::{Digest, StepName};

use crate::saga_failure::{FailedCall, SagaFailure};

/// The conditions on a failure of a listed saga. One failure fulfils all of those that are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailureQuery {
    /// The failure is of this step. The name of a step over a list matches each of its elements.
    pub step: Option<StepName>,
    /// The failure has this code.
    pub code: Option<String>,
    /// The component that served the call has a digest with this beginning.
    pub digest: Option<DigestPart>,
    /// The code and the message, or the reason of a block, have these words.
    pub text: Option<FailureText>,
}

impl FailureQuery {
    /// Returns true when no condition is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { step, code, digest, text } = self;
        step.is_none() && code.is_none() && digest.is_none() && text.is_none()
    }

    /// Returns true when a failure fulfils all conditions.
    #[must_use]
    pub fn fits(&self, failure: &SagaFailure) -> bool {
        let is_block = failure.call == FailedCall::Block;
        let step = |step: &StepName| {
            failure.step.as_ref().is_some_and(|failed| {
                failed.step() == step.step()
                    && (step.number().is_none() || failed.number() == step.number())
            })
        };
        self.step.as_ref().is_none_or(step)
            && self.code.as_ref().is_none_or(|code| !is_block && failure.code == *code)
            && self
                .digest
                .as_ref()
                .is_none_or(|part| failure.digest.is_some_and(|of| part.fits(of)))
            && self.text.as_ref().is_none_or(|text| text.fits(&failure.text))
    }
}

/// The beginning of a digest, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestPart(String);

impl DigestPart {
    /// The fewest digits: a shorter part would match many components.
    pub const DIGITS_MIN: usize = 8;

    /// Returns none when the text is not 8 to 64 hexadecimal digits. `sha256:` may stand before them.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let is_part = digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && (Self::DIGITS_MIN..=64).contains(&digits.len());
        is_part.then_some(Self(digits))
    }

    /// Returns true when a digest begins with this part.
    #[must_use]
    pub fn fits(&self, digest: Digest) -> bool {
        let [first, last] = self.range();
        (first.as_slice()..=last.as_slice()).contains(&digest.as_bytes().as_slice())
    }

    /// Returns the smallest and the largest digest that begin with this part, as bytes.
    pub(crate) fn range(&self) -> [Vec<u8>; 2] {
        ['0', 'f'].map(|fill| {
            let digits: String = self.0.chars().chain(std::iter::repeat(fill)).take(64).collect();
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or(0);
            (0..32).map(|number| byte(number * 2)).collect()
        })
    }
}

/// Words to look for in the texts of failures.
///
/// Each part between spaces has to be there, in any order. A part is one or more words that follow
/// each other: `carrier_down` is two. Upper and lower case are the same. A part that ends with `*` is
/// the beginning of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureText(Vec<Part>);

/// Words that follow each other, in lower case. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    words: Vec<String>,
    is_beginning: bool,
}

impl FailureText {
    /// The most bytes of the text, so that a search stays small.
    pub const BYTES_MAX: usize = 512;

    /// Returns none when the text has no letter and no digit, or is longer than
    /// [`Self::BYTES_MAX`].
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let part = |part: &str| Part { words: words(part), is_beginning: part.ends_with('*') };
        let parts: Vec<_> = text.split_whitespace().map(part).collect();
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.words.is_empty()).collect();
        (!parts.is_empty() && text.len() <= Self::BYTES_MAX).then_some(Self(parts))
    }

    /// Returns true when a text has all parts.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let found = words(text);
        self.0.iter().all(|part| {
            found.windows(part.words.len()).any(|window| {
                let mut pairs = window.iter().zip(&part.words).rev();
                let last = pairs.next().is_none_or(|(found, sought)| {
                    if part.is_beginning { found.starts_with(sought) } else { found == sought }
                });
                last && pairs.all(|(found, sought)| found == sought)
            })
        })
    }

    /// Returns the parts: their words, which follow each other, and whether the last is the beginning of a
    /// word.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&[String], bool)> {
        self.0.iter().map(|part| (part.words.as_slice(), part.is_beginning))
    }

    /// Returns the text as an expression of FTS5 (<https://www.sqlite.org/fts5.html>, section 3).
    /// Each part is a string, so nothing in it is an operator.
    pub(crate) fn to_match(&self) -> String {
        let part = |part: &Part| {
            let star = if part.is_beginning { "*" } else { "" };
            format!("\"{}\"{star}", part.words.join(" "))
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the words of a text in lower case: runs of letters and digits.
pub(crate) fn words(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    #[test]
    fn a_text_is_found_by_its_words() {
        let text = "carrier_down: No route to 10.0.0.7, tried 3 times";
        let fits = |sought: &str| FailureText::new(sought).unwrap().fits(text);
        let found =
            ["carrier_down", "route no", "10.0.0.7", "TRIED", "rou*", "carrier_do*", "\"to\""];
        assert!(found.into_iter().all(fits));
        assert!(!["rout", "down_carrier", "carrier_d", "no rail", "ried*"].into_iter().any(fits));
        for none in ["", " ", "* \" -", &"a".repeat(FailureText::BYTES_MAX + 1)] {
            assert_eq!(FailureText::new(none), None, "{none}");
        }
        let expression = FailureText::new("a OR \"b c_d* (NEAR").unwrap().to_match();
        assert_eq!(expression, r#""a" "or" "b" "c d"* "near""#);
    }

    #[test]
    fn a_digest_is_found_by_its_beginning() {
        let digest = Digest::of(b"component");
        let bytes = digest.as_bytes().iter();
        let text = bytes.fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        for digits in [8, 9, 63, 64] {
            let sought = &text[..digits];
            for sought in [sought.to_owned(), sought.to_uppercase(), format!("sha256:{sought}")] {
                let part = DigestPart::new(&sought).unwrap();
                assert!(part.fits(digest) && !part.fits(Digest::of(b"other")), "{sought}");
            }
        }
        for wrong in ["", "sha256:", &text[..7], "1234567g", &"0".repeat(65)] {
            assert_eq!(DigestPart::new(wrong), None, "{wrong}");
        }
    }
}
