//! The way of an append: decided, sent, stored or refused, and heard of.

use std::sync::Arc;

use super::Cluster;
use super::host::{Answer, Writer};
use super::live::{Append, Live, Queued, SagaClock};
use super::store::{Batch, BatchId};
use crate::Input;
use crate::sim::protection::Protection;
use crate::sim::stage::Result;

impl Cluster<'_> {
    /// Decides on what happened to a saga since its last append, admits what is due, and queues
    /// what follows. An order or a signal is decided on alone, so that its answer can be judged.
    pub(super) fn advance(&mut self, host: usize, saga: usize, admits: bool) -> Result<()> {
        let (now, wall) = (self.now, self.hosts[host].wall(self.now));
        let Some(epoch) = self.hosts[host].owned(self.sagas[saga].shard) else { return Ok(()) };
        let may_answer = self.has_lease(host) || self.lacks(Protection::Lease);
        let is_wall = self.lacks(Protection::SagaClock);
        let Some(live) = self.hosts[host].live.get_mut(&saga) else { return Ok(()) };
        if live.pending.is_some() {
            return Ok(());
        }
        live.may_tick = !admits;
        let at = if is_wall { wall } else { live.clock.time(wall, now) };
        let count = match live.inputs.iter().position(|queued| queued.request.is_some()) {
            Some(0) => 1,
            Some(requests) => requests,
            None => live.inputs.len(),
        };
        let inputs: Vec<_> = live.inputs.drain(..count).collect();
        let stage = &self.sagas[saga].stage;
        let mut draft = live.memory.draft(at);
        stage.decide(&mut draft, Input::Tick);
        for Queued { input, answer, request } in &inputs {
            if let Some((step, outcome)) = answer {
                live.memory.answers[*step] = Some(outcome.clone());
            }
            let from = (draft.saga.clone(), draft.events.len());
            stage.decide(&mut draft, input.clone());
            if let Some(request) = *request {
                self.requests[request].decided(stage, from, &draft, (input, may_answer))?;
            }
        }
        for queued in &inputs {
            live.memory
                .in_flight
                .retain(|call| queued.call() != Some((&call.step, call.direction)));
        }
        if admits {
            stage.admit_due(&mut draft);
        }
        if draft.events.is_empty() {
            for request in inputs.into_iter().filter_map(|queued| queued.request) {
                self.tell(request, may_answer)?;
            }
            return Ok(());
        }
        let append = Append {
            number: 0,
            saga,
            epoch,
            expected: usize::try_from(live.memory.saga.version().0).unwrap_or(usize::MAX),
            clock: SagaClock { at, seen: now },
            answers: live.memory.answers.clone(),
            draft,
            inputs,
            start: None,
        };
        self.queue(host, append);
        Ok(())
    }

    /// Queues an append of a saga that is in memory.
    pub(super) fn queue(&mut self, host: usize, append: Append) {
        let append = Arc::new(Append { number: self.number(), ..append });
        let host = &mut self.hosts[host];
        if let Some(live) = host.live.get_mut(&append.saga) {
            live.pending = Some(Arc::clone(&append));
        }
        host.queue.push(append);
    }

    /// Sends everything that is queued as one transaction. Appends of shards that the host does not
    /// own any more are refused.
    pub(super) fn send(&mut self, host: usize) {
        let queue = std::mem::take(&mut self.hosts[host].queue);
        let (appends, refused): (Vec<_>, Vec<_>) = queue.into_iter().partition(|append| {
            let shard = self.sagas[append.saga].shard;
            self.hosts[host].may_write(shard, append.epoch)
        });
        let host = &mut self.hosts[host];
        host.inbox.extend(refused.into_iter().map(|append| (append, Answer::Fenced)));
        if appends.is_empty() {
            return;
        }
        host.batch += 1;
        let id = BatchId { host: host.number, lane_epoch: host.lane_epoch, number: host.batch };
        host.writer = Writer::Sent(Batch { id, appends });
    }

    /// The database runs what a host has sent.
    pub(super) fn run(&mut self, host: usize) -> Result<()> {
        match std::mem::replace(&mut self.hosts[host].writer, Writer::Idle) {
            Writer::Sent(batch) => {
                let answer = self.transact(&batch)?;
                self.hosts[host].writer = Writer::Answered(batch, answer);
            }
            other @ (Writer::Idle | Writer::Answered(..) | Writer::Lost(_)) => {
                self.hosts[host].writer = other;
            }
        }
        Ok(())
    }

    /// Runs a transaction: all of it is stored, or nothing.
    pub(super) fn transact(&mut self, batch: &Batch) -> Result<Answer> {
        if !self.store.has_fence(&batch.id) && !self.lacks(Protection::Fence) {
            self.figures.fenced += 1;
            return Ok(Answer::Fenced);
        }
        for append in &batch.appends {
            self.store_append(append)?;
        }
        self.store.batches.insert(batch.id);
        Ok(Answer::Done)
    }

    /// Stores an append, and checks what must hold between hosts. The start of a saga that has
    /// started is no error: its caller repeats it.
    fn store_append(&mut self, append: &Append) -> Result<()> {
        let play = &mut self.sagas[append.saga];
        let (events, stage) = (play.stage.log.len(), &mut play.stage);
        if append.start.is_some() && events > 0 {
            return Ok(());
        }
        if append.expected != events {
            let rule = format!(
                "a host with the fence appends after event {} of a log of {events}",
                append.expected
            );
            return Err(stage.violation(rule));
        }
        if play.epochs.last().is_some_and(|last| *last > append.epoch) {
            return Err(stage.violation("an event of an older epoch follows".to_owned()));
        }
        if stage.log.last().is_some_and(|(last, _)| *last > append.draft.at) {
            return Err(stage.violation("the time of the saga goes back".to_owned()));
        }
        if self.refused.contains(&append.number) || !self.stored.insert(append.number) {
            let rule = "an append is stored that was refused, or was stored already".to_owned();
            return Err(stage.violation(rule));
        }
        stage.commit(&append.draft, &append.answers, self.now)?;
        play.epochs.resize(stage.log.len(), append.epoch);
        self.figures.appends += 1;
        Ok(())
    }

    /// The answer of the database reaches the writer of the host.
    pub(super) fn hear(&mut self, host: usize) {
        match std::mem::replace(&mut self.hosts[host].writer, Writer::Idle) {
            Writer::Answered(batch, answer) => self.settle(host, batch, answer),
            other @ (Writer::Idle | Writer::Sent(_) | Writer::Lost(_)) => {
                self.hosts[host].writer = other;
            }
        }
    }

    /// The writer knows what became of a batch. When it was fenced, it begins again.
    fn settle(&mut self, host: usize, batch: Batch, answer: Answer) {
        let is_fenced = !self.store.leases.contains_key(&batch.id.host);
        let answers = batch.appends.into_iter().map(|append| (append, answer));
        self.hosts[host].inbox.extend(answers);
        if is_fenced {
            self.begin_again(host);
        }
    }

    /// A saga hears what became of its append.
    pub(super) fn deliver(&mut self, host: usize) -> Result<()> {
        if self.hosts[host].inbox.is_empty() {
            return Ok(());
        }
        let (append, answer) = self.hosts[host].inbox.remove(0);
        self.answered(host, &append, answer)
    }

    /// The connection to the database breaks. What was sent is run some time, or never.
    pub(super) fn break_connection(&mut self, host: usize) {
        let writer = &mut self.hosts[host].writer;
        *writer = match std::mem::replace(writer, Writer::Idle) {
            Writer::Idle => Writer::Idle,
            Writer::Sent(batch) => {
                self.strays.push(batch.clone());
                Writer::Lost(batch)
            }
            Writer::Answered(batch, _) | Writer::Lost(batch) => Writer::Lost(batch),
        };
    }

    /// Finds out what became of a batch whose answer is lost: the host raises its epoch, so that
    /// the batch is stored by now or never, and looks for its row.
    pub(super) fn find_out(&mut self, host: usize) {
        let writer = std::mem::replace(&mut self.hosts[host].writer, Writer::Idle);
        let Writer::Lost(batch) = writer else {
            self.hosts[host].writer = writer;
            return;
        };
        let is_there = self.store.batches.contains(&batch.id);
        self.figures.lost[usize::from(is_there)] += 1;
        if self.lacks(Protection::Question) {
            return self.settle(host, batch, Answer::Unavailable);
        }
        let number = self.hosts[host].number;
        let mut answer = if is_there { Answer::Done } else { Answer::Fenced };
        if let Some(epoch) = self.store.lanes.get_mut(&number) {
            if self.without != Some(Protection::Raise) {
                *epoch += 1;
            }
            self.hosts[host].lane_epoch = *epoch;
            if !is_there {
                answer = Answer::Unavailable;
            }
        }
        self.settle(host, batch, answer);
    }

    /// An append was answered. The answer is for the saga that made it, unless the host has lost
    /// the saga since.
    fn answered(&mut self, host: usize, append: &Arc<Append>, answer: Answer) -> Result<()> {
        let is_stored = self.stored.contains(&append.number);
        let is_start_of_other = append.start.is_some() && !is_stored && answer == Answer::Done;
        if answer != Answer::Done {
            if is_stored {
                let stage = &self.sagas[append.saga].stage;
                return Err(stage.violation("an append is refused, and it is stored".to_owned()));
            }
            self.refused.insert(append.number);
        }
        let takes_any = self.lacks(Protection::AnswerOfEpoch);
        let live = self.hosts[host].live.get_mut(&append.saga);
        let pending = live.and_then(|live| live.pending.clone());
        let is_its = pending.as_ref().is_some_and(|pending| pending.number == append.number);
        let Some(pending) = pending.filter(|_| is_its || takes_any) else {
            self.figures.late_answers += 1;
            return self.tell_all(append, answer == Answer::Done);
        };
        if is_start_of_other {
            self.hosts[host].live.remove(&append.saga);
            return self.tell_all(append, true);
        }
        match answer {
            Answer::Done => self.durable(host, &pending),
            Answer::Fenced => {
                self.lose(host, self.sagas[append.saga].shard);
                self.tell_all(append, false)
            }
            Answer::Unavailable => self.append_failed(host, &pending),
        }
    }

    /// The facts are durable: now they are true, and are acted upon.
    fn durable(&mut self, host: usize, append: &Append) -> Result<()> {
        let Some(live) = self.hosts[host].live.get_mut(&append.saga) else { return Ok(()) };
        live.pending = None;
        live.memory.saga = append.draft.saga.clone();
        live.clock = append.clock;
        let stage = &self.sagas[append.saga].stage;
        stage.check_memory(&live.memory.saga, append.draft.at)?;
        self.tell_all(append, true)?;
        self.begin(host, append.saga)?;
        let live = self.hosts[host].live.get(&append.saga);
        if live.is_some_and(|live| live.memory.saga.has_ended()) {
            self.hosts[host].live.remove(&append.saga);
        }
        Ok(())
    }

    /// Nothing of the append is true. Callers hear that; the rest is kept and decided on again.
    fn append_failed(&mut self, host: usize, append: &Append) -> Result<()> {
        self.tell_all(append, false)?;
        let live = &mut self.hosts[host].live;
        if append.start.is_some() {
            live.remove(&append.saga);
        } else if let Some(live) = live.get_mut(&append.saga) {
            live.pending = None;
            live.may_tick = true;
            let kept = append.inputs.iter().filter(|queued| queued.request.is_none()).cloned();
            live.inputs.splice(..0, kept);
        }
        Ok(())
    }

    /// Begins the calls of a saga that are durable and not in flight, while the lease runs.
    pub(super) fn begin(&mut self, host: usize, saga: usize) -> Result<()> {
        let may_call = self.has_lease(host) || self.lacks(Protection::Lease);
        let Some(live) = self.hosts[host].live.get_mut(&saga) else { return Ok(()) };
        live.has_unbegun = !may_call;
        if !may_call {
            return Ok(());
        }
        let calls = self.sagas[saga].stage.dispatch(&mut live.memory)?;
        let Live { reading, .. } = *live;
        for call in calls {
            self.fly(host, (saga, reading), call, true);
        }
        Ok(())
    }
}
