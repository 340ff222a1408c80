//! Which tensors are meant, and what they are called on the other side.

use glob::{Pattern, PatternError};

/// Chooses tensors by name, and renames them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    only: Vec<Pattern>,
    without: Vec<Pattern>,
    rename: Vec<(String, String)>,
}

/// Text that is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no pattern for the names of tensors; write it like \"model.*\" or \"adam.[mv].*\"")]
pub struct SelectionError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub source: PatternError,
}

impl Selection {
    /// Takes the tensors that match one of the patterns `only`, or all if there is none, and of these leaves out those
    /// that match one of `without`. In a pattern `*` stands for any characters, `?` for one, `[ab]` for one of these.
    ///
    /// A name that starts with the first text of a pair in `rename` then starts with the second: the first pair that
    /// fits counts.
    pub fn new(
        only: &[String],
        without: &[String],
        rename: Vec<(String, String)>,
    ) -> Result<Self, SelectionError> {
        let parse = |text: &String| {
            Pattern::new(text).map_err(|source| SelectionError { text: text.clone(), source })
        };
        let all = |texts: &[String]| texts.iter().map(parse).collect::<Result<Vec<_>, _>>();
        Ok(Self { only: all(only)?, without: all(without)?, rename })
    }

    /// What the tensor `name` is called on the other side; `None` if it is left out.
    pub fn rename(&self, name: &str) -> Option<String> {
        let among = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        if (!self.only.is_empty() && !among(&self.only)) || among(&self.without) {
            return None;
        }
        let renamed =
            |(from, to): &(String, String)| Some(format!("{to}{}", name.strip_prefix(from.as_str())?));
        Some(self.rename.iter().find_map(renamed).unwrap_or_else(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_chosen_by_patterns_and_renamed_by_prefix() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let pairs = vec![("model.".into(), "transformer.".into()), ("model".into(), "m".into())];
        let selection = Selection::new(&texts(&["model*"]), &texts(&["*.[mv]"]), pairs).unwrap();
        for (name, expected) in [
            ("model.w", Some("transformer.w")),
            ("models", Some("ms")),
            ("model.w.m", None),
            ("adam.m", None),
        ] {
            assert_eq!(selection.rename(name).as_deref(), expected, "{name}");
        }
        assert_eq!(Selection::default().rename("a/b").as_deref(), Some("a/b"));
        let error = Selection::new(&texts(&["a["]), &[], Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("\"a[\" is no pattern"), "{error}");
    }
}
