//! `KEY=VALUE` from the command line, laid over the text of a spec.

use std::{fmt, str::FromStr, sync::Arc};

use toml::de::{DeTable, DeValue};

use crate::{
    position::Position,
    tree::{Item, Table, Value},
};

/// One `KEY=VALUE`, such as `train.steps=40`.
///
/// The key is dotted, as in TOML. The value is TOML if it reads as TOML, otherwise a string: `checkpoint.every=10 steps`
/// needs no quotes. It replaces whatever the text says at that key, a whole table included; of two overrides of one key
/// the later counts.
#[derive(Clone, Debug)]
pub struct Override {
    text: Arc<str>,
    path: Vec<String>,
    value: Value,
}

/// The text is not `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not KEY=VALUE with a dotted key; write it as train.steps=40")]
pub struct InvalidOverride(String);

impl Override {
    fn position(&self) -> Position {
        Position::Override { text: self.text.clone() }
    }

    /// Sets its key in `root`. Tables made on the way count as absent from `file`.
    pub(crate) fn apply(&self, root: &mut Table, file: &Position) {
        self.set(root, &self.path, file);
    }

    fn set(&self, table: &mut Table, path: &[String], file: &Position) {
        match path {
            [] => {}
            [name] => {
                table.insert(name.clone(), Item { position: self.position(), value: self.value.clone() });
            }
            [name, rest @ ..] => {
                let (position, mut inner) = match table.remove(name) {
                    Some(Item { position, value: Value::Table(inner) }) => (position, inner),
                    Some(_) => (self.position(), Table::new()),
                    None => (file.clone(), Table::new()),
                };
                self.set(&mut inner, rest, file);
                table.insert(name.clone(), Item { position, value: Value::Table(inner) });
            }
        }
    }
}

impl FromStr for Override {
    type Err = InvalidOverride;

    fn from_str(text: &str) -> Result<Self, InvalidOverride> {
        // A quoted key may hold a '=' of its own: the first one that ends a key is the one meant.
        let mut splits = text.match_indices('=').map(|(at, _)| (&text[..at], text[at + 1..].trim()));
        let Some((path, value)) = splits.find_map(|(key, value)| Some((path(key)?, value))) else {
            return Err(InvalidOverride(text.chars().take(80).collect()));
        };
        let text: Arc<str> = text.into();
        let position = Position::Override { text: text.clone() };
        let value = match DeValue::parse(value) {
            Ok(parsed) => Item::new(parsed.get_ref(), position.clone(), &|_| position.clone()).value,
            Err(_) => Value::String(value.to_owned()),
        };
        Ok(Self { text, path, value })
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The parts of a dotted key, if `key` is one. TOML's own parser says what that is.
fn path(key: &str) -> Option<Vec<String>> {
    if key.contains('\n') {
        return None;
    }
    let line = format!("{key}=0");
    let root = DeTable::parse(&line).ok()?;
    let mut path = Vec::new();
    let mut table = root.get_ref();
    loop {
        let (name, value) = table.iter().next()?;
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, Value) {
        let Override { path, value, .. } = text.parse().unwrap();
        (path, value)
    }

    #[test]
    fn values_are_toml_or_else_strings() {
        for (text, description) in [
            ("name=foo", "the string \"foo\""),
            ("name = \"foo bar\"", "the string \"foo bar\""),
            ("name=", "the string \"\""),
            ("checkpoint.every=10 steps", "the string \"10 steps\""),
            ("train.steps= 40", "the number 40"),
            ("train.settings.rate=1e-3", "the number 1e-3"),
            ("train.settings.dropout=false", "false"),
            ("command=[\"a\", \"b=c\"]", "an array"),
            ("evaluate={ every = \"2 steps\" }", "a table"),
            ("workers.environment.URL=http://x/?a=b", "the string \"http://x/?a=b\""),
        ] {
            assert_eq!(read(text).1.describe(), description, "{text}");
        }
    }

    #[test]
    fn keys_are_dotted_and_may_be_quoted() {
        assert_eq!(read("a.b-c . d_1=x").0, ["a", "b-c", "d_1"]);
        assert_eq!(read("a.\"b.c=d\".'e'=x=y").0, ["a", "b.c=d", "e"]);
    }

    #[test]
    fn what_is_no_override_is_refused() {
        for text in ["", "=", "=5", "steps", "a b=1", "a..b=1", "[a]=1", "# a=1", "a\n=1", "é=1"] {
            let error = text.parse::<Override>().unwrap_err();
            let expected = format!("{text:?} is not KEY=VALUE with a dotted key; write it as train.steps=40");
            assert_eq!(error.to_string(), expected);
        }
    }
}
