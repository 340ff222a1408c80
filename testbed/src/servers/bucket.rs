//! A bucket of objects in memory, for our servers.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) body: Bytes,
    /// A number that identifies this version: no other version of any object has it.
    pub(crate) generation: u64,
    pub(crate) modified: DateTime<Utc>,
}

/// What a put does if the object exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Refuse,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Object)>,
    pub(crate) folders: Vec<String>,
    /// The last name of this page, from which the next page continues; `None` if this is the last page.
    pub(crate) next: Option<String>,
}

/// What to list.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    /// Names are cut after their first delimiter, and each folder that results is listed once.
    pub(crate) delimiter: Option<&'a str>,
    /// Only names after this one.
    pub(crate) after: &'a str,
    /// The most objects and folders in a page.
    pub(crate) limit: usize,
}

/// Objects by name.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    objects: BTreeMap<String, Object>,
    generations: u64,
}

impl Bucket {
    /// Stores an object and returns its generation; `None` if the object exists and must not be replaced.
    pub(crate) fn put(&mut self, name: &str, body: Bytes, existing: Existing) -> Option<u64> {
        if existing == Existing::Refuse && self.objects.contains_key(name) {
            return None;
        }
        self.generations += 1;
        let object = Object { body, generation: self.generations, modified: Utc::now() };
        self.objects.insert(name.to_owned(), object);
        Some(self.generations)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Object> {
        self.objects.get(name)
    }

    /// Deletes an object. Returns whether it existed.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.objects.remove(name).is_some()
    }

    pub(crate) fn list(&self, query: &Query<'_>) -> Page {
        let mut page = Page::default();
        let mut last = String::new();
        let from = query.prefix.max(query.after);
        for (name, object) in self.objects.range(from.to_owned()..) {
            let Some(rest) = name.strip_prefix(query.prefix) else { break };
            let folder = query
                .delimiter
                .and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()))
                .map(|length| &name[..query.prefix.len() + length]);
            // Skip what this page or one before it has listed, by its name or by its folder.
            let listed = folder.unwrap_or(name);
            if name.as_str() <= query.after
                || listed <= query.after
                || page.folders.last().is_some_and(|f| f == listed)
            {
                continue;
            }
            if page.objects.len() + page.folders.len() >= query.limit {
                page.next = Some(last);
                break;
            }
            last = listed.to_owned();
            match folder {
                Some(folder) => page.folders.push(folder.to_owned()),
                None => page.objects.push((name.clone(), object.clone())),
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(bucket: &Bucket, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let page = bucket.list(&Query { prefix, delimiter, after: &after, limit });
            pages.push(page.objects.into_iter().map(|(name, _)| name).chain(page.folders).collect());
            match page.next {
                Some(next) => after = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn listings_come_in_pages_with_each_name_once() {
        let mut bucket = Bucket::default();
        for name in ["a/1", "a/2", "a/b/1", "b", "c/1", "c/2"] {
            bucket.put(name, Bytes::new(), Existing::Refuse);
        }
        assert_eq!(pages(&bucket, "", None, 4), [vec!["a/1", "a/2", "a/b/1", "b"], vec!["c/1", "c/2"]]);
        assert_eq!(pages(&bucket, "", Some("/"), 1), [vec!["a/"], vec!["b"], vec!["c/"]]);
        assert_eq!(pages(&bucket, "a/", Some("/"), 10), [vec!["a/1", "a/2", "a/b/"]]);
        assert_eq!(pages(&bucket, "d", None, 10), [Vec::<String>::new()]);
    }

    #[test]
    fn a_create_of_an_existing_object_is_refused() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.put("a", Bytes::from("1"), Existing::Refuse), Some(1));
        assert_eq!(bucket.put("a", Bytes::from("2"), Existing::Refuse), None);
        assert_eq!(bucket.get("a").map(|object| object.body.clone()), Some(Bytes::from("1")));
        assert_eq!(bucket.put("a", Bytes::from("3"), Existing::Replace), Some(2));
        assert!(bucket.delete("a") && !bucket.delete("a"));
    }
}
