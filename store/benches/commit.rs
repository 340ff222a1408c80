//! Measures what a commit costs while a run keeps 100, 3,000 and 30,000 checkpoints: the commit itself, the collection
//! after it, and the round that brings a replica up to date, as a coordinator does them. The stores are in memory, so this
//! is the processor time of Whimbrel and no network; the number of requests, with a page of 1,000 objects of a listing as
//! one, tells what a network would add. ARCHITECTURE.md, "Measured", has the figures.
//!
//! ```text
//! cargo bench -p whimbrel-store --bench commit
//! ```
//!
//! The run keeps every checkpoint (`every: Steps(1)`), and one more is committed each time. *First* is the first collection
//! of the term, which looks at every object.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use whimbrel_state::{Layout, Manifest, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    Collector, HostedBy, KeepEvery, Limits, Replicator, Retention, Store, Term, commit, save_slice,
};

/// Kept checkpoints.
const KEPT: [u64; 3] = [100, 3_000, 30_000];
/// Commits measured; the median counts.
const ROUNDS: usize = 21;
/// Objects in a page of a listing.
const PAGE: usize = 1_000;

/// A store in memory that counts its requests.
#[derive(Clone, Debug, Default)]
struct Counting {
    objects: Arc<InMemory>,
    requests: Arc<AtomicU64>,
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("counting")
    }
}

impl Counting {
    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.count();
        self.objects.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.count();
        self.objects.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.count();
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.count();
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let counting = self.clone();
        let pages = self.objects.list(prefix).enumerate().inspect(move |(index, _)| {
            if index % PAGE == 0 {
                counting.count();
            }
        });
        pages.map(|(_, listed)| listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count();
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count();
        self.objects.copy_opts(from, to, options).await
    }
}

/// Saves a state of one pack, which no other step has.
async fn save(term: &Term, step: u64) -> std::result::Result<Manifest, Box<dyn Error>> {
    let layout = Layout::new(vec![TensorSpec::f32("weights", [16])])?;
    let bytes = Bytes::from(step.to_le_bytes().repeat(8));
    let packs = save_slice(term.run(), &layout, 0..bytes.len(), bytes, &Limits::default()).await?;
    let run = term.run().id().to_string();
    Ok(Manifest {
        format: FORMAT,
        run,
        step,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the benchmark prints its table")]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let retention = Retention { every: Some(KeepEvery::Steps(1)), ..Retention::default() };
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "kept", "first ms", "commit ms", "collect ms", "requests", "replica ms", "requests"
    );
    for kept in KEPT {
        let store = Counting::default();
        let run = Store::with_backend("test://store", Arc::new(store.clone())).run(&"bench".parse()?);
        run.create("", HostedBy::Embedded).await?;
        let mut term = run.start_term("bench").await?;
        for step in 1..=kept {
            let manifest = save(&term, step).await?;
            commit(&mut term, &manifest, None).await?;
        }
        let mut collector = Collector::default();
        let began = Instant::now();
        collector.collect(&mut term, &retention).await?;
        let first = began.elapsed().as_secs_f64();

        let there = Counting::default();
        let replica = Store::with_backend("test://replica", Arc::new(there.clone())).run(run.id());
        let mut replicator = Replicator::new(&run, &replica, "bench", retention.clone(), Limits::default());
        replicator.replicate(term.run_log(), &mut |_| {}).await?;

        let (mut commits, mut collections, mut requests) = (vec![], vec![], vec![]);
        let (mut rounds, mut round_requests) = (vec![], vec![]);
        // At the run and at the replica.
        let all = || store.requests.load(Ordering::Relaxed) + there.requests.load(Ordering::Relaxed);
        for step in (kept + 1..).take(ROUNDS) {
            let manifest = save(&term, step).await?;
            let before = all();
            let began = Instant::now();
            commit(&mut term, &manifest, None).await?;
            commits.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            collector.collect(&mut term, &retention).await?;
            collections.push(began.elapsed().as_secs_f64());
            requests.push((all() - before) as f64);
            let before = all();
            let began = Instant::now();
            replicator.replicate(term.run_log(), &mut |_| {}).await?;
            rounds.push(began.elapsed().as_secs_f64());
            round_requests.push((all() - before) as f64);
        }
        println!(
            "{kept:>8} {:>12.1} {:>12.3} {:>12.3} {:>12} {:>12.3} {:>12}",
            first * 1e3,
            median(commits) * 1e3,
            median(collections) * 1e3,
            median(requests),
            median(rounds) * 1e3,
            median(round_requests),
        );
    }
    Ok(())
}
