//! Hearing a cloud say "slow down".
//!
//! A 429 or a 503 is no failure of the request, it is a statement about all of them. The client keeps the status of a
//! failed request to itself, so the answer is looked at before it gets there, and becomes an error of its own type.

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

/// The store's request to be asked less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store asks to be asked less: it answers with status {status}")]
pub struct SlowDown {
    /// The HTTP status: 429 or 503.
    pub status: u16,
    /// How long the store wants to be left alone, if it says so.
    pub retry_after: Option<Duration>,
}

/// Longer than this no store is left alone, whatever it says.
const LONGEST: Duration = Duration::from_secs(60);

impl SlowDown {
    /// Finds it among the causes of an error.
    pub(crate) fn among_causes_of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            cause = error.source();
        }
        None
    }

    fn said_by(response: &HttpResponse) -> Option<Self> {
        let status = response.status().as_u16();
        let seconds = || response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok();
        // A date is allowed too, and no cloud's store sends one.
        let retry_after = || seconds().map(|seconds| Duration::from_secs(seconds).min(LONGEST));
        [429, 503].contains(&status).then(|| Self { status, retry_after: retry_after() })
    }
}

/// Makes the usual client, and listens to its answers.
#[derive(Debug, Default)]
pub(crate) struct Listening(ReqwestConnector);

impl HttpConnector for Listening {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Listener(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Listener(HttpClient);

#[async_trait]
impl HttpService for Listener {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        match SlowDown::said_by(&response) {
            Some(slow_down) => Err(HttpError::new(HttpErrorKind::Unknown, slow_down)),
            None => Ok(response),
        }
    }
}
