//! The proxy that injects faults at chosen operations.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client, header,
    http::{request, response},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime};

use crate::listener::Listener;

use super::{
    answer::{self, Body},
    fault::Fault,
    operation::{Operation, Seen, Verb},
    plan::{Action, Callback, Moment, Plan, Recognized, Then},
};

/// An HTTP/1.1 proxy in front of an object store. The program under test gets the proxy's address as the store's. The
/// proxy forwards requests unchanged, with their `Host`, so that their signatures stay valid.
///
/// It runs in its own thread and stops when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    listener: Listener,
    upstream: SocketAddr,
    plan: Plan,
}

impl FaultProxy {
    /// Starts a proxy in front of the server at `upstream`. Operations are named relative to `root`, the folder that
    /// the test uses: `bucket/prefix`.
    pub fn start(upstream: SocketAddr, root: &str) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let plan = Plan::new(root);
        let served = plan.clone();
        // An error means that the client or a fault ended the connection.
        let connection = move |stream| {
            let plan = served.clone();
            async move {
                let service = service_fn(|request| pass(request, upstream, &plan));
                server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            }
        };
        let listener = Listener::start("fault-proxy", listen, connection).unwrap();
        Self { listener, upstream, plan }
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Forgets all faults, callbacks and records, and names later operations relative to another root.
    pub fn begin(&self, root: &str) {
        self.plan.begin(root);
    }

    /// Injects a fault at an operation, once.
    pub fn fail_at(&self, operation: Operation, fault: Fault) {
        self.plan.fail_at(operation, fault);
    }

    /// Calls `action` before the first operation for which `wanted` returns true is sent to the server. The operation
    /// waits until `action` returns. `wanted` also gets the request's body.
    pub fn before(
        &self,
        wanted: impl Fn(&Operation, &Bytes) -> bool + Send + 'static,
        action: impl FnOnce(&Operation) -> Then + Send + 'static,
    ) {
        self.call_back(Moment::Before, wanted, action);
    }

    /// Like [`before`](Self::before), after the server has executed the operation and before the program gets the
    /// answer.
    pub fn after(
        &self,
        wanted: impl Fn(&Operation, &Bytes) -> bool + Send + 'static,
        action: impl FnOnce(&Operation) -> Then + Send + 'static,
    ) {
        self.call_back(Moment::After, wanted, action);
    }

    fn call_back(
        &self,
        moment: Moment,
        wanted: impl Fn(&Operation, &Bytes) -> bool + Send + 'static,
        action: impl FnOnce(&Operation) -> Then + Send + 'static,
    ) {
        self.plan.call_back(Callback { moment, wanted: Box::new(wanted), action: Box::new(action) });
    }

    /// Sends the [late](Fault::Late) requests to the server, and returns how many there were.
    pub fn deliver_late(&self) -> usize {
        let late = self.plan.delayed();
        let requests = late.len();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (head, body) in late {
            // The program no longer waits for the answer.
            runtime.block_on(forward(head, body, self.upstream)).unwrap();
        }
        requests
    }

    /// The operations since the start or the last reset, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.plan.seen()
    }

    /// How many faults and callbacks have happened. A test must check this: a fault that never happened tests nothing.
    pub fn happened(&self) -> usize {
        self.plan.happened()
    }
}

/// Forwards a request and returns the answer, with the fault that the plan has for it. An error ends the connection
/// without an answer.
async fn pass(request: Request<Incoming>, upstream: SocketAddr, plan: &Plan) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let Recognized { operation, index, fault } = plan.recognize(&head, &body);
    match fault {
        Some(Fault::Unavailable) => return Ok(answer::refusal(503, "SlowDown")),
        Some(Fault::Throttled) => return Ok(answer::refusal(429, "TooManyRequests")),
        Some(Fault::CutBefore) => return Err(cut()),
        Some(Fault::Late) => {
            plan.delay(head, body);
            return Err(cut());
        }
        Some(Fault::FlippedRequest) => body = answer::flipped(&body),
        _ => {}
    }
    call_back(plan.due(Moment::Before, &operation, &body), &operation).await?;

    let (answered, text) = forward(head, body.clone(), upstream).await?;
    plan.answered(index, answered.status.as_u16(), text.len());
    call_back(plan.due(Moment::After, &operation, &body), &operation).await?;
    let previous = match operation.verb {
        Verb::List => plan.listing(&operation.name, text.clone()),
        _ => None,
    };
    match fault {
        Some(Fault::AnswerLost) => Err(cut()),
        Some(Fault::CutInAnswer) => Ok(answer::cut(answered, text)),
        Some(Fault::TruncatedAnswer) => Ok(answer::truncated(answered, text)),
        Some(Fault::FlippedAnswer) => Ok(answer::whole(answered, answer::flipped(&text))),
        Some(Fault::StaleList) => {
            Ok(answer::with_body(answered, previous.unwrap_or_else(|| answer::emptied(&text))))
        }
        Some(Fault::EmptyList) => Ok(answer::with_body(answered, answer::emptied(&text))),
        // An answer without a body cannot arrive slowly, so it does not arrive at all.
        Some(Fault::SlowDrip) if text.len() < 2 => std::future::pending().await,
        Some(Fault::SlowDrip) => Ok(answer::drip(answered, text)),
        _ => Ok(answer::whole(answered, text)),
    }
}

async fn call_back(action: Option<Action>, operation: &Operation) -> io::Result<()> {
    let Some(action) = action else { return Ok(()) };
    let operation = operation.clone();
    match tokio::task::spawn_blocking(move || action(&operation)).await {
        Ok(Then::Pass) => Ok(()),
        Ok(Then::Cut) => Err(cut()),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Sends a request to the server over a new connection, and reads the whole answer.
async fn forward(
    mut head: request::Parts,
    body: Bytes,
    upstream: SocketAddr,
) -> io::Result<(response::Parts, Bytes)> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The body is complete, so it has a length. The connection to the server is not the client's.
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::CONNECTION);
    let exchange = async move {
        let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        head.headers.remove(header::TRANSFER_ENCODING);
        head.headers.remove(header::CONNECTION);
        Ok::<_, hyper::Error>((head, body))
    };
    // The connection must be polled. The exchange reports its errors.
    let drive = async {
        connection.await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = exchange => answer.map_err(io::Error::other),
        () = drive => Err(cut()),
    }
}
