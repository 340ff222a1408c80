//! A store in memory. Before each request the world may let other actions happen.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use whimbrel_store::{RetryPolicy, RunDir, Store};

use super::world::World;

/// A store as one actor uses it.
#[derive(Clone)]
pub(crate) struct FakeStore {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) number: usize,
    /// The actor, and the world that may interrupt it; `None` for an observer, which is not interrupted.
    pub(crate) actor: Option<(String, Weak<World>)>,
}

impl FakeStore {
    pub(crate) fn run(&self) -> RunDir {
        // No retries: a request that fails fails the action, and the actor goes on with another.
        let retry_policy = RetryPolicy { attempts: 1, first_wait: Duration::ZERO, ..RetryPolicy::default() };
        let store = Store::with_backend(&format!("test://{}", self.number), Arc::new(self.clone()));
        store.with_retry_policy(retry_policy).run(&"r".parse().unwrap())
    }

    async fn before(&self, verb: &str, at: &Path) {
        if let Some((actor, world)) = &self.actor
            && let Some(world) = world.upgrade()
        {
            world.interrupt(actor, &format!("{verb} {} {at}", self.number)).await;
        }
    }

    /// Whether a write is lost in transit, to land later.
    fn loses(&self, at: &Path, body: &PutPayload, mode: &PutMode) -> bool {
        let world = self.actor.as_ref().and_then(|(actor, world)| Some((actor, world.upgrade()?)));
        let is_entry = *mode == PutMode::Create && at.as_ref().contains("/log/");
        world.is_some_and(|(actor, world)| is_entry && world.loses(actor, self.number, at, body))
    }
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}", self.number)
    }
}

#[async_trait]
impl ObjectStore for FakeStore {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.before("put", at).await;
        if self.loses(at, &body, &options.mode) {
            return Err(Error::Generic { store: "test", source: "no answer".into() });
        }
        let put = self.objects.put_opts(at, body, options).await?;
        if let Some((actor, world)) = &self.actor
            && let Some(world) = world.upgrade()
        {
            world.observe(|seen| seen.written(self.number, at, actor));
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("packs are one put each")
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.before(if options.head { "head" } else { "get" }, at).await;
        self.objects.get_opts(at, options).await
    }

    /// Not interrupted: nothing may happen between the last look at the log and the deletion that it allows. No real store
    /// guarantees that; the head of `collect` says what follows.
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nothing is copied")
    }
}
