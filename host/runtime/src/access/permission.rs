//! Roles, and what each of them lets its holder do.

use std::fmt;

use amends_engine::words;

words! {
    /// What a caller may do. Each operation of the API needs one or more permissions.
    Permission {
        /// Read everything but payloads and plugin state.
        Read = "read",
        /// See payloads and plugin state.
        Payloads = "payloads",
        /// Start sagas, send signals, hand in events.
        Start = "start",
        /// Give orders about sagas, breakers and subscriptions.
        Operate = "operate",
        /// Deploy components, rehearse them, and end canaries.
        Deploy = "deploy",
        /// Make and revoke tokens, erase, archive, import, rebuild.
        Administer = "administer",
    }
}

words! {
    /// A role, which has some of the permissions. [`Permission::Payloads`] is of no role: a token has it beside
    /// its roles.
    Role {
        /// Reads.
        Viewer = "viewer",
        /// Reads, starts and operates.
        Operator = "operator",
        /// Reads and deploys.
        Deployer = "deployer",
        /// Starts: the role of applications.
        Service = "service",
        /// Does everything.
        Admin = "admin",
    }
}

impl Role {
    const fn permissions(self) -> &'static [Permission] {
        use Permission::{Administer, Deploy, Operate, Read, Start};
        match self {
            Self::Viewer => &[Read],
            Self::Operator => &[Read, Start, Operate],
            Self::Deployer => &[Read, Deploy],
            Self::Service => &[Start],
            Self::Admin => &[Read, Start, Operate, Deploy, Administer],
        }
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Returns all permissions.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Returns the permissions of a token with these roles.
    #[must_use]
    pub fn of(roles: &[Role], payloads: bool) -> Self {
        let of_roles = roles.iter().flat_map(|role| role.permissions().iter().copied());
        of_roles.chain(payloads.then_some(Permission::Payloads)).collect()
    }

    /// Returns whether the set has a permission.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    /// Returns the permissions of this set that another set lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set has no permission.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the permissions of the set, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }

    const fn bit(permission: Permission) -> u8 {
        1 << permission as u8
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |set, permission| set | Self::bit(permission)))
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, permission) in self.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { " and " })?;
            permission.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_has_payloads_and_the_flag_adds_nothing_else() {
        for role in Role::ALL {
            let without = Permissions::of(&[*role], false);
            assert!(!without.has(Permission::Payloads), "{role}");
            let with = Permissions::of(&[*role], true);
            assert_eq!(with.without(without).iter().collect::<Vec<_>>(), [Permission::Payloads]);
        }
        assert_eq!(Permissions::of(&[Role::Admin], true), Permissions::all());
        let both = Permissions::of(&[Role::Deployer, Role::Service], false);
        assert_eq!(both.to_string(), "read and start and deploy");
    }

    #[test]
    fn a_word_is_read_as_it_is_written() {
        assert!(Role::ALL.iter().all(|role| Role::from_word(role.as_str()) == Some(*role)));
        assert_eq!(Role::from_word("Admin"), None);
    }
}
