//! Errors as text for the other side of a connection: one line.

use std::error::Error;

/// The messages of an error and of all its sources, outermost first: `cannot do this: that failed: the reason`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors repeat their source in their own message.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
