//! When a schedule is due: a cron pattern in the civil time of a time zone.
//!
//! The pattern is computed in civil time, and each civil time becomes one moment. So the rules for
//! daylight saving are in one place: a civil time that a change of the clock leaves out is the next
//! moment that exists, and one that a change repeats is the first of both.

use std::fmt;

use amends_engine::Timestamp;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// A cron pattern of five fields, and the time zone that it is about.
#[derive(Clone)]
pub struct SchedulePattern {
    cron: Cron,
    text: String,
    zone: TimeZone,
    zone_name: String,
}

/// Why a text is no pattern or no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no cron pattern.
    #[error("`{text}` is no cron pattern: {what}")]
    Cron {
        /// The text.
        text: String,
        /// What is wrong with it, as a clause for people.
        what: String,
    },
    /// No day fits it, such as 31 February.
    #[error("no time fits it")]
    Never,
    /// There is no such time zone.
    #[error("there is no time zone `{0}`")]
    Zone(String),
}

/// The fields of a pattern in their order, and the values of each.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 or SUN to SAT"),
];

fn parse_cron(pattern: &str) -> Result<Cron, CronError> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
    parser.build().parse(pattern)
}

/// Says which field of a text keeps it from being a pattern. None when no field alone does.
fn wrong_field(pattern: &str) -> Option<String> {
    let fields: Vec<_> = pattern.split_whitespace().collect();
    if fields.first().is_some_and(|word| word.starts_with('@')) {
        return None;
    }
    if fields.len() != FIELDS.len() {
        let count = fields.len();
        return Some(format!("it has {count} of the {} fields of a pattern", FIELDS.len()));
    }
    fields.iter().zip(FIELDS).enumerate().find_map(|(at, (field, (name, values)))| {
        let mut alone = ["*"; FIELDS.len()];
        alone[at] = field;
        let is_wrong = parse_cron(&alone.join(" ")).is_err();
        is_wrong.then(|| format!("its {name} is `{field}`, and that field takes {values}"))
    })
}

impl SchedulePattern {
    /// Reads a pattern (minute, hour, day of the month, month, day of the week, or a word such as
    /// `@daily`) and the name of a time zone in the IANA database.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, PatternError> {
        let cron = parse_cron(pattern).map_err(|error| {
            let what = wrong_field(pattern).unwrap_or_else(|| error.to_string());
            PatternError::Cron { text: pattern.to_owned(), what }
        })?;
        let found = TimeZone::get(zone).map_err(|_| PatternError::Zone(zone.to_owned()))?;
        let (text, zone_name) = (pattern.trim().to_owned(), zone.to_owned());
        let pattern = Self { cron, text, zone: found, zone_name };
        // A day may come once in eight years: 29 February, around a year such as 2100.
        let at = Timestamp::from_millis(0);
        if pattern.next_after(at).is_none() { Err(PatternError::Never) } else { Ok(pattern) }
    }

    /// Returns the first moment after `after` at which the schedule is due; none when the calendar ends
    /// before.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?;
        let mut civil = self.zone.to_datetime(start);
        loop {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            // One in the second pass of a repeated hour has been due in the first pass.
            let moment = self.moment_of(civil)?;
            if moment > start {
                return Some(Timestamp::from_millis(moment.as_millisecond()));
            }
        }
    }

    /// Returns the moment of a civil time.
    fn moment_of(&self, civil: DateTime) -> Option<jiff::Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(civil);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                ambiguous.earlier().ok()
            }
            // By the offset after the gap it would be before the gap: the next one that exists is the
            // change itself.
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().ok()?;
                self.zone.following(before).next().map(|change| change.timestamp())
            }
        }
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the name of the time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone_name
    }
}

impl fmt::Display for SchedulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone_name)
    }
}

impl fmt::Debug for SchedulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchedulePattern({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// The times after `after`, up to `until`.
    fn times(pattern: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
        let pattern = SchedulePattern::parse(pattern, zone).unwrap();
        let (mut at, until): (Timestamp, Timestamp) =
            (after.parse().unwrap(), until.parse().unwrap());
        let mut found = Vec::new();
        while let Some(next) = pattern.next_after(at).filter(|next| *next <= until) {
            found.push(next.to_string().replace(":00.000Z", "Z"));
            at = next;
        }
        found
    }

    #[test]
    fn a_time_that_does_not_exist_is_due_once_at_the_next_that_does() {
        let vienna = |pattern, after, until| times(pattern, "Europe/Vienna", after, until);
        // 02:00 to 03:00 is left out on 29 March 2026: 03:00 is 01:00Z.
        let days = vienna("30 2 * * *", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(days, ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]);
        let quarters = vienna("*/15 * * * *", "2026-03-29T00:29:00Z", "2026-03-29T01:20:00Z");
        let expected =
            ["2026-03-29T00:30Z", "2026-03-29T00:45Z", "2026-03-29T01:00Z", "2026-03-29T01:15Z"];
        assert_eq!(quarters, expected);
        let both = vienna("0,30 2,3 * * *", "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(both, ["2026-03-29T01:00Z", "2026-03-29T01:30Z"]);
    }

    #[test]
    fn a_time_that_exists_twice_is_due_once() {
        let vienna = |pattern, after, until| times(pattern, "Europe/Vienna", after, until);
        // 02:00 to 03:00 comes twice on 25 October 2026: from 00:00Z, and from 01:00Z.
        let days = vienna("30 2 * * *", "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z");
        assert_eq!(days, ["2026-10-24T00:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
        let hours = vienna("0 * * * *", "2026-10-24T23:30:00Z", "2026-10-25T03:30:00Z");
        assert_eq!(hours, ["2026-10-25T00:00Z", "2026-10-25T02:00Z", "2026-10-25T03:00Z"]);
        // Also when the search begins in the second pass.
        let after = vienna("30 2 * * *", "2026-10-25T01:10:00Z", "2026-10-26T02:00:00Z");
        assert_eq!(after, ["2026-10-26T01:30Z"]);
    }

    #[test]
    fn a_zone_whose_day_begins_with_a_gap_is_due_each_day() {
        // 00:00 to 01:00 is left out on 8 March 2026 in Havana.
        let days =
            times("0 0 * * *", "America/Havana", "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z");
        assert_eq!(days, ["2026-03-08T05:00Z", "2026-03-09T04:00Z"]);
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let error = |pattern, zone| SchedulePattern::parse(pattern, zone).unwrap_err();
        assert_eq!(error("0 2 * * *", "Europe/Wien"), PatternError::Zone("Europe/Wien".to_owned()));
        assert_eq!(error("0 0 31 2 *", "UTC"), PatternError::Never);
        for wrong in ["", "0 2 * *", "0 0 2 * * *", "61 * * * *", "x * * * *", "@reboot", "@soon"] {
            assert!(matches!(error(wrong, "UTC"), PatternError::Cron { .. }), "{wrong}");
        }
        assert!(SchedulePattern::parse("@daily", "UTC").is_ok());
        assert!(SchedulePattern::parse("0 0 29 2 *", "UTC").is_ok());
    }
}
