use std::time::Instant;

use fnmesh_invoke::{Error, FunctionId, Retry};

use super::{Choice, Local, RetryBudget};
use crate::NodeId;

/// To how many peers one call is sent at most.
const ATTEMPTS: usize = 3;

/// What became of one call so far.
#[derive(Debug, Default)]
pub struct Attempts {
    tried: Vec<NodeId>,
    last: Option<Error>,
}

impl Attempts {
    /// Where to run the call next, of a function for which this node is `room`; `choose` is asked given the peers that
    /// failed it. `None`: nothing is left to try, [`Self::end`] says why.
    pub fn next(
        &mut self,
        budget: &mut RetryBudget,
        room: Local,
        now: Instant,
        choose: impl FnOnce(&[NodeId]) -> Option<Choice>,
    ) -> Option<Choice> {
        let is_over = self.tried.len() >= ATTEMPTS || (self.last.is_some() && !budget.retry(now));
        let choice = if is_over { None } else { choose(&self.tried) };
        // A call that peers refused may still wait here.
        choice.or_else(|| matches!(room, Local::Saturated(_)).then_some(Choice::Here))
    }

    /// The call failed at `peer`, and [`may_retry`].
    pub fn failed(&mut self, peer: NodeId, error: Error) {
        self.tried.push(peer);
        self.last = Some(error);
    }

    /// Why the call of `function` ends when nothing is left to try.
    pub fn end(self, function: &FunctionId) -> Error {
        self.last.unwrap_or_else(|| Error::PeerUnreachable {
            peer: "any".to_owned(),
            reason: format!("no node in reach serves {function} any more"),
        })
    }
}

/// Whether a call that failed so may be sent to another peer: the function did not run, or the caller said that running
/// it twice is running it once.
pub fn may_retry(error: &Error, is_idempotent: bool) -> bool {
    match error.retry() {
        Retry::Safe => true,
        // What the function itself raised is an answer, and a deadline is over for every peer.
        Retry::IfIdempotent => {
            let is_lost = matches!(error, Error::OutcomeUnknown { .. } | Error::InstanceLost { .. });
            is_lost && is_idempotent
        }
        Retry::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fnmesh_invoke::Failure;

    use super::*;
    use crate::membership::Load;

    fn function() -> FunctionId {
        FunctionId { app: "shop".into(), name: "add".into() }
    }

    fn id(node: u8) -> NodeId {
        NodeId::from_bytes([node; 16])
    }

    #[test]
    fn a_call_that_may_have_run_is_sent_again_with_a_key_alone() {
        let lost = Error::OutcomeUnknown { function: function(), peer: "n2".into(), reason: "gone".into() };
        let crashed = Error::InstanceLost { function: function(), reason: "signal 9".into() };
        for error in [lost, crashed] {
            assert!(may_retry(&error, true) && !may_retry(&error, false), "{error}");
        }
        for error in [Error::Draining, Error::PeerUnreachable { peer: "n2".into(), reason: "no link".into() }] {
            assert!(may_retry(&error, true) && may_retry(&error, false), "{error}");
        }
        let late = Error::DeadlineExceeded { function: function(), timeout: Duration::from_secs(1) };
        for error in [late, Error::FunctionFailed(Box::<Failure>::default()), Error::invalid("no")] {
            assert!(!may_retry(&error, true), "{error}");
        }
    }

    #[test]
    fn three_peers_are_tried_and_then_the_own_queue() {
        let now = Instant::now();
        for room in [Local::Absent, Local::Saturated(Load(20))] {
            let (mut attempts, mut budget) = (Attempts::default(), RetryBudget::new(now));
            for peer in 1..=3 {
                let choice = attempts.next(&mut budget, room, now, |tried| {
                    assert_eq!(tried.len(), usize::from(peer) - 1);
                    Some(Choice::Peer(id(peer)))
                });
                assert_eq!(choice, Some(Choice::Peer(id(peer))));
                attempts.failed(id(peer), Error::Draining);
            }
            let choice = attempts.next(&mut budget, room, now, |_| panic!("enough"));
            assert_eq!(choice, (room != Local::Absent).then_some(Choice::Here));
            assert!(matches!(attempts.end(&function()), Error::Draining));
        }
    }

    #[test]
    fn a_spent_budget_ends_a_call_after_its_first_peer() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        while budget.retry(now) {}
        let mut attempts = Attempts::default();
        assert_eq!(
            attempts.next(&mut budget, Local::Absent, now, |_| Some(Choice::Peer(id(1)))),
            Some(Choice::Peer(id(1)))
        );
        attempts.failed(id(1), Error::Draining);
        assert_eq!(attempts.next(&mut budget, Local::Absent, now, |_| panic!("no budget")), None);
    }

    #[test]
    fn a_call_that_nobody_serves_says_so() {
        let end = Attempts::default().end(&function());
        assert_eq!(end.to_string(), "peer any cannot be reached: no node in reach serves shop/add any more");
    }
}
