//! Stores and runs by their URIs.
use std::{error::Error, fs};

use crate::support::Faulty;
use tokio::task::JoinSet;
use whimbrel_store::{Environment, HostedBy, Need, OpenError, ProbeError, Store, open_run, open_run_in};

fn with_causes(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn a_folder_is_the_same_store_by_path_and_by_uri() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("my runs/käfer #1 50%");
    let by_path = Store::open(path.to_str().unwrap()).unwrap();
    assert!(path.is_dir(), "a store that is not there is made");
    assert!(by_path.uri().starts_with("file:///") && !by_path.uri().contains(' '), "{}", by_path.uri());
    by_path.probe().await.unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "the probe leaves nothing behind");

    let id = "char-lm-x1".parse().unwrap();
    by_path.run(&id).create("spec", HostedBy::Embedded).await.unwrap();
    let by_uri = Store::open(by_path.uri()).unwrap();
    assert_eq!(by_uri.uri(), by_path.uri());
    assert_eq!(by_uri.runs().await.unwrap(), [id]);
    assert!(path.join("char-lm-x1/log/00000000000000000000.json").is_file());

    let uri = by_path.run(&"char-lm-x1".parse().unwrap()).uri().to_owned();
    for (given, step) in [(uri.clone(), None), (format!("{uri}@400"), Some(400)), (format!("{uri}/"), None)] {
        let (run, found) = open_run(&given).unwrap();
        assert_eq!((run.uri(), run.id().as_str(), found), (uri.as_str(), "char-lm-x1", step));
        assert_eq!(run.run_log().await.unwrap().spec(), "spec");
    }
}

#[tokio::test]
async fn the_error_says_what_is_wrong_with_a_uri() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let cases = [
        ("gcs://bucket/runs".to_owned(), "write gs://"),
        ("memory:///".to_owned(), "only in memory"),
        ("https://example.com/x".to_owned(), "a web address"),
        ("floppy://a".to_owned(), "floppy:// is unknown"),
        ("s3:///runs".to_owned(), "the bucket's name is missing"),
        ("file://runs".to_owned(), "three slashes"),
        (String::new(), "it is empty"),
        (file.to_owned(), file),
        (format!("{file}/runs"), "Not a directory"),
    ];
    for (uri, expected) in cases {
        let error = Store::open(&uri).unwrap_err();
        assert!(with_causes(&error).contains(expected), "{uri}: {}", with_causes(&error));
    }
    let missing = folder.path().join("missing");
    let error = open_run(missing.join("r").to_str().unwrap()).unwrap_err();
    assert!(matches!(&error, OpenError::Folder { path, .. } if *path == missing), "{error}");
    assert!(!missing.exists(), "looking for a run makes no folder");
    assert!(matches!(open_run("runs/Big Run").unwrap_err(), OpenError::Run { .. }));
    assert!(matches!(open_run("runs/r@last").unwrap_err(), OpenError::Step { step, .. } if step == "last"));
}

#[test]
fn buckets_have_canonical_uris() {
    // Clients are only set up: nothing is sent.
    let environment: Environment =
        [("AZURE_STORAGE_ACCOUNT", "lab"), ("GOOGLE_BEARER_TOKEN", "t")].into_iter().collect();
    let cases = [
        ("s3://bucket/a/b/", "s3://bucket/a/b/r", "s3://bucket/a/b/r@7"),
        ("s3://bucket", "s3://bucket/r", "s3://bucket/r@7"),
        (
            "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=eu-1",
            "s3://bucket/a/r?endpoint=http://127.0.0.1:9000&region=eu-1",
            "s3://bucket/a/r@7?region=eu-1&endpoint=http://127.0.0.1:9000/",
        ),
        ("az://container/a", "az://container/a/r", "az://container/a/r@7"),
        (
            "abfss://container@lab.dfs.core.windows.net/a",
            "https://lab.blob.core.windows.net/container/a/r",
            "abfss://container@lab.dfs.core.windows.net/a/r@7",
        ),
        ("gs://bucket/a", "gs://bucket/a/r", "gs://bucket/a/r@7/"),
    ];
    for (given, uri, at_step) in cases {
        let store = Store::open_in(given, &environment).unwrap();
        assert_eq!(store.run(&"r".parse().unwrap()).uri(), uri);
        assert_eq!(Store::open_in(store.uri(), &environment).unwrap().uri(), store.uri());
        let (run, step) = open_run_in(at_step, &environment).unwrap();
        assert_eq!((run.uri(), step), (uri, Some(7)));
        assert_eq!(run.store_uri(), store.uri());
        let (_, step) = open_run_in(&run.checkpoint_uri(8), &environment).unwrap();
        assert_eq!(step, Some(8));
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Faulty::over(folder.path()).overwriting().store().probe().await.unwrap_err();
    assert!(matches!(error, ProbeError::Overwrites { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the probe leaves nothing behind");

    let store = Faulty::over(folder.path()).store();
    fs::remove_dir(folder.path()).unwrap();
    fs::write(folder.path(), "in the way").unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, ProbeError::Lacks { need: Need::Create, .. }), "{error}");
    assert!(with_causes(&error).contains("test://store/whimbrel-probe-"), "{}", with_causes(&error));
}

#[tokio::test]
async fn output_is_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let run = Faulty::over(folder.path()).store().run(&"r".parse().unwrap());
    let mut puts = JoinSet::new();
    for (epoch, sequence) in [(10, 0), (2, 1), (2, 0), (2, 10)] {
        let run = run.clone();
        let text = format!("term {epoch} says {sequence}\n");
        puts.spawn(async move { run.put_output(epoch, sequence, text.into()).await });
    }
    for put in puts.join_all().await {
        put.unwrap();
    }
    run.put_output(2, 1, "term 2 says 1, again\n".into()).await.unwrap();
    fs::write(folder.path().join("r/output/epoch-2/notes.txt"), "not a chunk").unwrap();
    let chunks = run.output().await.unwrap();
    let text: String = chunks.iter().map(|chunk| str::from_utf8(chunk).unwrap()).collect();
    assert_eq!(text, "term 2 says 0\nterm 2 says 1, again\nterm 2 says 10\nterm 10 says 0\n");
}
