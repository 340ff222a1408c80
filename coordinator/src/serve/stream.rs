//! A long stream between the coordinator and an agent or a worker.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::driver::input::{Input, Inputs};

/// How many messages may wait for a slow receiver before it counts as lost.
pub(crate) const BACKLOG: usize = 4096;

/// The coordinator's half of an attendance: yields what is sent to the peer, and on the way hands what the peer says to
/// the driver. Whoever polls the one drives the other, so that no task of its own is needed, and when the connection
/// ends, in whatever way, dropping it tells the driver.
pub(crate) struct Attendance<M, C> {
    inbound: Streaming<M>,
    outbound: mpsc::Receiver<C>,
    /// Makes an input of a message.
    read: Box<dyn Fn(M) -> Result<Input, Status> + Send>,
    inputs: Inputs,
    /// What to tell the driver at the end.
    goodbye: Box<dyn Fn(String) -> Input + Send>,
    why: String,
}

impl<M, C> Attendance<M, C> {
    pub(crate) fn new(
        inbound: Streaming<M>,
        outbound: mpsc::Receiver<C>,
        inputs: Inputs,
        read: impl Fn(M) -> Result<Input, Status> + Send + 'static,
        goodbye: impl Fn(String) -> Input + Send + 'static,
    ) -> Self {
        let why = "the connection was closed".into();
        Self { inbound, outbound, read: Box::new(read), inputs, goodbye: Box::new(goodbye), why }
    }
}

impl<M, C> Stream for Attendance<M, C> {
    type Item = Result<C, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.inbound).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => match (self.read)(message) {
                    Ok(input) => self.inputs.send(input),
                    Err(status) => {
                        self.why = status.message().to_owned();
                        return Poll::Ready(Some(Err(status)));
                    }
                },
                Poll::Ready(Some(Err(status))) => {
                    self.why = format!("the connection broke: {}", status.message());
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        self.outbound.poll_recv(context).map(|command| command.map(Ok))
    }
}

impl<M, C> Drop for Attendance<M, C> {
    fn drop(&mut self) {
        self.inputs.send((self.goodbye)(std::mem::take(&mut self.why)));
    }
}
