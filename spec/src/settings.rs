//! `[train.settings]`: converts TOML to JSON, the form in which the training program receives it.

use serde_json::{Map, Number, Value as Json};

use crate::{
    mistake::{Mistake, Problem},
    quote,
    tree::{Item, Table, Value},
};

/// The most levels of tables and arrays. Every parser of TOML and JSON takes more.
const DEEPEST: usize = 32;

/// The entries of the table `key` as JSON. Dates become strings. Reports what JSON cannot express.
pub(crate) fn to_json(key: &str, table: Table, mistakes: &mut Vec<Mistake>) -> Map<String, Json> {
    entries(key, table, 0, mistakes)
}

fn entries(key: &str, table: Table, depth: usize, mistakes: &mut Vec<Mistake>) -> Map<String, Json> {
    let mut map = Map::new();
    for (name, item) in table {
        let key = format!("{key}.{}", quote::key(&name));
        if let Some(value) = value(&key, item, depth, mistakes) {
            map.insert(name, value);
        }
    }
    map
}

fn value(key: &str, item: Item, depth: usize, mistakes: &mut Vec<Mistake>) -> Option<Json> {
    let found = item.value.describe();
    let problem = match item.value {
        Value::String(text) | Value::Date(text) => return Some(Json::String(text)),
        Value::Boolean(boolean) => return Some(Json::Bool(boolean)),
        Value::Integer(text, value) => match value.and_then(Number::from_i128) {
            Some(number) => return Some(Json::Number(number)),
            None => Problem::OutOfRange {
                found: quote::line(&text),
                least: i64::MIN.into(),
                most: u64::MAX.into(),
            },
        },
        Value::Float(_, float) => match Number::from_f64(float) {
            Some(number) => return Some(Json::Number(number)),
            None => Problem::NotFinite { found },
        },
        Value::Array(_) | Value::Table(_) if depth == DEEPEST => Problem::TooDeep { most: DEEPEST },
        Value::Array(items) => {
            let values = items
                .into_iter()
                .enumerate()
                .filter_map(|(index, item)| value(&format!("{key}[{index}]"), item, depth + 1, mistakes));
            return Some(Json::Array(values.collect()));
        }
        Value::Table(table) => return Some(Json::Object(entries(key, table, depth + 1, mistakes))),
    };
    mistakes.push(Mistake { position: item.position, key: key.to_owned(), problem });
    None
}
