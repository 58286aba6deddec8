//! What can happen next, how time passes, and the way to an end without faults.

use std::time::Duration;

use super::host::{Condition, Held, Host, Writer};
use super::live::Live;
use super::{Cluster, Ending, Move};
use crate::sim::action::OrderKind;
use crate::sim::record::Wait;
use crate::sim::stage::Result;
use crate::{SagaStatus, Timestamp};

/// The most moves of a run without faults. A run with more counts as one that never ends.
const MOVES_TO_END_MAX: usize = 5_000;

impl Cluster<'_> {
    /// Returns everything that goes on by itself.
    pub(in crate::sim) fn steps(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            if let Writer::Sent(_) = host.writer {
                moves.push(Move::Run { host: index });
            }
            if host.runs() {
                self.steps_of_host(index, host, &mut moves);
            }
        }
        for (call, flight) in self.flights.iter().enumerate() {
            let host = &self.hosts[flight.host];
            if flight.is_on_its_way {
                moves.push(Move::Land { call, ending: Ending::Done });
            } else if host.runs() && host.process == flight.process {
                moves.push(Move::Reply { call, tells: true });
            }
        }
        moves
    }

    fn steps_of_host(&self, index: usize, host: &Host, moves: &mut Vec<Move>) {
        match &host.writer {
            Writer::Answered(..) => moves.push(Move::Hear { host: index }),
            Writer::Idle if !host.queue.is_empty() => moves.push(Move::Send { host: index }),
            Writer::Lost(_) if !host.is_cut_off => moves.push(Move::FindOut { host: index }),
            Writer::Idle | Writer::Lost(_) | Writer::Sent(_) => {}
        }
        if !host.inbox.is_empty() {
            moves.push(Move::Deliver { host: index });
        }
        if host.is_connected() && self.is_tick_due(host) {
            moves.push(Move::Tick { host: index, claims: u64::MAX });
        }
        for (shard, held) in host.held.iter().enumerate() {
            let is_written = matches!(host.writer, Writer::Idle)
                && !host.queue.iter().any(|append| self.sagas[append.saga].shard == shard);
            if matches!(held, Held::Leaving(_)) && is_written && host.is_connected() {
                let to = (index + 1) % self.hosts.len();
                moves.push(Move::HandOver { host: index, shard, to });
            }
        }
        for (saga, play) in self.sagas.iter().enumerate() {
            if host.owned(play.shard).is_none() {
                continue;
            }
            let (live, has_begun) = (host.live.get(&saga), !play.stage.log.is_empty());
            if !play.is_start_told && (has_begun || live.is_none()) {
                moves.push(Move::Start { host: index, saga });
            }
            let Some(live) = live else {
                if has_begun && !play.stage.record.has_ended {
                    moves.push(Move::Recover { host: index, saga, asks: true });
                }
                continue;
            };
            if live.pending.is_some() {
                continue;
            }
            // What happened meanwhile comes first.
            let is_idle = live.inputs.is_empty();
            if live.has_unbegun && is_idle && self.has_lease(index) {
                moves.push(Move::Begin { host: index, saga });
            }
            if live.may_tick || !is_idle {
                moves.push(Move::Advance { host: index, saga, admits: true });
            }
        }
    }

    /// Returns every fault that can happen now, and its ends.
    pub(in crate::sim) fn faults(&self) -> Vec<Move> {
        let mut moves: Vec<_> = (0..self.strays.len()).map(|batch| Move::Stray { batch }).collect();
        for (index, host) in self.hosts.iter().enumerate() {
            match host.condition {
                Condition::Runs => {
                    moves.push(Move::Pause { host: index });
                    moves.push(Move::Kill { host: index });
                }
                Condition::Paused => moves.push(Move::Wake { host: index }),
                Condition::Down => {
                    moves.push(Move::Boot { host: index });
                    continue;
                }
            }
            moves.push(if host.is_cut_off {
                Move::Mend { host: index }
            } else {
                Move::CutOff { host: index }
            });
            if let Writer::Sent(_) | Writer::Answered(..) = host.writer {
                moves.push(Move::Break { host: index });
            }
            if !host.runs() {
                continue;
            }
            let held = host.held.iter().enumerate();
            let owned = held.filter(|(_, held)| matches!(held, Held::Owned(_)));
            moves.extend(owned.map(|(shard, _)| Move::Leave { host: index, shard }));
            if host.is_connected() {
                let leases = self.store.leases.iter();
                let dead = leases.filter(|(dead, end)| **end <= self.now && **dead != host.number);
                moves.extend(dead.map(|(dead, _)| Move::TakeOver { dead: *dead }));
            }
        }
        for (call, flight) in self.flights.iter().enumerate() {
            let host = &self.hosts[flight.host];
            if flight.is_on_its_way && host.runs() && host.process == flight.process {
                // The answer is lost although the request may still arrive.
                moves.push(Move::Reply { call, tells: true });
            }
        }
        moves
    }

    /// Returns the sagas in memory of hosts that run, whose callers may ask for something.
    pub(in crate::sim) fn askable(&self) -> Vec<(usize, usize)> {
        let hosts = self.hosts.iter().enumerate().filter(|(_, host)| host.runs());
        hosts.flat_map(|(index, host)| host.live.keys().map(move |saga| (index, *saga))).collect()
    }

    /// Returns the number of hosts and of steps of a saga.
    pub(in crate::sim) fn sizes(&self, saga: usize) -> (usize, usize) {
        (self.hosts.len(), self.sagas[saga].stage.units.len())
    }

    /// Returns true when steps of a saga wait for a signal.
    pub(in crate::sim) fn waits_for_signal(&self, saga: usize) -> bool {
        let stage = &self.sagas[saga].stage;
        let waits = stage.record.steps.iter().any(|step| step.waits != Wait::No);
        waits && !stage.record.has_ended && stage.definition.signals().next().is_some()
    }

    /// Lets time pass until something is due. Hosts that run and reach the database renew their
    /// leases meanwhile.
    pub(super) fn pass(&mut self) {
        let leases = self.store.leases.values().copied();
        let flights = self.flights.iter().map(|flight| flight.until);
        let wakes = self.hosts.iter().filter(|host| host.condition != Condition::Down);
        let wakes = wakes.flat_map(|host| {
            host.live.iter().filter_map(|(saga, live)| self.wake(host, *saga, live))
        });
        let is_alive = |host: &&Host| host.is_connected();
        let leases: Vec<_> = if self.hosts.iter().filter(is_alive).count() == self.hosts.len() {
            Vec::new()
        } else {
            leases.collect()
        };
        let times = leases.into_iter().chain(flights).chain(wakes);
        let next = times.filter(|at| *at > self.now).min();
        self.now = next.unwrap_or_else(|| self.now.after(Duration::from_secs(1)));
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_connected() {
                self.renew(host);
            }
        }
        self.expire();
        let due: Vec<_> = (0..self.hosts.len())
            .flat_map(|host| {
                let live = self.hosts[host].live.iter();
                let is_due = |(saga, live): (&usize, &Live)| {
                    let wake = self.wake(&self.hosts[host], *saga, live);
                    wake.is_some_and(|at| at <= self.now).then_some((host, *saga))
                };
                live.filter_map(is_due).collect::<Vec<_>>()
            })
            .collect();
        for (host, saga) in due {
            if let Some(live) = self.hosts[host].live.get_mut(&saga) {
                live.may_tick = true;
            }
        }
    }

    /// Returns when the clock wakes a saga, by the time of the world.
    fn wake(&self, host: &Host, saga: usize, live: &Live) -> Option<Timestamp> {
        // By the time of the last decision: what has become due since wakes at once.
        let wake = self.sagas[saga].stage.wake_at(&live.memory.saga, live.clock.at)?;
        Some(live.clock.comes_to(wake, host.skew))
    }

    /// Ends all faults, goes on until nothing moves, and checks that rest.
    pub(in crate::sim) fn finish(&mut self) -> Result<()> {
        for host in 0..self.hosts.len() {
            match self.hosts[host].condition {
                Condition::Runs => {}
                Condition::Paused => self.act(Move::Wake { host })?,
                Condition::Down => self.act(Move::Boot { host })?,
            }
            self.act(Move::Mend { host })?;
            self.act(Move::SetClock { host, ahead: 0 })?;
        }
        while !self.strays.is_empty() {
            self.act(Move::Stray { batch: 0 })?;
        }
        for _ in 0..MOVES_TO_END_MAX {
            let next = self.steps().first().copied().or_else(|| self.push());
            match next {
                Some(next) => self.act(next)?,
                None => return self.rest(),
            }
        }
        let rule = format!("no end after {MOVES_TO_END_MAX} moves without faults");
        Err(self.sagas[0].stage.violation(rule).after(&self.moves))
    }

    /// Returns what moves a saga for which everything is done: time, an operator, or a signal.
    fn push(&self) -> Option<Move> {
        let waits = |host: &Host| {
            host.live.iter().any(|(saga, live)| {
                !self.sagas[*saga].stage.record.is_paused && self.wake(host, *saga, live).is_some()
            })
        };
        if self.hosts.iter().any(waits) {
            return Some(Move::Pass);
        }
        for (host, saga) in self.askable() {
            let order = OrderKind::Resume;
            if self.may(host, saga, (order, 0)) {
                return Some(Move::Order { host, saga, order, step: 0 });
            }
            if self.waits_for_signal(saga) {
                return Some(Move::Signal { host, saga });
            }
        }
        None
    }

    /// Checks a state in which nothing can happen any more, and counts it.
    fn rest(&mut self) -> Result<()> {
        self.check_rest().map_err(|violation| violation.after(&self.moves))
    }

    fn check_rest(&mut self) -> Result<()> {
        self.check_requests()?;
        for play in &self.sagas {
            if !play.is_start_told {
                return Err(play.stage.violation("a saga is never started".to_owned()));
            }
            play.stage.at_rest(self.now)?;
            let end = match play.stage.recover()?.saga.status() {
                SagaStatus::Completed => 0,
                SagaStatus::Compensated => 1,
                SagaStatus::Running
                | SagaStatus::Waiting
                | SagaStatus::Paused
                | SagaStatus::Compensating
                | SagaStatus::Blocked
                | SagaStatus::Abandoned => 2,
            };
            self.figures.ends[end] += 1;
        }
        Ok(())
    }
}
