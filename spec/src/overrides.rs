//! Overrides from the command line, `--set KEY=VALUE`, `--unset KEY` and flags that stand for a key, applied to the tree
//! of a spec before it is read.

use std::{fmt, str::FromStr, sync::Arc};

use toml::de::{DeTable, DeValue};

use crate::{
    keys,
    mistake::{Mistake, Problem},
    position::Position,
    quote,
    tree::{Item, Table, Value},
};

/// A key with a new value, such as `train.steps=40`, or a key to unset, see [`Override::unset`].
///
/// The key is dotted, as in TOML. The value is read as TOML; if it is not TOML it is taken as a string, so that
/// `checkpoint.every=10 steps` needs no quotes. It replaces the key's value in the text, even a whole table. If two
/// overrides name the same key, the later one counts.
#[derive(Clone, Debug)]
pub struct Override {
    text: Arc<str>,
    path: Vec<String>,
    /// `None` unsets the key.
    value: Option<Value>,
    position: Position,
}

/// The text is not an override.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOverride {
    /// The text is not `KEY=VALUE`.
    #[error("{0:?} is not KEY=VALUE with a dotted key; write it as train.steps=40")]
    Set(String),
    /// The text is not a key.
    #[error("{0:?} is not a dotted key; write it as checkpoint.bandwidth")]
    Unset(String),
}

impl Override {
    /// Unsets a dotted key: the spec is read as if the text did not have it. A key that the text does not have is no
    /// mistake; a key that does not exist is one, and so is a required key.
    pub fn unset(key: &str) -> Result<Self, InvalidOverride> {
        let path = path(key).ok_or_else(|| InvalidOverride::Unset(key.chars().take(80).collect()))?;
        let text: Arc<str> = key.into();
        Ok(Self { position: Position::Unset { key: text.clone() }, text, path, value: None })
    }

    /// Sets a dotted key by a flag of its own, such as `--steps 40` for `train.steps`. Messages name the flag.
    pub fn flag(flag: &str, key: &str, value: u64) -> Result<Self, InvalidOverride> {
        let path = path(key).ok_or_else(|| InvalidOverride::Unset(key.chars().take(80).collect()))?;
        let text: Arc<str> = format!("{flag} {value}").into();
        let value = Some(Value::Integer(value.to_string(), Some(value.into())));
        Ok(Self { position: Position::Flag { text: text.clone() }, text, path, value })
    }

    /// Whether the override concerns this key, or one in the table of this name.
    pub fn concerns(&self, key: &str) -> bool {
        path(key).is_some_and(|key| self.path.starts_with(&key))
    }

    /// Sets or unsets the key in `root`. A table that this creates has the position `file`: it is not in the text.
    ///
    /// Fails, and changes nothing, if the key cannot be unset.
    pub(crate) fn apply(&self, root: &mut Table, file: &Position) -> Result<(), Mistake> {
        match &self.value {
            Some(value) => self.set(root, &self.path, value, file),
            None => {
                self.check_unset()?;
                remove(root, &self.path);
            }
        }
        Ok(())
    }

    fn check_unset(&self) -> Result<(), Mistake> {
        let (key, problem) = match keys::find(&self.path) {
            Ok(None) => return Ok(()),
            Ok(Some(key)) if !key.required => return Ok(()),
            Ok(Some(key)) => (key.dotted(), Problem::UnsetRequired { example: key.example }),
            Err((table, name)) => {
                let key =
                    if table.is_empty() { quote::key(name) } else { format!("{table}.{}", quote::key(name)) };
                let known = keys::names_in(table).collect();
                (key, Problem::UnknownKey { meant: keys::meant_by(table, name), table, known })
            }
        };
        Err(Mistake { position: self.position.clone(), key, problem })
    }

    fn set(&self, table: &mut Table, path: &[String], value: &Value, file: &Position) {
        match path {
            [] => {}
            [name] => {
                table.insert(name.clone(), Item { position: self.position.clone(), value: value.clone() });
            }
            [name, rest @ ..] => {
                let (position, mut inner) = match table.remove(name) {
                    Some(Item { position, value: Value::Table(inner) }) => (position, inner),
                    Some(_) => (self.position.clone(), Table::new()),
                    None => (file.clone(), Table::new()),
                };
                self.set(&mut inner, rest, value, file);
                table.insert(name.clone(), Item { position, value: Value::Table(inner) });
            }
        }
    }
}

/// Removes the entry at `path`, if there is one.
fn remove(table: &mut Table, path: &[String]) {
    match path {
        [] => {}
        [name] => drop(table.remove(name)),
        [name, rest @ ..] => {
            if let Some(Item { value: Value::Table(inner), .. }) = table.get_mut(name) {
                remove(inner, rest);
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
            return Err(InvalidOverride::Set(text.chars().take(80).collect()));
        };
        let text: Arc<str> = text.into();
        let position = Position::Override { text: text.clone() };
        let value = match DeValue::parse(value) {
            Ok(parsed) => Item::new(parsed.get_ref(), position.clone(), &|_| position.clone()).value,
            Err(_) => Value::String(value.to_owned()),
        };
        Ok(Self { text, path, value: Some(value), position })
    }
}

impl fmt::Display for Override {
    /// `KEY=VALUE`, the flag with its value, or the key to unset.
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
        (path, value.unwrap())
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
    fn only_a_dotted_key_can_be_unset() {
        for key in ["", "setup=", "a b", "a..b", "[a]", "a\nb"] {
            let expected = format!("{key:?} is not a dotted key; write it as checkpoint.bandwidth");
            assert_eq!(Override::unset(key).unwrap_err().to_string(), expected);
        }
        assert_eq!(Override::unset("a.\"b.c\"").unwrap().path, ["a", "b.c"]);
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
