//! The probe refuses a store that does not meet the needs of a run, and says what to do: tried on servers that refuse.

use std::{error::Error, net::TcpListener};

use whimbrel_store::{Environment, Need, ProbeError, Refusal, Store};
use whimbrel_testbed::{GcsServer, LyingS3, Right, Server, available};

use super::{azurite, radosgw};

/// The error of probing a store, and its text with all causes.
async fn refused(uri: &str, environment: Vec<(&'static str, String)>) -> (ProbeError, String) {
    let secrets: Vec<String> = environment
        .iter()
        .filter(|(name, _)| {
            ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"].contains(name)
        })
        .map(|(_, value)| value.clone())
        .collect();
    let environment: Environment = environment.into_iter().collect();
    let probed = Store::open_in(uri, &environment).unwrap().probe().await;
    let error = probed.err().unwrap_or_else(|| panic!("{uri} is not refused with {environment:?}"));
    let text = with_causes(&error);
    for secret in secrets {
        assert!(!text.contains(&secret), "a secret is shown: {text}");
    }
    (error, text)
}

fn with_causes(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

#[track_caller]
fn assert_lacks((error, text): &(ProbeError, String), wanted: (Need, Refusal), words: &str) {
    let ProbeError::Lacks { need, refusal, .. } = error else { panic!("{text}") };
    assert_eq!((*need, *refusal), wanted, "{text}");
    assert!(text.contains(words), "{words:?} is missing: {text}");
}

fn with(
    mut environment: Vec<(&'static str, String)>,
    variable: &'static str,
    value: &str,
) -> Vec<(&'static str, String)> {
    environment.retain(|(name, _)| *name != variable);
    environment.push((variable, value.to_owned()));
    environment
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_radosgw_names_the_permission_that_is_missing() {
    let Some(server) = radosgw() else { return };
    let stranger = server.add_user("stranger").unwrap();
    let uri = server.store_uri("refusals");
    let all = ["s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:DeleteObject"];
    let needs = [Need::Create, Need::Read, Need::List, Need::Delete];
    for (missing, need) in all.into_iter().zip(needs) {
        let granted: Vec<&str> = all.into_iter().filter(|action| *action != missing).collect();
        server.permit(&stranger, &granted, &[missing]).unwrap();
        let refusal = refused(&uri, server.environment_of(&stranger)).await;
        assert_lacks(&refusal, (need, Refusal::Permission), missing);
        assert!(refusal.1.contains("arn:aws:s3:::whimbrel"), "{}", refusal.1);
    }
    server.permit(&stranger, &all, &[]).unwrap();
    let environment: Environment = server.environment_of(&stranger).into_iter().collect();
    Store::open_in(&uri, &environment).unwrap().probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_radosgw_tells_bad_credentials_from_a_missing_bucket() {
    let Some(server) = radosgw() else { return };
    let uri = server.store_uri("refusals");
    let credentials = (Need::Create, Refusal::Credentials);
    let refusal = refused(&uri, with(server.environment(), "AWS_SECRET_ACCESS_KEY", "wrong-secret")).await;
    assert_lacks(&refusal, credentials, "AWS_ACCESS_KEY_ID are not accepted");
    let refusal = refused(&uri, with(server.environment(), "AWS_ACCESS_KEY_ID", "nobody")).await;
    assert_lacks(&refusal, credentials, "AWS_ACCESS_KEY_ID are not accepted");
    let refusal = refused("s3://not-there/runs", server.environment()).await;
    assert_lacks(&refusal, (Need::Create, Refusal::NoBucket), "there is no bucket \"not-there\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_azurite_names_the_permission_that_is_missing() {
    let Some(server) = azurite() else { return };
    let uri = server.store_uri("refusals");
    for (rights, need, letters) in [
        ("rdl", Need::Create, "cw"),
        ("cwdl", Need::Read, "r"),
        ("rcwd", Need::List, "l"),
        ("rcwl", Need::Delete, "d"),
    ] {
        let refusal = refused(&uri, server.environment_with(&server.sas(rights))).await;
        assert_lacks(&refusal, (need, Refusal::Permission), "Storage Blob Data Contributor");
        assert!(refusal.1.contains(&format!("the letters {letters}")), "{}", refusal.1);
    }
    let environment: Environment = server.environment_with(&server.sas("rcwdl")).into_iter().collect();
    Store::open_in(&uri, &environment).unwrap().probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_azurite_tells_bad_credentials_from_a_missing_container() {
    let Some(server) = azurite() else { return };
    let wrong = with(server.environment(), "AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmcta2V5");
    let refusal = refused(&server.store_uri("refusals"), wrong).await;
    assert_lacks(
        &refusal,
        (Need::Create, Refusal::Credentials),
        "AZURE_STORAGE_ACCOUNT_KEY are not accepted",
    );
    let refusal = refused("az://not-there/runs", server.environment()).await;
    assert_lacks(&refusal, (Need::Create, Refusal::NoBucket), "there is no container \"not-there\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_names_the_permission_that_is_missing() {
    let needs = [
        (Right::Create, Need::Create, "storage.objects.create"),
        (Right::Get, Need::Read, "storage.objects.get"),
        (Right::List, Need::List, "storage.objects.list"),
        (Right::Delete, Need::Delete, "storage.objects.delete"),
    ];
    for (right, need, permission) in needs {
        let Some(server) = available(GcsServer::start()) else { return };
        server.deny(right);
        let refusal = refused(&server.store_uri("refusals"), server.environment()).await;
        assert_lacks(&refusal, (need, Refusal::Permission), permission);
        assert!(refusal.1.contains("roles/storage.objectUser"), "{}", refusal.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_tells_bad_credentials_from_a_missing_bucket() {
    let Some(server) = available(GcsServer::start_for("the-token")) else { return };
    let refusal = refused(
        &server.store_uri("runs"),
        with(server.environment(), "GOOGLE_BEARER_TOKEN", "another-token"),
    )
    .await;
    assert_lacks(&refusal, (Need::Create, Refusal::Credentials), "GOOGLE_BEARER_TOKEN are not accepted");
    let refusal = refused("gs://not-there/runs", server.environment()).await;
    assert_lacks(&refusal, (Need::Create, Refusal::NoBucket), "there is no bucket \"not-there\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_answers_200_to_a_create_of_an_existing_object_is_refused() {
    let Some(server) = available(LyingS3::start()) else { return };
    let (error, text) = refused(&server.store_uri("runs"), server.environment()).await;
    assert!(matches!(error, ProbeError::Overwrites { .. }), "{text}");
    assert!(text.contains("two coordinators could both commit"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_unreachable() {
    // Bound and not listening would still be connected to; a port that was free a moment ago is not.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let keys = |endpoint: &'static str| {
        vec![
            (endpoint, url.clone()),
            ("AWS_ACCESS_KEY_ID", "id".into()),
            ("AWS_SECRET_ACCESS_KEY", "the-secret".into()),
            ("AZURE_STORAGE_ACCOUNT_NAME", "lab".into()),
            ("AZURE_STORAGE_ACCOUNT_KEY", "dGhlLWtleQ==".into()),
            ("GOOGLE_BEARER_TOKEN", "the-bearer".into()),
        ]
    };
    for (uri, endpoint) in [
        ("s3://b/runs", "AWS_ENDPOINT_URL"),
        ("az://c/runs", "AZURE_STORAGE_ENDPOINT"),
        ("gs://b/runs", "GOOGLE_BASE_URL"),
    ] {
        let refusal = refused(uri, keys(endpoint)).await;
        assert_lacks(&refusal, (Need::Create, Refusal::Unreachable), "there is no answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_asks_for_credentials_if_there_are_none() {
    // No server listens where a cloud's metadata service would be.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("http://127.0.0.1:{port}");
    let refusal = refused("s3://b/runs", vec![("AWS_METADATA_ENDPOINT", closed.clone())]).await;
    assert_lacks(
        &refusal,
        (Need::Create, Refusal::Credentials),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    );
    let identity = format!("{closed}/metadata/identity/oauth2/token");
    let environment = vec![("AZURE_STORAGE_ACCOUNT", "lab".to_owned()), ("AZURE_MSI_ENDPOINT", identity)];
    let refusal = refused("az://c/runs", environment).await;
    assert_lacks(&refusal, (Need::Create, Refusal::Credentials), "set AZURE_STORAGE_ACCOUNT_KEY");
}
