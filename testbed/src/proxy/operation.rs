//! Operations: what a request does to which object. Recognises the requests of S3, Azure and GCS clients alike.

use std::{collections::HashMap, fmt};

use hyper::{Method, http::request};
use url::form_urlencoded;

/// The start of a store probe's name; the rest is random.
const PROBE: &str = "whimbrel-probe-";

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Writes an object.
    Put,
    /// Reads an object or a range of it.
    Get,
    /// Looks up an object's size and version.
    Head,
    /// Lists objects.
    List,
    /// Deletes an object.
    Delete,
    /// Deletes several objects with one request.
    DeleteMany,
    /// Anything else.
    Other,
}

/// A part of a run's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `log/`
    Log,
    /// `manifests/`
    Manifests,
    /// `packs/`
    Packs,
    /// `output/`
    Output,
    /// None of these.
    Other,
}

/// One operation of a program on its store. Equal runs of the program make equal operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operation {
    /// Its kind.
    pub verb: Verb,
    /// The object's name, or the prefix of a listing, within the proxy's root.
    pub name: String,
    /// The header `Range`, as it was sent.
    pub range: Option<String>,
    /// How many operations of the same kind, name and range came before.
    pub occurrence: usize,
}

/// An operation that went through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The operation.
    pub operation: Operation,
    /// The size of the request's body, in bytes.
    pub sent: usize,
    /// The size of the body of the server's answer, in bytes.
    pub answered: usize,
    /// The status of the server's answer; `None` if the server was not asked or did not answer.
    pub status: Option<u16>,
}

impl Operation {
    /// The part of a run's directory that the operation is about.
    pub fn part(&self) -> Part {
        let is =
            |part: &str| self.name.contains(&format!("/{part}/")) || self.name.ends_with(&format!("/{part}"));
        let parts = [
            ("log", Part::Log),
            ("manifests", Part::Manifests),
            ("packs", Part::Packs),
            ("output", Part::Output),
        ];
        parts.iter().find(|(name, _)| is(name)).map_or(Part::Other, |&(_, part)| part)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Put => "put",
            Verb::Get => "get",
            Verb::Head => "head",
            Verb::List => "list",
            Verb::Delete => "delete",
            Verb::DeleteMany => "delete many",
            Verb::Other => "other",
        };
        write!(f, "{verb} {}", self.name)?;
        if let Some(range) = &self.range {
            write!(f, " {range}")?;
        }
        match self.occurrence {
            0 => Ok(()),
            before => write!(f, " (number {})", before + 1),
        }
    }
}

/// Recognises operations under a root, and counts equal ones.
#[derive(Debug)]
pub(super) struct Recognizer {
    /// `/bucket/prefix`, without a slash at its end.
    root: String,
    counts: HashMap<(Verb, String, Option<String>), usize>,
}

impl Recognizer {
    pub(super) fn new(root: &str) -> Self {
        Self { root: format!("/{}", root.trim_matches('/')), counts: HashMap::new() }
    }

    /// The operation of a request.
    pub(super) fn recognize(&mut self, request: &request::Parts) -> Operation {
        let query: HashMap<String, String> =
            form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let path = decoded(request.uri.path());
        let lists = query.contains_key("list-type")
            || query.get("comp").is_some_and(|what| what == "list")
            || (query.contains_key("prefix") && request.method == Method::GET);
        let deletes_many =
            query.contains_key("delete") || query.get("comp").is_some_and(|what| what == "batch");
        let verb = match request.method {
            Method::GET if lists => Verb::List,
            Method::POST if deletes_many => Verb::DeleteMany,
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            Method::PUT => Verb::Put,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        };
        let mut name = match verb {
            Verb::List => self.listed(query.get("prefix").map_or("", String::as_str)),
            // An account's name may come before the bucket's name.
            _ => path
                .find(&self.root)
                .map_or(path.as_str(), |at| &path[at + self.root.len()..])
                .trim_start_matches('/')
                .to_owned(),
        };
        if let Some(at) = name.find(PROBE) {
            name.replace_range(at + PROBE.len().., "*");
        }
        let next = ["continuation-token", "marker"].iter().find_map(|key| query.get(*key));
        if verb == Verb::List && next.is_some_and(|token| !token.is_empty()) {
            name.push_str(", a further page");
        }
        let header = |key: &str| Some(request.headers.get(key)?.to_str().ok()?.to_owned());
        let range = header("range").or_else(|| header("x-ms-range"));
        let count = self.counts.entry((verb, name.clone(), range.clone())).or_default();
        let occurrence = *count;
        *count += 1;
        Operation { verb, name, range, occurrence }
    }

    /// A listing's prefix relative to the root. The prefix contains only the part of the root within the bucket, so
    /// each tail of the root is tried.
    fn listed(&self, prefix: &str) -> String {
        let ends = self.root.match_indices('/').map(|(at, _)| &self.root[at + 1..]);
        let mut within = ends.filter_map(|end| prefix.strip_prefix(end));
        within.next().unwrap_or(prefix).trim_start_matches('/').to_owned()
    }
}

/// Decodes the percent-encoded bytes of a path. In a path, `+` is a plain character.
fn decoded(path: &str) -> String {
    let kept = path.replace('+', "%2B");
    let pairs = form_urlencoded::parse(kept.as_bytes());
    pairs.map(|(key, _)| key.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn seen(recognizer: &mut Recognizer, method: &str, uri: &str) -> Operation {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        recognizer.recognize(&request.into_parts().0)
    }

    #[test]
    fn requests_of_s3_azure_and_gcs_are_recognised_alike() {
        for (root, list) in [
            ("bucket/case/7", "/bucket?list-type=2&prefix=case%2F7%2Fr%2Flog%2F"),
            (
                "account/container/case/7",
                "/account/container?restype=container&comp=list&prefix=case/7/r/log/",
            ),
            ("bucket", "/bucket?prefix=r%2Flog%2F&list-type=2"),
        ] {
            let mut recognizer = Recognizer::new(root);
            let operation = seen(&mut recognizer, "GET", list);
            assert_eq!((operation.verb, operation.name.as_str()), (Verb::List, "r/log/"), "{list}");
            assert_eq!(operation.part(), Part::Log);
            let put = seen(&mut recognizer, "PUT", &format!("/{root}/r/packs/ab/x%3D1+2"));
            assert_eq!((put.verb, put.name.as_str()), (Verb::Put, "r/packs/ab/x=1+2"));
            assert_eq!((put.part(), put.occurrence), (Part::Packs, 0));
        }
    }

    #[test]
    fn equal_operations_are_distinguished_by_their_number() {
        let mut recognizer = Recognizer::new("b");
        let first = seen(&mut recognizer, "HEAD", "/b/r/packs/1");
        let other = seen(&mut recognizer, "HEAD", "/b/r/packs/2");
        let second = seen(&mut recognizer, "HEAD", "/b/r/packs/1");
        assert_eq!((first.occurrence, other.occurrence, second.occurrence), (0, 0, 1));
        assert_eq!(second.to_string(), "head r/packs/1 (number 2)");
        seen(&mut recognizer, "PUT", "/b/whimbrel-probe-1234");
        let probe = seen(&mut recognizer, "PUT", "/b/whimbrel-probe-5678");
        assert_eq!(probe.to_string(), "put whimbrel-probe-* (number 2)");
        let many = seen(&mut recognizer, "POST", "/b?delete");
        assert_eq!(many.verb, Verb::DeleteMany);
        let page = seen(&mut recognizer, "GET", "/b?list-type=2&prefix=r/packs/&continuation-token=x");
        assert_eq!(page.name, "r/packs/, a further page");
    }
}
