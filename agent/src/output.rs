//! What processes print, line by line.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use tokio::io::AsyncRead;
use tokio_util::bytes::Bytes;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};

/// Lines kept for the case that the process fails.
const TAIL: usize = 30;
/// Bytes of a line; what is longer is left out, with a note in its place.
const LONGEST_LINE: usize = 64 << 10;
/// Lines passed on at a time.
const BATCH: usize = 256;

/// The last lines that a process printed, on both of its streams.
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

/// Reads a stream to its end and passes its lines on.
pub(crate) async fn read(stream: impl AsyncRead + Unpin, tail: Tail, pass_on: impl Fn(Vec<String>)) {
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), LONGEST_LINE);
    let mut batches = FramedRead::new(stream, codec).ready_chunks(BATCH);
    while let Some(batch) = batches.next().await {
        let line = |line: Result<Bytes, AnyDelimiterCodecError>| match line {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned(),
            Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => {
                format!("(a line of more than {LONGEST_LINE} bytes is left out)")
            }
            Err(AnyDelimiterCodecError::Io(error)) => format!("(the output could not be read: {error})"),
        };
        let lines: Vec<String> = batch.into_iter().map(line).collect();
        tail.push(&lines);
        pass_on(lines);
    }
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
    async fn lines_are_whole_whatever_is_printed() {
        let (lines, _) = lines_of(b"one\r\ntwo\n\nbad \xff\nlast").await;
        assert_eq!(lines, ["one", "two", "", "bad \u{fffd}", "last"]);
    }

    #[tokio::test]
    async fn endless_lines_take_no_endless_memory() {
        let mut bytes = vec![b'x'; LONGEST_LINE * 3];
        bytes.extend(b"\nafter\n");
        let (lines, _) = lines_of(&bytes).await;
        assert_eq!(lines.last().unwrap(), "after");
        assert!(lines[0].contains("left out"), "{:.100}", lines[0]);
    }

    #[tokio::test]
    async fn the_tail_is_the_last_lines() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let (_, tail) = lines_of(text.as_bytes()).await;
        assert_eq!((tail.len(), tail.first().unwrap().as_str()), (TAIL, "70"));
    }
}
