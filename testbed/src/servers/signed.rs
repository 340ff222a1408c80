//! Signed requests that set up a server: they create buckets, containers and policies.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use http::{Method, Request};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::HttpRequestBody,
};

/// A request that the server refused or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}: {why}")]
pub(crate) struct SetUpError {
    method: Method,
    url: String,
    why: String,
}

/// Sends a request with an S3 signature.
pub(crate) fn s3(
    method: Method,
    url: &str,
    body: &str,
    (key_id, secret_key): (&str, &str),
) -> Result<(), SetUpError> {
    let credential = AwsCredential { key_id: key_id.into(), secret_key: secret_key.into(), token: None };
    let authorizer = AwsAuthorizer::new(&credential, "s3", "us-east-1");
    send(method, url, body, |request| authorizer.try_authorize(request, None))
}

/// Sends a request without a body, with an Azure Blob Storage signature.
pub(crate) fn azure(method: Method, url: &str, account: &str, key: &str) -> Result<(), SetUpError> {
    let key = AzureAccessKey::try_new(key).map_err(|error| SetUpError {
        method: method.clone(),
        url: url.into(),
        why: error.to_string(),
    })?;
    let credential = AzureCredential::AccessKey(key);
    let authorizer = AzureAuthorizer::new(&credential, account);
    send(method, url, "", |request| authorizer.try_authorize(request))
}

fn send(
    method: Method,
    url: &str,
    body: &str,
    sign: impl FnOnce(&mut Request<HttpRequestBody>) -> object_store::Result<()>,
) -> Result<(), SetUpError> {
    let failed = |why: String| SetUpError { method: method.clone(), url: url.to_owned(), why };
    let mut request = Request::builder()
        .method(&method)
        .uri(url)
        .header("content-length", body.len())
        .body(HttpRequestBody::from(body.to_owned()))
        .map_err(|error| failed(error.to_string()))?;
    sign(&mut request).map_err(|error| failed(error.to_string()))?;
    let answer = exchange(&request, body).map_err(|error| failed(error.to_string()))?;
    let status = answer.split_ascii_whitespace().nth(1).unwrap_or("no status");
    match status.starts_with('2') {
        true => Ok(()),
        false => Err(failed(answer)),
    }
}

/// Sends one request over a new connection and returns the whole answer as text.
fn exchange(request: &Request<HttpRequestBody>, body: &str) -> io::Result<String> {
    let uri = request.uri();
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let address: SocketAddr = host.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", request.method());
    if !request.headers().contains_key("host") {
        head += &format!("host: {host}\r\n");
    }
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().map_err(io::Error::other)?);
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
