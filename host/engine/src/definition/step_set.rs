//! Sets of steps.

/// The most steps of a definition: a set of steps has 128 bits.
pub const STEPS_MAX: usize = 128;

/// A set of steps of one definition, by their indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct StepSet(u128);

const _: () = assert!(STEPS_MAX <= 128, "a step set has 128 bits");

impl StepSet {
    pub(crate) const fn contains(self, step: usize) -> bool {
        self.0 >> step & 1 == 1
    }

    pub(crate) const fn with(self, step: usize) -> Self {
        Self(self.0 | 1 << step)
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let step = rest.trailing_zeros() as usize;
            rest &= rest.checked_sub(1)?;
            Some(step)
        })
    }
}
