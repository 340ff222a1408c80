//! Stores opened by all forms of URIs and credentials, on servers that check them.

use std::fs;

use whimbrel_store::{Environment, HostedBy, Store, open_run_in};
use whimbrel_testbed::Server;

use super::{azurite, radosgw};
use crate::support::State;

/// Opens a store, uses it, and opens it and a run in it again by their own URIs.
async fn works(uri: &str, environment: &Environment) {
    let store = Store::open_in(uri, environment).unwrap();
    store.probe().await.unwrap_or_else(|error| panic!("{uri}: {error}"));
    let id = "r".parse().unwrap();
    store.run(&id).create("spec", HostedBy::Service).await.unwrap();
    let again = Store::open_in(store.uri(), environment).unwrap();
    assert_eq!((again.uri(), again.runs().await.unwrap()), (store.uri(), vec![id]));
    let (run, _) = open_run_in(again.run(&"r".parse().unwrap()).uri(), environment).unwrap();
    assert_eq!(run.run_log().await.unwrap().spec(), "spec");
    let mut term = run.start_term("c").await.unwrap();
    crate::support::checkpoint(&mut term, &State::small(1), 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_radosgw_by_endpoint_and_profile() {
    let Some(server) = radosgw() else { return };
    let (endpoint, owner) = (format!("http://{}", server.address()), server.owner());
    let keys = [("AWS_ACCESS_KEY_ID", owner.key_id.as_str()), ("AWS_SECRET_ACCESS_KEY", &owner.secret_key)];
    let by_endpoint = format!("{}?endpoint={endpoint}&region=us-east-1", server.store_uri("by-endpoint"));
    works(&by_endpoint, &keys.into_iter().collect()).await;
    // Signatures over bodies are left out over TLS and on one machine, and work all the same.
    let signed = keys.into_iter().chain([("AWS_UNSIGNED_PAYLOAD", "false"), ("AWS_ENDPOINT_URL", &endpoint)]);
    works(&server.store_uri("signed"), &signed.collect()).await;

    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let (id, secret) = (&owner.key_id, &owner.secret_key);
    let credentials = format!("[lab]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
    let config = format!("[profile lab]\nregion = us-east-1\nendpoint_url = {endpoint}\n");
    fs::write(home.path().join(".aws/config"), config).unwrap();
    let at_home = ("HOME", home.path().to_str().unwrap());
    // The profile that the URI names beats keys of another account in the environment.
    let strange = [at_home, ("AWS_ACCESS_KEY_ID", "strange"), ("AWS_SECRET_ACCESS_KEY", "strange")];
    works(&format!("{}?profile=lab", server.store_uri("by-profile")), &strange.into_iter().collect()).await;
    let named = [at_home, ("AWS_PROFILE", "lab")];
    works(&server.store_uri("by-variable"), &named.into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_azurite_by_key_connection_string_and_sas() {
    let Some(server) = azurite() else { return };
    let given = server.environment();
    let value = |name: &str| given.iter().find(|(given, _)| *given == name).unwrap().1.clone();
    let (endpoint, account) = (value("AZURE_STORAGE_ENDPOINT"), value("AZURE_STORAGE_ACCOUNT_NAME"));
    let key = value("AZURE_STORAGE_ACCOUNT_KEY");
    let command_line = [
        ("AZURE_STORAGE_ACCOUNT", account.as_str()),
        ("AZURE_STORAGE_KEY", &key),
        ("AZURE_STORAGE_ENDPOINT", &endpoint),
    ];
    works(&server.store_uri("by-names"), &command_line.into_iter().collect()).await;
    let text = format!("AccountName={account};AccountKey={key};BlobEndpoint={endpoint}/");
    let string = [("AZURE_STORAGE_CONNECTION_STRING", text)];
    works(&server.store_uri("by-string"), &string.into_iter().collect()).await;
    let sas: Environment = server.environment_with(&server.sas("rcwdl")).into_iter().collect();
    works(&server.store_uri("by-sas"), &sas).await;
}
