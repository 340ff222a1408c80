//! Writing to stdout and stderr, the only place that does.

use std::{
    io::{self, ErrorKind, Stderr, Stdout, Write},
    sync::OnceLock,
};

use serde::Serialize;

/// Why stdout did not take everything.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why what was written to stdout did not all arrive, if it was not because its reader had enough.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Writes lines, for as long as anybody reads them.
///
/// When the reader has gone away (`whimbrel runs | head -1`), or the disk behind it is full, the rest is dropped: a run
/// must not die of its screen.
pub(crate) struct Printer<W> {
    sink: W,
    gone: bool,
    /// Takes note of what broke it.
    note: fn(io::Error),
}

impl Printer<Stdout> {
    pub(crate) fn stdout() -> Self {
        // The first is told.
        Self { note: |error| drop(LOST.set(error)), ..Self::new(io::stdout()) }
    }
}

impl Printer<Stderr> {
    pub(crate) fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, gone: false, note: drop }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text(&format!("{}\n", line.as_ref()));
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) {
        if self.gone {
            return;
        }
        if let Err(error) = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()) {
            self.gone = true;
            if error.kind() != ErrorKind::BrokenPipe {
                (self.note)(error);
            }
        }
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.line(line),
            Err(error) => tracing::error!(%error, "a value could not be written as JSON"),
        }
    }

    /// Writes rows under their heads, each column as wide as its widest cell. Control characters, which a tensor's name may
    /// have, are written as Rust writes them.
    pub(crate) fn table<const N: usize>(&mut self, heads: [&str; N], rows: &[[String; N]]) {
        let rows: Vec<[String; N]> =
            rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
        let mut widths = heads.map(|head| head.chars().count());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut line = |cells: &[&str]| {
            let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let joined = padded.collect::<Vec<_>>().join("  ");
            self.line(joined.trim_end());
        };
        line(&heads);
        for row in &rows {
            line(&row.each_ref().map(String::as_str));
        }
    }
}

fn visible(cell: &str) -> String {
    let mut visible = String::with_capacity(cell.len());
    for c in cell.chars() {
        if c.is_control() { visible.extend(c.escape_default()) } else { visible.push(c) }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one line, then breaks.
    struct Brittle(Vec<u8>);

    impl Write for Brittle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.contains(&b'\n') {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.0.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_gone_away_breaks_nothing() {
        let mut printer = Printer::new(Brittle(Vec::new()));
        for line in ["first", "second", "third"] {
            printer.line(line);
        }
        assert_eq!(printer.sink.0, b"first\n");
    }

    #[test]
    fn a_name_cannot_reach_the_terminal_it_is_shown_on() {
        let mut out = Vec::new();
        Printer::new(&mut out).table(["TENSOR"], &[["a\u{1b}[2J\nb".into()]]);
        assert_eq!(String::from_utf8(out).unwrap(), "TENSOR\na\\u{1b}[2J\\nb\n");
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut out = Vec::new();
        let rows = [["char-lm-k3x9qa".into(), "7".into()], ["r".into(), String::new()]];
        Printer::new(&mut out).table(["RUN", "STEP"], &rows);
        assert_eq!(String::from_utf8(out).unwrap(), "RUN             STEP\nchar-lm-k3x9qa  7\nr\n");
    }
}
