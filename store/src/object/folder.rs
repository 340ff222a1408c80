//! Requests to a folder of an object store: each with a deadline, retried where that is safe, named in its error.
//!
//! Everything this crate asks of a store goes through here, so that nothing waits for ever and every failure says what
//! was tried, and on which object.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, path::Path,
};
use tokio::time::timeout;

use crate::{
    checkpoint::Limits,
    location::uri,
    object::{
        buffers::Buffers,
        pace::{Pace, Way},
        retry::{Failure, Retry, RetryPolicy},
    },
};

/// A request that a store did not grant, after all attempts.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store answered, and the answer is no.
    #[error("cannot {verb} {object}")]
    Refused {
        /// What was tried, e.g. `read`.
        verb: &'static str,
        /// The object's URI.
        object: String,
        /// What the store said.
        source: Error,
    },
    /// The store did not answer.
    #[error(
        "cannot {verb} {object}: no answer within {deadline:?}, the deadline for it, in any of {attempts} attempts"
    )]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// The object's URI.
        object: String,
        /// How long each attempt was given.
        deadline: Duration,
        /// How many were made.
        attempts: u32,
    },
    /// An object is not what it should be by its length alone, and was not read.
    #[error(
        "{object} is {length} bytes long, and nothing of its kind has more than {most}: it was overwritten"
    )]
    TooLong {
        /// The object's URI.
        object: String,
        /// Its length.
        length: u64,
        /// The most that one like it may have.
        most: u64,
    },
    /// The operating system has no random numbers to give.
    #[error("cannot draw the random name of a write")]
    Random(#[source] getrandom::Error),
    /// The runtime is shutting down under the request, or the work has panicked, which is a defect.
    #[error("the work on {object} was cut off")]
    CutOff {
        /// The object's URI.
        object: String,
        /// How it ended.
        source: tokio::task::JoinError,
    },
}

/// What became of a create-only put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is there now, by this put.
    New,
    /// The store says that an object of the name was there. It may be this very put's doing (the answer to an earlier
    /// attempt was lost), and on S3 it may be gone again (a racing put failed after it had blocked this one): look.
    Taken,
}

/// An object in a listing.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Its name within the folder.
    pub(crate) name: String,
    /// Length and time of last modification, by the store's clock.
    pub(crate) meta: ObjectMeta,
}

/// A folder in an object store. Names are relative to it, with `/` between segments.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    uri: Arc<str>,
    retry_policy: RetryPolicy,
    pace: Arc<Pace>,
    buffers: Buffers,
}

