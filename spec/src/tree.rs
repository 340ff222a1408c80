//! The text of a spec as a tree of TOML values, each with its position.
//!
//! Text and overrides become one tree. The reader treats both alike, and a message still says which of them is wrong.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

use crate::{
    mistake::{Mistake, Problem},
    position::{Lines, Position},
    quote,
};

/// The entries of a table, by key.
pub(crate) type Table = BTreeMap<String, Item>;

/// A value and its position.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    /// An integer as written, and its value; `None` if it exceeds 128 bits, which TOML's grammar allows.
    Integer(String, Option<i128>),
    /// A float as written, and its value.
    Float(String, f64),
    Boolean(bool),
    Date(String),
    Array(Vec<Item>),
    Table(Table),
}

impl Item {
    /// Converts a parsed value. `position_of` maps a byte of the text to its position.
    pub(crate) fn new(
        value: &DeValue<'_>,
        position: Position,
        position_of: &dyn Fn(usize) -> Position,
    ) -> Self {
        let value = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => {
                let value = i128::from_str_radix(integer.as_str(), integer.radix());
                Value::Integer(integer.to_string(), value.ok())
            }
            // The parser has checked the syntax. A value that is too large for an f64 reads as infinite.
            DeValue::Float(float) => {
                Value::Float(float.to_string(), float.as_str().parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Self::new(item.get_ref(), position_of(item.span().start), position_of))
                    .collect(),
            ),
            DeValue::Table(entries) => Value::Table(table(entries, position_of)),
        };
        Self { position, value }
    }
}

impl Value {
    /// Describes the value for a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::String(text) => format!("the string {}", quote::excerpt(text)),
            Self::Integer(text, _) | Self::Float(text, _) => format!("the number {}", quote::line(text)),
            Self::Boolean(boolean) => format!("{boolean}"),
            Self::Date(date) => format!("the date {date}"),
            Self::Array(_) => "an array".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Reads TOML. Reports only the first error of each line: the parser continues after an error and may report follow-up
/// errors on the same line.
pub(crate) fn parse(lines: &Lines<'_>, text: &str) -> Result<Table, Vec<Mistake>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(root.get_ref(), &|at| lines.line(at)));
    }
    let end = text.len();
    let mut found: Vec<_> =
        errors.iter().map(|error| (error.span().unwrap_or(end..end), error.message())).collect();
    found.sort_by_key(|(span, _)| span.start);
    found.dedup_by_key(|(span, _)| lines.number(span.start));
    let mistake = |(span, message): (Range<usize>, &str)| {
        let position = lines.column(span.start);
        let found = text.get(span).unwrap_or_default().to_owned();
        Mistake {
            position,
            key: String::new(),
            problem: Problem::Syntax { message: message.to_owned(), found },
        }
    };
    Err(found.into_iter().map(mistake).collect())
}

fn table(entries: &DeTable<'_>, position_of: &dyn Fn(usize) -> Position) -> Table {
    let mut table = Table::new();
    for (key, value) in entries {
        let position = position_of(key.span().start);
        table.insert(key.get_ref().to_string(), Item::new(value.get_ref(), position, position_of));
    }
    table
}
