//! Errors as one line, for messages to people elsewhere.

use std::error::Error;

/// An error and all its sources, outermost first: `could not do this: because of that: on account of those`.
pub(crate) fn reason(error: &dyn Error) -> String {
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
