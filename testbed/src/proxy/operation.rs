//! What a request does to which object, whatever the cloud's dialect.

use std::{collections::HashMap, fmt};

use hyper::{Method, http::request};
use url::form_urlencoded;

/// How the names of a store's probes begin; what follows is drawn anew each time.
const PROBE: &str = "whimbrel-probe-";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// An object is written.
    Put,
    /// An object, or a range of it, is read.
    Get,
    /// An object is looked up.
    Head,
    /// Objects are listed.
    List,
    /// An object is deleted.
    Delete,
    /// Several objects are deleted in one request.
    DeleteMany,
    /// Anything else.
    Other,
}

/// The part of a run's directory that an operation is about.
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
    /// Not one of these.
    Other,
}

/// One operation of a program on its store: the same in every run of the program that does the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operation {
    /// What is done.
    pub verb: Verb,
    /// The object's name, or the prefix of a listing, within the proxy's root.
    pub name: String,
    /// The `Range` asked for, as it was sent.
    pub range: Option<String>,
    /// How many like it came before.
    pub occurrence: usize,
}

/// An operation that went through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub operation: Operation,
    /// Bytes of the request's body.
    pub sent: usize,
    /// Bytes of the body of the server's answer.
    pub answered: usize,
    /// The status of the server's answer; `None` where the server was not asked, or did not answer.
    pub status: Option<u16>,
}

impl Operation {
    /// The part of a run's directory that it is about.
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

/// Recognises operations under a root, and counts like ones.
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

    /// The operation that a request is.
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
            // An account's name may come before the bucket's.
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

    /// A listing's prefix without the part of the root that lies within the bucket, which is some end of the root.
    fn listed(&self, prefix: &str) -> String {
        let ends = self.root.match_indices('/').map(|(at, _)| &self.root[at + 1..]);
        let mut within = ends.filter_map(|end| prefix.strip_prefix(end));
        within.next().unwrap_or(prefix).trim_start_matches('/').to_owned()
    }
}

/// A path with its percent-encoded bytes decoded. A `+` stays one: in a path it stands for itself.
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
    fn the_three_dialects_say_the_same() {
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
    fn like_operations_are_told_apart_by_what_came_before() {
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
