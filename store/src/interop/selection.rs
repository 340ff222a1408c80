//! Which tensors are exported or imported, and under which names.

use glob::{Pattern, PatternError};

/// Chooses tensors by name and renames them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    only: Vec<Pattern>,
    without: Vec<Pattern>,
    rename: Vec<(String, String)>,
}

/// A text that is not a pattern.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a pattern for tensor names; write it like \"model.*\" or \"adam.[mv].*\"")]
pub struct SelectionError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub source: PatternError,
}

impl Selection {
    /// Chooses the tensors that match one of the patterns `only` (all if `only` is empty) and none of the patterns
    /// `without`. In a pattern, `*` stands for any characters, `?` for one character, `[ab]` for one of these.
    ///
    /// `rename` holds pairs of prefixes: a name that starts with the first then starts with the second. The first pair
    /// that fits counts.
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

    /// The new name of the tensor `name`; `None` if the tensor is not chosen.
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
    fn tensors_are_chosen_by_pattern_and_renamed_by_prefix() {
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
        assert!(error.to_string().starts_with("\"a[\" is not a pattern"), "{error}");
    }
}
