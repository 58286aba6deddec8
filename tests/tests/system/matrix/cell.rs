//! The cells of the matrix: which step of which shape has which trouble, which way. Each is a
//! definition of its own.

use std::fmt::Write as _;

use amends_tests::{Behaviour, Component, Fault, FaultKind};

/// Attempts of a call that comes through in the end: more than faults need, because on a busy
/// machine the attempt after a timeout may also run out of time.
const ATTEMPTS: u32 = 8;

/// Attempts of a call that fails for ever.
const ATTEMPTS_FOR_EVER: u32 = 2;

/// The timeout of a call that never ends.
const TIMEOUT: &str = "200ms";

/// The timeout of every other call: one that no machine is too busy for.
const TIMEOUT_NEVER: &str = "10m";

/// The step of [`Layout::List`] that runs over a list.
const LIST_STEP: &str = "each";

/// The step of [`Layout::Child`] that runs a saga.
pub(super) const CHILD_STEP: &str = "k";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Execute,
    Compensate,
}

impl Direction {
    pub(super) const ALL: [Self; 2] = [Self::Execute, Self::Compensate];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
        }
    }

    /// A component that has `behaviour` this way and its effect the other way.
    pub(super) fn component(self, name: &str, behaviour: Behaviour) -> Component<'_> {
        let good = Component {
            name,
            execute: Behaviour::Effect,
            compensate: Behaviour::Effect,
            ..Component::default()
        };
        match self {
            Self::Execute => Component { execute: behaviour, ..good },
            Self::Compensate => Component { compensate: behaviour, ..good },
        }
    }
}

/// A step that calls a component, and those that come before it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    after: &'static [&'static str],
    /// Whether it belongs to the saga that step [`CHILD_STEP`] runs.
    pub(super) is_in_child: bool,
}

