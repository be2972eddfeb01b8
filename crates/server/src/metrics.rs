//! The metrics of `/metrics`.
//!
//! Times are taken where tokens leave the engine's thread, so that a slow reader does not affect them. The engine's own
//! counters are read at each scrape.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rustorch_llama::{EngineHandle, EngineStats, ReplicaStats};

use crate::memory::Memory;
use crate::queue::Queue;

/// The content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bucket limits in seconds: from a small model without a queue to a long prompt behind a full one.
const FIRST_TOKEN_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// Bucket limits in seconds: from a small model on a fast device to a large model on a slow one.
const TOKEN_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0];

/// Counters and histograms of the server.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    ignored_fields: Family<EndpointLabel, Counter>,
    connections: Gauge,
    connections_closed: Counter,
    data_folder_failing: Gauge,
    data_folder_failures: Counter,
    first_token: Histogram,
    per_token: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            ignored_fields: Family::default(),
            connections: Gauge::default(),
            connections_closed: Counter::default(),
            data_folder_failing: Gauge::default(),
            data_folder_failures: Counter::default(),
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            per_token: Histogram::new(TOKEN_BUCKETS),
        }
    }
}

impl Metrics {
    /// Counts an answered request. `endpoint` is a route, never a path, so that there are few labels.
    pub fn request(&self, endpoint: &str, status: u16) {
        let labels = RequestLabels { endpoint: endpoint.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts fields of a request that had no effect. Their names are not labels: clients choose them.
    pub fn ignored_fields(&self, endpoint: &str, count: usize) {
        if count > 0 {
            let labels = EndpointLabel { endpoint: endpoint.to_owned() };
            self.ignored_fields.get_or_create(&labels).inc_by(count as u64);
        }
    }

    /// The gauge of open connections.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// Counts a connection that made room for another, or that found no room.
    pub fn connection_closed(&self) {
        self.connections_closed.inc();
    }

    /// Counts a failure to use the data folder.
    pub fn data_folder_fails(&self) {
        self.data_folder_failing.set(1);
        self.data_folder_failures.inc();
    }

    /// The data folder can be used again.
    pub fn data_folder_works(&self) {
        self.data_folder_failing.set(0);
    }

    /// Records the time of a token: `waited` since the token before or, for the first, since the request.
    pub fn token(&self, waited: Duration, has_predecessor: bool) {
        let histogram = if has_predecessor { &self.per_token } else { &self.first_token };
        histogram.observe(waited.as_secs_f64());
    }

    /// A registry of these and of the engine's own figures.
    pub fn registry(&self, engine: EngineHandle, memory: Arc<Memory>, queue: Arc<Queue>) -> Registry {
        let mut registry = Registry::with_prefix("rustorch");
        let Self { requests, ignored_fields, connections, first_token, per_token, .. } = self;
        registry.register(
            "requests",
            "Requests answered, by route and status; 499 is a client that left first",
            requests.clone(),
        );
        let help = "Fields of requests that the server does not know and ignored";
        registry.register("ignored_fields", help, ignored_fields.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register(
            "connections_closed",
            "Connections that were closed because there were too many",
            self.connections_closed.clone(),
        );
        registry.register(
            "data_folder_failing",
            "1 while batches pause because the data folder cannot be used",
            self.data_folder_failing.clone(),
        );
        registry.register(
            "data_folder_failures",
            "Failures to use the data folder",
            self.data_folder_failures.clone(),
        );
        let help = "From a request's arrival to the first token of each of its sequences";
        registry.register("time_to_first_token_seconds", help, first_token.clone());
        registry.register(
            "time_per_token_seconds",
            "From one token of a sequence to its next",
            per_token.clone(),
        );
        registry.register_collector(Box::new(EngineFigures(engine)));
        registry.register_collector(Box::new(RequestFigures { memory, queue }));
        registry
    }
}

/// The registry as text.
pub(crate) fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// Reads at each scrape what requests hold.
#[derive(Debug)]
struct RequestFigures {
    memory: Arc<Memory>,
    queue: Arc<Queue>,
}

impl Collector for RequestFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (num_clients, most) = self.queue.clients();
        let gauges = [
            (
                "body_memory_bytes",
                "Memory that bodies of requests hold while they arrive, beyond the first 64 KiB of each",
                self.memory.of_bodies() as f64,
            ),
            ("clients", "Keys or addresses that have sequences in flight", num_clients as f64),
            ("sequences_of_a_client", "Most sequences in flight of one key or address", most as f64),
        ];
        encode_gauges(&mut encoder, &gauges)
    }
}

/// Reads the engine's figures at each scrape.
#[derive(Debug)]
struct EngineFigures(EngineHandle);

impl Collector for EngineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let occupancy = stats.running as f64 / stats.max_num_seqs as f64;
        let gauges = [
            ("queue_length", "Sequences that wait for a place in the batch", stats.waiting as f64),
            ("running_sequences", "Sequences in the batch", stats.running as f64),
            ("batch_size", "Most sequences that run together", stats.max_num_seqs as f64),
            ("batch_occupancy", "Share of the batch's places that are taken", occupancy),
            ("kv_pages_used", "KV pages that sequences hold", stats.used_pages as f64),
            ("kv_pages", "KV pages of the pool", stats.num_pages as f64),
        ];
        encode_gauges(&mut encoder, &gauges)?;
        let counters = [
            ("engine_steps", "Passes over the weights", stats.steps),
            ("engine_tokens", "Tokens that ran in them, recomputed ones included", stats.tokens),
            ("preemptions", "How often a sequence lost its pages to another", stats.preemptions),
            ("prefix_queried_tokens", "Tokens looked for in the prefix cache", stats.prefix_queried_tokens),
            ("prefix_hit_tokens", "Of those, tokens found", stats.prefix_hit_tokens),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let tokens = [
            ("prompt", stats.prompt_tokens),
            ("cached", stats.cached_prompt_tokens),
            ("generated", stats.generated_tokens),
        ];
        let help = "Tokens: of prompts that ran, of prompts that were found in the prefix cache, generated";
        labelled(&mut encoder, "tokens", help, "kind", &tokens)?;
        let ends = [
            ("stop", stats.finished_stop),
            ("length", stats.finished_length),
            ("embedding", stats.finished_embeddings),
            ("failed", stats.failed),
            ("cancelled", stats.cancelled),
        ];
        labelled(&mut encoder, "sequences", "Sequences that ended, by how", "end", &ends)?;
        self.encode_replicas(&mut encoder)
    }
}

