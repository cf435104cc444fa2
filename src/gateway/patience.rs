//! How long a request's body may take to come. The server waits for a head only so long; for a body it would wait for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::middleware::Next;
use actix_web::rt::time::{Sleep, sleep};
use actix_web::web::Bytes;
use futures_util::Stream;

/// The whole of a body. Bodies are small: what is large comes over sockets.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Ends a body that does not come in time with an error.
pub(super) async fn limit(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return next.call(request).await;
    }
    request.set_payload(Payload::Stream {
        payload: Box::pin(Timed {
            payload,
            until: Box::pin(sleep(BODY_PATIENCE)),
        }),
    });
    next.call(request).await
}

struct Timed {
    payload: Payload,
    until: Pin<Box<Sleep>>,
}

impl Stream for Timed {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.until.as_mut().poll(cx).is_ready() {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not come in time");
            return Poll::Ready(Some(Err(PayloadError::Io(late))));
        }
        Pin::new(&mut self.payload).poll_next(cx)
    }
}
