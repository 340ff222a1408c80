//! The URIs of stores and of what is in them: the options of a cloud's URI stay behind its path.

/// The URI of what a store's URI has inside it under `name`.
pub(crate) fn inside(store: &str, name: &str) -> String {
    let (place, options) = apart(store);
    format!("{}/{name}{options}", place.trim_end_matches('/'))
}

/// The store that a URI or path is inside, and the name that it has there; `None` if it has no last segment.
pub(crate) fn parent(uri: &str) -> Option<(String, &str)> {
    let (place, options) = apart(uri);
    let (store, name) = place.trim_end_matches('/').rsplit_once('/').unwrap_or((".", place));
    let root = store.is_empty() || store.ends_with('/');
    (!name.is_empty()).then(|| (format!("{store}{}{options}", if root { "/" } else { "" }), name))
}

/// What stands before the options of a cloud's URI, and the options with their question mark.
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
    }
}