const fn step(name: &'static str, after: &'static [&'static str]) -> Step {
    Step { name, after, is_in_child: false }
}

const fn child_step(name: &'static str, after: &'static [&'static str]) -> Step {
    Step { name, after, is_in_child: true }
}

/// How the steps of a shape are written as a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each as a step.
    Graph,
    /// In a chain, some of them in a saga of their own, which [`CHILD_STEP`] runs.
    Child,
    /// Each as a step, but for the elements of [`LIST_STEP`], which are one.
    List,
}

/// A graph of steps.
#[derive(Debug)]
pub(super) struct Shape {
    name: &'static str,
    pub(super) layout: Layout,
    /// In an order in which they may run.
    pub(super) steps: &'static [Step],
}

pub(super) const SHAPES: [Shape; 4] = [
    Shape {
        name: "serial",
        layout: Layout::Graph,
        steps: &[step("a", &[]), step("b", &["a"]), step("c", &["b"])],
    },
    Shape {
        name: "diamond",
        layout: Layout::Graph,
        steps: &[step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"])],
    },
    Shape {
        name: "child",
        layout: Layout::Child,
        steps: &[
            step("p", &[]),
            child_step("a", &["p"]),
            child_step("b", &["a"]),
            step("q", &["b"]),
        ],
    },
    Shape {
        name: "list",
        layout: Layout::List,
        steps: &[
            step("p", &[]),
            step("each[0]", &["p"]),
            step("each[1]", &["p"]),
            step("each[2]", &["p"]),
            step("q", &["each[0]", "each[1]", "each[2]"]),
        ],
    },
];

/// The number of an element, by its name; none: it is a step of a definition.
fn element(step: &str) -> Option<u8> {
    step.strip_prefix(LIST_STEP)?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl Shape {
    pub(super) fn step(&self, name: &str) -> &Step {
        self.steps.iter().find(|step| step.name == name).unwrap()
    }

    /// Whether `first` must be done before `then`.
    pub(super) fn is_before(&self, first: &str, then: &str) -> bool {
        self.step(then).after.iter().any(|name| *name == first || self.is_before(first, name))
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The component fails.
    Fails(Fault),
    /// The host is killed when the call is durable and the component not yet called.
    KilledBefore,
    /// The host is killed while the component runs, after its effect.
    KilledDuring,
    /// The host is killed when the component has answered and the outcome is not recorded.
    KilledAfter,
}

impl Trouble {
    pub(super) const KILLS: [Self; 3] = [Self::KilledBefore, Self::KilledDuring, Self::KilledAfter];

    /// Each kind of fault: once and for ever, before and after the effect, where that can be.
    pub(super) fn faults() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in [FaultKind::Retryable, FaultKind::Permanent, FaultKind::Spin, FaultKind::Trap] {
            // A component that says how it failed says that no effect stands.
            let is_silent = matches!(kind, FaultKind::Spin | FaultKind::Trap);
            for attempts in [1, u32::MAX] {
                for has_effect in [false, true] {
                    let is_final = attempts == u32::MAX;
                    if has_effect && !is_silent || kind == FaultKind::Permanent && !is_final {
                        continue;
                    }
                    let fault = Fault { kind, attempts, has_effect, element: None };
                    all.push(Self::Fails(fault));
                }
            }
        }
        all
    }

    fn name(self) -> String {
        match self {
            Self::Fails(Fault { kind, attempts, has_effect, .. }) => {
                let kind = match kind {
                    FaultKind::Retryable => "retryable",
                    FaultKind::Permanent => "permanent",
                    FaultKind::Spin => "timeout",
                    FaultKind::Trap => "trap",
                };
                let often = if attempts == 1 { "once" } else { "ever" };
                let when = if has_effect { "-late" } else { "" };
                format!("{kind}-{often}{when}")
            }
            Self::KilledBefore => "killed-before".to_owned(),
            Self::KilledDuring => "killed-during".to_owned(),
            Self::KilledAfter => "killed-after".to_owned(),
        }
    }

    /// Of the plugin of `step`; where that is an element, of that alone.
    pub(super) fn behaviour(self, step: &str) -> Behaviour {
        let element = element(step);
        match self {
            Self::Fails(fault) => Behaviour::Fault(Fault { element, ..fault }),
            Self::KilledBefore | Self::KilledAfter => Behaviour::Effect,
            Self::KilledDuring => {
                let (kind, attempts, has_effect) = (FaultKind::Spin, 1, true);
                Behaviour::Fault(Fault { kind, attempts, has_effect, element })
            }
        }
    }

    pub(super) fn is_kill(self) -> bool {
        !matches!(self, Self::Fails(_))
    }

    /// Whether the call never succeeds.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Fails(Fault { attempts: u32::MAX, .. }))
    }

    /// Whether the component has its effect before it fails.
    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Fails(Fault { has_effect: true, .. }))
    }

    pub(super) fn is_permanent(self) -> bool {
        matches!(self, Self::Fails(Fault { kind: FaultKind::Permanent, .. }))
    }

    pub(super) fn is_timeout(self) -> bool {
        matches!(self, Self::Fails(Fault { kind: FaultKind::Spin, .. }))
    }

    /// Whether the host cannot know what came of it.
    pub(super) fn is_unknown(self) -> bool {
        match self {
            Self::Fails(Fault { kind, .. }) => matches!(kind, FaultKind::Spin | FaultKind::Trap),
            Self::KilledBefore | Self::KilledDuring | Self::KilledAfter => true,
        }
    }
}

/// How a cell's saga must come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Completed,
    Compensated,
    /// The undo of the step does not succeed.
    Blocked,
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) shape: &'static Shape,
    /// The step that has trouble.
    pub(super) step: &'static str,
    pub(super) direction: Direction,
    pub(super) trouble: Trouble,
}

impl Cell {
    pub(super) fn all(troubles: &[Trouble]) -> Vec<Self> {
        let mut cells = Vec::new();
        for shape in &SHAPES {
            for step in shape.steps {
                for direction in Direction::ALL {
                    let cell = |trouble: &Trouble| Self {
                        shape,
                        step: step.name,
                        direction,
                        trouble: *trouble,
                    };
                    cells.extend(troubles.iter().map(cell));
                }
            }
        }
        cells
    }

    /// Of its definition.
    pub(super) fn name(&self) -> String {
        let Self { shape, step, direction, trouble } = self;
        // A definition has no brackets in its name.
        let step = step.replace(['[', ']'], "");
        format!("{}-{step}-{}-{}", shape.name, direction.word(), trouble.name())
    }

    fn child_name(&self) -> String {
        format!("{}-child", self.name())
    }

