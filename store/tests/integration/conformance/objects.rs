//! Objects: creating, reading, listing and deleting them.

use std::{collections::HashSet, ops::Range};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path,
};
use tokio::task::JoinSet;
use whimbrel_store::Store;

/// How much a server is asked to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Bytes of the largest object; a pack has 64 MiB.
    pub(crate) large: usize,
    /// Objects in a folder: more than fit in a page of a listing.
    pub(crate) many: usize,
    /// Whether racing creates are tried, and what to expect of them.
    pub(crate) races: Races,
}

/// Whether exactly one of racing creates wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Races {
    /// Exactly one wins, as the run log requires.
    OneWins,
    /// The server checks before it writes, so that sometimes two win. It serves for all other tests.
    NotThisServer,
}

/// So many of the objects are deleted. In a container of thousands azurite takes seconds for a hundred.
const DELETED: usize = 250;

pub(crate) async fn suite(store: &Store, sizes: Sizes) {
    let objects = store.objects();
    a_create_never_overwrites(&objects).await;
    if sizes.races == Races::OneWins {
        one_of_racing_creates_wins(objects.clone()).await;
    }
    a_create_whose_answer_was_lost_is_recognised_by_its_bytes(&objects).await;
    what_is_written_is_read(&objects).await;
    parts_are_read(&objects).await;
    a_missing_object_is_not_found(&objects).await;
    large_objects_are_read_whole(&objects, sizes.large).await;
    odd_names_are_listed_and_read(&objects).await;
    many_are_listed_and_deleted(&objects, sizes.many).await;
}

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

async fn read(objects: &impl ObjectStore, at: &Path) -> Bytes {
    objects.get(at).await.unwrap().bytes().await.unwrap()
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. })
}

async fn a_create_never_overwrites(objects: &impl ObjectStore) {
    let at = Path::from("create/once");
    objects.put_opts(&at, PutPayload::from_static(b"first"), create()).await.unwrap();
    let again = objects.put_opts(&at, PutPayload::from_static(b"second"), create()).await.unwrap_err();
    assert!(is_taken(&again), "{again:?}");
    assert_eq!(read(objects, &at).await, "first");
    // Gone, the name is free again: a damaged pack is removed to be put anew.
    objects.delete(&at).await.unwrap();
    objects.put_opts(&at, PutPayload::from_static(b"third"), create()).await.unwrap();
    assert_eq!(read(objects, &at).await, "third");
}

