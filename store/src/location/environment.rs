//! Environment variables, as a value: tests and tools open stores with variables that are not this process's.

use std::{collections::BTreeMap, env, fmt};

/// Environment variables, this process's or given ones: where clients look for credentials. [`Debug`](fmt::Debug) shows
/// only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's variables, as far as they are valid UTF-8.
    pub fn of_process() -> Self {
        env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// A variable's value; `None` if it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of the first of these variables that has one.
    pub(crate) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// The variables whose names start with `prefix`, with their names in lower case, as clients parse them.
    pub(crate) fn options<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        let named = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        named
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// Whether a variable is set to a yes.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            ["1", "true", "yes", "on", "y", "t"].contains(&value.to_ascii_lowercase().as_str())
        })
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
