//! How much a simulation of several hosts tried.

use std::fmt;

/// The counts of a simulation of several hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClusterFigures {
    /// The number of schedules.
    pub runs: u64,
    /// The number of steps of hosts, of the store and of the world around them.
    pub moves: u64,
    /// The number of appends that were stored.
    pub appends: u64,
    /// The number of hosts that were taken over.
    pub takeovers: u64,
    /// The number of shards that one host gave to another.
    pub handovers: u64,
    /// The number of hosts that were killed.
    pub kills: u64,
    /// The number of hosts that went on after their lease was over.
    pub late_wakes: u64,
    /// The number of batches that the fence refused.
    pub fenced: u64,
    /// The number of batches whose answer was lost, and that were not committed, or were.
    pub lost: [u64; 2],
    /// The number of answers to appends that came after the saga had left the memory of the host.
    pub late_answers: u64,
    /// The number of ends of calls that nobody waited for any more.
    pub late_replies: u64,
    /// The number of requests of callers that were acknowledged.
    pub acknowledged: u64,
    /// The number of sagas in each end: completed, compensated, any other.
    pub ends: [u64; 3],
}

impl ClusterFigures {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.moves += other.moves;
        self.appends += other.appends;
        self.takeovers += other.takeovers;
        self.handovers += other.handovers;
        self.kills += other.kills;
        self.late_wakes += other.late_wakes;
        self.fenced += other.fenced;
        self.late_answers += other.late_answers;
        self.late_replies += other.late_replies;
        self.acknowledged += other.acknowledged;
        let (sums, more) = (self.lost.iter_mut().chain(&mut self.ends), other.lost);
        for (sum, more) in sums.zip(more.into_iter().chain(other.ends)) {
            *sum += more;
        }
    }
}

impl fmt::Display for ClusterFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [not_there, there] = self.lost;
        let [completed, compensated, other] = self.ends;
        write!(
            f,
            "{} schedules, {} moves, {} appends, {} takeovers, {} handovers, {} kills, {} hosts \
             that went on after their lease, {} batches fenced, {} answers lost of appends that \
             were stored and {} of others, {} late answers, {} late ends of calls, {} requests \
             acknowledged; ends: {completed} completed, {compensated} compensated, {other} others",
            self.runs,
            self.moves,
            self.appends,
            self.takeovers,
            self.handovers,
            self.kills,
            self.late_wakes,
            self.fenced,
            there,
            not_there,
            self.late_answers,
            self.late_replies,
            self.acknowledged,
        )
    }
}
