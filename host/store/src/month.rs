//! Months of the calendar, and the sample of a log that a survey reads.

use amends_engine::Timestamp;

/// A month of the Gregorian calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Month {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
}

/// The milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

impl Month {
    /// Returns the month of a time (Howard Hinnant, `civil_from_days`).
    pub(crate) fn of(time: Timestamp) -> Self {
        let days = time.as_millis().div_euclid(DAY_MS) + 719_468;
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + days.div_euclid(146_097) * 400 + i64::from(month <= 2);
        Self { year, month: u32::try_from(month).unwrap_or(1) }
    }

    /// Returns the first moment of the month (Howard Hinnant, `days_from_civil`).
    pub(crate) fn begin(self) -> Timestamp {
        let month = i64::from(self.month);
        let year = self.year - i64::from(month <= 2);
        let year_of_era = year.rem_euclid(400);
        let from_march = (month + 9) % 12;
        let day_of_year = (153 * from_march + 2) / 5;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = year.div_euclid(400) * 146_097 + day_of_era - 719_468;
        Timestamp::from_millis(days * DAY_MS)
    }

    pub(crate) const fn before(self) -> Self {
        match self.month {
            1 => Self { year: self.year - 1, month: 12 },
            month => Self { year: self.year, month: month - 1 },
        }
    }
}

/// Returns a number that looks random (the finalizer of `SplitMix64`, Steele and others, 2014).
pub(crate) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        for (time, year, month) in [
            ("1970-01-01T00:00:00.000Z", 1970, 1),
            ("2000-02-29T23:59:59.999Z", 2000, 2),
            ("2024-03-01T00:00:00.000Z", 2024, 3),
            ("2026-12-31T23:59:59.999Z", 2026, 12),
            ("2100-03-01T00:00:00.000Z", 2100, 3),
        ] {
            assert_eq!(Month::of(time.parse().unwrap()), Month { year, month }, "{time}");
        }
        // Each month begins right after the one before has ended, for 400 years.
        let mut month = Month { year: 2400, month: 12 };
        while month.year > 2000 {
            let begin = month.begin();
            assert_eq!(Month::of(begin), month);
            month = month.before();
            assert_eq!(Month::of(Timestamp::from_millis(begin.as_millis() - 1)), month);
        }
    }

    #[test]
    fn scattered_numbers_do_not_follow_a_pattern() {
        let even = (0..1_000).filter(|number| scatter(*number).is_multiple_of(7)).count();
        assert!((100..190).contains(&even), "{even}");
    }
}
