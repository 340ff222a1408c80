//! Overrides: `KEY=VALUE` from the command line, applied to the tree of a spec before it is read.

use std::{fmt, str::FromStr, sync::Arc};

use toml::de::{DeTable, DeValue};

use crate::{
    position::Position,
    tree::{Item, Table, Value},
};

/// One `KEY=VALUE`, such as `train.steps=40`.
///
/// The key is dotted, as in TOML. The value is read as TOML; if it is not TOML it is taken as a string, so that
/// `checkpoint.every=10 steps` needs no quotes. It replaces the key's value in the text, even a whole table. If two
/// overrides name the same key, the later one counts.
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

    /// Sets the key in `root`. A table that this creates has the position `file`: it is not in the text.
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
        // A quoted key may contain '=': split at the first '=' that leaves a valid key before it.
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

/// The parts of a dotted key; `None` if `key` is not one. TOML's parser decides.
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
    fn a_value_is_toml_or_otherwise_a_string() {
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
    fn text_without_a_key_and_a_value_is_refused() {
        for text in ["", "=", "=5", "steps", "a b=1", "a..b=1", "[a]=1", "# a=1", "a\n=1", "é=1"] {
            let error = text.parse::<Override>().unwrap_err();
            let expected = format!("{text:?} is not KEY=VALUE with a dotted key; write it as train.steps=40");
            assert_eq!(error.to_string(), expected);
        }
    }
}
