//! What a component is believed that finds out what became of a call.

use std::time::{Duration, Instant};

use amends_engine::{Direction, Failure, Fate, Outcome};
use amends_sandbox::PluginCall;
use amends_tests::{Behaviour, Component};

use crate::host::Place;

/// Long enough that nothing here takes as long.
const LONG: Duration = Duration::from_secs(100);

const SHORT: Duration = Duration::from_millis(100);

/// A component that looks and finds nothing does not know of a request that is still on its way.
#[tokio::test]
async fn that_a_call_did_not_happen_is_told_when_its_timeout_has_passed_since_it_ran() {
    for (execute, timeout, fate) in
        [(Behaviour::Trap, LONG, Fate::Unclear), (Behaviour::Spin, SHORT, Fate::DidNotHappen)]
    {
        let place = Place::new();
        let world = "step-probe";
        place.write("test", &Component { world, execute, ..Component::default() }.build());
        let host = place.open().await;
        let call = PluginCall { timeout, ..host.call(Direction::Execute) };
        let answer = host.plugins.call(&call).await;
        assert_eq!(answer.fate, Some(fate), "{answer:?}");
        match (fate, answer.outcome) {
            (Fate::Unclear, Outcome::Unknown(failure)) => {
                assert!(failure.message.contains("believed when"), "{failure:?}");
            }
            (Fate::DidNotHappen, Outcome::Retryable(_)) => {}
            (fate, outcome) => panic!("{fate:?}: {outcome:?}"),
        }
        // One that was cut off with its host ran before that.
        let ask = async |cut_off| {
            let unknown = Failure::new("host_stopped", "the host stopped");
            host.plugins.ask(&call, unknown, None, cut_off).await.fate
        };
        assert_eq!(ask(None).await, Some(Fate::DidNotHappen), "it is over");
        tokio::time::sleep(SHORT).await;
        let cut_off = Some(Instant::now().checked_sub(SHORT).unwrap());
        assert_eq!(ask(cut_off).await, Some(fate), "it was cut off {SHORT:?} ago");
        host.close().await;
    }
}
