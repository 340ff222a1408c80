//! Checks whether a store meets the needs of a run, by trying each request on an object made for the check.

use std::time::Duration;

use bytes::Bytes;

use super::{advice::advice, need::Need, refusal::Refusal, store::Store};
use crate::object::{Created, Folder, RetryPolicy, StoreError, random_name};

/// A store that does not meet the needs of a run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The store refused a request that runs need.
    #[error("the store {uri} cannot be used: it does not allow Whimbrel to {}: {advice}", need.description())]
    Lacks {
        /// The store.
        uri: String,
        /// What was tried.
        need: Need,
        /// What the refusal means.
        refusal: Refusal,
        /// What to do about it.
        advice: String,
        /// The store's answer.
        source: StoreError,
    },
    /// The store created an object that existed: two coordinators could both commit.
    #[error(
        "the store {uri} cannot be used: it replaces an object that exists when it should refuse to create it, so two coordinators could both commit; use a store that refuses (Amazon S3, Ceph, MinIO and R2 do, Garage and s3rver do not)"
    )]
    Overwrites {
        /// The store.
        uri: String,
    },
    /// The store does not return what was written to it.
    #[error("the store {uri} cannot be used: {what}")]
    Forgets {
        /// The store.
        uri: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// A policy with fewer retries and shorter deadlines: a user waits for the answer.
fn at_most(retry_policy: &RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        attempts: retry_policy.attempts.min(3),
        answer: retry_policy.answer.min(Duration::from_secs(15)),
        ..retry_policy.clone()
    }
}

impl Store {
    /// Tries all requests that a run needs: creates an object, tries to create it again, reads, lists and deletes it. The
    /// error names the permission that is missing.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let folder = self.folder().clone().with_retry_policy(at_most(self.folder().retry_policy()));
        let name = random_name().map_err(|source| self.lacks(Need::Create, source))?;
        let name = format!("whimbrel-probe-{name}");
        let body = Bytes::from(name.clone());
        folder.create(&name, body.clone()).await.map_err(|source| self.lacks(Need::Create, source))?;
        let outcome = self.try_object(&folder, &name, &body).await;
        // The object is deleted whatever the outcome.
        let deleted = folder.delete(std::slice::from_ref(&name)).await;
        outcome?;
        deleted.map_err(|source| self.lacks(Need::Delete, source))?;
        match folder.head(&name).await.map_err(|source| self.lacks(Need::LookUp, source))? {
            None => Ok(()),
            Some(_) => Err(self.forgets("an object just deleted is still there")),
        }
    }

    async fn try_object(&self, folder: &Folder, name: &str, body: &Bytes) -> Result<(), ProbeError> {
        // Other bytes, so that a store which replaces the object differs from one which compares its content.
        let other = Bytes::from(format!("{name} again"));
        let again = folder.create(name, other).await;
        if again.map_err(|source| self.lacks(Need::CreateAgain, source))? == Created::New {
            return Err(ProbeError::Overwrites { uri: self.uri().to_owned() });
        }
        let read = folder.get(name, 1 << 10).await.map_err(|source| self.lacks(Need::Read, source))?;
        if read.as_ref() != Some(body) {
            return Err(self.forgets("an object just written reads otherwise"));
        }
        folder.folders().await.map_err(|source| self.lacks(Need::List, source))?;
        Ok(())
    }

    fn forgets(&self, what: &'static str) -> ProbeError {
        ProbeError::Forgets { uri: self.uri().to_owned(), what }
    }

    fn lacks(&self, need: Need, source: StoreError) -> ProbeError {
        let refusal = Refusal::of(&source);
        let advice = advice(self.location(), self.credentials(), need, refusal);
        ProbeError::Lacks { uri: self.uri().to_owned(), need, refusal, advice, source }
    }
}
