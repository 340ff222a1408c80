//! Requests to a folder of an object store.
//!
//! Every request of this crate goes through [`Folder`]. It gives each request a deadline, retries it where that is safe,
//! and names the object and the action in the error.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, path::Path,
};
use tokio::time::timeout;

use super::{
    buffers::Buffers,
    error::StoreError,
    flow_control::{Direction, FlowControl},
    limits::Limits,
    retry::{Failure, Retry, RetryPolicy},
};
use crate::uri;

/// The outcome of a create-only put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// This put created the object.
    New,
    /// The store says that the object exists. An earlier attempt of this put may have created it (its answer was lost).
    /// On S3 the object may be absent even so: a racing put blocked this one and then failed. The caller must read it.
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
    flow_control: Arc<FlowControl>,
    buffers: Buffers,
}

impl Folder {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        root: Path,
        uri: &str,
        retry_policy: RetryPolicy,
    ) -> Self {
        let (flow_control, buffers) = (Arc::new(FlowControl::new()), Buffers::default());
        Self { objects, root, uri: uri.into(), retry_policy, flow_control, buffers }
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

    /// The flow control of the store. All folders in the store share it.
    pub(crate) fn flow_control(&self) -> &Arc<FlowControl> {
        &self.flow_control
    }

    /// Buffers for blocks read from the store. All folders in the store share them.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The retries of one request for the object `name`.
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

    /// Repeats `attempt` until it succeeds, fails for good, or the retry policy allows no more attempts.
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

    /// Puts an object unless it exists.
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

    /// Puts an object, and overwrites one that exists. Only for objects of which every writer writes the same bytes.
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

    /// Puts a pack as [`create`](Self::create) or [`replace`](Self::replace) does, within the concurrency and bandwidth
    /// that `limits` and the store's [flow control](FlowControl) allow.
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
            let _permit = self.flow_control.acquire(Direction::Upload, limits.concurrency).await;
            self.flow_control.wait_for_bandwidth(bytes, limits.bandwidth).await;
            let started = self.flow_control.start();
            let deadline = self.deadline_of_put(bytes);
            let options = PutOptions::from(mode.clone());
            match in_time(deadline, self.objects.put_opts(&at, body.clone(), options)).await {
                Ok(_) => {
                    self.flow_control.succeeded(Direction::Upload, started, bytes);
                    return Ok(Created::New);
                }
                Err(Failure::Error(Error::AlreadyExists { .. })) => return Ok(Created::Taken),
                Err(failure) => {
                    if failure.is_push_back() {
                        self.flow_control.pushed_back(Direction::Upload, started);
                    }
                    retry.after(failure).await?;
                }
            }
        }
    }

    /// How long an attempt to put so many bytes may take. It depends on the recent speed of the store.
    pub(crate) fn deadline_of_put(&self, bytes: u64) -> Duration {
        let transfer = self.flow_control.transfer_time(Direction::Upload, bytes, self.retry_policy.slowest);
        self.retry_policy.answer + transfer
    }

    /// Opens an object, or a range of it, for reading: one attempt. The caller reads the body.
    pub(crate) async fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<GetResult, Failure> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        in_time(self.retry_policy.answer, self.objects.get_opts(&self.at(name), options)).await
    }

    /// Reads a whole object; `None` if there is none. An object longer than `most` bytes is an error and is not read, so
    /// that a damaged store cannot fill the memory. Callers give a `most` far above what this program writes.
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

    /// The length and modification time of an object; `None` if there is none.
    pub(crate) async fn head(&self, name: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let at = self.at(name);
        found(self.request("look up", name, self.retry_policy.answer, || self.objects.head(&at)).await)
    }

    /// All objects under `prefix`, in no order. A listing may lag behind: an object that it lacks may exist.
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

    /// Deletes objects. Objects that do not exist are no error.
    pub(crate) async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        let [first, ..] = names else { return Ok(()) };
        let deadline = self.retry_policy.answer * 10;
        let attempt = async || {
            let paths: Vec<_> = names.iter().map(|name| Ok(self.at(name))).collect();
            let mut deleted = self.objects.delete_stream(stream::iter(paths).boxed());
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

/// Objects that are read whole are nearly always smaller than this.
const SMALL: u64 = 64 << 20;

/// Makes one attempt, and gives it up at its deadline.
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

/// Turns the error "not found" into `None`.
fn found<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Refused { source: Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A unique name for a write: 128 random bits in hexadecimal.
pub(crate) fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
