//! Durations as people write them: `500ms`, `30s`, `5m`, `24h`, `90d`.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write a whole number and ms, s, m, h or d, such as \"30s\"")]
pub struct DurationError(pub String);

/// Reads a whole number and a unit.
///
/// # Errors
/// When the text is anything else, or too long to count in milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_hours(24 * 90)));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "30", "s", "1.5s", "-1s", "30 s", "99999999999999999999s", "1w"] {
            assert_eq!(parse_duration(text), Err(DurationError(text.to_owned())));
        }
    }
}
