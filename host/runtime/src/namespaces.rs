//! The namespaces of a host: what each is called, and which of them somebody may see.
//!
//! A namespace is a store and a [`crate::Host`] of its own. So nothing here filters anything: a host never meets
//! what belongs to another namespace.

use std::collections::BTreeSet;
use std::fmt;

use amends_engine::NamespaceName;

/// The name of the namespace that every host has: what the config says at its top.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The word for all namespaces, those that are added later among them.
const ALL_NAMESPACES: &str = "*";

/// The namespaces that somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All of them, also those that are added later.
    All,
    /// These, by name.
    These(BTreeSet<String>),
}

impl Default for Namespaces {
    /// `default` alone.
    fn default() -> Self {
        Self::These(BTreeSet::from([DEFAULT_NAMESPACE.to_owned()]))
    }
}

impl Namespaces {
    /// Reads names, or `*` for all. Without any it is `default` alone.
    ///
    /// # Errors
    /// The first text that is no name.
    pub fn read(names: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        if names.iter().any(|name| name == ALL_NAMESPACES) {
            return Ok(Self::All);
        }
        let wrong = names.iter().find(|name| name.parse::<NamespaceName>().is_err());
        match wrong {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(Self::These(names.iter().cloned().collect())),
        }
    }

    /// Returns whether a namespace is among them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }

    /// Returns the only one, if it is one.
    #[must_use]
    pub fn only(&self) -> Option<&str> {
        match self {
            Self::These(names) if names.len() == 1 => names.first().map(String::as_str),
            Self::All | Self::These(_) => None,
        }
    }

    /// Returns these and the others together.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        match (self, others) {
            (Self::These(mut names), Self::These(others)) => {
                names.extend(others);
                Self::These(names)
            }
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    /// Returns the names as they are written: `*` for all of them.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::All => vec![ALL_NAMESPACES.to_owned()],
            Self::These(names) => names.iter().cloned().collect(),
        }
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn read(names: &[&str]) -> Result<Namespaces, String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Namespaces::read(&names)
    }

    #[test]
    fn names_are_read_and_none_means_default() {
        let none = read(&[]).unwrap();
        assert_eq!((none.has("default"), none.has("shop")), (true, false));
        assert_eq!(none.only(), Some("default"));
        let two = read(&["shop", "billing"]).unwrap();
        assert_eq!((two.has("default"), two.has("shop"), two.only()), (false, true, None));
        assert_eq!(two.to_string(), "billing, shop");
        let all = read(&["shop", "*"]).unwrap();
        assert_eq!((all.has("later"), all.only(), all.words()), (true, None, vec!["*".to_owned()]));
        for wrong in ["Shop", "a b", "", "-a"] {
            assert_eq!(read(&["shop", wrong]), Err(wrong.to_owned()));
        }
    }

    #[test]
    fn those_of_several_groups_add_up() {
        let shop = read(&["shop"]).unwrap();
        let both = shop.clone().with(read(&["billing"]).unwrap());
        assert_eq!(both.words(), ["billing", "shop"]);
        assert_eq!(shop.clone().with(Namespaces::All), Namespaces::All);
        assert_eq!(Namespaces::All.with(shop), Namespaces::All);
    }
}
