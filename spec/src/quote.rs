//! Writes strings and keys as TOML, and shortens a user's text for messages.

use std::fmt::Write;

/// The most characters of a user's text that a message shows.
const SHOWN: usize = 60;

/// `text` as a TOML basic string, on one line.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    escape_into(&mut quoted, text, true);
    quoted.push('"');
    quoted
}

/// `name` as a TOML key: bare if TOML allows that, otherwise quoted.
pub(crate) fn key(name: &str) -> String {
    let bare = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { string(name) }
}

/// `text` for a message: quoted, on one line, shortened.
pub(crate) fn excerpt(text: &str) -> String {
    string(&cut(text))
}

/// `text` for a message: on one line, without quotes, shortened.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::new();
    escape_into(&mut line, &cut(text), false);
    line
}

fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(SHOWN).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// Escapes every control character, even those that TOML allows, so that no text can move a terminal's cursor.
fn escape_into(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '"' | '\\' if quotes => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a String cannot fail.
            _ if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            _ => out.push(c),
        }
    }
}
