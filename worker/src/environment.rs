//! The environment variables that the agent sets for a worker.

use std::{env, fmt, net::IpAddr, str::FromStr};

use whimbrel_client::Address;
use whimbrel_plan::{RunId, WorkerId};

/// Host and port of the coordinator.
pub const COORDINATOR: &str = "WHIMBREL_COORDINATOR";
/// The run's name.
pub const RUN: &str = "WHIMBREL_RUN";
/// The worker's number.
pub const WORKER: &str = "WHIMBREL_WORKER";
/// The token for the coordinator; not set where the coordinator does not ask for one.
pub const TOKEN: &str = "WHIMBREL_TOKEN";
/// The IP address of this machine at which the other workers reach it; loopback if not set.
pub const ADVERTISE: &str = "WHIMBREL_ADVERTISE";

/// The worker's identity, and its coordinator's address.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where the coordinator listens.
    pub coordinator: Address,
    /// The run.
    pub run: RunId,
    /// The worker.
    pub worker: WorkerId,
    /// The token for the coordinator, if it asks for one.
    pub token: Option<String>,
    /// The IP address of this machine at which the other workers reach it.
    pub advertise: IpAddr,
}

/// The process was not started as a worker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// No variable is set: most likely a person started the program.
    #[error(
        "this program is a Whimbrel worker and does not train by itself; \
         name it as `command` in a run spec and start it with `whimbrel run SPEC`"
    )]
    NotAWorker,
    /// A variable is missing, and others are set.
    #[error(
        "the environment variable {0} is not set, though {COORDINATOR} is; the agent that starts a worker sets both"
    )]
    Missing(&'static str),
    /// A variable has an invalid value.
    #[error("the environment variable {variable} is {value:?}, which is not {what}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What the value should be.
        what: &'static str,
    },
}

impl Environment {
    /// Reads the environment variables of this process.
    pub fn read() -> Result<Self, EnvironmentError> {
        Self::from_variables(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let coordinator = variable(COORDINATOR).ok_or(EnvironmentError::NotAWorker)?;
        let needed = |name| variable(name).ok_or(EnvironmentError::Missing(name));
        Ok(Self {
            coordinator: parse(COORDINATOR, coordinator, "HOST:PORT")?,
            run: parse(RUN, needed(RUN)?, "the name of a run")?,
            worker: WorkerId(parse(WORKER, needed(WORKER)?, "the number of a worker")?),
            token: variable(TOKEN),
            advertise: match variable(ADVERTISE) {
                Some(text) => parse(ADVERTISE, text, "an IP address of this machine")?,
                None => [127, 0, 0, 1].into(),
            },
        })
    }
}

fn parse<T: FromStr>(
    variable: &'static str,
    value: String,
    what: &'static str,
) -> Result<T, EnvironmentError> {
    value.parse().map_err(|_| EnvironmentError::Invalid { variable, value, what })
}

impl fmt::Debug for Environment {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("coordinator", &self.coordinator)
            .field("run", &self.run)
            .field("worker", &self.worker)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Environment::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_variables_of_an_agent_are_read() {
        let given = [(COORDINATOR, "10.0.0.1:7400"), (RUN, "char-lm-x1"), (WORKER, "3"), (TOKEN, "secret")];
        let environment = read(&given).unwrap();
        assert_eq!((environment.worker, environment.run.as_str()), (WorkerId(3), "char-lm-x1"));
        assert!(environment.advertise.is_loopback());
        assert!(!format!("{environment:?}").contains("secret"));
    }

    #[test]
    fn mistakes_name_the_variable() {
        assert_eq!(read(&[]), Err(EnvironmentError::NotAWorker));
        assert_eq!(read(&[(COORDINATOR, "x:1"), (WORKER, "1")]), Err(EnvironmentError::Missing(RUN)));
        let given = [(COORDINATOR, "x"), (RUN, "r"), (WORKER, "1")];
        let error = read(&given).unwrap_err().to_string();
        assert_eq!(error, "the environment variable WHIMBREL_COORDINATOR is \"x\", which is not HOST:PORT");
        let given = [(COORDINATOR, "x:1"), (RUN, "r"), (WORKER, "w1")];
        let error = read(&given).unwrap_err().to_string();
        assert_eq!(
            error,
            "the environment variable WHIMBREL_WORKER is \"w1\", which is not the number of a worker"
        );
    }
}
