//! Takes the keys of a table one by one, checks each, and collects the mistakes.
//!
//! A method returns `None` if a key is absent or wrong. A wrong key has then been reported, so the caller may continue
//! with any default: [`RunSpec::parse`](crate::RunSpec::parse) returns no spec if there is a mistake.

use std::ops::{Deref, RangeInclusive};

use crate::{
    keys::{self, Key},
    mistake::{Mistake, Problem},
    position::Position,
    quote,
    tree::{Item, Table, Value},
};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Positioned<T> {
    pub(crate) position: Position,
    pub(crate) value: T,
}

impl<T> Deref for Positioned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Reads one table of a spec.
pub(crate) struct Reader<'a> {
    /// Its dotted name; empty for the top level.
    name: &'static str,
    position: Position,
    /// The entries that are not taken yet.
    entries: Table,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// Reads the top level with `read`, then reports the keys that `read` did not take as unknown.
    pub(crate) fn root<T>(
        entries: Table,
        position: Position,
        mistakes: &'a mut Vec<Mistake>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        Reader { name: "", position, entries, mistakes }.read_all(read)
    }

    /// Reads the table `key` with `read`, then reports the keys that `read` did not take as unknown. An absent table
    /// reads as an empty one.
    pub(crate) fn table<T>(
        &mut self,
        key: &Key,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        let (position, entries) = match self.take(key) {
            None => (self.position.clone(), Table::new()),
            Some(Item { position, value: Value::Table(entries) }) => (position, entries),
            Some(item) => return self.wrong_type(key, &item, "a table"),
        };
        self.inner(key.name, position, entries, read)
    }

    /// Like [`table`](Self::table), for a table that was taken already.
    pub(crate) fn inner<T>(
        &mut self,
        name: &'static str,
        position: Position,
        entries: Table,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        Reader { name, position, entries, mistakes: self.mistakes }.read_all(read)
    }

    /// Like [`number`](Self::number), for a value of `key` that was taken already.
    pub(crate) fn number_in<T>(
        &mut self,
        key: &Key,
        item: Item,
        range: RangeInclusive<T>,
    ) -> Option<Positioned<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let Value::Integer(found, value) = &item.value else {
            return self.wrong_type(key, &item, "a whole number");
        };
        let (least, most) = ((*range.start()).into(), (*range.end()).into());
        let value = value.filter(|value| (least..=most).contains(value));
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => Some(Positioned { position: item.position, value }),
            None => {
                let found = quote::line(found);
                self.report(item.position, key.dotted(), Problem::OutOfRange { found, least, most });
                None
            }
        }
    }

    fn read_all<T>(mut self, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let result = read(&mut self);
        for (name, item) in self.entries {
            let problem = Problem::UnknownKey {
                meant: keys::meant_by(self.name, &name),
                table: self.name,
                known: keys::names_in(self.name).collect(),
            };
            let name = quote::key(&name);
            let key = if self.name.is_empty() { name } else { format!("{}.{name}", self.name) };
            self.mistakes.push(Mistake { position: item.position, key, problem });
        }
        result
    }

    /// Whether there is a value of `key` to take.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(key.name)
    }

    /// Takes the value of `key`, of any type. Reports a required key that is absent.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Item> {
        debug_assert!(
            key.table == self.name && keys::ALL.contains(&key),
            "{key:?} is not a key of this table"
        );
        let item = self.entries.remove(key.name);
        if item.is_none() && key.required {
            let problem = Problem::Missing { table: key.table, example: key.example };
            self.report(self.position.clone(), key.dotted(), problem);
        }
        item
    }

    /// Takes a whole number.
    pub(crate) fn number<T>(&mut self, key: &Key, range: RangeInclusive<T>) -> Option<Positioned<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let item = self.take(key)?;
        self.number_in(key, item, range)
    }

    /// Takes a string that is not blank and contains no NUL byte.
    pub(crate) fn string(&mut self, key: &Key) -> Option<Positioned<String>> {
        let item = self.take(key)?;
        let Value::String(text) = &item.value else { return self.wrong_type(key, &item, "a string") };
        let problem = if text.contains('\0') {
            Problem::Nul
        } else if text.trim().is_empty() {
            Problem::Empty { example: key.example, unset: (!key.required).then(|| key.dotted()) }
        } else {
            return Some(Positioned { value: text.clone(), position: item.position });
        };
        self.report(item.position, key.dotted(), problem);
        None
    }

    /// Takes a string and converts it with `parse`.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<Positioned<T>> {
        let Positioned { position, value } = self.string(key)?;
        match parse(&value) {
            Ok(value) => Some(Positioned { position, value }),
            Err(problem) => {
                self.report(position, key.dotted(), problem);
                None
            }
        }
    }

    /// Takes a string that must be one of `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, key: &Key, choices: &[(&'static str, T)]) -> Option<T> {
        let chosen = self.parsed(key, |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
                let choices = choices.iter().map(|(word, _)| *word).collect();
                Problem::NoSuchChoice { found: text.to_owned(), choices }
            })
        });
        chosen.map(|chosen| chosen.value)
    }

    /// Reports that `item`, the value of `key`, has the wrong type. Returns `None`, for its caller to return.
    pub(crate) fn wrong_type<T>(&mut self, key: &Key, item: &Item, wanted: &'static str) -> Option<T> {
        let problem =
            Problem::WrongType { found: item.value.describe(), wanted, example: key.example.to_owned() };
        self.report(item.position.clone(), key.dotted(), problem);
        None
    }

    /// Reports a mistake.
    pub(crate) fn report(&mut self, position: Position, key: String, problem: Problem) {
        self.mistakes.push(Mistake { position, key, problem });
    }

    /// The mistakes so far, for a caller that checks a value by itself.
    pub(crate) fn mistakes(&mut self) -> &mut Vec<Mistake> {
        self.mistakes
    }
}
