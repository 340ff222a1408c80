//! Takes the keys of a table one by one, checks each, and notes what is wrong.
//!
//! A method returns `None` where a key is absent or wrong. What is wrong has then been noted, so a caller may go on
//! with any default: no spec is made once there is a mistake.

use std::ops::{Deref, RangeInclusive};

use crate::{
    keys::{self, Key},
    mistake::{Mistake, Problem},
    position::Position,
    quote,
    tree::{Item, Table, Value},
};

/// A value read, and where it was written.
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
    /// Its name; empty for the top of the file.
    name: &'static str,
    position: Position,
    /// The entries that nobody has taken yet.
    entries: Table,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// Reads the top of a file with `read`, then notes the keys that `read` did not take.
    pub(crate) fn root<T>(
        entries: Table,
        position: Position,
        mistakes: &'a mut Vec<Mistake>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        Reader { name: "", position, entries, mistakes }.all(read)
    }

    /// Reads the table `key` with `read`, then notes the keys that `read` did not take. A table that is absent reads as
    /// an empty one.
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
        Reader { name: key.name, position, entries, mistakes: self.mistakes }.all(read)
    }

    /// Reads the entries of the table `name`, which is the value of a key that may also be something else, with `read`,
    /// then notes the keys that `read` did not take.
    pub(crate) fn inner<T>(
        &mut self,
        name: &'static str,
        position: Position,
        entries: Table,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        Reader { name, position, entries, mistakes: self.mistakes }.all(read)
    }

    /// Reads the value of `key`, which has been taken already, as a whole number.
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
                self.note(item.position, key.dotted(), Problem::OutOfRange { found, least, most });
                None
            }
        }
    }

    fn all<T>(mut self, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
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

    /// Takes the value of `key` as it stands; notes it if it is absent and must not be.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Item> {
        debug_assert!(key.table == self.name && keys::ALL.contains(&key), "{key:?} does not belong here");
        let item = self.entries.remove(key.name);
        if item.is_none() && key.required {
            let problem = Problem::Missing { table: key.table, example: key.example };
            self.note(self.position.clone(), key.dotted(), problem);
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

    /// Takes a string that is neither blank nor holds a NUL byte.
    pub(crate) fn string(&mut self, key: &Key) -> Option<Positioned<String>> {
        let item = self.take(key)?;
        let Value::String(text) = &item.value else { return self.wrong_type(key, &item, "a string") };
        let problem = if text.contains('\0') {
            Problem::Nul
        } else if text.trim().is_empty() {
            Problem::Empty { example: key.example }
        } else {
            return Some(Positioned { value: text.clone(), position: item.position });
        };
        self.note(item.position, key.dotted(), problem);
        None
    }

    /// Takes a string and reads it with `parse`.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<Positioned<T>> {
        let Positioned { position, value } = self.string(key)?;
        match parse(&value) {
            Ok(value) => Some(Positioned { position, value }),
            Err(problem) => {
                self.note(position, key.dotted(), problem);
                None
            }
        }
    }

    /// Takes a string that is one of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &Key, choices: &[(&'static str, T)]) -> Option<T> {
        let chosen = self.parsed(key, |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
                let choices = choices.iter().map(|(word, _)| *word).collect();
                Problem::NoSuchChoice { found: text.to_owned(), choices }
            })
        });
        chosen.map(|chosen| chosen.value)
    }

    /// Notes that `item`, the value of `key`, is of the wrong type. Returns `None`, for its caller to return.
    pub(crate) fn wrong_type<T>(&mut self, key: &Key, item: &Item, wanted: &'static str) -> Option<T> {
        let problem =
            Problem::WrongType { found: item.value.describe(), wanted, example: key.example.to_owned() };
        self.note(item.position.clone(), key.dotted(), problem);
        None
    }

    /// Notes a mistake.
    pub(crate) fn note(&mut self, position: Position, key: String, problem: Problem) {
        self.mistakes.push(Mistake { position, key, problem });
    }

    /// The mistakes so far, for those who read a value in their own way.
    pub(crate) fn mistakes(&mut self) -> &mut Vec<Mistake> {
        self.mistakes
    }
}
