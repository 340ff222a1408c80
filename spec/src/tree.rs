//! The text of a spec as a tree in which every value knows where it was written.
//!
//! Text and overrides become one tree, so that the reader need not know which a value came from, and still says so
//! when it is wrong.

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
    /// An integer as it was written, and its value. TOML's grammar sets integers no bounds: `None` is beyond 128 bits.
    Integer(String, Option<i128>),
    /// A float as it was written, and its value.
    Float(String, f64),
    Boolean(bool),
    Date(String),
    Array(Vec<Item>),
    Table(Table),
}

impl Item {
    /// Takes over a parsed value. `place_of` says where a byte of the text is.
    pub(crate) fn new(value: &DeValue<'_>, position: Position, place_of: &dyn Fn(usize) -> Position) -> Self {
        let value = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => {
                let value = i128::from_str_radix(integer.as_str(), integer.radix());
                Value::Integer(integer.to_string(), value.ok())
            }
            // The parser has checked the syntax; a value too large for an f64 reads as infinite.
            DeValue::Float(float) => {
                Value::Float(float.to_string(), float.as_str().parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Self::new(item.get_ref(), place_of(item.span().start), place_of))
                    .collect(),
            ),
            DeValue::Table(entries) => Value::Table(table(entries, place_of)),
        };
        Self { position, value }
    }
}

impl Value {
    /// What it is, for a message.
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

/// Reads TOML. The mistakes are the first of each line: the parser, trying to go on, may find more that are none.
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

fn table(entries: &DeTable<'_>, place_of: &dyn Fn(usize) -> Position) -> Table {
    let mut table = Table::new();
    for (key, value) in entries {
        let position = place_of(key.span().start);
        table.insert(key.get_ref().to_string(), Item::new(value.get_ref(), position, place_of));
    }
    table
}
