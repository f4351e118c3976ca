//! What the network does to the packets' time: how late they come, and how much of the buffer is
//! never needed.

use std::time::Instant;

use super::{LATE_MAX, signed};

/// Frames over which the unused reserve is judged: one second.
const RESERVE_FRAMES: u32 = 50;

/// How much later than the fastest packet the others come.
///
/// A histogram in steps of 10 ms with exponential forgetting; the base follows the least transit
/// time of the last two to four seconds, so neither a drifting clock nor a sender whose timestamps
/// stood still during a pause looks like delay for long.
pub(super) struct DelayEstimate {
    epoch: Option<Instant>,
    base: i32,
    next_base: i32,
    ticks: u32,
    /// Share of packets per 10 ms of lateness, in 1/2^24.
    share: [u32; DelayEstimate::BUCKETS],
}

impl DelayEstimate {
    const BUCKETS: usize = 41;
    const BUCKET_SAMPLES: i32 = 80;
    const WHOLE: u32 = 1 << 24;
    /// Greatest lateness told apart: 400 ms, the longest buffer there is.
    const SPREAD_MAX: i32 = 40 * Self::BUCKET_SAMPLES;
    /// Share of packets that may miss the target: 2 in 100.
    const MISSES: u32 = Self::WHOLE / 50;
    /// Ticks until the base of transit times is renewed: 2 s.
    const BASE_TICKS: u32 = 100;

    pub(super) fn new() -> Self {
        let mut share = [0; Self::BUCKETS];
        // Before anything is known: 20 ms of variation.
        if let Some(first) = share.get_mut(2) {
            *first = Self::WHOLE;
        }
        Self { epoch: None, base: 0, next_base: 0, ticks: 0, share }
    }

    pub(super) fn observe(&mut self, timestamp: u32, now: Instant) {
        let Some(epoch) = self.epoch else {
            self.epoch = Some(now);
            self.base = signed(0, timestamp);
            self.next_base = self.base;
            return;
        };
        let transit = signed(arrival_samples(now, epoch), timestamp);
        let lateness = transit.wrapping_sub(self.base);
        if lateness < 0 {
            self.base = transit;
        }
        if transit.wrapping_sub(self.next_base) < 0 {
            self.next_base = transit;
        }
        if lateness > Self::SPREAD_MAX {
            // More than any buffer bridges: the time line has moved. If it was a stall of the
            // network after all, the next packets are early and put the base right again.
            self.base = transit;
            self.next_base = transit;
            return;
        }
        let bucket = usize::try_from(lateness.max(0) / Self::BUCKET_SAMPLES);
        let bucket = bucket.unwrap_or(0).min(Self::BUCKETS - 1);
        let mut taken = 0;
        for share in &mut self.share {
            let loss = *share / 128;
            *share -= loss;
            taken += loss;
        }
        if let Some(share) = self.share.get_mut(bucket) {
            *share += taken;
        }
    }

    /// One 20 ms tick has passed.
    pub(super) fn age(&mut self) {
        self.ticks += 1;
        if self.ticks >= Self::BASE_TICKS {
            self.ticks = 0;
            self.base = self.next_base;
            self.next_base = self.next_base.wrapping_add(LATE_MAX / 2);
        }
    }

    /// Lateness that all but a few packets stay below, in samples.
    pub(super) fn spread_samples(&self) -> i32 {
        let mut beyond = 0;
        for (bucket, share) in self.share.iter().enumerate().rev() {
            beyond += share;
            if beyond > Self::MISSES {
                return i32::try_from(bucket).unwrap_or(0) * Self::BUCKET_SAMPLES;
            }
        }
        0
    }
}

/// Time since `epoch` on the RTP clock, wrapped like a timestamp.
#[expect(clippy::cast_possible_truncation, reason = "wraps as RTP timestamps do")]
fn arrival_samples(now: Instant, epoch: Instant) -> u32 {
    (now.saturating_duration_since(epoch).as_micros() / 125) as u32
}

/// The least depth left after playing, over the last second.
#[derive(Default)]
pub(super) struct Reserve {
    least: Option<i32>,
    frames: u32,
}

impl Reserve {
    pub(super) fn observe(&mut self, depth: i32) {
        if self.frames >= 2 * RESERVE_FRAMES {
            *self = Self::default();
        }
        self.frames += 1;
        self.least = Some(self.least.map_or(depth, |least| least.min(depth)));
    }

    /// What was never needed, once a second has been watched.
    pub(super) fn unused(&self) -> Option<i32> {
        (self.frames >= RESERVE_FRAMES).then_some(self.least).flatten()
    }
}
