//! Writing to stdout and stderr; no other module does.

use std::{
    io::{self, ErrorKind, Stderr, Stdout, Write},
    sync::OnceLock,
};

use serde_json::Value;

/// The least width of the names of facts, so that those of most commands line up.
const MIN_WIDTH: usize = 10;

/// The first error of stdout.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why output to stdout was lost, if it was. A reader that closed the pipe does not count: it had enough.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Writes lines until the sink fails.
///
/// After an error the rest is dropped: a run must not fail because the reader closed the pipe (`whimbrel runs | head -1`)
/// or the disk behind stdout is full. [`lost`] reports the error at the end.
pub(crate) struct Printer<W> {
    sink: W,
    failed: bool,
    /// Records the error.
    record: fn(io::Error),
}

impl Printer<Stdout> {
    pub(crate) fn stdout() -> Self {
        // The first error is kept.
        Self { record: |error| drop(LOST.set(error)), ..Self::new(io::stdout()) }
    }
}

impl Printer<Stderr> {
    pub(crate) fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, failed: false, record: drop }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text(&format!("{}\n", line.as_ref()));
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) {
        if self.failed {
            return;
        }
        if let Err(error) = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()) {
            self.failed = true;
            if error.kind() != ErrorKind::BrokenPipe {
                (self.record)(error);
            }
        }
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &Value) {
        self.line(value.to_string());
    }

    /// Writes named values, a line each; see [`facts`].
    pub(crate) fn facts(&mut self, named: &[(&str, Option<String>)]) {
        self.text(&facts(named));
    }

    /// Writes rows under their heads, each column as wide as its widest cell. Control characters are escaped as in Rust:
    /// the name of a tensor may hold some.
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

/// Named values, a line each, the values one under another. A value that is `None` has no line.
pub(crate) fn facts(named: &[(&str, Option<String>)]) -> String {
    let width = named.iter().map(|(name, _)| name.len()).fold(MIN_WIDTH, usize::max);
    let known = named.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    known.map(|(name, value)| format!("  {name:<width$}  {value}\n")).collect()
}

/// Escapes control characters.
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
    fn after_an_error_the_rest_is_dropped() {
        let mut printer = Printer::new(Brittle(Vec::new()));
        for line in ["first", "second", "third"] {
            printer.line(line);
        }
        assert_eq!(printer.sink.0, b"first\n");
    }

    #[test]
    fn control_characters_in_a_table_are_escaped() {
        let mut out = Vec::new();
        Printer::new(&mut out).table(["TENSOR"], &[["a\u{1b}[2J\nb".into()]]);
        assert_eq!(String::from_utf8(out).unwrap(), "TENSOR\na\\u{1b}[2J\\nb\n");
    }

    #[test]
    fn facts_line_up_and_unknown_ones_have_no_line() {
        let named = [("uri", Some("r".into())), ("validation loss", None), ("step", Some("7".into()))];
        assert_eq!(facts(&named), "  uri              r\n  step             7\n");
        assert_eq!(facts(&named[..1]), "  uri         r\n");
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut out = Vec::new();
        let rows = [["char-lm-k3x9qa".into(), "7".into()], ["r".into(), String::new()]];
        Printer::new(&mut out).table(["RUN", "STEP"], &rows);
        assert_eq!(String::from_utf8(out).unwrap(), "RUN             STEP\nchar-lm-k3x9qa  7\nr\n");
    }
}
