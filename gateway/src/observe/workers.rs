//! What media workers and port pools count, as metrics text. Read only when somebody scrapes.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::events::{Attempts, EventBus};
use config::journal::Journal;
use media::ports::PortPool;
use media::worker::{RESIDENCE_BUCKETS, Residence, WorkerMetrics, Workers};

use super::health::Extra;
use super::metric::Metrics;

/// A description of these workers and pools, to be called at every scrape.
#[must_use]
pub fn describe(
    workers: Arc<Workers>,
    pools: Vec<PortPool>,
    (metrics, journal): (Metrics, Journal),
    (bus, attempts): (EventBus, Arc<Attempts>),
) -> Extra {
    Arc::new(move |text: &mut String| {
        let read = workers.metrics();
        gauges(text, &read);
        counters(text, &read);
        residence(text, &read);
        ports(text, &pools);
        records(text, &journal);
        events(text, &bus, &attempts);
        let dropped = metrics.datagrams_dropped.load(Ordering::Relaxed);
        family(
            text,
            "sip_datagrams_dropped",
            "counter",
            "SIP datagrams dropped: signalling was behind",
        );
        line(text, "sip_datagrams_dropped_total", "", dropped);
    })
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP gateway_{name} {help}.\n# TYPE gateway_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(text, "gateway_{name} {value}")
    } else {
        writeln!(text, "gateway_{name}{{{labels}}} {value}")
    };
}

fn gauges(text: &mut String, workers: &[WorkerMetrics]) {
    family(text, "media_sessions", "gauge", "Media sessions open, by worker");
    for (n, worker) in workers.iter().enumerate() {
        line(text, "media_sessions", &format!("worker=\"{n}\""), worker.sessions as u64);
    }
    family(text, "media_mailbox", "gauge", "Commands waiting for a worker");
    for (n, worker) in workers.iter().enumerate() {
        line(text, "media_mailbox", &format!("worker=\"{n}\""), worker.mailbox as u64);
    }
    family(text, "media_class", "gauge", "Scheduling class of a worker: 1 in the row that holds");
    for (n, worker) in workers.iter().enumerate() {
        let class = format!("{:?}", worker.class).to_lowercase();
        line(text, "media_class", &format!("worker=\"{n}\",class=\"{class}\""), 1);
    }
}

fn counters(text: &mut String, workers: &[WorkerMetrics]) {
    type Read = fn(&WorkerMetrics) -> u64;
    let table: [(&str, &str, Read); 8] = [
        ("media_ticks", "Ticks of 20 ms done", |w| w.ticks),
        ("media_late_ticks", "Ticks more than 5 ms late", |w| w.late_ticks),
        ("media_made_up_ticks", "Ticks done late after a short stall", |w| w.made_up_ticks),
        ("media_missed_ticks", "Ticks left out after a stall of more than 60 ms", |w| {
            w.missed_ticks
        }),
        ("media_faults", "Sessions closed by a fault of ours", |w| w.faults),
        ("media_received", "Datagrams received", |w| w.received),
        (
            "media_uncleaned",
            "Frames that passed without noise cancellation for want of time",
            |w| w.uncleaned,
        ),
        ("media_sent", "Datagrams sent", |w| w.sent),
    ];
    for (name, help, read) in table {
        family(text, name, "counter", help);
        for (n, worker) in workers.iter().enumerate() {
            line(text, &format!("{name}_total"), &format!("worker=\"{n}\""), read(worker));
        }
    }
    family(text, "media_drops", "counter", "Datagrams and frames not used, by cause");
    for (n, worker) in workers.iter().enumerate() {
        for (cause, count) in worker.drops.by_cause() {
            let labels = format!("worker=\"{n}\",cause=\"{cause}\"");
            line(text, "media_drops_total", &labels, count);
        }
    }
}

fn residence(text: &mut String, workers: &[WorkerMetrics]) {
    let name = "media_residence_microseconds";
    family(text, name, "histogram", "How long media lay in this box");
    for (n, worker) in workers.iter().enumerate() {
        let mut so_far = 0;
        for (index, count) in
            worker.residence.buckets.iter().enumerate().take(RESIDENCE_BUCKETS - 1)
        {
            so_far += count;
            let bound = Residence::upper_bound_us(index);
            let labels = format!("worker=\"{n}\",le=\"{bound}\"");
            line(text, &format!("{name}_bucket"), &labels, so_far);
        }
        let total = worker.residence.count();
        line(text, &format!("{name}_bucket"), &format!("worker=\"{n}\",le=\"+Inf\""), total);
        line(text, &format!("{name}_sum"), &format!("worker=\"{n}\""), worker.residence.sum_us);
        line(text, &format!("{name}_count"), &format!("worker=\"{n}\""), total);
    }
}

fn records(text: &mut String, journal: &Journal) {
    let stats = journal.stats();
    family(text, "journal_written", "counter", "Records made durable");
    line(text, "journal_written_total", "", stats.written);
    family(text, "journal_dropped", "counter", "Records lost, by kind");
    let kinds = [
        ("decision", stats.dropped_decisions),
        ("conversation", stats.dropped_conversations),
        ("unwritable", stats.unwritable),
    ];
    for (kind, count) in kinds {
        line(text, "journal_dropped_total", &format!("kind=\"{kind}\""), count);
    }
    family(text, "journal_stalled", "gauge", "1 while the store takes no records");
    line(text, "journal_stalled", "", u64::from(stats.stalled));
}

fn events(text: &mut String, bus: &EventBus, attempts: &Attempts) {
    family(text, "event_streams", "gauge", "Streams of events that are open");
    line(text, "event_streams", "", bus.open_streams() as u64);
    family(text, "webhook_attempts", "counter", "Attempts to deliver an event, by outcome");
    for (outcome, count) in [("taken", attempts.taken()), ("failed", attempts.failed())] {
        line(text, "webhook_attempts_total", &format!("outcome=\"{outcome}\""), count);
    }
}

fn ports(text: &mut String, pools: &[PortPool]) {
    family(text, "media_ports", "gauge", "Media port pairs by state");
    for pool in pools {
        let counts = pool.counts();
        let ip = pool.bind();
        let states =
            [("free", counts.free), ("in_use", counts.in_use), ("quarantined", counts.quarantined)];
        for (state, count) in states {
            let labels = format!("ip=\"{ip}\",state=\"{state}\"");
            line(text, "media_ports", &labels, count as u64);
        }
    }
}
