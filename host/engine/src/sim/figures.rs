//! How much a simulation tried.

use std::fmt;

/// The counts of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// The number of definitions.
    pub definitions: u64,
    /// The number of ways from a start to a rest; it saturates.
    pub schedules: u64,
    /// The number of distinct states of saga and world.
    pub states: u64,
    /// The number of appends.
    pub appends: u64,
    /// The number of crashes of the host.
    pub crashes: u64,
    /// The number of results that were delivered again or late.
    pub repeats: u64,
    /// The number of prefixes of logs that were recovered and run to their end.
    pub prefixes: u64,
    /// The number of rests in each end: completed, compensated, blocked.
    pub ends: [u64; 3],
}

impl Figures {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: Self) {
        self.definitions += other.definitions;
        self.schedules = self.schedules.saturating_add(other.schedules);
        self.states += other.states;
        self.appends += other.appends;
        self.crashes += other.crashes;
        self.repeats += other.repeats;
        self.prefixes += other.prefixes;
        for (sum, more) in self.ends.iter_mut().zip(other.ends) {
            *sum += more;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [completed, compensated, blocked] = self.ends;
        write!(
            f,
            "{} definitions, {} schedules, {} distinct states, {} appends, {} crashes, \
             {} results repeated or late, {} prefixes recovered; rests seen: {completed} \
             completed, {compensated} compensated, {blocked} blocked",
            self.definitions,
            self.schedules,
            self.states,
            self.appends,
            self.crashes,
            self.repeats,
            self.prefixes,
        )
    }
}
