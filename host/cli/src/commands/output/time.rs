//! Times as people say them: `3m ago`, `in 42s`, `31m 38s`.

use std::time::Duration;

use amends_engine::Timestamp;

/// The length of a time such as `2026-03-01T09:30:00.000Z`, and of an id of a saga.
const TIME_CHARS: usize = 24;
const ID_CHARS: usize = 36;

/// Of an id, so many of its last digits are shown where there is little room.
const TAIL_CHARS: usize = 8;

/// The two largest units: `31m 38s`, `2h 5m`, `1.9s`, `420ms`.
pub(crate) fn span(duration: Duration) -> String {
    let (millis, seconds) = (duration.as_millis(), duration.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        // Tenths are cut off, so that 59.96 s is not a minute.
        1..=59 => format!("{seconds}.{}s", millis % 1_000 / 100),
        _ => whole(seconds),
    }
}

/// How long a verb took: `13.9 s`, `31m 38s`.
pub(crate) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{:.1} s", duration.as_secs_f64()) } else { whole(seconds) }
}

/// In whole seconds, the two largest units; a unit of none is left out.
fn whole(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, size) in &units[first..(first + 2).min(4)] {
        if left >= *size || parts.is_empty() {
            parts.push(format!("{}{unit}", left / size));
        }
        left %= size;
    }
    parts.join(" ")
}

/// The largest unit alone: `3m`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let words = whole(now.since(since).as_secs());
    words.split(' ').next().unwrap_or_default().to_owned()
}

/// `in 42s`, `3m 5s ago`.
pub(crate) fn from_now(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        // A second that has begun counts: what is due in 400 ms is not due in 0 s.
        let left = at.since(now).saturating_add(Duration::from_millis(999));
        return format!("in {}", whole(left.as_secs()));
    }
    format!("{} ago", whole(now.since(at).as_secs()))
}

/// The text with its times as seen from `now`, and with the ends of its ids in place of the ids.
pub(crate) fn in_brief(text: &str, now: Timestamp) -> String {
    let mut brief = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let is_word = brief.chars().next_back().is_some_and(char::is_alphanumeric);
        if !is_word && let Some(at) = time_at(rest) {
            push_time(&mut brief, at, now);
            rest = &rest[TIME_CHARS..];
        } else if !is_word && is_id_at(rest) {
            brief.push_str(&rest[ID_CHARS - TAIL_CHARS..ID_CHARS]);
            rest = &rest[ID_CHARS..];
        } else {
            brief.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    brief
}

/// `at TIME` is `in 42s`, `until TIME` `for 42s more`, `since TIME` `for 3m`.
fn push_time(brief: &mut String, at: Timestamp, now: Timestamp) {
    let words = [("until ", at > now, "for ", " more"), ("since ", at <= now, "for ", "")];
    for (word, fits, before, after) in words {
        if fits && brief.ends_with(word) {
            brief.truncate(brief.len() - word.len());
            let seconds = at.since(now).max(now.since(at)).as_secs();
            brief.push_str(&[before, &whole(seconds), after].concat());
            return;
        }
    }
    if brief.ends_with("at ") && !brief.ends_with("that ") {
        brief.truncate(brief.len() - "at ".len());
    }
    brief.push_str(&from_now(at, now));
}

fn time_at(text: &str) -> Option<Timestamp> {
    let head = text.get(..TIME_CHARS)?;
    let is_time = head.starts_with(|c: char| c.is_ascii_digit()) && head.ends_with('Z');
    head.parse().ok().filter(|_| is_time)
}

fn is_id_at(text: &str) -> bool {
    let Some(head) = text.get(..ID_CHARS) else { return false };
    let is_part = |(at, byte): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    let ends = !text[ID_CHARS..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    ends && head.bytes().enumerate().all(is_part)
}

/// The ends of ids, as short as they may be with no two alike.
pub(crate) fn tails<'id>(ids: &[&'id str]) -> Vec<&'id str> {
    let tail = |id: &'id str, chars: usize| {
        // A hyphen stands before the last twelve digits: no end has one in it.
        id.get(id.len().saturating_sub(chars)..).unwrap_or(id)
    };
    for chars in [TAIL_CHARS, 10, 12] {
        let all: std::collections::BTreeSet<_> = ids.iter().map(|id| tail(id, chars)).collect();
        if all.len() == ids.len() {
            return ids.iter().map(|id| tail(id, chars)).collect();
        }
    }
    ids.to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn durations_are_told_by_their_two_largest_units() {
        let told = [
            (0, "0ms"),
            (420, "420ms"),
            (1_940, "1.9s"),
            (59_960, "59.9s"),
            (60_000, "1m"),
            (1_898_594, "31m 38s"),
            (7_500_000, "2h 5m"),
            (7_205_000, "2h"),
            (190_000_000, "2d 4h"),
        ];
        for (millis, words) in told {
            assert_eq!(span(Duration::from_millis(millis)), words);
        }
        assert_eq!(took(Duration::from_millis(13_940)), "13.9 s");
        assert_eq!(took(Duration::from_millis(1_898_594)), "31m 38s");
        let now = time("2026-03-01T09:30:00.000Z");
        assert_eq!(age(time("2026-03-01T09:26:05.000Z"), now), "3m");
        assert_eq!(from_now(time("2026-03-01T09:30:00.100Z"), now), "in 1s");
        assert_eq!(from_now(time("2026-03-01T09:26:05.000Z"), now), "3m 55s ago");
    }

    #[test]
    fn times_and_ids_in_a_text_are_told_in_brief() {
        let now = time("2026-03-01T09:30:00.000Z");
        let id = "0198c0de-0000-7000-8000-0123456789ab";
        for (text, brief) in [
            ("again at 2026-03-01T09:30:42.000Z, 2 of 4", "again in 42s, 2 of 4"),
            ("sleeps until 2026-03-01T11:29:00.000Z", "sleeps for 1h 59m more"),
            ("until 2026-03-01T09:29:00.000Z", "until 1m ago"),
            ("not moved since 2026-03-01T09:27:00.000Z: busy", "not moved for 3m: busy"),
            ("that 2026-03-01T09:29:00.000Z", "that 1m ago"),
            (
                "in 2026-03-01T09:30:00Z-like æ 2026-03-01",
                "in 2026-03-01T09:30:00Z-like æ 2026-03-01",
            ),
        ] {
            assert_eq!(in_brief(text, now), brief);
        }
        assert_eq!(in_brief(&format!("kid runs as saga {id}."), now), "kid runs as saga 456789ab.");
        for kept in [format!("x{id}"), format!("{id}0"), format!("{id}-1")] {
            assert_eq!(in_brief(&kept, now), kept);
        }
    }

    #[test]
    fn ends_of_ids_are_long_enough_to_tell_them_apart() {
        let ids = ["0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002"];
        assert_eq!(tails(&ids), ["00000001", "00000002"]);
        let ids = ["0198c0de-0000-7000-8000-1a0000000001", "0198c0de-0000-7000-8000-1b0000000001"];
        assert_eq!(tails(&ids), ["1a0000000001", "1b0000000001"]);
        let ids = ["0198c0de-0000-7000-8000-1a0000000001", "0198c0de-0000-7001-8000-1a0000000001"];
        assert_eq!(tails(&ids), ids);
    }
}
