//! What the S3 servers have in common: a client's environment variables, and the request that creates the bucket.

use std::net::SocketAddr;

use http::Method;

use super::{server::BUCKET, signed};

/// The environment variables with which a program reaches an S3 server.
pub(super) fn environment(
    address: SocketAddr,
    key_id: &str,
    secret_key: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", key_id.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// Creates the bucket as the user with these keys.
pub(super) fn create_bucket(address: SocketAddr, keys: (&str, &str)) -> Result<(), String> {
    let bucket = format!("http://{address}/{BUCKET}");
    signed::s3(Method::PUT, &bucket, "", keys).map_err(|error| error.to_string())
}
