//! What processes print, line by line.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Number of last lines kept for the report of a failure.
const TAIL: usize = 30;
/// Limit of the bytes of a line; the rest is cut off.
const LONGEST_LINE: usize = 64 << 10;
/// Bytes read at a time.
const READ: usize = 16 << 10;

/// The last lines that a process printed, on stdout and stderr.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, lines: &[String]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            if kept.len() == TAIL {
                kept.pop_front();
            }
            kept.push_back(line.clone());
        }
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    /// The line that has not ended yet, up to the limit.
    unfinished: Vec<u8>,
    /// The line is longer than the limit.
    cut: bool,
}

impl Lines {
    /// Adds bytes, and returns the lines that they end.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            lines.push(self.finish());
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
        lines
    }

    /// The last line, if no line feed ends it.
    fn rest(&mut self) -> Option<String> {
        (!self.unfinished.is_empty()).then(|| self.finish())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let free = LONGEST_LINE - self.unfinished.len();
        self.cut |= bytes.len() > free;
        self.unfinished.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }

    fn finish(&mut self) -> String {
        let bytes = std::mem::take(&mut self.unfinished);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\r');
        if std::mem::take(&mut self.cut) { format!("{line}… (cut off)") } else { line.to_owned() }
    }
}

/// Reads a stream to its end. Calls `on_lines` with the lines of each read.
pub(crate) async fn read(mut stream: impl AsyncRead + Unpin, tail: Tail, on_lines: impl Fn(Vec<String>)) {
    let (mut lines, mut buffer) = (Lines::default(), Vec::with_capacity(READ));
    let on_lines = |lines: Vec<String>| {
        tail.push(&lines);
        if !lines.is_empty() {
            on_lines(lines);
        }
    };
    loop {
        buffer.clear();
        match stream.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => on_lines(lines.take(&buffer)),
            Err(error) => {
                on_lines(vec![format!("(the rest of the output could not be read: {error})")]);
                break;
            }
        }
    }
    on_lines(lines.rest().into_iter().collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
        let (tail, lines) = (Tail::default(), Mutex::new(Vec::new()));
        read(bytes, tail.clone(), |batch| lines.lock().unwrap().extend(batch)).await;
        (lines.into_inner().unwrap(), tail.lines())
    }

    #[tokio::test]
    async fn lines_are_whole_and_valid_utf_8() {
        let (lines, _) = lines_of(b"one\r\ntwo\n\nbad \xff\nlast").await;
        assert_eq!(lines, ["one", "two", "", "bad \u{fffd}", "last"]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_off() {
        let mut bytes = vec![b'x'; LONGEST_LINE * 3];
        bytes.extend(b"\nafter\n");
        let (lines, _) = lines_of(&bytes).await;
        assert_eq!(lines.last().unwrap(), "after");
        assert!(lines[0].ends_with("(cut off)") && lines[0].len() < LONGEST_LINE + 20, "{}", lines.len());
    }

    #[tokio::test]
    async fn the_tail_is_the_last_lines() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let (_, tail) = lines_of(text.as_bytes()).await;
        assert_eq!((tail.len(), tail.first().unwrap().as_str()), (TAIL, "70"));
    }
}
