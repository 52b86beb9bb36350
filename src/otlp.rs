//! Where spans go: to a collector, in OTLP over HTTP, in a program that is built with the feature `otlp`.
//!
//! The standard variables say where it is: `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. Without one
//! of them nothing is recorded. A collector that is not there holds up nobody: spans wait in a queue that has an end, and
//! beyond it they are dropped.

use audience_gateway::{config::Config, trace::Recorder};

/// The variables of which one must be there.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether spans are wanted.
fn is_wanted() -> bool {
    ENDPOINTS.iter().any(|name| std::env::var(name).is_ok_and(|endpoint| !endpoint.trim().is_empty()))
}

#[cfg(feature = "otlp")]
pub(crate) use self::export::Spans;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::none::Spans;

/// A program that exports nothing.
#[cfg(not(feature = "otlp"))]
mod none {
    use super::{Config, ENDPOINTS, Recorder, is_wanted};

    pub(crate) struct Spans;

    impl Spans {
        #[expect(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
        pub(crate) fn start(_config: &Config) -> Result<Self, String> {
            if is_wanted() {
                let variable = ENDPOINTS[1];
                tracing::warn!(variable, "this program was built without the feature otlp: no spans are exported");
            }
            Ok(Self)
        }

        pub(crate) fn recorder(&self) -> Recorder {
            Recorder::default()
        }

        #[expect(clippy::unused_async, reason = "with the feature it takes time")]
        pub(crate) async fn finish(self) {}
    }
}

