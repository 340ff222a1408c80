//! Submits a new run: checks its spec and stores, creates its directory, starts its first term.

use whimbrel_core::{EarlierTerms, Start};
use whimbrel_plan::RunId;
use whimbrel_spec::RunSpec;
use whimbrel_store::{HostedBy, Store, TermError};

use crate::open::{
    OpenedRun,
    replicas::{Replica, open_replicas},
    submit_error::SubmitError,
};

/// Creates a run from the text of its spec and starts its first term. The driver calls it for a client's `Submit`. Not to be
/// cancelled half-way: a run that was created would be there without an answer to the client.
pub(crate) async fn submit(
    store: &Store,
    text: &str,
    hosted_by: HostedBy,
    coordinator: &str,
) -> Result<OpenedRun, SubmitError> {
    let mut spec = RunSpec::parse("the run spec", text, &[])?;
    store.probe().await?;
    let replicas = open_replicas(store, &mut spec).await?;
    let id = new_run_id(&spec.name)?;
    let dir = store.run(&id);
    let with_run = |replica: Store| Replica { store: replica.uri().to_owned(), dir: Some(replica.run(&id)) };
    let replicas = replicas.into_iter().map(with_run).collect();
    dir.create(&spec.to_toml(), hosted_by).await?;
    let term = dir.start_term_after(0, coordinator).await.map_err(|error| match error {
        TermError::Taken { coordinator, .. } => SubmitError::AdoptedByAnother { run: id, coordinator },
        error => error.into(),
    })?;
    let (start, past, warnings) = (Start::Initial, EarlierTerms::default(), Vec::new());
    Ok(OpenedRun { dir, spec, term, start, past, replicas, warnings })
}

/// An id for a new run: its name and six random characters. Also called by `whimbrel checkpoint import`.
pub fn new_run_id(name: &str) -> Result<RunId, SubmitError> {
    let random = random_characters().map_err(|error| SubmitError::Name(error.to_string()))?;
    format!("{name}-{random}").parse().map_err(|error| SubmitError::Name(format!("{error}")))
}

/// Six random characters, none of which is easily mistaken for another.
pub(crate) fn random_characters() -> Result<String, getrandom::Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
