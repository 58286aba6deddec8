//! Sizes as people write them: `512KiB`, `64MiB`, `2GiB`.

/// Reads a whole number and a unit; none when the text is anything else.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_size("1B"), Some(1));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "64", "MiB", "64MB", "64 MiB", "1.5GiB", "-1B", "99999999999999999999GiB"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
