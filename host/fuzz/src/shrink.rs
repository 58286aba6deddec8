//! Makes a failing input smaller.

use std::time::{Duration, Instant};

/// How long that goes on.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The smallest input that was found and that still fails: parts are left out, halves first, then
/// single bytes.
pub(crate) fn shrink(input: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let began = Instant::now();
    let mut smallest = input.to_vec();
    let mut size = smallest.len().div_ceil(2);
    while size > 0 {
        let (mut at, before) = (0, smallest.len());
        while at < smallest.len() {
            if began.elapsed() > TIME_MAX {
                return smallest;
            }
            let end = (at + size).min(smallest.len());
            let without = [&smallest[..at], &smallest[end..]].concat();
            if fails(&without) {
                smallest = without;
            } else {
                at = end;
            }
        }
        // A part that was needed may not be any more.
        if size > 1 || smallest.len() == before {
            size /= 2;
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let input = [&[b'x'; 1_000][..], b"a", &[b'y'; 500], b"b"].concat();
        let fails = |input: &[u8]| input.contains(&b'a') && input.contains(&b'b');
        assert_eq!(shrink(&input, fails), b"ab");
        assert_eq!(shrink(b"abc", |_| false), b"abc");
    }
}
