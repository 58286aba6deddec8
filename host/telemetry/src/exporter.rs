//! Takes spans, and sends them from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::collector::{Collector, ExporterError};
use crate::endpoint::Endpoint;
use crate::span::Span;

/// Spans that may wait. A host that is busy makes some thousand a second, so that is a pause of the collector
/// of some seconds.
pub const SPANS_WAITING_MAX: usize = 16_384;

/// Bytes of spans that may wait: those of usual ones have a tenth of it, and of those with long log lines
/// fewer may wait.
const SPAN_BYTES_WAITING_MAX: usize = 64 << 20;

/// Spans of one request, as many as other exporters of OpenTelemetry send.
const BATCH_MAX: usize = 512;

/// How long spans wait for others: a request a second is little for a collector, and people see a span soon.
const BATCH_PAUSE: Duration = Duration::from_secs(1);

/// How long a host that stops waits until its spans are sent.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Sends spans to a collector. Cheap to clone. When the last one is dropped, what waits is still sent.
#[derive(Debug, Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Span>,
    account: Arc<Account>,
    closing: Arc<watch::Sender<bool>>,
    ended: watch::Receiver<bool>,
}

/// What is known of the spans that were handed in.
#[derive(Debug, Default)]
struct Account {
    /// Bytes of those that wait or are being sent.
    bytes: AtomicUsize,
    dropped: AtomicU64,
    /// Spans were dropped, and since then the collector has not caught up.
    is_losing: AtomicBool,
}

impl Account {
    fn lose(&self, spans: u64, reason: &'static str, error: &str) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
        metrics::counter!("amends_spans_dropped_total", "reason" => reason).increment(spans);
        if !self.is_losing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason,
                error,
                "spans are dropped, and sagas go on; amends_spans_dropped_total counts them"
            );
        }
    }
}

impl Exporter {
    /// Begins a thread that sends the spans of the host `instance` to a collector. The collector need not be
    /// there.
    ///
    /// # Errors
    /// When the settings of the environment are wrong, or there is no thread.
    pub async fn open(endpoint: Endpoint, instance: String) -> Result<Self, ExporterError> {
        let (queue, waiting) = mpsc::channel(SPANS_WAITING_MAX);
        let (closing, told) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let (built, answer) = oneshot::channel();
        let account = Arc::<Account>::default();
        for reason in ["queue_full", "not_sent"] {
            metrics::counter!("amends_spans_dropped_total", "reason" => reason).increment(0);
        }
        metrics::counter!("amends_spans_sent_total").increment(0);
        let sender =
            Sender { waiting, closing: told, is_closed: false, account: Arc::clone(&account) };
        let thread = std::thread::Builder::new().name("amends-spans".to_owned());
        thread.spawn(move || {
            work(&endpoint, &instance, sender, built);
            end.send_replace(true);
        })?;
        answer.await.map_err(|_| ExporterError::Ended)??;
        Ok(Self { queue, account, closing: Arc::new(closing), ended })
    }

    /// Takes a span. Never waits: a span for which there is no room is dropped and counted.
    pub fn send(&self, span: Span) {
        let bytes = span.memory_bytes();
        let waiting = self.account.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > SPAN_BYTES_WAITING_MAX || self.queue.try_send(span).is_err() {
            self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.account.lose(1, "queue_full", "the collector is too slow, or not there");
        }
    }

    /// Sends what waits, for at most 5 s. Spans that come later are dropped. May be cancelled: then what
    /// waits is sent while the process lives.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let mut ended = self.ended.clone();
        let is_flushed = timeout(FLUSH_MAX, ended.wait_for(|ended| *ended)).await.is_ok();
        if !is_flushed {
            let left = self.queue.max_capacity() - self.queue.capacity();
            tracing::warn!(left, "the host stops without having sent all spans");
        }
    }

    /// Returns how many spans were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.account.dropped.load(Ordering::Relaxed)
    }
}

/// The thread: sends spans until it is told to close and none wait.
fn work(
    endpoint: &Endpoint,
    instance: &str,
    sender: Sender,
    built: oneshot::Sender<Result<(), ExporterError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = built.send(Err(error.into()));
            return;
        }
    };
    runtime.block_on(async move {
        match Collector::new(endpoint, instance) {
            Ok(collector) => {
                let _ = built.send(Ok(()));
                sender.run(&collector).await;
            }
            Err(error) => {
                let _ = built.send(Err(error));
            }
        }
    });
    // A name that is being looked up must not keep the end from being told.
    runtime.shutdown_background();
}