    pub(super) fn rest(&self) -> Rest {
        match (self.direction, self.trouble.is_final()) {
            (Direction::Execute, false) => Rest::Completed,
            (Direction::Execute, true) | (Direction::Compensate, false) => Rest::Compensated,
            (Direction::Compensate, true) => Rest::Blocked,
        }
    }

    pub(super) fn is_in_child(&self) -> bool {
        self.shape.step(self.step).is_in_child
    }

    /// Whether `step` may run while the one that has trouble does.
    pub(super) fn is_beside(&self, step: &str) -> bool {
        step != self.step
            && !self.shape.is_before(step, self.step)
            && !self.shape.is_before(self.step, step)
    }

    /// Whether `step` is another element of the step over a list that has trouble: it has the
    /// same component, timeout and attempts.
    pub(super) fn is_sibling(&self, step: &str) -> bool {
        step != self.step && element(step).is_some() && element(self.step).is_some()
    }

    /// The plugin of the step that has trouble.
    pub(super) fn plugin(&self) -> String {
        let element = element(self.step).map_or_else(String::new, |number| format!("-{number}"));
        format!("{}-{}{element}", self.direction.word(), self.trouble.name())
    }

    /// `DEFINITION.STEP.DIRECTION.ATTEMPT` of the call that has trouble first, as failpoints name
    /// it.
    pub(super) fn subject(&self) -> String {
        let definition = if self.is_in_child() { self.child_name() } else { self.name() };
        format!("{definition}.{}.{}.1", self.step, self.direction.word())
    }

    /// The config of its definition, and of the one that its step runs. What is to be undone is
    /// undone because a last step, `refuse`, fails.
    pub(super) fn config(&self) -> String {
        let mut text = format!("[[saga]]\nname = \"{}\"\n", self.name());
        let mut child = String::new();
        for step in self.shape.steps {
            // The first element is written for all of them.
            if element(step.name).is_some_and(|number| number > 0) {
                continue;
            }
            if !step.is_in_child {
                self.write_step(&mut text, step);
                continue;
            }
            if child.is_empty() {
                let name = self.child_name();
                let _ = writeln!(child, "[[saga]]\nname = \"{name}\"");
                let _ = writeln!(text, "[[saga.step]]\nname = \"{CHILD_STEP}\"\nsaga = \"{name}\"");
            }
            self.write_step(&mut child, step);
        }
        if self.direction == Direction::Compensate {
            let last = self.shape.steps.last().unwrap().name;
            let _ = writeln!(
                text,
                "[[saga.step]]\nname = \"refuse\"\nplugin = \"refuse\"\nafter = [\"{last}\"]\n\
                 undo = false"
            );
        }
        text + &child
    }

    fn write_step(&self, text: &mut String, step: &Step) {
        let is_target = step.name == self.step || self.is_sibling(step.name);
        let plugin = if is_target { self.plugin() } else { "good".to_owned() };
        let has_trouble = |direction| is_target && direction == self.direction;
        let attempts = |direction| {
            let is_final = has_trouble(direction) && self.trouble.is_final();
            if is_final { ATTEMPTS_FOR_EVER } else { ATTEMPTS }
        };
        let timeout = |direction| {
            let is_short = has_trouble(direction) && self.trouble.is_timeout();
            if is_short { TIMEOUT } else { TIMEOUT_NEVER }
        };
        let _ = writeln!(
            text,
            "[[saga.step]]\nname = \"{}\"\nplugin = \"{plugin}\"\ntimeout = \"{}\"\n\
             retry = {{ attempts = {}, backoff = [\"10ms\"] }}\n\
             undo = {{ timeout = \"{}\", retry = {{ attempts = {}, backoff = [\"10ms\"] }} }}",
            step.name.split('[').next().unwrap(),
            timeout(Direction::Execute),
            attempts(Direction::Execute),
            timeout(Direction::Compensate),
            attempts(Direction::Compensate),
        );
        if is_target && self.trouble.is_timeout() {
            text.push_str("service = \"slow\"\n");
        }
        match self.shape.layout {
            Layout::Graph => {
                let _ = writeln!(text, "after = {:?}", step.after);
            }
            Layout::List if element(step.name).is_some() => text.push_str("each = \"[7, 8, 9]\"\n"),
            // The step before is the default.
            Layout::Child | Layout::List => {}
        }
    }
}
