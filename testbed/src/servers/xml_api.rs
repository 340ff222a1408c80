//! The XML API that S3 and Google Cloud Storage share, over a bucket in memory: the part that a client needs to put
//! whole objects. `gcs.rs` and `lying_s3.rs` serve it.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::Ipv4Addr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;

use super::{
    bucket::{Bucket, Existing, Object, Query},
    server::BUCKET,
};
use crate::listener::Listener;

/// Objects in a page of a listing, as in S3 and GCS.
const PAGE: usize = 1000;

/// A permission that a test can deny to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// To put objects.
    Create,
    /// To read and look up objects.
    Get,
    /// To list objects.
    List,
    /// To delete objects.
    Delete,
}

impl Right {
    /// Google's name for the permission.
    fn permission(self) -> &'static str {
        match self {
            Self::Create => "storage.objects.create",
            Self::Get => "storage.objects.get",
            Self::List => "storage.objects.list",
            Self::Delete => "storage.objects.delete",
        }
    }
}

/// What happens to a create of an object that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creates {
    /// The server refuses it, as it must.
    Refused,
    /// The server answers 200 and replaces the object.
    Overwrite,
}

/// The server's state.
#[derive(Debug)]
pub(crate) struct XmlApi {
    creates: Creates,
    /// The header `authorization` that a request must have; `None`: any.
    authorization: Mutex<Option<String>>,
    denied: Mutex<HashSet<Right>>,
    bucket: Mutex<Bucket>,
}

type Answer = Response<Full<Bytes>>;

impl XmlApi {
    pub(crate) fn new(creates: Creates) -> Arc<Self> {
        Arc::new(Self {
            creates,
            authorization: Mutex::default(),
            denied: Mutex::default(),
            bucket: Mutex::default(),
        })
    }

    /// Refuses every request without this bearer token.
    pub(crate) fn require_token(&self, token: &str) {
        *locked(&self.authorization) = Some(format!("Bearer {token}"));
    }

    /// Answers 403 to every request that needs the right.
    pub(crate) fn deny(&self, right: Right) {
        locked(&self.denied).insert(right);
    }

    /// Starts a listener that serves this API.
    pub(crate) fn listen(self: Arc<Self>, name: &str) -> io::Result<Listener> {
        let connection = move |stream| {
            let api = Arc::clone(&self);
            async move {
                let service = service_fn(|request| Arc::clone(&api).answer(request));
                // An error means that the client closed the connection.
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            }
        };
        Listener::start(name, (Ipv4Addr::LOCALHOST, 0).into(), connection)
    }

