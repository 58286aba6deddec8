//! Failpoints: named places at which a test has the host die, as kill -9 would have it.
//!
//! `FAILPOINTS` in the environment says which (the crate `fail`): `NAME=return` dies at the first
//! hit, `NAME=9*off->return` at the tenth. Without the feature `failpoints`, which is on in tests only,
//! they do nothing.
//!
//! Deliberately absent: failpoints that give errors. What a host does about those is tested with
//! components and stores that fail.

/// Ends the process at once when the failpoint of this name is set.
#[inline]
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "nothing is done"))]
pub fn failpoint(name: &'static str) {
    #[cfg(feature = "failpoints")]
    if fail::eval(name, |_| ()).is_some() {
        std::process::abort();
    }
}

/// As [`failpoint`]. When it is set with a list, `NAME=return(SUBJECT,SUBJECT)`, a call whose
/// subject is in the list does not go on and the process lives, so that a test can hold many calls
/// at one place before it kills the host.
#[cfg_attr(
    not(feature = "failpoints"),
    expect(unused_variables, clippy::unused_async, reason = "nothing is done")
)]
pub async fn failpoint_holding(name: &'static str, subject: impl FnOnce() -> String) {
    #[cfg(feature = "failpoints")]
    match fail::eval(name, |subjects| subjects) {
        Some(Some(subjects)) => {
            let subject = subject();
            if subjects.split(',').any(|held| held == subject) {
                tracing::info!(failpoint = name, subject, "call is held");
                std::future::pending::<()>().await;
            }
        }
        Some(None) => std::process::abort(),
        None => {}
    }
}

/// Sets the failpoints that `FAILPOINTS` in the environment names, until the returned value is dropped.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn set_up() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}
