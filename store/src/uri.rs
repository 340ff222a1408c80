//! The URIs of stores and of what is in them: the options of a cloud's URI, `?endpoint=…`, stay behind its path.

use std::path::Path;

use url::Url;

/// The URI of what the place at `uri` has inside it under `name`.
pub fn inside(uri: &str, name: &str) -> String {
    let (place, options) = apart(uri);
    let trimmed = place.trim_end_matches('/');
    // The root folder is all slashes behind its scheme, of which two belong to that.
    let root = if place.contains("://") && trimmed.ends_with(':') { "//" } else { "" };
    format!("{trimmed}{root}/{name}{options}")
}

/// The place that a URI or path is inside, and the name that it has there; `None` if it has no last segment.
pub fn parent(uri: &str) -> Option<(String, &str)> {
    let (place, options) = apart(uri);
    let place = place.trim_end_matches('/');
    let (parent, name) = place.rsplit_once('/').unwrap_or((".", place));
    // What is left of "/run" and of "file:///run" is the root folder.
    let slash = if parent.is_empty() || parent.ends_with('/') { "/" } else { "" };
    (!name.is_empty()).then(|| (format!("{parent}{slash}{options}"), name))
}

/// The URI of the folder at an absolute path, with a slash at its end if it is the root; `None` if the path is relative.
pub(crate) fn of_folder(path: &Path) -> Option<String> {
    let url = Url::from_directory_path(path).ok()?;
    let trimmed = url.as_str().trim_end_matches('/');
    Some(if trimmed == "file:" { "file:///".to_owned() } else { trimmed.to_owned() })
}

/// The URI of the checkpoint after `step` of the run at `uri`.
pub fn at_step(uri: &str, step: u64) -> String {
    let (place, options) = apart(uri);
    format!("{place}@{step}{options}")
}

/// What stands before a URI's options, and those with their question mark. The path of a folder has none: there a
/// question mark is part of a name.
fn apart(uri: &str) -> (&str, &str) {
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
    fn options_stay_behind_what_is_added_to_a_uri_and_taken_from_it() {
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
