//! A TCP server with its own thread and runtime, so that a test needs neither. Our servers and the proxies use it.

use std::{
    io,
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};

/// A running server. Dropping it closes the server and all its connections.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    /// Dropping it stops the server.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens at `listen` and serves each connection with `connection`, all on one thread.
    pub(crate) fn start<C>(
        name: &str,
        listen: SocketAddr,
        connection: impl Fn(TcpStream) -> C + Send + 'static,
    ) -> io::Result<Self>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = bind(listen, &runtime)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, connection) => {}
                    _ = stopped => {}
                }
            });
            // A blocking task of a connection may wait for a test that has failed: do not wait for it.
            runtime.shutdown_timeout(Duration::ZERO);
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the server and all its connections.
    #[expect(clippy::panic, reason = "for tests only: a panic in the server fails its test")]
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() && !thread::panicking() {
                panic!("the thread of {name} panicked");
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Accepts connections until the future is dropped, which also drops the connections.
async fn serve<C>(listener: TcpListener, connection: impl Fn(TcpStream) -> C)
where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true).ok();
                connections.spawn(connection(stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Binds immediately, whether or not the caller is in a runtime.
fn bind(listen: SocketAddr, runtime: &Runtime) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let _within = runtime.enter();
    TcpListener::from_std(listener)
}
