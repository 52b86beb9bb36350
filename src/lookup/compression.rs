//! A large answer, compressed for a caller that accepts it (RFC 9110, section 12.5.3).
//!
//! tower-http chooses the coding and makes it; what is ours is when and where:
//!
//! - **Whole.** An answer is compressed in one go, before its first byte is sent. Its length is known, the encoder's
//!   memory is gone again whoever reads slowly, and only the smaller body counts in the budget. So that a large one does
//!   not keep its thread from everybody else, it pauses every [`BREATH`], and [`AT_ONCE`] bounds the encoders.
//! - **Only where it pays.** Below [`Config::min_size`] an answer is left alone, unless the caller refuses it as it is.
//! - **Never a failure.** Where the caller accepts nothing that we have, the answer goes as it is.
//!
//! Who sends no `Accept-Encoding` has exactly the answer that it would have without this, and pays for none of it.

use std::{convert::Infallible, future, pin::pin};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING},
    response,
};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::{
    CompressionLevel,
    compression::{CompressionBody, CompressionLayer, predicate::SizeAbove},
};

use super::chunk::Chunk;
use crate::{
    error::Refusal,
    request::budget::{Budget, NoRoom},
};

/// Bytes of output after which others have a turn: less than a millisecond's work.
const BREATH: usize = 64 << 10;
/// Encoders at work at once. Each takes up to a few megabytes; more of them than cores make nothing faster.
const AT_ONCE: usize = 16;
/// The fastest level that each coding has a use for: on records, higher ones take twice the time for a few per cent.
const LEVEL: CompressionLevel = CompressionLevel::Precise(1);

/// What may be compressed, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The codings that are offered; none is off.
    pub codings: Vec<Coding>,
    /// Bytes of the smallest answer that is compressed.
    pub min_size: usize,
}

/// A content coding. Where a caller likes several equally, it is the first of them in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The name in the configuration, and in `Content-Encoding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Compresses answers.
pub struct Compression {
    is_on: bool,
    min_size: usize,
    codings: CompressionLayer<SizeAbove>,
    /// Offers nothing: what it cannot answer refuses the answer as it is.
    none: CompressionLayer<SizeAbove>,
    room: Semaphore,
    budget: Budget,
}

/// What a caller accepts: the value of `Accept-Encoding`.
pub(super) struct Accepted(HeaderValue);

impl Compression {
    /// Compressed answers count in this budget.
    #[must_use]
    pub fn new(config: &Config, budget: Budget) -> Self {
        let offered = |coding| config.codings.contains(&coding);
        let layer = CompressionLayer::new().quality(LEVEL);
        let codings = layer.clone().zstd(offered(Coding::Zstd)).br(offered(Coding::Brotli)).gzip(offered(Coding::Gzip));
        // The size is judged here, with what the caller refuses in mind.
        let any_size = SizeAbove::new(0);
        Self {
            is_on: !config.codings.is_empty(),
            min_size: config.min_size,
            codings: codings.compress_when(any_size),
            none: layer.zstd(false).br(false).gzip(false).compress_when(any_size),
            room: Semaphore::new(AT_ONCE),
            budget,
        }
    }

    /// What the caller of a request accepts, if it says so and wants the answer changed at all.
    pub(super) fn accepted(&self, headers: &HeaderMap) -> Option<Accepted> {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter();
        let first = values.next().filter(|_| self.is_on)?;
        let no_transform = |value: &HeaderValue| contains(value.as_bytes(), b"no-transform");
        if headers.get_all(CACHE_CONTROL).iter().any(no_transform) {
            return None;
        }
        let mut all = first.clone();
        for value in values {
            // Several lines are one list (RFC 9110, section 5.3).
            all = HeaderValue::from_bytes(&[all.as_bytes(), b",", value.as_bytes()].concat()).ok()?;
        }
        Some(Accepted(all))
    }

    /// The answer as its caller accepts it.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) async fn compress(
        &self,
        accepted: Option<Accepted>,
        response: Response<Chunk>,
    ) -> Result<Response<Chunk>, Refusal> {
        let Some(accepted) = accepted.filter(|_| response.status() == StatusCode::OK) else { return Ok(response) };
        if response.body().remaining() < self.min_size && !self.refuses_identity(&accepted).await {
            return Ok(response);
        }
        let Ok(_one) = self.room.acquire().await else { return Ok(response) };
        let (head, body) = response.into_parts();
        let (encoded, body) = negotiate(&self.codings, &accepted, Response::from_parts(head.clone(), body)).await;
        // Not acceptable: disregarded, as RFC 9110, section 12.4.1 allows. An answer is better than none.
        if encoded.status != StatusCode::OK || !encoded.headers.contains_key(CONTENT_ENCODING) {
            let whole = body.into_inner().frame().await.and_then(|frame| frame.ok()?.into_data().ok());
            return Ok(Response::from_parts(head, whole.unwrap_or_else(|| Bytes::new().into())));
        }
        let bytes = collect(body).await.ok_or(Refusal::Overloaded)?;
        let mut share = self.budget.share();
        share.grow(bytes.len()).map_err(|NoRoom| Refusal::Overloaded)?;
        Ok(Response::from_parts(encoded, Chunk::from(Bytes::from(bytes)).counted(share)))
    }

    /// Whether the caller says that it does not take an answer that is not encoded (`identity;q=0`).
    async fn refuses_identity(&self, Accepted(value): &Accepted) -> bool {
        // Hardly anybody does: the rest is spared the work.
        contains(value.as_bytes(), b"q=0")
            && negotiate(&self.none, &Accepted(value.clone()), Response::new(Bytes::new().into())).await.0.status
                != StatusCode::OK
    }
}

/// Chooses a coding, without encoding anything yet.
async fn negotiate(
    layer: &CompressionLayer<SizeAbove>,
    accepted: &Accepted,
    response: Response<Chunk>,
) -> (response::Parts, CompressionBody<Full<Chunk>>) {
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, accepted.0.clone());
    let mut answer = Some(response.map(Full::new));
    let inner = service_fn(move |_: Request<()>| {
        future::ready(Ok::<_, Infallible>(answer.take().expect("this holds because a service is called once")))
    });
    match layer.layer(inner).oneshot(request).await {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    }
}

/// All of a body whose bytes are there already; others have a turn now and then.
async fn collect(body: CompressionBody<Full<Chunk>>) -> Option<Vec<u8>> {
    let mut body = pin!(body);
    let (mut bytes, mut breath) = (Vec::new(), BREATH);
    while let Some(frame) = body.frame().await {
        let piece = frame.ok()?.into_data().ok()?;
        bytes.extend_from_slice(&piece);
        if bytes.len() >= breath {
            breath = bytes.len() + BREATH;
            tokio::task::yield_now().await;
        }
    }
    Some(bytes)
}

/// Whether a header's value has these lower-case bytes somewhere, in either case.
fn contains(value: &[u8], word: &[u8]) -> bool {
    value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}
