//! How many log lines the calls of a plugin may write in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A bucket of log lines that fills at the plugin's rate, up to the lines of one second.
pub(crate) struct LogRate {
    /// Lines a second.
    rate: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    lines: f64,
    filled_at: Instant,
    /// Lines that were dropped since the last that was written.
    dropped: u64,
}

/// Whether a line may be written.
pub(crate) enum Line {
    /// It may. `dropped` lines before it were dropped.
    Write { dropped: u64 },
    /// It is dropped.
    Drop,
}

impl LogRate {
    /// Begins with a full bucket.
    pub(crate) fn new(lines_a_second: u32) -> Self {
        let rate = f64::from(lines_a_second);
        let bucket = Bucket { lines: rate, filled_at: Instant::now(), dropped: 0 };
        Self { rate, bucket: Mutex::new(bucket) }
    }

    /// Takes a line out of the bucket.
    pub(crate) fn line(&self) -> Line {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let filled = now.duration_since(bucket.filled_at).as_secs_f64() * self.rate;
        bucket.lines = (bucket.lines + filled).min(self.rate);
        bucket.filled_at = now;
        if bucket.lines < 1.0 {
            bucket.dropped += 1;
            return Line::Drop;
        }
        bucket.lines -= 1.0;
        Line::Write { dropped: std::mem::take(&mut bucket.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_rate_are_counted() {
        let rate = LogRate::new(2);
        let mut written = 0;
        while matches!(rate.line(), Line::Write { .. }) {
            written += 1;
        }
        assert!((2..4).contains(&written), "{written}");
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(matches!(rate.line(), Line::Write { dropped: 1.. }));
    }
}
