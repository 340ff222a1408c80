//! Recognises a cloud's "slow down": HTTP status 429 or 503.
//!
//! Such an answer is about all requests, not only the one that failed: [`FlowControl`](super::flow_control::FlowControl) must react to
//! it. The clients of `object_store` do not expose the status of a failed request. So [`SlowDownConnector`] sits below
//! the client, looks at each response first, and turns 429 and 503 into the error [`SlowDown`].

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

/// The store asks for fewer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store asks for fewer requests: it answers with status {status}")]
pub struct SlowDown {
    /// The HTTP status: 429 or 503.
    pub status: u16,
    /// How long to wait before the next request, if the store says so.
    pub retry_after: Option<Duration>,
}

/// The longest wait, whatever the store asks for.
const LONGEST: Duration = Duration::from_secs(60);

impl SlowDown {
    /// Finds a `SlowDown` among the causes of an error.
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

    /// The `SlowDown` that a response is, if its status says so.
    fn in_response(response: &HttpResponse) -> Option<Self> {
        let status = response.status().as_u16();
        let seconds = || response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok();
        // HTTP allows a date too; no cloud store sends one.
        let retry_after = || seconds().map(|seconds| Duration::from_secs(seconds).min(LONGEST));
        [429, 503].contains(&status).then(|| Self { status, retry_after: retry_after() })
    }
}

/// Makes the usual HTTP client, and turns its "slow down" responses into errors.
#[derive(Debug, Default)]
pub(crate) struct SlowDownConnector(ReqwestConnector);

impl HttpConnector for SlowDownConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(SlowDownService(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct SlowDownService(HttpClient);

#[async_trait]
impl HttpService for SlowDownService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        match SlowDown::in_response(&response) {
            Some(slow_down) => Err(HttpError::new(HttpErrorKind::Unknown, slow_down)),
            None => Ok(response),
        }
    }
}
