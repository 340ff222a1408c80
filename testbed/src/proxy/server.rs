//! The proxy that fails where it is told to.

use std::{io, net::SocketAddr};

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
    plan::{Action, Hook, Moment, Plan, Then},
};

/// An HTTP/1.1 proxy in front of an object store. The program under test is given the proxy's address as the store's;
/// requests go on unchanged, `Host` included, so that their signatures hold.
///
/// It lives in a thread of its own, and ends when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    listener: Listener,
    upstream: SocketAddr,
    plan: Plan,
}

impl FaultProxy {
    /// Starts a proxy for a server. `root` is the path of the folder that tests use, as `bucket/prefix`: operations are
    /// named relative to it.
    pub fn start(upstream: SocketAddr, root: &str) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), upstream, root)
    }

    /// Starts one that listens at an address.
    pub fn start_at(listen: SocketAddr, upstream: SocketAddr, root: &str) -> Self {
        let plan = Plan::new(root);
        let served = plan.clone();
        // How a connection ends is the client's affair, or the plan's.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Begins anew, under another root: what it was told is forgotten, and the record is empty.
    pub fn begin(&self, root: &str) {
        self.plan.begin(root);
    }

    /// Lets one operation fail, once.
    pub fn fail_at(&self, operation: Operation, fault: Fault) {
        self.plan.fail_at(operation, fault);
    }

    /// Lets an operation fail and everything after it, until [`outage`](Self::outage) says otherwise.
    pub fn fail_from(&self, operation: Operation, fault: Fault) {
        self.plan.fail_from(operation, fault);
    }

    /// Lets everything fail from here on, or ends that.
    pub fn outage(&self, fault: Option<Fault>) {
        self.plan.outage(fault);
    }

    /// Calls back before the first operation that is `wanted` goes to the server; it waits until `action` returns. The
    /// request's body is shown, too.
    pub fn before(
        &self,
        wanted: impl Fn(&Operation, &Bytes) -> bool + Send + 'static,
        action: impl FnOnce(&Operation) -> Then + Send + 'static,
    ) {
        self.call_back(Moment::Before, wanted, action);
    }

    /// Calls back when the server has carried out the first operation that is `wanted`, before the program hears of it.
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
        self.plan.hook(Hook { moment, wanted: Box::new(wanted), action: Box::new(action) });
    }

    /// Lets the requests arrive that were [late](Fault::Late), and returns how many there were.
    pub fn deliver_late(&self) -> usize {
        let late = self.plan.delayed();
        let requests = late.len();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (head, body) in late {
            // What the server says to it nobody hears.
            runtime.block_on(forward(head, body, self.upstream)).unwrap();
        }
        requests
    }

    /// The operations that came, in the order in which they did.
    pub fn seen(&self) -> Vec<Seen> {
        self.plan.seen()
    }

    /// How many faults and call backs there were until now: a test that placed one and finds none has tested nothing.
    pub fn happened(&self) -> usize {
        self.plan.happened()
    }
}

/// Passes a request on, unless the plan has something else for it. An error ends the connection without an answer.
async fn pass(request: Request<Incoming>, upstream: SocketAddr, plan: &Plan) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let verdict = plan.judge(&head, &body);
    match verdict.fault {
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
    call_back(plan.due(Moment::Before, &verdict.operation, &body), &verdict.operation).await?;

    let (answered, text) = forward(head, body.clone(), upstream).await?;
    plan.answered(verdict.place, answered.status.as_u16(), text.len());
    call_back(plan.due(Moment::After, &verdict.operation, &body), &verdict.operation).await?;
    let lists = verdict.operation.verb == Verb::List;
    let before = if lists { plan.listing(&verdict.operation.name, text.clone()) } else { None };
    match verdict.fault {
        Some(Fault::AnswerLost) => Err(cut()),
        Some(Fault::CutInAnswer) => Ok(answer::cut(answered, text)),
        Some(Fault::TruncatedAnswer) => Ok(answer::truncated(answered, text)),
        Some(Fault::FlippedAnswer) => Ok(answer::whole(answered, answer::flipped(&text))),
        Some(Fault::StaleList) => {
            Ok(answer::with_body(answered, before.unwrap_or_else(|| answer::emptied(&text))))
        }
        Some(Fault::EmptyList) => Ok(answer::with_body(answered, answer::emptied(&text))),
        // There is nothing to trickle of an answer without a body: that one does not come at all.
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

/// Sends a request to the server over a connection of its own, and reads the whole answer.
async fn forward(
    mut head: request::Parts,
    body: Bytes,
    upstream: SocketAddr,
) -> io::Result<(response::Parts, Bytes)> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The length that the client gave is that of the body read, and the connection to the server is another one.
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
    // The connection needs driving; of its end, good or bad, the exchange tells.
    let drive = async {
        connection.await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = exchange => answer.map_err(io::Error::other),
        () = drive => Err(cut()),
    }
}
