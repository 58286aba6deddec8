//! Callers: they start sagas, give orders and send signals, and are told what became of that.

use super::live::{Append, Live, Queued, SagaClock};
use super::request::{Request, RequestKind, Told, caller, count, signal_id};
use super::{Cluster, Play};
use crate::sim::action::OrderKind;
use crate::sim::memory::Memory;
use crate::sim::stage::Result;
use crate::sim::stage::orders::order;
use crate::{Input, Payload};

impl Cluster<'_> {
    fn request(&mut self, saga: usize, kind: RequestKind) -> usize {
        self.requests.push(Request { saga, kind, told: Told::Nothing, has_fact: false });
        self.requests.len() - 1
    }

    /// A caller starts a saga, again if nobody said that it has started.
    pub(super) fn start(&mut self, host: usize, saga: usize) -> Result<()> {
        let shard = self.sagas[saga].shard;
        let Some(epoch) = self.hosts[host].owned(shard) else { return Ok(()) };
        if !self.sagas[saga].stage.log.is_empty() {
            // The store knows its key.
            let request = self.request(saga, RequestKind::Start);
            return self.tell(request, true);
        }
        if self.hosts[host].live.contains_key(&saga) {
            return Ok(());
        }
        let request = self.request(saga, RequestKind::Start);
        let (at, now) = (self.hosts[host].wall(self.now), self.now);
        let Play { stage, input, .. } = &self.sagas[saga];
        let mut draft = stage.start(at, input.clone());
        let started = draft.saga.clone();
        stage.admit_due(&mut draft);
        let answers = vec![None; stage.units.len()];
        let clock = SagaClock { at, seen: now };
        let live = Live {
            reading: self.number(),
            memory: Memory { saga: started, in_flight: Vec::new(), answers: answers.clone() },
            clock,
            pending: None,
            inputs: Vec::new(),
            has_unbegun: false,
            may_tick: false,
        };
        self.hosts[host].live.insert(saga, live);
        let (number, expected, start) = (0, 0, Some(request));
        let inputs = Vec::new();
        let append = Append { number, saga, epoch, expected, clock, draft, answers, inputs, start };
        self.queue(host, append);
        Ok(())
    }

    /// An operator gives an order, if it is permitted. Nobody undoes by hand here, because the order
    /// that says so may be lost.
    pub(super) fn order(&mut self, host: usize, saga: usize, ordered: (OrderKind, usize)) {
        if !self.may(host, saga, ordered) {
            return;
        }
        let verb = self.sagas[saga].stage.verb(ordered.0, ordered.1);
        let request = self.request(saga, RequestKind::Order(verb.clone()));
        self.ask(host, saga, Input::Operate(order(&caller(request), verb)), request);
    }

    /// Returns true when an operator may give an order.
    pub(super) fn may(&self, host: usize, saga: usize, (kind, step): (OrderKind, usize)) -> bool {
        let stage = &self.sagas[saga].stage;
        let Some(live) = self.hosts[host].live.get(&saga) else { return false };
        let at = live.clock.time(self.hosts[host].wall(self.now), self.now);
        let is_by_hand = kind == OrderKind::Resolve && stage.is_undone_by_hand(step);
        !is_by_hand && stage.may((&live.memory.saga, at), self.now, (kind, step))
    }

    /// A signal comes.
    pub(super) fn signal(&mut self, host: usize, saga: usize) {
        let Play { stage, signals_told, .. } = &self.sagas[saga];
        let (id, Some(name)) = (*signals_told, stage.definition.signals().next().cloned()) else {
            return;
        };
        let request = self.request(saga, RequestKind::Signal(id));
        let (id, payload) = (Some(signal_id(id)), Payload::null());
        self.ask(host, saga, Input::Signal { name, id, payload, who: None }, request);
    }

    fn ask(&mut self, host: usize, saga: usize, input: Input, request: usize) {
        if let Some(live) = self.hosts[host].live.get_mut(&saga) {
            live.inputs.push(Queued { request: Some(request), ..Queued::new(input) });
        }
    }

    /// Tells whoever waits for an append what became of it.
    pub(super) fn tell_all(&mut self, append: &Append, is_done: bool) -> Result<()> {
        let requests = append.inputs.iter().filter_map(|queued| queued.request);
        for request in requests.chain(append.start) {
            self.tell(request, is_done)?;
        }
        Ok(())
    }

    /// Tells a caller.
    pub(super) fn tell(&mut self, request: usize, is_done: bool) -> Result<()> {
        let Request { saga, kind, told, .. } = &mut self.requests[request];
        let play = &mut self.sagas[*saga];
        if !is_done {
            *told = Told::NotDone;
            return Ok(());
        }
        *told = Told::Done;
        self.figures.acknowledged += 1;
        match kind {
            RequestKind::Order(_) => {}
            RequestKind::Start if play.stage.log.is_empty() => {
                let rule = "a start is acknowledged and not in the log".to_owned();
                return Err(play.stage.violation(rule));
            }
            RequestKind::Start => play.is_start_told = true,
            RequestKind::Signal(id) => play.signals_told = play.signals_told.max(*id + 1),
        }
        Ok(())
    }

    /// Checks that the log has what callers were told, once.
    pub(super) fn check_requests(&self) -> Result<()> {
        for (number, request) in self.requests.iter().enumerate() {
            let stage = &self.sagas[request.saga].stage;
            let (name, is_signal) = match &request.kind {
                // That a saga starts once is a rule of its own.
                RequestKind::Start => continue,
                RequestKind::Order(_) => (caller(number), false),
                RequestKind::Signal(id) => (signal_id(*id), true),
            };
            let times = count(stage, request.fact(), &name);
            let fits = match request.told {
                Told::Done if request.has_fact => times == 1,
                // An earlier one with its id may be there.
                _ if is_signal => times <= 1,
                Told::Done | Told::NotDone => times == 0,
                Told::Nothing => times <= 1,
            };
            if !fits {
                let (told, kind) = (request.told, request.fact());
                let rule = format!("`{kind}` of {name} is {times} times in the log; told {told:?}");
                return Err(stage.violation(rule));
            }
        }
        Ok(())
    }
}
