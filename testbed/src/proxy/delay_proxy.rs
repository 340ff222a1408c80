//! A proxy that adds delay, as if the server were far away.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::listener::Listener;

/// The most bytes per read.
const CHUNK: usize = 64 << 10;
/// The most chunks in flight: 256 MiB, which is 80 ms at 25 Gbit/s. So the delay does not limit the rate.
const IN_FLIGHT: usize = 4096;

/// A TCP proxy that forwards each byte a fixed time after it arrived, in both directions. It does not limit the rate.
///
/// It runs in its own thread and stops when it is dropped.
#[derive(Debug)]
pub struct DelayProxy {
    listener: Listener,
}

impl DelayProxy {
    /// Starts a proxy at `listen` in front of `upstream`, with a delay of `each_way` in each direction.
    pub fn start(listen: SocketAddr, upstream: SocketAddr, each_way: Duration) -> Self {
        // If one side of a connection fails, both are dropped, which closes the other side.
        let connection = move |near| async move {
            connect(near, upstream, each_way).await.ok();
        };
        Self { listener: Listener::start("delay-proxy", listen, connection).unwrap() }
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

async fn connect(near: TcpStream, upstream: SocketAddr, each_way: Duration) -> io::Result<()> {
    let far = TcpStream::connect(upstream).await?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = forward(near_read, far_write, each_way);
    let back = forward(far_read, near_write, each_way);
    tokio::try_join!(there, back).map(|_| ())
}

async fn forward(from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::try_join!(read(from, sender, delay), write(to, receiver)).map(|_| ())
}

async fn read(
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Bytes)>,
    delay: Duration,
) -> io::Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if from.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        // Sending fails only if the writer has failed, which reports the error.
        if sender.send((Instant::now() + delay, chunk.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut receiver: mpsc::Receiver<(Instant, Bytes)>) -> io::Result<()> {
    while let Some((due, chunk)) = receiver.recv().await {
        sleep_until(due).await;
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}
