//! The text of a token: `amends_`, an id, `_`, a secret and a checksum.
//!
//! The prefix lets scanners of repositories find a token that was published. The checksum tells a slip of the
//! hand from a token that is not known, without a look at the store.
//!
//! The host keeps the SHA-256 of the text. A slow hash such as Argon2 is for passwords, which people choose and
//! others can guess. A secret of 256 random bits cannot be guessed, and the hash is computed for every request.

use std::fmt::Write as _;

use amends_engine::Digest;

const PREFIX: &str = "amends_";
const ID_LETTERS: usize = 10;
/// 43 letters of 62 are 256 bits.
const SECRET_LETTERS: usize = 43;
/// Hexadecimal digits of the SHA-256 of what stands before them.
const CHECKSUM_DIGITS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token as its holder has it.
#[derive(Clone)]
pub(super) struct TokenText {
    text: String,
}

impl TokenText {
    /// Makes a token.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let id = random_letters(ID_LETTERS)?;
        let secret = random_letters(SECRET_LETTERS)?;
        let mut text = format!("{PREFIX}{id}_{secret}");
        let _ = write!(text, "{}", checksum(&text));
        Ok(Self { text })
    }

    /// Reads a token. None when the text is no token, or its checksum is wrong.
    pub(super) fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (id, secret) = rest.split_at_checked(ID_LETTERS)?;
        let secret = secret.strip_prefix('_')?;
        let is_plain = |text: &str| text.bytes().all(|letter| letter.is_ascii_alphanumeric());
        let fits = is_plain(id) && is_plain(secret);
        if !fits || secret.len() != SECRET_LETTERS + CHECKSUM_DIGITS {
            return None;
        }
        let (before, told) = text.split_at(text.len() - CHECKSUM_DIGITS);
        (checksum(before) == told).then(|| Self { text: text.to_owned() })
    }

    /// Returns the part of the token that may be shown.
    pub(super) fn id(&self) -> &str {
        &self.text[PREFIX.len()..PREFIX.len() + ID_LETTERS]
    }

    /// Returns what the host keeps of the token.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// Returns the text, which only the holder may have.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

fn checksum(text: &str) -> String {
    let mut digits = Digest::of(text.as_bytes()).hex();
    digits.truncate(CHECKSUM_DIGITS);
    digits
}

/// Letters of which each is as likely as any other.
fn random_letters(count: usize) -> Result<String, getrandom::Error> {
    // Numbers from 248 on would make the first letters likelier.
    const USED: u8 = u8::MAX - u8::MAX % 62;
    let mut letters = String::with_capacity(count);
    let mut bytes = [0; 64];
    while letters.len() < count {
        getrandom::fill(&mut bytes)?;
        let left = count - letters.len();
        let used = bytes.iter().filter(|byte| **byte < USED).take(left);
        letters.extend(used.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_no_other_text_is() {
        let made = TokenText::generate().unwrap();
        let text = made.clone().into_text();
        assert_eq!(text.len(), 7 + 10 + 1 + 43 + 6);
        let read = TokenText::read(&text).unwrap();
        assert_eq!((read.id(), read.digest()), (made.id(), made.digest()));
        // Each slip of one letter is found.
        for at in 0..text.len() {
            let mut slipped = text.clone().into_bytes();
            slipped[at] = if slipped[at] == b'x' { b'y' } else { b'x' };
            let slipped = String::from_utf8(slipped).unwrap();
            assert!(TokenText::read(&slipped).is_none(), "{slipped}");
        }
        for wrong in
            ["", "amends_", "amends_é", &text[1..], &text[..text.len() - 1], &format!("{text}a")]
        {
            assert!(TokenText::read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn each_token_is_another_and_has_letters_of_the_whole_alphabet() {
        let made: BTreeSet<_> =
            (0..200).map(|_| TokenText::generate().unwrap().into_text()).collect();
        assert_eq!(made.len(), 200);
        let letters: BTreeSet<_> = made.iter().flat_map(|text| text[18..61].bytes()).collect();
        assert_eq!(letters.len(), ALPHABET.len());
    }
}
