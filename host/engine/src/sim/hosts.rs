//! One long random run of several hosts.

use std::sync::Arc;
use std::time::Duration;

use super::action::OrderKind;
use super::cluster::{Cluster, Ending, Move};
use super::cluster_figures::ClusterFigures;
use super::generate::{Random, random};
use super::machine::Machine;
use super::protection::Protection;
use super::violation::Violation;
use crate::{SagaId, Timestamp};

/// The number of moves after which faults stop, so that a run ends.
const MOVES_WITH_FAULTS_MAX: usize = 400;

/// How far clocks are ahead or behind, in milliseconds: more and less than any simulated pause.
const SKEWS: [i64; 5] = [0, 400, -400, 3_600_000, -3_600_000];

/// Runs a few sagas of random definitions on several hosts with random faults, until every saga has
/// come to a rest. The same seed gives the same run. `without` is a protection that the hosts do
/// without.
///
/// # Errors
/// The rule that was broken.
pub fn hosts(
    machine: &dyn Machine,
    without: Option<Protection>,
    seed: u64,
) -> Result<ClusterFigures, Box<Violation>> {
    let mut chance = Random::new(seed);
    let (hosts, shards) = (2 + chance.below(2), 1 + chance.below(3));
    let sagas = (0..=chance.below(3)).map(|_| {
        let definition = Arc::new(random(&mut chance));
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&chance.next().to_be_bytes());
        let id = SagaId::from_parts(Timestamp::from_millis(0), &bytes);
        let delay = if chance.chance(10) { 1 + chance.below(10_000) as u64 } else { 0 };
        (definition, id, Duration::from_millis(delay))
    });
    let sagas: Vec<_> = sagas.collect();
    let mut cluster = Cluster::new(machine, without, (hosts, shards), sagas);
    let faults = Faults {
        fault: chance.below(25),
        call: chance.below(40),
        order: chance.below(6),
        time: chance.below(10),
        clock: chance.below(3),
    };
    for _ in 0..MOVES_WITH_FAULTS_MAX {
        let next = faults.choose(&cluster, &mut chance);
        cluster.act(next)?;
    }
    cluster.finish()?;
    Ok(cluster.figures)
}

/// The chances of faults and orders, in percent.
struct Faults {
    fault: usize,
    call: usize,
    order: usize,
    time: usize,
    clock: usize,
}

impl Faults {
    /// Chooses the next move.
    fn choose(&self, cluster: &Cluster<'_>, chance: &mut Random) -> Move {
        if chance.chance(self.order)
            && let Some(asked) = Self::ask(cluster, chance)
        {
            return asked;
        }
        if chance.chance(self.clock) {
            let host = chance.below(cluster.sizes(0).0);
            return Move::SetClock { host, ahead: SKEWS[chance.below(SKEWS.len())] };
        }
        let mut moves = cluster.steps();
        // While no host runs, faults end sooner.
        if chance.chance(if moves.is_empty() { 50 } else { self.fault }) {
            moves = cluster.faults();
        }
        if moves.is_empty() || chance.chance(self.time) {
            return Move::Pass;
        }
        match moves.swap_remove(chance.below(moves.len())) {
            // A kill ends much at once, so it is rarer.
            Move::Kill { host } if chance.chance(70) => Move::Break { host },
            Move::Land { call, .. } => {
                let ending = match chance.below(4) {
                    _ if !chance.chance(self.call) => Ending::Done,
                    0 => Ending::Permanent,
                    _ => Ending::Retryable,
                };
                Move::Land { call, ending }
            }
            Move::Reply { call, .. } => Move::Reply { call, tells: chance.chance(70) },
            Move::Recover { host, saga, .. } => {
                Move::Recover { host, saga, asks: chance.chance(50) }
            }
            Move::Advance { host, saga, .. } => {
                Move::Advance { host, saga, admits: chance.chance(80) }
            }
            Move::Tick { host, .. } => Move::Tick { host, claims: chance.next() },
            Move::HandOver { host, shard, .. } => {
                let to = chance.below(cluster.sizes(0).0);
                Move::HandOver { host, shard, to }
            }
            other @ (Move::Start { .. }
            | Move::Order { .. }
            | Move::Signal { .. }
            | Move::Begin { .. }
            | Move::Send { .. }
            | Move::Run { .. }
            | Move::Hear { .. }
            | Move::Deliver { .. }
            | Move::FindOut { .. }
            | Move::Break { .. }
            | Move::Stray { .. }
            | Move::Pause { .. }
            | Move::Wake { .. }
            | Move::Kill { .. }
            | Move::Boot { .. }
            | Move::CutOff { .. }
            | Move::Mend { .. }
            | Move::SetClock { .. }
            | Move::TakeOver { .. }
            | Move::Leave { .. }
            | Move::Pass) => other,
        }
    }

    /// Chooses an order or a signal.
    fn ask(cluster: &Cluster<'_>, chance: &mut Random) -> Option<Move> {
        let asked = cluster.askable();
        let (host, saga) = *asked.get(chance.below(asked.len()))?;
        if cluster.waits_for_signal(saga) && chance.chance(40) {
            return Some(Move::Signal { host, saga });
        }
        // Abandoning ends the saga, so it is rare.
        let orders = OrderKind::ALL.len() - usize::from(!chance.chance(3));
        let order = OrderKind::ALL[chance.below(orders)];
        Some(Move::Order { host, saga, order, step: chance.below(cluster.sizes(saga).1) })
    }
}
