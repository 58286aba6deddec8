//! A component that can be called.

use std::time::Duration;

use amends_engine::{Digest, Payload};
use wasmtime::component::InstancePre;

use crate::bindings::exports::amends::saga::{action, probe, undo};
use crate::call::guest::Guest;
use crate::call::idle::Idle;
use crate::component::check::Exports;
use crate::component::manifest::Manifest;
use crate::component::timed_checker::{TimedChecker, Unfit};
use crate::limits::meter::Meter;

/// Whether a component can read an output is checked for so long, once it is its turn: a saga waits to
/// know which component undoes a step.
pub(crate) const READ_CHECK_MAX: Duration = Duration::from_secs(1);

/// A component that was checked, compiled and described.
pub struct LoadedComponent {
    /// Of the bytes as they came.
    pub digest: Digest,
    /// What it says about itself.
    pub manifest: Manifest,
    /// The calls that it serves.
    pub exports: Exports,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// How many bytes the component had.
    pub bytes_len: usize,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) action: Option<action::GuestIndices>,
    pub(crate) undo: Option<undo::GuestIndices>,
    pub(crate) probe: Option<probe::GuestIndices>,
    pub(crate) input: Option<TimedChecker>,
    pub(crate) output: Option<TimedChecker>,
    pub(crate) idle: Idle,
    pub(crate) meter: Meter,
}

impl std::fmt::Debug for LoadedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedComponent")
            .field("digest", &self.digest)
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .finish_non_exhaustive()
    }
}

impl LoadedComponent {
    /// Whether `execute` takes this input.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why.
    pub fn takes_input(&self, input: &Payload) -> Result<(), String> {
        self.input.as_ref().map_or(Ok(()), |schema| schema.check(input))
    }

    /// Like [`Self::takes_input`], on another thread when it may take long. May be dropped at any
    /// time.
    pub(crate) async fn takes_input_aside(&self, input: &Payload) -> Result<(), String> {
        match &self.input {
            // A call has a limit of time of its own.
            Some(schema) => {
                let checked = schema.check_aside(input, Duration::MAX, Duration::MAX).await;
                checked.map_err(Unfit::into_words)
            }
            None => Ok(()),
        }
    }

    /// Like [`Self::takes_input`], for somebody who asks before a call: on another thread when it may take
    /// long, and there no longer than [`READ_CHECK_MAX`]. May be dropped at any time.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why; or that it took too long to say.
    pub async fn would_take_input(&self, input: &Payload) -> Result<(), String> {
        match &self.input {
            Some(schema) => {
                let checked = schema.check_aside(input, Duration::MAX, READ_CHECK_MAX).await;
                checked.map_err(Unfit::into_words)
            }
            None => Ok(()),
        }
    }

    /// Whether `compensate` can read this output, recorded by this or another component.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why.
    pub fn reads_output(&self, output: &Payload) -> Result<(), String> {
        self.output.as_ref().map_or(Ok(()), |schema| schema.check(output))
    }

    /// Like [`Self::reads_output`], on another thread when it may take long; there it waits for its
    /// turn, and then no longer than [`READ_CHECK_MAX`]. May be dropped at any time.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why; or that it took too long to say.
    pub async fn reads_output_aside(&self, output: &Payload) -> Result<(), String> {
        let read = self.reads_output_within(output, Duration::MAX, READ_CHECK_MAX).await;
        read.map_err(Unfit::into_words)
    }

    /// Like [`Self::reads_output_aside`], with other limits of time: for waiting for its turn, and for the
    /// check.
    pub(crate) async fn reads_output_within(
        &self,
        output: &Payload,
        wait_max: Duration,
        time_max: Duration,
    ) -> Result<(), Unfit> {
        match &self.output {
            Some(schema) => schema.check_aside(output, wait_max, time_max).await,
            None => Ok(()),
        }
    }
}
