//! Writing to stdout and stderr, the only place that does.

use std::io::{self, Stderr, Stdout, Write};

use serde::Serialize;

/// Writes lines, for as long as anybody reads them.
///
/// When the reader has gone away (`whimbrel runs | head -1`), or the disk behind it is full, the rest is dropped: a run
/// must not die of its screen.
pub(crate) struct Printer<W> {
    sink: W,
    gone: bool,
}

impl Printer<Stdout> {
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl Printer<Stderr> {
    pub(crate) fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, gone: false }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text(&format!("{}\n", line.as_ref()));
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) {
        if !self.gone {
            self.gone = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()).is_err();
        }
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.line(line),
            Err(error) => tracing::error!(%error, "a value could not be written as JSON"),
        }
    }

    /// Writes rows under their heads, each column as wide as its widest cell.
    pub(crate) fn table<const N: usize>(&mut self, heads: [&str; N], rows: &[[String; N]]) {
        let mut widths = heads.map(|head| head.chars().count());
        for row in rows {
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
        for row in rows {
            line(&row.each_ref().map(String::as_str));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one line, then breaks.
    struct Brittle(Vec<u8>);

    impl Write for Brittle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.contains(&b'\n') {
                return Err(io::ErrorKind::BrokenPipe.into());
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
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut out = Vec::new();
        let rows = [["char-lm-k3x9qa".into(), "7".into()], ["r".into(), String::new()]];
        Printer::new(&mut out).table(["RUN", "STEP"], &rows);
        assert_eq!(String::from_utf8(out).unwrap(), "RUN             STEP\nchar-lm-k3x9qa  7\nr\n");
    }
}
