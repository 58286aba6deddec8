//! How far a start is with its plugins, for whoever waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amends_engine::PluginName;

/// How far a start is. Cheap to clone; all clones are of the same start.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Plugins that the start waits for; none before it has come to them.
    wanted: Option<usize>,
    /// Of them, those that are done with.
    done: usize,
    /// Those that are compiled now, with the bytes of their components.
    compiling: BTreeMap<PluginName, usize>,
}

impl Progress {
    /// In words, such as `1 of 2 plugins is loaded, compiling book-seats (18 MiB)`.
    #[must_use]
    pub fn words(&self) -> String {
        let state = self.state();
        let Some(wanted) = state.wanted else { return "it opens its store".to_owned() };
        if state.done >= wanted {
            return "it reads the sagas that go on".to_owned();
        }
        let are = if state.done == 1 { "is" } else { "are" };
        let mut words = format!("{} of {wanted} plugins {are} loaded", state.done);
        if !state.compiling.is_empty() {
            let compiling = state.compiling.iter();
            let compiling = compiling.map(|(name, bytes)| format!("{name} ({})", size(*bytes)));
            words.push_str(", compiling ");
            words.push_str(&compiling.collect::<Vec<_>>().join(", "));
        }
        words
    }

    pub(crate) fn begin(&self, wanted: usize) {
        self.state().wanted = Some(wanted);
    }

    pub(crate) fn compiles(&self, name: &PluginName, bytes: usize) {
        let mut state = self.state();
        // After the start nobody asks.
        if state.wanted.is_some_and(|wanted| state.done < wanted) {
            state.compiling.insert(name.clone(), bytes);
        }
    }

    pub(crate) fn done(&self, name: &PluginName) {
        let mut state = self.state();
        state.done += 1;
        state.compiling.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a component, for people.
#[must_use]
pub fn size(bytes: usize) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn it_says_what_the_start_waits_for() {
        let (progress, name) = (Progress::default(), |name: &str| name.parse().unwrap());
        assert_eq!(progress.words(), "it opens its store");
        progress.begin(2);
        assert_eq!(progress.words(), "0 of 2 plugins are loaded");
        progress.compiles(&name("seats"), 18 << 20);
        progress.compiles(&name("tiny"), 1_500);
        let words = "0 of 2 plugins are loaded, compiling seats (18 MiB), tiny (2 KiB)";
        assert_eq!(progress.words(), words);
        progress.done(&name("tiny"));
        assert_eq!(progress.words(), "1 of 2 plugins is loaded, compiling seats (18 MiB)");
        progress.done(&name("seats"));
        assert_eq!(progress.words(), "it reads the sagas that go on");
    }
}
