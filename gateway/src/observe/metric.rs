//! Every metric of the program: name, unit and labels in one list.
//!
//! Labels come from closed enums only: no ids, no numbers, no user agents. Media workers count in
//! their own atomics, which are read when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Label of [`Metrics::ended`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// Who ended the call.
    pub party: &'static str,
    /// The word of the end reason.
    pub reason: &'static str,
}

/// Label of [`Metrics::refused`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuleLabels {
    /// The first rule that failed.
    pub rule: &'static str,
}

/// Label of [`Metrics::messages`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MessageLabels {
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
}

/// Label of [`Metrics::shed`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// Which bounded queue or limit.
    pub limit: &'static str,
}

/// Label of [`Metrics::queues`] and [`Metrics::queues_high`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// Which bounded queue or table.
    pub queue: &'static str,
}

/// Counters and histograms that signalling updates. Clones share the same values.
#[derive(Clone)]
pub struct Metrics {
    /// Calls by how they ended.
    pub ended: Family<EndLabels, Counter>,
    /// INVITEs refused, by rule.
    pub refused: Family<RuleLabels, Counter>,
    /// INVITEs that were challenged.
    pub challenged: Counter,
    /// Calls that are up or being set up.
    pub live: Gauge,
    /// Trunks that their carriers know.
    pub registrations: Gauge,
    /// INVITE received to 180 or final response sent.
    pub post_dial_delay: Histogram,
    /// INVITE received to 200 sent.
    pub set_up: Histogram,
    /// 200 sent to the agent's first frame.
    pub first_agent_frame: Histogram,
    /// SIP messages.
    pub messages: Family<MessageLabels, Counter>,
    /// What lies in each bounded queue and table.
    pub queues: Family<QueueLabels, Gauge>,
    /// The most that ever lay there.
    pub queues_high: Family<QueueLabels, Gauge>,
    /// Estimated delay from the caller's mouth to the agent's ear, at the end of each call.
    pub mouth_to_ear: Histogram,
    /// Work that was turned away, by limit.
    pub shed: Family<LimitLabels, Counter>,
    /// Datagrams dropped because signalling was behind.
    pub datagrams_dropped: Arc<AtomicU64>,
    /// Faults of ours. Must read 0.
    pub bugs: Counter,
}

/// Bounds in seconds from 100 µs to 30 s.
fn seconds() -> Histogram {
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0,
        5.0, 10.0, 30.0,
    ])
}

impl Metrics {
    /// Makes the metrics and lists them in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            ended: Family::default(),
            refused: Family::default(),
            challenged: Counter::default(),
            live: Gauge::default(),
            registrations: Gauge::default(),
            post_dial_delay: seconds(),
            set_up: seconds(),
            first_agent_frame: seconds(),
            messages: Family::default(),
            queues: Family::default(),
            queues_high: Family::default(),
            mouth_to_ear: seconds(),
            shed: Family::default(),
            datagrams_dropped: Arc::default(),
            bugs: Counter::default(),
        };
        let m = &metrics;
        registry.register("calls_ended", "Calls by who ended them and why", m.ended.clone());
        registry.register("calls_refused", "INVITEs refused, by rule", m.refused.clone());
        registry.register("calls_challenged", "INVITEs answered 401", m.challenged.clone());
        registry.register("calls_live", "Calls up or being set up", m.live.clone());
        let held = m.registrations.clone();
        registry.register("trunks_registered", "Trunks registered with their carriers", held);
        registry.register_with_unit(
            "post_dial_delay",
            "INVITE to ringing or final response",
            Unit::Seconds,
            m.post_dial_delay.clone(),
        );
        registry.register_with_unit("set_up", "INVITE to 200", Unit::Seconds, m.set_up.clone());
        registry.register_with_unit(
            "first_agent_frame",
            "200 to the agent's first audio",
            Unit::Seconds,
            m.first_agent_frame.clone(),
        );
        registry.register("sip_messages", "SIP messages", m.messages.clone());
        registry.register("queue_depth", "Entries in a bounded queue or table", m.queues.clone());
        registry.register(
            "queue_high_water",
            "Most entries there ever were",
            m.queues_high.clone(),
        );
        registry.register_with_unit(
            "mouth_to_ear",
            "Estimated delay from the caller to the agent",
            Unit::Seconds,
            m.mouth_to_ear.clone(),
        );
        registry.register("shed", "Work turned away, by limit", m.shed.clone());
        registry.register("bugs", "Faults of the gateway itself", m.bugs.clone());
        metrics
    }

    /// Notes how much lies in a queue.
    pub fn queue(&self, queue: &'static str, depth: usize) {
        let labels = QueueLabels { queue };
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.queues.get_or_create(&labels).set(depth);
        let high = self.queues_high.get_or_create(&labels);
        if high.get() < depth {
            high.set(depth);
        }
    }
}