    /// Answers a request. If the body does not arrive, the connection ends.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(self.decide(&parts, body))
    }

    fn decide(&self, parts: &Parts, body: Bytes) -> Answer {
        let path = parts.uri.path().trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        let sent = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        if locked(&self.authorization).as_deref().is_some_and(|wanted| sent != Some(wanted)) {
            return refused(
                StatusCode::UNAUTHORIZED,
                "AuthenticationRequired",
                "Authentication required.",
                "",
            );
        }
        let right = match parts.method {
            Method::PUT => Right::Create,
            Method::DELETE => Right::Delete,
            _ if name.is_empty() => Right::List,
            _ => Right::Get,
        };
        if percent_decode_str(bucket).decode_utf8_lossy() != BUCKET {
            return refused(
                StatusCode::NOT_FOUND,
                "NoSuchBucket",
                "The specified bucket does not exist.",
                "",
            );
        }
        if locked(&self.denied).contains(&right) {
            let details = format!("the caller does not have {} access to the resource", right.permission());
            return refused(StatusCode::FORBIDDEN, "AccessDenied", "Access denied.", &details);
        }
        match (&parts.method, name.is_empty()) {
            (&Method::PUT, false) => self.put(parts, &name, body),
            (&Method::GET | &Method::HEAD, false) => self.get(parts, &name),
            (&Method::DELETE, false) => match locked(&self.bucket).delete(&name) {
                true => answer(StatusCode::NO_CONTENT, Bytes::new(), &[]),
                false => no_such_key(),
            },
            (&Method::GET, true) => self.list(parts),
            _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "Not implemented here.", ""),
        }
    }

    fn put(&self, parts: &Parts, name: &str, body: Bytes) -> Answer {
        let says = |header: &str, value: &str| parts.headers.get(header).is_some_and(|found| found == value);
        let is_create = says("x-goog-if-generation-match", "0") || says("if-none-match", "*");
        let existing = match self.creates {
            Creates::Refused if is_create => Existing::Refuse,
            _ => Existing::Replace,
        };
        match locked(&self.bucket).put(name, body, existing) {
            Some(generation) => answer(StatusCode::OK, Bytes::new(), &version(generation)),
            None => {
                let why = "At least one of the pre-conditions you specified did not hold.";
                refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", why, "")
            }
        }
    }

    fn get(&self, parts: &Parts, name: &str) -> Answer {
        let Some(object) = locked(&self.bucket).get(name).cloned() else { return no_such_key() };
        let mut headers = version(object.generation).to_vec();
        headers.push(("last-modified", object.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        if parts.method == Method::HEAD {
            // The length that the body of a GET would have; a HEAD has no body.
            headers.push(("content-length", object.body.len().to_string()));
            return answer(StatusCode::OK, Bytes::new(), &headers);
        }
        let Some(range) = parts.headers.get("range").and_then(|value| value.to_str().ok()) else {
            return answer(StatusCode::OK, object.body, &headers);
        };
        let total = object.body.len();
        match range.strip_prefix("bytes=").and_then(|range| within(range, total)) {
            Some(range) => {
                let content_range = format!("bytes {}-{}/{total}", range.start, range.end - 1);
                headers.push(("content-range", content_range));
                answer(StatusCode::PARTIAL_CONTENT, object.body.slice(range), &headers)
            }
            None => refused(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "InvalidRange",
                "The range cannot be satisfied.",
                "",
            ),
        }
    }

    fn list(&self, parts: &Parts) -> Answer {
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let get = |key: &str| query.get(key).map_or("", String::as_str);
        let page = locked(&self.bucket).list(&Query {
            prefix: get("prefix"),
            delimiter: query.get("delimiter").map(String::as_str).filter(|delimiter| !delimiter.is_empty()),
            after: get("start-after").max(get("continuation-token")),
            limit: get("max-keys").parse().unwrap_or(PAGE).min(PAGE),
        });
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
        for (name, Object { body, generation, modified }) in &page.objects {
            xml += &format!(
                "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{}</LastModified><ETag>\"{generation}\"</ETag></Contents>",
                escaped(name),
                body.len(),
                millis(*modified),
            );
        }
        for folder in &page.folders {
            xml += &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escaped(folder));
        }
        xml += &format!("<IsTruncated>{}</IsTruncated>", page.next.is_some());
        if let Some(next) = &page.next {
            xml += &format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(next));
        }
        xml += "</ListBucketResult>";
        answer(StatusCode::OK, xml.into(), &[("content-type", "application/xml".to_owned())])
    }
}

/// The bytes that `first-last`, `first-` or `-count` selects in an object of `total` bytes; `None` if there are none.
fn within(range: &str, total: usize) -> Option<Range<usize>> {
    let (first, last) = range.split_once('-')?;
    let range = match (first, last) {
        ("", count) => total.saturating_sub(count.parse().ok()?)..total,
        (first, "") => first.parse().ok()?..total,
        (first, last) => first.parse().ok()?..last.parse::<usize>().ok()?.saturating_add(1).min(total),
    };
    (!range.is_empty()).then_some(range)
}

fn version(generation: u64) -> [(&'static str, String); 2] {
    [("etag", format!("\"{generation}\"")), ("x-goog-generation", generation.to_string())]
}

fn millis(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn no_such_key() -> Answer {
    refused(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.", "")
}

fn refused(status: StatusCode, code: &str, message: &str, details: &str) -> Answer {
    let details = match details {
        "" => String::new(),
        details => format!("<Details>{}</Details>", escaped(details)),
    };
    let xml = format!("<Error><Code>{code}</Code><Message>{message}</Message>{details}</Error>");
    answer(status, xml.into(), &[("content-type", "application/xml".to_owned())])
}

fn answer(status: StatusCode, body: Bytes, headers: &[(&'static str, String)]) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
