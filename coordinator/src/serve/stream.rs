//! The stream of one agent or worker: its messages go to the driver, the driver's commands go to it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::driver::input::{Input, Inputs};

/// Commands that may wait for an agent or worker that reads slowly. The driver drops a connection whose buffer is full.
pub(crate) const COMMAND_BACKLOG: usize = 4096;

/// The response stream of a `Connect` call. It yields the commands for the peer; while it is polled for them, it also reads the
/// peer's messages and sends them to the driver, so that no task of its own is needed. When the connection ends, however that
/// happens, tonic drops the stream, and the drop tells the driver.
pub(crate) struct ConnectStream<M, C> {
    messages: Streaming<M>,
    commands: mpsc::Receiver<C>,
    /// Makes an input of a message.
    to_input: Box<dyn Fn(M) -> Result<Input, Status> + Send>,
    inputs: Inputs,
    /// Makes the input for the end of the stream, from the reason.
    to_disconnected: Box<dyn Fn(String) -> Input + Send>,
    reason: String,
}

impl<M, C> ConnectStream<M, C> {
    pub(crate) fn new(
        messages: Streaming<M>,
        commands: mpsc::Receiver<C>,
        inputs: Inputs,
        to_input: impl Fn(M) -> Result<Input, Status> + Send + 'static,
        to_disconnected: impl Fn(String) -> Input + Send + 'static,
    ) -> Self {
        Self {
            messages,
            commands,
            to_input: Box::new(to_input),
            inputs,
            to_disconnected: Box::new(to_disconnected),
            reason: "the connection was closed".into(),
        }
    }
}

impl<M, C> Stream for ConnectStream<M, C> {
    type Item = Result<C, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.messages).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => match (self.to_input)(message) {
                    Ok(input) => self.inputs.send(input),
                    Err(status) => {
                        self.reason = status.message().to_owned();
                        return Poll::Ready(Some(Err(status)));
                    }
                },
                Poll::Ready(Some(Err(status))) => {
                    self.reason = format!("the connection broke: {}", status.message());
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        self.commands.poll_recv(context).map(|command| command.map(Ok))
    }
}

impl<M, C> Drop for ConnectStream<M, C> {
    fn drop(&mut self) {
        self.inputs.send((self.to_disconnected)(std::mem::take(&mut self.reason)));
    }
}
