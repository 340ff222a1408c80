//! Where a value of a spec was written: a line of the text, or an override. Each mistake has a position.

use std::{fmt, sync::Arc};

use crate::quote;

/// Where a value was written. Lines and columns count from 1; columns are in characters.
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
    /// In the file as a whole: the key is missing.
    File {
        /// The name of the text.
        file: Arc<str>,
    },
    /// In an override.
    Override {
        /// The override, `KEY=VALUE`.
        text: Arc<str>,
    },
    /// In a flag that stands for a key.
    Flag {
        /// The flag and its value, `--steps 40`.
        text: Arc<str>,
    },
    /// In a key to unset.
    Unset {
        /// The key.
        key: Arc<str>,
    },
}

impl Position {
    /// The sort key of mistakes: by line, then missing keys, then overrides.
    pub(crate) fn order(&self) -> (u8, usize, usize) {
        match self {
            Self::Line { line, .. } => (0, *line, 0),
            Self::Column { line, column, .. } => (0, *line, *column),
            Self::File { .. } => (1, 0, 0),
            Self::Override { .. } | Self::Flag { .. } | Self::Unset { .. } => (2, 0, 0),
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
            Self::Flag { text } => f.write_str(&quote::line(text)),
            Self::Unset { key } => write!(f, "--unset {}", quote::line(key)),
        }
    }
}

/// Maps a byte offset of the text to its line and column.
pub(crate) struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    /// `starts[i]` is the byte offset at which line `i + 1` starts.
    starts: Vec<usize>,
    /// Characters at the start of each line of the file that the text has not.
    margin: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_newlines).collect();
        Self { file: file.into(), text, starts, margin: 0 }
    }

    /// The same for a file in which each line begins with `margin` more characters.
    pub(crate) fn behind_margin(self, margin: usize) -> Self {
        Self { margin, ..self }
    }

    /// The position of the text as a whole.
    pub(crate) fn file(&self) -> Position {
        Position::File { file: self.file.clone() }
    }

    /// The position of the line that contains byte `at`.
    pub(crate) fn line(&self, at: usize) -> Position {
        Position::Line { file: self.file.clone(), line: self.number(at) }
    }

    /// The position of the character at byte `at`.
    pub(crate) fn column(&self, at: usize) -> Position {
        let line = self.number(at);
        let before = self.starts.get(line - 1).and_then(|&start| self.text.get(start..at));
        Position::Column {
            file: self.file.clone(),
            line,
            column: self.margin + before.map_or(0, |text| text.chars().count()) + 1,
        }
    }

    /// The number of the line that contains byte `at`, counted from 1.
    pub(crate) fn number(&self, at: usize) -> usize {
        // The first line starts at byte 0, so this is at least 1.
        self.starts.partition_point(|&start| start <= at)
    }
}
