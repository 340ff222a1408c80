//! Where in a spec something was written.

use std::{fmt, sync::Arc};

use crate::quote;

/// Where something was written. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// On a line of the text.
    Line {
        /// The name of the text.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// At a character of the text.
    Column {
        /// The name of the text.
        file: Arc<str>,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// Nowhere in particular: it is absent.
    File {
        /// The name of the text.
        file: Arc<str>,
    },
    /// In an override.
    Override {
        /// The override, `KEY=VALUE`.
        text: Arc<str>,
    },
}

impl Position {
    /// Orders mistakes: by line, then what is absent, then overrides.
    pub(crate) fn order(&self) -> (u8, usize, usize) {
        match self {
            Self::Line { line, .. } => (0, *line, 0),
            Self::Column { line, column, .. } => (0, *line, *column),
            Self::File { .. } => (1, 0, 0),
            Self::Override { .. } => (2, 0, 0),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Column { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File { file } => f.write_str(file),
            Self::Override { text } => write!(f, "--set {}", quote::line(text)),
        }
    }
}

/// Finds the line of a byte.
pub(crate) struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    /// `starts[i]` is the byte at which line `i` starts, counted from 0.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { file: file.into(), text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The text as a whole.
    pub(crate) fn file(&self) -> Position {
        Position::File { file: self.file.clone() }
    }

    /// The line that holds byte `at`.
    pub(crate) fn line(&self, at: usize) -> Position {
        Position::Line { file: self.file.clone(), line: self.number(at) }
    }

    /// The character at byte `at`.
    pub(crate) fn column(&self, at: usize) -> Position {
        let line = self.number(at);
        let before = self.starts.get(line - 1).and_then(|&start| self.text.get(start..at));
        Position::Column {
            file: self.file.clone(),
            line,
            column: before.map_or(0, |text| text.chars().count()) + 1,
        }
    }

    /// The number of the line that holds byte `at`, counted from 1.
    pub(crate) fn number(&self, at: usize) -> usize {
        // The first line starts at byte 0, so this is at least 1.
        self.starts.partition_point(|&start| start <= at)
    }
}