/// The end of the queue that the thread has.
struct Sender {
    waiting: mpsc::Receiver<Span>,
    closing: watch::Receiver<bool>,
    is_closed: bool,
    account: Arc<Account>,
}

impl Sender {
    async fn run(mut self, collector: &Collector) {
        while let Some(batch) = self.batch().await {
            self.export(collector, batch).await;
        }
    }

    /// The next spans: as many as come within a short time of the first. None when there will be none.
    async fn batch(&mut self) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        // When the first of them has waited for long enough.
        let mut until: Option<Instant> = None;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            let late = until.unwrap_or_else(|| Instant::now() + BATCH_PAUSE);
            tokio::select! {
                biased;
                () = told(&mut self.closing), if !self.is_closed => {
                    self.waiting.close();
                    self.is_closed = true;
                }
                count = self.waiting.recv_many(&mut batch, room) => {
                    if count == 0 {
                        break;
                    }
                    until.get_or_insert_with(|| Instant::now() + BATCH_PAUSE);
                }
                () = sleep_until(late), if until.is_some() => break,
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn export(&mut self, collector: &Collector, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let bytes = batch.iter().map(Span::memory_bytes).sum::<usize>();
        let sent = collector.export(batch).await;
        self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
        match sent {
            Ok(()) => {
                metrics::counter!("amends_spans_sent_total").increment(count);
                let is_losing = &self.account.is_losing;
                if self.waiting.is_empty() && is_losing.swap(false, Ordering::Relaxed) {
                    tracing::info!("spans are sent again");
                }
            }
            Err(error) => self.account.lose(count, "not_sent", &error.to_string()),
        }
    }
}

/// Until the exporter is to close, or nobody has it any more.
async fn told(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::time::SystemTime;

    use amends_engine::{SpanId, TraceContext, TraceId};
    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoint::Protocol;
    use crate::span::SpanKind;

    fn span(name: String) -> Span {
        let context =
            TraceContext { trace_id: TraceId([1; 16]), span_id: SpanId([1; 8]), is_sampled: true };
        Span {
            context,
            parent: None,
            is_parent_remote: false,
            kind: SpanKind::Internal,
            name,
            began: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
            is_error: false,
            attributes: Vec::new(),
            events: Vec::new(),
            events_dropped: 0,
            links: Vec::new(),
        }
    }

    /// A collector that takes connections and never answers.
    async fn silent() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        (listener, address)
    }

    #[tokio::test]
    async fn a_silent_collector_costs_spans_and_no_time() {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let (_listener, address) = silent().await;
            let endpoint = Endpoint::of_collector(&address, protocol).unwrap();
            let exporter = Exporter::open(endpoint, "node-a".to_owned()).await.unwrap();
            let began = Instant::now();
            let more = 1_000;
            for _ in 0..SPANS_WAITING_MAX + BATCH_MAX + more {
                exporter.send(span("execute inventory".to_owned()));
            }
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            let dropped = exporter.dropped();
            assert!((more as u64..=(more + BATCH_MAX) as u64).contains(&dropped), "{dropped}");
            exporter.close().await;
            let took = began.elapsed();
            assert!(took < FLUSH_MAX + Duration::from_secs(2), "{took:?}");
            exporter.send(span("execute inventory".to_owned()));
            assert!(exporter.dropped() > dropped, "it has no room after it has closed");
        }
    }

    #[tokio::test]
    async fn spans_that_wait_have_a_limit_in_bytes() {
        let (_listener, address) = silent().await;
        let endpoint = Endpoint::of_collector(&address, Protocol::Http).unwrap();
        let exporter = Exporter::open(endpoint, "node-a".to_owned()).await.unwrap();
        let large = SPAN_BYTES_WAITING_MAX / 8;
        for _ in 0..10 {
            exporter.send(span("x".repeat(large)));
        }
        // Each has some bytes beside its name, so that the eighth does not fit.
        assert_eq!(exporter.dropped(), 3);
    }

    #[tokio::test]
    async fn spans_that_nobody_takes_are_counted() {
        let (listener, address) = silent().await;
        drop(listener);
        let endpoint = Endpoint::of_collector(&address, Protocol::Http).unwrap();
        let exporter = Exporter::open(endpoint, "node-a".to_owned()).await.unwrap();
        exporter.send(span("execute inventory".to_owned()));
        exporter.close().await;
        assert_eq!(exporter.dropped(), 1);
        assert_eq!(exporter.account.bytes.load(Ordering::Relaxed), 0);
    }
}
