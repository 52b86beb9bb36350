//! The least that hyper can cost: one current-thread runtime reads a request's body and answers fixed bytes.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};

/// Answers so many bytes to everything, until it is killed.
pub(crate) fn serve(port: u16, bytes: usize) {
    let body = Bytes::from(vec![b'x'; bytes]);
    listen(port, move |_| body.clone());
}

/// Answers to a body what `answer` makes of it, until it is killed.
pub(crate) fn listen(port: u16, answer: impl Fn(&[u8]) -> Bytes + Clone + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut connections = JoinSet::new();
        loop {
            let (io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    // A body that breaks off ends its connection; what is answered then does not matter.
                    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let answer = Response::new(Full::new(answer(&body)));
                    Ok::<_, Infallible>(with_type(answer))
                }
            });
            let http = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(io), service);
            connections.spawn(http);
            while connections.try_join_next().is_some() {}
        }
    });
}

fn with_type(mut answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}
