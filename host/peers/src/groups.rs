//! Starts that wait for a request to another host.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::client::PeerError;
use crate::limits::{START_BYTES_PER_REQUEST, STARTS_PER_REQUEST};
use crate::wire::PeerStarted;

/// What waits for each host, by its name and address.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<HashMap<(String, String), Group>>);

/// What waits for one host.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) waiting: VecDeque<Waiting>,
    /// Requests that are under way.
    pub(crate) running: usize,
}

/// A start that waits, as it is sent.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) text: Vec<u8>,
    pub(crate) reply: oneshot::Sender<Result<PeerStarted, PeerError>>,
}

impl Groups {
    pub(crate) fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Takes what goes in one request.
    pub(crate) fn take(&mut self) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < STARTS_PER_REQUEST
            && let Some(next) = self.waiting.front()
            && (taken.is_empty() || bytes + next.text.len() <= START_BYTES_PER_REQUEST)
        {
            bytes += next.text.len();
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

/// The body of a request with these starts.
pub(crate) fn body_of(starts: &[Waiting]) -> Bytes {
    let mut body = b"{\"starts\":[".to_vec();
    for (index, start) in starts.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&start.text);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_bounded_in_count_and_bytes() {
        let mut group = Group::default();
        let mut push = |bytes: usize| {
            let (reply, _) = oneshot::channel();
            group.waiting.push_back(Waiting { text: vec![b'1'; bytes], reply });
        };
        push(START_BYTES_PER_REQUEST + 1);
        push(START_BYTES_PER_REQUEST);
        (0..=STARTS_PER_REQUEST).for_each(|_| push(1));
        let counts: Vec<_> =
            std::iter::from_fn(|| Some(group.take().len()).filter(|n| *n > 0)).collect();
        assert_eq!(counts, [1, 1, STARTS_PER_REQUEST, 1]);
    }
}
