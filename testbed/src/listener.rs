//! A server of our own, on a thread and a runtime of its own, so that tests of any kind can have one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::{self, JoinHandle},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};

use crate::xml_api::XmlApi;

/// A running server. Dropping it closes it and all its connections.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    /// Dropped to say that it is over.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn start(name: &str, api: Arc<XmlApi>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = bind(&runtime)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, api) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes it and all its connections.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // If it panicked, its clients have seen that.
            thread.join().ok();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers until it is dropped, and the connections with it.
async fn serve(listener: TcpListener, api: Arc<XmlApi>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true).ok();
                let api = Arc::clone(&api);
                let service = service_fn(move |request| Arc::clone(&api).answer(request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            // A client that went away is the client's affair.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Binds at once, whether or not the caller is within a runtime.
fn bind(runtime: &Runtime) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let _within = runtime.enter();
    TcpListener::from_std(listener)
}
