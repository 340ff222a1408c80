//! The border between the coordinator's commands and the worker's requests.

use whimbrel_member::Request;
use whimbrel_plan::{Generation, RunId, WorkerId};
use whimbrel_proto::{
    border::WireError,
    v1::{self, worker_command::Command},
};

/// What a generation must contain to be meant for this worker.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) run: RunId,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: u64,
    pub(crate) shards: u32,
}

impl Expected {
    /// Checks a command. `None` for a heartbeat, which requests nothing.
    pub(crate) fn request(&self, command: v1::WorkerCommand) -> Result<Option<Request>, WireError> {
        Ok(Some(match command.command.ok_or(WireError::Missing("command"))? {
            Command::Heartbeat(v1::CoordinatorHeartbeat {}) => return Ok(None),
            Command::Generation(generation) => Request::Generation(self.check(generation.try_into()?)?),
            Command::Ask(v1::Ask { generation, checkpoint, halt }) => {
                Request::Ask { generation, checkpoint, halt }
            }
            Command::Interrupt(v1::Interrupt { generation }) => Request::Interrupt { generation },
            Command::Leave(v1::Leave { reason }) => Request::Leave { reason },
            Command::Welcome(_) => return Err(WireError::Invalid("command", "a second welcome".into())),
        }))
    }

    fn check(&self, generation: Generation) -> Result<Generation, WireError> {
        let invalid = |field, found: String| Err(WireError::Invalid(field, found));
        if generation.run != self.run {
            return invalid("generation.run", format!("{}, not {}", generation.run, self.run));
        }
        if generation.epoch != self.epoch {
            return invalid("generation.epoch", format!("{}, not {}", generation.epoch, self.epoch));
        }
        if generation.shards != self.shards {
            return invalid("generation.shards", format!("{}, not {}", generation.shards, self.shards));
        }
        if generation.rank_of(self.worker).is_none() {
            return invalid("generation.members", format!("without {}, to whom it was sent", self.worker));
        }
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::{Member, Origin};

    use super::*;

    fn expected() -> Expected {
        Expected { run: "r".parse().unwrap(), worker: WorkerId(7), epoch: 2, shards: 4 }
    }

    fn generation(epoch: u64) -> v1::WorkerCommand {
        let address = ([127, 0, 0, 1], 1).into();
        let member = Member { worker: WorkerId(7), address, share: 4, holds: None };
        let (run, origin, key) = ("r".parse().unwrap(), Origin::Initial, [0; 32]);
        let generation = Generation { run, epoch, number: 1, shards: 4, origin, members: vec![member], key };
        v1::WorkerCommand { command: Some(Command::Generation((&generation).into())) }
    }

    #[test]
    fn a_generation_for_this_worker_is_a_request_and_a_heartbeat_is_none() {
        let request = expected().request(generation(2)).unwrap();
        assert!(matches!(request, Some(Request::Generation(generation)) if generation.number == 1));
        let command = Some(Command::Heartbeat(v1::CoordinatorHeartbeat {}));
        assert_eq!(expected().request(v1::WorkerCommand { command }).unwrap(), None);
    }

    #[test]
    fn a_command_that_is_not_meant_for_this_worker_is_an_error() {
        let error = expected().request(generation(1)).unwrap_err().to_string();
        assert_eq!(error, "field generation.epoch is 1, not 2");
        assert!(expected().request(v1::WorkerCommand { command: None }).is_err());
        let stranger = Expected { worker: WorkerId(8), ..expected() };
        let error = stranger.request(generation(2)).unwrap_err().to_string();
        assert_eq!(error, "field generation.members is without w8, to whom it was sent");
    }
}