/// A figure of a replica.
type Figure<T> = (&'static str, &'static str, fn(&EngineStats) -> T);

const REPLICA_GAUGES: [Figure<usize>; 5] = [
    ("replica_queue_length", "Sequences that wait for a place in the replica's batch", |stats| stats.waiting),
    ("replica_running_sequences", "Sequences in the replica's batch", |stats| stats.running),
    ("replica_batch_size", "Most sequences that run together in the replica", |stats| stats.max_num_seqs),
    ("replica_kv_pages_used", "KV pages of the replica that sequences hold", |stats| stats.used_pages),
    ("replica_kv_pages", "KV pages of the replica", |stats| stats.num_pages),
];

const REPLICA_COUNTERS: [Figure<u64>; 4] = [
    ("replica_engine_steps", "Passes over the weights of the replica", |stats| stats.steps),
    ("replica_engine_tokens", "Tokens that ran in them, recomputed ones included", |stats| stats.tokens),
    ("replica_generated_tokens", "Tokens that the replica has generated", |stats| stats.generated_tokens),
    ("replica_prefix_hit_tokens", "Tokens found in the replica's prefix cache", |stats| {
        stats.prefix_hit_tokens
    }),
];

impl EngineFigures {
    /// The figures of each device's engine, of which those above are the sums.
    fn encode_replicas(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let replicas = self.0.replicas();
        let labels: Vec<_> =
            (0..).zip(&replicas).map(|(idx, replica)| ReplicaLabels::new(idx, replica)).collect();
        let help = "1 while the replica runs, 0 once its device has failed and others have its requests";
        let mut family = encoder.encode_descriptor("replica_up", help, None, MetricType::Gauge)?;
        for (labels, replica) in labels.iter().zip(&replicas) {
            ConstGauge::new(i64::from(replica.is_running)).encode(family.encode_family(labels)?)?;
        }
        for (name, help, figure) in REPLICA_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, replica) in labels.iter().zip(&replicas) {
                ConstGauge::new(figure(&replica.stats) as f64).encode(family.encode_family(labels)?)?;
            }
        }
        for (name, help, figure) in REPLICA_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, replica) in labels.iter().zip(&replicas) {
                ConstCounter::new(figure(&replica.stats)).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    /// Its place in `--device`, from 0 on.
    replica: u64,
    device: String,
}

impl ReplicaLabels {
    fn new(replica: u64, stats: &ReplicaStats) -> Self {
        Self { replica, device: stats.device.clone() }
    }
}

/// A gauge for each name.
fn encode_gauges(encoder: &mut DescriptorEncoder<'_>, gauges: &[(&str, &str, f64)]) -> fmt::Result {
    for &(name, help, value) in gauges {
        let gauge = ConstGauge::new(value);
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    Ok(())
}

/// A counter for each value of a label.
fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counts: &[(&'static str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for &(value, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
