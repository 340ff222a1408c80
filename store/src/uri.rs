//! The URIs of stores, runs and checkpoints as text: joining and splitting them. Nothing is looked up.
//!
//! The options of an `s3://` URI, `?endpoint=…`, stay at the end: the run `r-1` in `s3://lab?region=a` is
//! `s3://lab/r-1?region=a`.

use std::path::Path;

use url::Url;

/// The URI of `name` inside the store or folder at `uri`.
pub fn inside(uri: &str, name: &str) -> String {
    let (path, options) = split_options(uri);
    let trimmed = path.trim_end_matches('/');
    // Trimming the root folder, file:///, removes the two slashes of the scheme too.
    let root = if path.contains("://") && trimmed.ends_with(':') { "//" } else { "" };
    format!("{trimmed}{root}/{name}{options}")
}

/// The URI or path of the parent, and the last segment; `None` if there is no last segment.
pub fn parent(uri: &str) -> Option<(String, &str)> {
    let (path, options) = split_options(uri);
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    // The parent of "/run" and of "file:///run" is the root folder.
    let slash = if parent.is_empty() || parent.ends_with('/') { "/" } else { "" };
    (!name.is_empty()).then(|| (format!("{parent}{slash}{options}"), name))
}

/// The URI of the folder at an absolute path, with a slash at its end for the root; `None` if the path is relative.
pub(crate) fn of_folder(path: &Path) -> Option<String> {
    let url = Url::from_directory_path(path).ok()?;
    let trimmed = url.as_str().trim_end_matches('/');
    Some(if trimmed == "file:" { "file:///".to_owned() } else { trimmed.to_owned() })
}

/// The URI of the checkpoint after `step` of the run at `uri`.
pub fn at_step(uri: &str, step: u64) -> String {
    let (path, options) = split_options(uri);
    format!("{path}@{step}{options}")
}

/// Splits a URI before its options, which keep their question mark. The path of a local folder has no options: a question
/// mark in it is part of a name.
fn split_options(uri: &str) -> (&str, &str) {
    let is_in_cloud = uri.contains("://") && !uri.starts_with("file:");
    match uri.find('?') {
        Some(at) if is_in_cloud => uri.split_at(at),
        _ => (uri, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stay_at_the_end_of_joined_and_split_uris() {
        let store = "s3://lab/runs?endpoint=http://a";
        let run = inside(store, "r-1");
        assert_eq!(run, "s3://lab/runs/r-1?endpoint=http://a");
        assert_eq!(parent(&run), Some((store.to_owned(), "r-1")));
        assert_eq!(inside("what?/runs/", "r-1"), "what?/runs/r-1");
        assert_eq!(parent("file:///srv/what?/r-1/"), Some(("file:///srv/what?".to_owned(), "r-1")));
        assert_eq!(parent("r-1"), Some((".".to_owned(), "r-1")));
        assert_eq!(parent("/r-1"), Some(("/".to_owned(), "r-1")));
        assert_eq!(parent("file:///r-1"), Some(("file:///".to_owned(), "r-1")));
        assert_eq!(parent("r-1/"), Some((".".to_owned(), "r-1")));
        assert_eq!((inside("file:///", "r-1"), inside("/", "r-1")), ("file:///r-1".into(), "/r-1".into()));
        assert_eq!(of_folder(Path::new("/")).unwrap(), "file:///");
        assert_eq!(of_folder(Path::new("/srv/runs/")).unwrap(), "file:///srv/runs");
        assert_eq!(at_step(&run, 7), "s3://lab/runs/r-1@7?endpoint=http://a");
    }
}
