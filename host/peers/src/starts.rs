//! Starts on their way to another host. Those that come while requests are under way go together in the next
//! one, so a batch costs a few requests and not one a line.

use std::sync::Arc;

use amends_store::HostInfo;
use tokio::sync::oneshot;

use crate::client::PeerError;
use crate::groups::{Waiting, body_of};
use crate::limits::{START_REQUESTS_MAX, STARTS_WAITING_MAX};
use crate::peers::Peers;
use crate::wire::{PeerStart, PeerStarted, STARTS_PATH, StartsAnswer};

impl Peers {
    /// Starts a saga on another host. May be cancelled: the saga may be started then.
    ///
    /// # Errors
    /// When the host has not answered. [`PeerError::Silent`] leaves open whether the saga was started.
    pub async fn start(
        self: &Arc<Self>,
        to: &HostInfo,
        start: &PeerStart,
    ) -> Result<PeerStarted, PeerError> {
        let text = serde_json::to_vec(start)
            .map_err(|error| PeerError::Refused(format!("the start cannot be sent: {error}")))?;
        let (reply, answer) = oneshot::channel();
        {
            let mut all = self.groups.all();
            let group = all.entry((to.name.clone(), to.address.clone())).or_default();
            if group.waiting.len() >= STARTS_WAITING_MAX {
                return Err(PeerError::Full(to.name.clone()));
            }
            group.waiting.push_back(Waiting { text, reply });
            if group.running < START_REQUESTS_MAX {
                group.running += 1;
                tokio::spawn(Arc::clone(self).send_groups(to.clone()));
            }
        }
        let ended = || Err(PeerError::Silent("the request was dropped".to_owned()));
        let answer = answer.await.unwrap_or_else(|_| ended())?;
        match answer {
            PeerStarted::NotOwner => Err(PeerError::NotOwner(to.name.clone())),
            answer @ (PeerStarted::Started { .. }
            | PeerStarted::KeyReused(_)
            | PeerStarted::Refused(_)) => Ok(answer),
        }
    }

    /// Sends groups, one after another, until nothing waits.
    async fn send_groups(self: Arc<Self>, to: HostInfo) {
        let of = (to.name.clone(), to.address.clone());
        loop {
            let starts = {
                let mut all = self.groups.all();
                let Some(group) = all.get_mut(&of) else { return };
                let mut starts = group.take();
                // Whoever has gone needs no start.
                starts.retain(|start| !start.reply.is_closed());
                if starts.is_empty() && group.waiting.is_empty() {
                    group.running -= 1;
                    if group.running == 0 {
                        all.remove(&of);
                    }
                    return;
                }
                starts
            };
            if starts.is_empty() {
                continue;
            }
            let answer = self.ask_bytes::<StartsAnswer>(&to, STARTS_PATH, body_of(&starts)).await;
            let count = starts.len();
            let mut answers = match answer {
                Ok(StartsAnswer { answers }) if answers.len() == count => {
                    answers.into_iter().map(Ok).collect()
                }
                Ok(StartsAnswer { answers }) => {
                    let error =
                        format!("host {} answered {} of {count} starts", to.name, answers.len());
                    vec![Err(PeerError::Silent(error)); count]
                }
                Err(error) => vec![Err(error); count],
            };
            for (start, answer) in starts.into_iter().zip(answers.drain(..)) {
                let _ = start.reply.send(answer);
            }
        }
    }
}