impl Folder {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        root: Path,
        uri: &str,
        retry_policy: RetryPolicy,
    ) -> Self {
        let (pace, buffers) = (Arc::new(Pace::new()), Buffers::default());
        Self { objects, root, uri: uri.into(), retry_policy, pace, buffers }
    }

    /// The folder `segment` in this one.
    pub(crate) fn inside(&self, segment: &str) -> Self {
        Self { root: self.at(segment), uri: self.uri_of(segment).into(), ..self.clone() }
    }

    pub(crate) fn with_retry_policy(self, retry_policy: RetryPolicy) -> Self {
        Self { retry_policy, ..self }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    pub(crate) fn uri_of(&self, name: &str) -> String {
        uri::inside(&self.uri, name)
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.retry_policy
    }

    /// The pace of the store, which all folders in it share.
    pub(crate) fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// Memory for what comes from the store, which all folders in it share.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) fn retry(&self, verb: &'static str, name: &str) -> Retry {
        Retry::new(&self.retry_policy, verb, self.uri_of(name))
    }

    fn at(&self, name: &str) -> Path {
        self.root.parts().chain(Path::from(name).parts()).collect()
    }

    fn relative(&self, location: &Path) -> Option<String> {
        let parts: Vec<_> = location.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
        Some(parts.join("/"))
    }

    /// Makes `attempt` until it succeeds, fails for good, or retry_policy is at its end.
    async fn request<T, F>(
        &self,
        verb: &'static str,
        name: &str,
        deadline: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut retry = self.retry(verb, name);
        loop {
            match in_time(deadline, attempt()).await {
                Ok(value) => return Ok(value),
                Err(failure) => retry.after(failure).await?,
            }
        }
    }

    /// Puts an object unless one of the name is there.
    pub(crate) async fn create(
        &self,
        name: &str,
        body: impl Into<PutPayload>,
    ) -> Result<Created, StoreError> {
        let body = body.into();
        match self.put_as("create", name, body, PutMode::Create).await {
            Ok(()) => Ok(Created::New),
            Err(StoreError::Refused { source: Error::AlreadyExists { .. }, .. }) => Ok(Created::Taken),
            Err(error) => Err(error),
        }
    }

    /// Puts an object, over any that is there. Only for what is the same bytes whoever writes it.
    pub(crate) async fn replace(&self, name: &str, body: impl Into<PutPayload>) -> Result<(), StoreError> {
        self.put_as("write", name, body.into(), PutMode::Overwrite).await
    }

    async fn put_as(
        &self,
        verb: &'static str,
        name: &str,
        body: PutPayload,
        mode: PutMode,
    ) -> Result<(), StoreError> {
        let at = self.at(name);
        let deadline = self.retry_policy.transfer(body.content_length() as u64);
        let attempt = || {
            let options = PutOptions::from(mode.clone());
            self.objects.put_opts(&at, body.clone(), options)
        };
        self.request(verb, name, deadline, attempt).await.map(|_| ())
    }

    /// Puts a pack, as [`create`](Self::create) or [`replace`](Self::replace) does, when it is its turn: with no more
    /// transfers at a time, and no more bytes a second, than pays and `limits` allow.
    pub(crate) async fn put_pack(
        &self,
        name: &str,
        body: PutPayload,
        mode: PutMode,
        limits: &Limits,
    ) -> Result<Created, StoreError> {
        let (at, bytes) = (self.at(name), body.content_length() as u64);
        let verb = if mode == PutMode::Create { "create" } else { "write" };
        let mut retry = self.retry(verb, name);
        loop {
            let _permit = self.pace.enter(Way::Up, limits.concurrency).await;
            self.pace.afford(bytes, limits.bandwidth).await;
            let began = self.pace.begin();
            let deadline = self.deadline_of_put(bytes);
            let options = PutOptions::from(mode.clone());
            match in_time(deadline, self.objects.put_opts(&at, body.clone(), options)).await {
                Ok(_) => {
                    self.pace.succeeded(Way::Up, began, bytes);
                    return Ok(Created::New);
                }
                Err(Failure::Error(Error::AlreadyExists { .. })) => return Ok(Created::Taken),
                Err(failure) => {
                    if failure.is_push_back() {
                        self.pace.pushed_back(Way::Up, began);
                    }
                    retry.after(failure).await?;
                }
            }
        }
    }

    /// How long an attempt to put so many bytes may take, by how fast the store has been lately.
    pub(crate) fn deadline_of_put(&self, bytes: u64) -> Duration {
        self.retry_policy.answer + self.pace.allowance(Way::Up, bytes, self.retry_policy.slowest)
    }

    /// Begins to read an object, or a range of it: one attempt. The body is read by whoever asked for it.
    pub(crate) async fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<GetResult, Failure> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        in_time(self.retry_policy.answer, self.objects.get_opts(&self.at(name), options)).await
    }

    /// Reads an object whole; `None` if there is none. One that is longer than `most` bytes, which is far more than any of
    /// its kind that this program writes, is not read, so a damaged store cannot make this fill the memory.
    pub(crate) async fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        let at = self.at(name);
        let deadline = self.retry_policy.transfer(SMALL.min(most));
        let attempt = async || {
            let found = self.objects.get(&at).await?;
            let length = found.meta.size;
            if length > most { Ok(Err(length)) } else { found.bytes().await.map(Ok) }
        };
        let too_long = |length| StoreError::TooLong { object: self.uri_of(name), length, most };
        found(self.request("read", name, deadline, attempt).await)?.transpose().map_err(too_long)
    }

    /// Length and time of an object; `None` if there is none.
    pub(crate) async fn head(&self, name: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let at = self.at(name);
        found(self.request("look up", name, self.retry_policy.answer, || self.objects.head(&at)).await)
    }

    /// All objects under `prefix`, in no order. A listing may lag behind: what it lacks may be there all the same.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let at = self.at(prefix);
        // A page of a thousand objects is an answer; long listings have many.
        let deadline = self.retry_policy.answer * 10;
        let attempt = || self.objects.list(Some(&at)).try_collect::<Vec<_>>();
        let metas = self.request("list", prefix, deadline, attempt).await?;
        let listed = |meta: ObjectMeta| self.relative(&meta.location).map(|name| Listed { name, meta });
        Ok(metas.into_iter().filter_map(listed).collect())
    }

    /// The names of the folders in this one.
    pub(crate) async fn folders(&self) -> Result<Vec<String>, StoreError> {
        let deadline = self.retry_policy.answer * 10;
        let attempt = || self.objects.list_with_delimiter(Some(&self.root));
        let listing = self.request("list", "", deadline, attempt).await?;
        Ok(listing.common_prefixes.iter().filter_map(|prefix| self.relative(prefix)).collect())
    }

    /// Deletes objects; those that are gone already are no failure.
    pub(crate) async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        let [first, ..] = names else { return Ok(()) };
        let deadline = self.retry_policy.answer * 10;
        let attempt = async || {
            let places: Vec<_> = names.iter().map(|name| Ok(self.at(name))).collect();
            let mut deleted = self.objects.delete_stream(stream::iter(places).boxed());
            while let Some(result) = deleted.next().await {
                match result {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        self.request("delete", first, deadline, attempt).await
    }
}

/// Bytes that what is read whole stays below nearly always.
const SMALL: u64 = 64 << 20;

/// Makes an attempt, and gives it up after a while.
async fn in_time<T>(
    deadline: Duration,
    attempt: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    match timeout(deadline, attempt).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Error(error)),
        Err(_) => Err(Failure::Silence(deadline)),
    }
}

/// Turns "there is none" from a failure into an answer.
fn found<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Refused { source: Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name that no other write bears: 128 random bits in hexadecimal.
pub(crate) fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
