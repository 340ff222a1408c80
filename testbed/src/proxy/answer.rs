//! The answers that the fault proxy sends: the server's own, or changed by a fault.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Response, body::Frame, header::CONTENT_LENGTH, http::response};

/// A body that may end with an error.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The time between two bytes of a slow body. It is the shortest that a timer measures, so that a test waits for the
/// client's deadline and not for the bytes.
const DRIP: Duration = Duration::from_millis(1);
/// The most bytes of a slow body before it stops.
const DRIPS: usize = 64;

/// The server's answer, unchanged.
pub(super) fn whole(head: response::Parts, body: Bytes) -> Response<Body> {
    Response::from_parts(head, full(body))
}

/// An error that the proxy makes itself.
pub(super) fn refusal(status: u16, code: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected by a test</Message></Error>"
    );
    Response::builder().status(status).body(full(body.into())).unwrap()
}

/// The first half of the body, with a matching length.
pub(super) fn truncated(head: response::Parts, body: Bytes) -> Response<Body> {
    with_body(head, body.slice(..body.len() / 2))
}

/// Another body, with a matching length.
pub(super) fn with_body(mut head: response::Parts, body: Bytes) -> Response<Body> {
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    whole(head, body)
}

/// The first half of the body; then the connection ends.
pub(super) fn cut(head: response::Parts, body: Bytes) -> Response<Body> {
    let half = body.slice(..body.len() / 2);
    let frames = stream::once(async { Ok(Frame::data(half)) }).chain(stream::once(async {
        // hyper flushes what it has written when the body has nothing ready.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    }));
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

/// The first bytes of the body, at most half of them, one at a time; then nothing, and the connection stays open.
pub(super) fn drip(head: response::Parts, body: Bytes) -> Response<Body> {
    let bytes = (body.len() / 2).min(DRIPS);
    let drops = stream::iter(0..bytes).then(move |at| {
        let drop = body.slice(at..at + 1);
        async move {
            tokio::time::sleep(DRIP).await;
            Ok(Frame::data(drop))
        }
    });
    Response::from_parts(head, StreamBody::new(drops.chain(stream::pending())).boxed_unsync())
}

/// The body with one bit flipped, in the middle.
pub(super) fn flipped(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bytes.into()
}

/// A listing without its entries, in the XML of any of the clouds.
pub(super) fn emptied(body: &Bytes) -> Bytes {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for element in ["Contents", "CommonPrefixes", "Blob", "BlobPrefix", "NextContinuationToken", "NextMarker"]
    {
        let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
        while let (Some(start), Some(end)) = (text.find(&opening), text.find(&closing)) {
            text.replace_range(start..end + closing.len(), "");
        }
    }
    text.replace("<IsTruncated>true<", "<IsTruncated>false<").into()
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_listing_is_still_valid() {
        let s3 = "<L><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents><Contents></Contents>\
                  <NextContinuationToken>x</NextContinuationToken></L>";
        assert_eq!(emptied(&s3.into()), "<L><IsTruncated>false</IsTruncated></L>");
        let azure = "<E><Blobs><Blob><Name>a</Name></Blob><BlobPrefix></BlobPrefix></Blobs><NextMarker>m</NextMarker></E>";
        assert_eq!(emptied(&azure.into()), "<E><Blobs></Blobs></E>");
    }

    #[test]
    fn exactly_one_bit_is_flipped() {
        let body = Bytes::from_static(b"0123456789");
        let changed: u32 = flipped(&body).iter().zip(&body).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(changed, 1);
    }
}
