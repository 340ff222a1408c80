//! A server that is far away: every byte arrives, some time later.

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

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Chunks on their way at a time. 256 MiB: what a delay of 80 ms holds at 25 Gbit/s, so the delay bounds no rate.
const ON_THEIR_WAY: usize = 4096;

/// A TCP proxy that hands on each byte a fixed time after it came, in both directions, and does not bound the rate.
///
/// It lives in a thread of its own, and ends when it is dropped.
#[derive(Debug)]
pub struct DelayProxy {
    listener: Listener,
}

impl DelayProxy {
    /// Starts a proxy that listens at `listen`, for a server `each_way` away.
    pub fn start(listen: SocketAddr, upstream: SocketAddr, each_way: Duration) -> Self {
        // A connection that breaks breaks at both ends, by being dropped; why is its ends' affair.
        let connection = move |near| async move {
            connect(near, upstream, each_way).await.ok();
        };
        Self { listener: Listener::start("delay-proxy", listen, connection).unwrap() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

async fn connect(near: TcpStream, upstream: SocketAddr, each_way: Duration) -> io::Result<()> {
    let far = TcpStream::connect(upstream).await?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = carry(near_read, far_write, each_way);
    let back = carry(far_read, near_write, each_way);
    tokio::try_join!(there, back).map(|_| ())
}

async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(ON_THEIR_WAY);
    tokio::try_join!(take(from, sender, delay), hand_on(to, receiver)).map(|_| ())
}

async fn take(
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Bytes)>,
    delay: Duration,
) -> io::Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if from.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        // The other end is gone only with its connection, and then there is nobody to hand on to.
        if sender.send((Instant::now() + delay, chunk.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

async fn hand_on(mut to: OwnedWriteHalf, mut receiver: mpsc::Receiver<(Instant, Bytes)>) -> io::Result<()> {
    while let Some((due, chunk)) = receiver.recv().await {
        sleep_until(due).await;
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}
