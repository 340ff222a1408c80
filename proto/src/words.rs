//! Errors as they cross the wire: one line of words for people elsewhere.

use std::error::Error;

/// An error's own words and those of all that caused it, outermost first: `could not do this: because of that: on account
/// of those`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors repeat their source in their own words.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
