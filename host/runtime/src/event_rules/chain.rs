//! The rules of a chain of sagas, each of which was started by a domain event of the one before.

use std::collections::BTreeSet;
use std::fmt;

use crate::limits::{EVENT_DEPTH_MAX, EVENT_REPEATS_MAX};

/// What stands between two rules; no name has it.
const SEPARATOR: char = '/';

/// The rules that started the sagas of a chain, in order. As a text it is the value of the tag
/// [`super::EVENT_CHAIN_TAG`], of at most 16 names of 63 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EventChain(String);

impl EventChain {
    /// Reads the chain of a saga from its tag. A saga without the tag is the first.
    pub(crate) fn of_tag(tag: Option<&String>) -> Self {
        Self(tag.cloned().unwrap_or_default())
    }

    /// Returns the chain with one more saga. None when it would be too long, or when its rules would come
    /// again too often: a saga that emits several events would have the chain branch, so a circle ends long
    /// before the length does.
    pub(crate) fn with(&self, rule: &str) -> Option<Self> {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(SEPARATOR);
        }
        text.push_str(rule);
        let length = text.split(SEPARATOR).count();
        let repeats = length - text.split(SEPARATOR).collect::<BTreeSet<_>>().len();
        (length <= EVENT_DEPTH_MAX && repeats <= EVENT_REPEATS_MAX).then_some(Self(text))
    }
}

impl fmt::Display for EventChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(rules: &[&str]) -> Option<String> {
        let chain = rules.iter().try_fold(EventChain::default(), |chain, rule| chain.with(rule));
        chain.map(|chain| chain.to_string())
    }

    #[test]
    fn a_chain_ends_when_it_is_long_or_its_rules_come_again() {
        assert_eq!(chain(&["a"]).as_deref(), Some("a"));
        assert_eq!(chain(&["a", "ab", "a", "b", "a"]).as_deref(), Some("a/ab/a/b/a"));
        assert_eq!(chain(&["a", "a", "a"]).as_deref(), Some("a/a/a"));
        assert_eq!(chain(&["a", "a", "a", "a"]), None);
        assert_eq!(chain(&["a", "b", "a", "b"]).as_deref(), Some("a/b/a/b"));
        assert_eq!(chain(&["a", "b", "a", "b", "a"]), None);
        let names: Vec<String> = (0..=EVENT_DEPTH_MAX).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(chain(&names[1..]).is_some());
        assert_eq!(chain(&names), None);
    }
}
