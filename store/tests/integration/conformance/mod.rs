//! The conformance suite: what Whimbrel relies on, tried on every kind of store. The stores are real servers over sockets,
//! which these tests install and start, and a local folder. The GCS server is our own (there is no other), so it tests our
//! client and not Google's service.
mod objects;
mod opening;
mod refusals;
mod runs;
use std::sync::OnceLock;

use whimbrel_store::{Environment, Store};
use whimbrel_testbed::{Azurite, GcsServer, Moto, Radosgw, Server, available};

use self::objects::{Races, Sizes};

/// The server that all tests of this file share, since it takes a while to start; it ends with this process.
fn radosgw() -> Option<&'static Radosgw> {
    static SHARED: OnceLock<Option<Radosgw>> = OnceLock::new();
    SHARED.get_or_init(|| available(Radosgw::start())).as_ref()
}

fn azurite() -> Option<&'static Azurite> {
    static SHARED: OnceLock<Option<Azurite>> = OnceLock::new();
    SHARED.get_or_init(|| available(Azurite::start())).as_ref()
}

/// The store under `prefix` on a server, with the credentials that the server gives out.
fn store_on(server: &dyn Server, prefix: &str) -> Store {
    let environment: Environment = server.environment().into_iter().collect();
    Store::open_in(&server.store_uri(prefix), &environment).unwrap()
}

async fn conforms(store: &Store, sizes: Sizes) {
    store.probe().await.unwrap_or_else(|error| panic!("{error}"));
    objects::suite(store, sizes).await;
    runs::suite(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_radosgw_conformance() {
    let Some(server) = radosgw() else { return };
    conforms(&store_on(server, "conformance"), Sizes { large: 64 << 20, many: 1100, races: Races::OneWins })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_moto_conformance() {
    let Some(server) = available(Moto::start()) else { return };
    // It reads out 13 MB/s, and of 50 racing creates it let two win in one race of four.
    conforms(
        &store_on(&server, "conformance"),
        Sizes { large: 4 << 20, many: 1100, races: Races::NotThisServer },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure_azurite_conformance() {
    let Some(server) = azurite() else { return };
    // A page of Azure's has 5000.
    conforms(&store_on(server, "conformance"), Sizes { large: 64 << 20, many: 5100, races: Races::OneWins })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gcs_conformance() {
    let Some(server) = available(GcsServer::start()) else { return };
    conforms(&store_on(&server, "conformance"), Sizes { large: 64 << 20, many: 1100, races: Races::OneWins })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn file_conformance() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("conformance").to_str().unwrap()).unwrap();
    conforms(&store, Sizes { large: 64 << 20, many: 1100, races: Races::OneWins }).await;
}

/// A prefix with unusual characters, in clouds and in a folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_and_azure_and_gcs_conformance_under_an_odd_prefix() {
    let gcs = available(GcsServer::start());
    let servers = [
        radosgw().map(|server| server as &dyn Server),
        azurite().map(|server| server as &dyn Server),
        gcs.as_ref().map(|server| server as &dyn Server),
    ];
    for server in servers.into_iter().flatten() {
        let store = store_on(server, "my runs/a+b=c~d,e'f(g)");
        store.probe().await.unwrap_or_else(|error| panic!("{}: {error}", server.name()));
        runs::suite(&store).await;
    }
}