#[cfg(feature = "otlp")]
mod export {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::{Duration, SystemTime},
    };

    use async_trait::async_trait;
    use audience_gateway::{
        clock,
        trace::{
            Context, Span,
            span::{Side, Take, Value},
        },
        upstream::{
            self,
            connect::{Dial as _, Network},
        },
    };
    use bytes::Bytes;
    use http::{HeaderValue, Request, Response, Uri, header::HOST};
    use http_body_util::{BodyExt as _, Full, Limited};
    use hyper::{
        body::Incoming,
        client::conn::{http1, http2},
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use opentelemetry::{
        InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
        trace::{Link, SpanContext, SpanKind, Status, TraceState},
    };
    use opentelemetry_http::{HttpClient, HttpError};
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
    use opentelemetry_sdk::{
        Resource,
        trace::{BatchSpanProcessor, SpanData, SpanLinks, SpanProcessor as _},
    };
    use tokio::{runtime::Handle, task::JoinSet};

    use super::{Config, Recorder, is_wanted};

    /// How long a collector may take, and how long the last spans may when the program ends.
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Bytes of a collector's answer that are looked at.
    const LONGEST_ANSWER: usize = 64 << 10;

    /// The spans of one program, on their way.
    pub(crate) struct Spans(Option<Arc<Sender>>);

    struct Sender {
        processor: BatchSpanProcessor,
        scope: InstrumentationScope,
    }

    impl Spans {
        /// Begins to export, if that is wanted.
        pub(crate) fn start(config: &Config) -> Result<Self, String> {
            if !is_wanted() {
                return Ok(Self(None));
            }
            let network =
                Network::new(&upstream::Config { danger_accept_invalid_certs: false, ..config.upstream.clone() })?;
            let client = Client { network: Arc::new(network), runtime: Handle::current(), failing: Arc::default() };
            let exporter = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_http_client(client)
                .build()
                .map_err(|error| format!("no spans can be exported: {error}"))?;
            let mut processor = BatchSpanProcessor::builder(exporter).build();
            processor.set_resource(&resource());
            let scope =
                InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION")).build();
            Ok(Self(Some(Arc::new(Sender { processor, scope }))))
        }

        /// Who takes the spans.
        pub(crate) fn recorder(&self) -> Recorder {
            match &self.0 {
                Some(sender) => Recorder::new(Arc::<Sender>::clone(sender)),
                None => Recorder::default(),
            }
        }

        /// Sends what is left.
        pub(crate) async fn finish(self) {
            if let Some(sender) = self.0 {
                let last = move || sender.processor.shutdown_with_timeout(TIMEOUT);
                let _what_failed_was_logged = tokio::task::spawn_blocking(last).await;
            }
        }
    }

    /// Who the program is: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, or by its own name.
    fn resource() -> Resource {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_attribute(version);
        match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource.build(),
            None => resource.with_service_name(env!("CARGO_PKG_NAME")).build(),
        }
    }

    impl Take for Sender {
        fn take(&self, span: Span) {
            let now = (clock::now(), SystemTime::now());
            let at = |moment: clock::Instant| now.1 - now.0.saturating_duration_since(moment);
            let mut links = SpanLinks::default();
            let link = |context: &Context| Link::new(place(context, false), Vec::new(), 0);
            links.links = span.links.iter().map(link).collect();
            self.processor.on_end(SpanData {
                span_context: place(&span.context, false),
                parent_span_id: SpanId::from(span.parent.unwrap_or_default()),
                parent_span_is_remote: span.is_parent_remote,
                span_kind: match span.side {
                    Side::Server => SpanKind::Server,
                    Side::Internal => SpanKind::Internal,
                    Side::Client => SpanKind::Client,
                },
                name: span.name.into(),
                start_time: at(span.began),
                end_time: at(span.ended),
                attributes: span.attributes.into_iter().map(attribute).collect(),
                dropped_attributes_count: 0,
                events: opentelemetry_sdk::trace::SpanEvents::default(),
                links,
                status: if span.is_error { Status::error("") } else { Status::Unset },
                instrumentation_scope: self.scope.clone(),
            });
        }
    }

    fn attribute((name, value): (&'static str, Value)) -> KeyValue {
        match value {
            Value::Word(word) => KeyValue::new(name, word),
            Value::Count(count) => KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX)),
        }
    }

    /// A place without its `tracestate`, which is other people's.
    fn place(context: &Context, is_remote: bool) -> SpanContext {
        let ids = (TraceId::from(context.trace_id.0), SpanId::from(context.span_id));
        SpanContext::new(ids.0, ids.1, TraceFlags::new(context.flags()), is_remote, TraceState::NONE)
    }

    /// Sends what the exporter has, over a connection for each batch of spans: there is one in a few seconds.
    #[derive(Clone)]
    struct Client {
        network: Arc<Network>,
        /// The exporter has a thread of its own, outside of the runtime.
        runtime: Handle,
        /// What has failed before is said once.
        failing: Arc<AtomicBool>,
    }

    impl std::fmt::Debug for Client {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Client(..)")
        }
    }

    #[async_trait]
    impl HttpClient for Client {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let network = Arc::clone(&self.network);
            let sending = async move { tokio::time::timeout(TIMEOUT, send(&network, request)).await };
            let sent = self.runtime.spawn(sending).await;
            let sent: Result<Response<Bytes>, HttpError> = match sent {
                Ok(Ok(sent)) => sent,
                Ok(Err(_elapsed)) => Err("no answer in time".into()),
                Err(_panicked) => Err("it could not be sent".into()),
            };
            let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
            let failed = status.is_none_or(|status| !(200..300).contains(&status));
            if failed && !self.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(status, "spans cannot be exported");
            } else if !failed && self.failing.swap(false, Ordering::Relaxed) {
                tracing::warn!("spans are exported again");
            }
            sent
        }
    }

    async fn send(network: &Network, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let to = request.uri().clone();
        let host = to.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let (io, is_http_2) = network.dial(to.clone()).await?;
        let io = TokioIo::new(io);
        let mut driving = JoinSet::new();
        let answer: Response<Incoming> = if is_http_2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            driving.spawn(async move { drop(connection.await) });
            sender.send_request(request.map(Full::new)).await?
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            driving.spawn(async move { drop(connection.await) });
            request.headers_mut().extend(host.map(|host| (HOST, host)));
            let path = to.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse::<Uri>()?;
            sender.send_request(request.map(Full::new)).await?
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}