async fn one_of_racing_creates_wins(objects: impl ObjectStore + Clone + 'static) {
    for race in 0..4 {
        let at = Path::from(format!("create/race-{race}"));
        let mut racers = JoinSet::new();
        for racer in 0..50_u32 {
            let (objects, at) = (objects.clone(), at.clone());
            racers.spawn(async move {
                let body = format!("racer {racer}");
                (body.clone(), objects.put_opts(&at, body.into(), create()).await)
            });
        }
        let mut winners = Vec::new();
        while let Some(joined) = racers.join_next().await {
            match joined.unwrap() {
                (body, Ok(_)) => winners.push(body),
                (_, Err(error)) => assert!(is_taken(&error), "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "of 50 racing creates one wins: {winners:?}");
        assert_eq!(read(&objects, &at).await, winners[0]);
    }
}

async fn a_create_whose_answer_was_lost_is_recognised_by_its_bytes(objects: &impl ObjectStore) {
    let at = Path::from("create/lost");
    let mine = PutPayload::from_static(b"entry 3 by writer 0123");
    // The answer to the first is lost, so it is made again.
    objects.put_opts(&at, mine.clone(), create()).await.unwrap();
    let again = objects.put_opts(&at, mine.clone(), create()).await.unwrap_err();
    assert!(is_taken(&again), "{again:?}");
    assert_eq!(read(objects, &at).await, Bytes::from(mine));
}

async fn what_is_written_is_read(objects: &impl ObjectStore) {
    for number in 0..20_u8 {
        let at = Path::from(format!("write/{number}"));
        objects.put(&at, vec![number; 1000].into()).await.unwrap();
        assert_eq!(read(objects, &at).await, vec![number; 1000]);
        let found = objects.head(&at).await.unwrap();
        assert_eq!((found.size, &found.location), (1000, &at));
        objects.put(&at, vec![number; 10].into()).await.unwrap();
        assert_eq!(read(objects, &at).await, vec![number; 10], "the first content is replaced");
        // Ages of objects are differences of the store's times.
        let later = objects.head(&at).await.unwrap();
        assert!(later.last_modified >= found.last_modified && later.size == 10);
    }
    let empty = Path::from("write/empty");
    objects.put(&empty, PutPayload::new()).await.unwrap();
    assert_eq!(read(objects, &empty).await, "");
    assert_eq!(objects.head(&empty).await.unwrap().size, 0);
}

async fn parts_are_read(objects: &impl ObjectStore) {
    let at = Path::from("parts/object");
    let body: Bytes = (0..100_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let total = body.len() as u64;
    objects.put(&at, body.clone().into()).await.unwrap();
    let slice = |range: &Range<u64>| body.slice(range.start as usize..range.end as usize);
    for range in [0..1, 0..total, 1..4097, total - 1..total, 65_536..131_072] {
        assert_eq!(objects.get_range(&at, range.clone()).await.unwrap(), slice(&range), "{range:?}");
    }
    let options = GetOptions { range: Some(GetRange::Offset(total - 10)), ..GetOptions::default() };
    let found = objects.get_opts(&at, options).await.unwrap();
    assert_eq!((found.range.clone(), found.meta.size), (total - 10..total, total));
    assert_eq!(found.bytes().await.unwrap(), slice(&(total - 10..total)));
    let past = objects.get_range(&at, total - 5..total + 5).await;
    assert!(
        past.is_err() || past.is_ok_and(|bytes| bytes == slice(&(total - 5..total))),
        "a range past the end"
    );
    objects.get_range(&at, total + 1..total + 5).await.unwrap_err();
    let ranges = [5..10, 100..200, 399_000..400_000];
    let parts = objects.get_ranges(&at, &ranges).await.unwrap();
    assert!(parts.iter().zip(&ranges).all(|(part, range)| *part == slice(range)));
}

async fn a_missing_object_is_not_found(objects: &impl ObjectStore) {
    let at = Path::from("nothing/here");
    let is_missing = |error: &Error| matches!(error, Error::NotFound { .. });
    let error = objects.get(&at).await.unwrap_err();
    assert!(is_missing(&error), "{error:?}");
    let error = objects.head(&at).await.unwrap_err();
    assert!(is_missing(&error), "{error:?}");
    let listed: Vec<_> = objects.list(Some(&Path::from("nothing"))).try_collect().await.unwrap();
    assert_eq!(listed, []);
    // Deleting it again is no failure, or one that says so.
    for deleted in [objects.delete(&at).await, objects.delete(&at).await] {
        assert!(deleted.as_ref().err().is_none_or(is_missing), "{deleted:?}");
    }
}

async fn large_objects_are_read_whole(objects: &impl ObjectStore, length: usize) {
    let at = Path::from("large/object");
    let body: Bytes =
        (0..length / 8).flat_map(|number| (number as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    // In two chunks, as a pack's header and its tensors are.
    let payload: PutPayload = [body.slice(..1000), body.slice(1000..)].into_iter().collect();
    objects.put_opts(&at, payload, create()).await.unwrap();
    assert_eq!(blake3::hash(&read(objects, &at).await), blake3::hash(&body));
    assert_eq!(objects.head(&at).await.unwrap().size, length as u64);
    objects.delete(&at).await.unwrap();
}

async fn odd_names_are_listed_and_read(objects: &impl ObjectStore) {
    let names = [
        "a b",
        "käfer",
        "50%",
        "#1",
        "x?y=z&w",
        "plus+minus-",
        "~tilde'quote",
        "(1),[2];{3}",
        "a..b",
        "ünï/cödé",
    ];
    let root = Path::from("odd");
    let paths: HashSet<Path> =
        names.iter().map(|name| root.parts().chain(Path::from(*name).parts()).collect()).collect();
    for at in &paths {
        objects
            .put_opts(at, at.to_string().into(), create())
            .await
            .unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    let listed: HashSet<Path> =
        objects.list(Some(&root)).map_ok(|meta| meta.location).try_collect().await.unwrap();
    assert_eq!(listed, paths);
    for at in &paths {
        assert_eq!(read(objects, at).await, at.to_string());
    }
    let deleted: Vec<_> =
        objects.delete_stream(stream::iter(paths).map(Ok).boxed()).try_collect().await.unwrap();
    assert_eq!(deleted.len(), names.len());
    assert_eq!(objects.list(Some(&root)).count().await, 0);
}

async fn many_are_listed_and_deleted(objects: &impl ObjectStore, count: usize) {
    let root = Path::from("many");
    let names: HashSet<Path> =
        (0..count).map(|number| Path::from(format!("many/{}/{number}", number % 7))).collect();
    // Not as creates, which are not tried again when a busy server drops a connection.
    let puts = names.iter().map(|at| objects.put(at, PutPayload::from_static(b"x")));
    stream::iter(puts).buffer_unordered(32).try_collect::<Vec<_>>().await.unwrap();
    // Beside the folder, and not in it.
    let beside = Path::from("many-more/1");
    objects.put(&beside, PutPayload::from_static(b"y")).await.unwrap();

    let list = async |prefix: &Path| -> Vec<Path> {
        objects.list(Some(prefix)).map_ok(|meta| meta.location).try_collect().await.unwrap()
    };
    let listed = list(&root).await;
    assert_eq!(listed.len(), count, "each is listed once");
    assert_eq!(listed.into_iter().collect::<HashSet<_>>(), names);
    let in_folder = objects.list_with_delimiter(Some(&root)).await.unwrap();
    let folders: HashSet<Path> = in_folder.common_prefixes.into_iter().collect();
    assert_eq!(folders, (0..7).map(|number| Path::from(format!("many/{number}"))).collect());
    assert_eq!(in_folder.objects, []);

    // In batches as a collection has them; two that are gone by then are no obstacle to the rest.
    let mut doomed: Vec<Path> = names.into_iter().take(DELETED).collect();
    for at in &doomed[..2] {
        objects.delete(at).await.unwrap();
    }
    doomed.rotate_left(1);
    for batch in doomed.chunks(100) {
        let paths: Vec<_> = batch.iter().cloned().map(Ok).collect();
        let mut deleted = objects.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = deleted.next().await {
            assert!(matches!(&result, Ok(_) | Err(Error::NotFound { .. })), "{result:?}");
        }
    }
    let left: HashSet<Path> = list(&root).await.into_iter().collect();
    assert_eq!(left.len(), count - doomed.len());
    assert!(doomed.iter().all(|at| !left.contains(at)));
    assert_eq!(read(objects, &beside).await, "y");
}
