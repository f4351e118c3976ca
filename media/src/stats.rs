//! What a leg reports about its audio: reception statistics (RFC 3550 A.1, A.3, A.8), round trip
//! (RFC 3550 §6.4.1) and the summary kept in the call's record.
//!
//! Count only packets that were admitted: a stranger's packet must not look like loss.

use std::time::{Duration, Instant};

use crate::mos;

/// Sequence jump that RFC 3550 A.1 takes for lost packets, not for a new stream.
const MAX_DROPOUT: u16 = 3_000;
/// Sequence distance backwards that is still reordering (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
/// Greatest value of the 24-bit signed loss counter.
const CUMULATIVE_MAX: i64 = 0x7F_FFFF;
/// Least value of the 24-bit signed loss counter.
const CUMULATIVE_MIN: i64 = -0x80_0000;

/// Reception statistics of one source.
#[derive(Clone, Debug)]
pub struct Reception {
    clock_hz: u32,
    epoch: Option<Instant>,
    source: Option<Source>,
    /// Packets expected from sources before the present one, and those that came.
    past_expected: u64,
    received: u64,
    /// Interarrival jitter in timestamp units, scaled by 16 (RFC 3550 A.8).
    jitter_q4: u32,
    /// Greatest jitter seen, scaled by 16.
    jitter_peak_q4: u32,
    sender_report: Option<(u32, Instant)>,
}

/// Sequence accounting of one SSRC.
#[derive(Clone, Debug)]
struct Source {
    ssrc: u32,
    base: u32,
    /// Highest sequence number, wraps counted in the upper half.
    highest: u32,
    received: u64,
    /// The number that would prove a restart (RFC 3550 A.1 `bad_seq`).
    suspect: Option<u16>,
    transit: Option<u32>,
    expected_prior: u64,
    received_prior: u64,
}

/// The fields of a reception report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start; 24 bits, negative when duplicates came.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0: none came.
    pub last_sr: u32,
    /// Delay since that report in 1/65536 s; 0: none came.
    pub delay_since_last_sr: u32,
}

impl Reception {
    /// Statistics for a codec with this RTP clock.
    #[must_use]
    pub fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            epoch: None,
            source: None,
            past_expected: 0,
            received: 0,
            jitter_q4: 0,
            jitter_peak_q4: 0,
            sender_report: None,
        }
    }

    /// Counts one admitted packet. `timed` is false for packets whose timestamp is not their
    /// sampling time: telephone events keep theirs (RFC 4733 §2.2.1).
    pub fn arrived(&mut self, ssrc: u32, sequence: u16, timestamp: Option<u32>, now: Instant) {
        self.received += 1;
        let fresh = match &mut self.source {
            Some(source) if source.ssrc == ssrc => source.advance(sequence),
            _ => false,
        };
        if !fresh {
            self.begin(ssrc, sequence);
        }
        if let Some(timestamp) = timestamp {
            self.time(timestamp, now);
        }
    }

    /// Notes the sender report of the source: the middle 32 bits of its NTP time.
    pub fn sender_report(&mut self, ntp_middle: u32, now: Instant) {
        self.sender_report = Some((ntp_middle, now));
    }

    /// The report block about this source; starts a new interval (RFC 3550 A.3).
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let jitter = self.jitter_q4 >> 4;
        let (last_sr, delay_since_last_sr) = match self.sender_report {
            Some((ntp, at)) => (ntp, sixty_fourths_k(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        let source = self.source.as_mut()?;
        let expected = source.expected();
        let expected_interval = expected - source.expected_prior;
        let received_interval = source.received - source.received_prior;
        source.expected_prior = expected;
        source.received_prior = source.received;
        let lost = expected_interval.saturating_sub(received_interval);
        let fraction = (lost * 256).checked_div(expected_interval).unwrap_or(0);
        Some(ReportBlock {
            ssrc: source.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: clamp_24(source.lost()),
            highest_sequence: source.highest,
            jitter,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Packets that came, of all sources.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that should have come, of all sources.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.past_expected + self.source.as_ref().map_or(0, Source::expected)
    }

    /// Packets that did not come; duplicates hide losses, as in RFC 3550.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// Interarrival jitter now, in milliseconds.
    #[must_use]
    pub fn jitter_ms(&self) -> f32 {
        self.to_ms(self.jitter_q4)
    }

    /// Greatest interarrival jitter so far, in milliseconds.
    #[must_use]
    pub fn jitter_peak_ms(&self) -> f32 {
        self.to_ms(self.jitter_peak_q4)
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn to_ms(&self, jitter_q4: u32) -> f32 {
        jitter_q4 as f32 / 16.0 * 1_000.0 / self.clock_hz as f32
    }

    fn begin(&mut self, ssrc: u32, sequence: u16) {
        if let Some(source) = self.source.take() {
            // What came in excess (duplicates) is not owed to the next source.
            self.past_expected += source.expected();
        }
        self.source = Some(Source::starting_at(ssrc, sequence));
    }

    /// RFC 3550 A.8, in the integer form.
    fn time(&mut self, timestamp: u32, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        let arrival = clock_units(now.saturating_duration_since(epoch), self.clock_hz);
        let transit = arrival.wrapping_sub(timestamp);
        let Some(source) = self.source.as_mut() else { return };
        let before = source.transit.replace(transit);
        let Some(before) = before else { return };
        let difference = transit.wrapping_sub(before);
        let difference = difference.min(difference.wrapping_neg());
        // A jump of more than ten seconds is another time line, not jitter.
        if difference > self.clock_hz.saturating_mul(10) {
            return;
        }
        let decay = (self.jitter_q4 + 8) >> 4;
        self.jitter_q4 = (self.jitter_q4 + difference).saturating_sub(decay);
        self.jitter_peak_q4 = self.jitter_peak_q4.max(self.jitter_q4);
    }
}

impl Source {
    fn starting_at(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            base: u32::from(sequence),
            highest: u32::from(sequence),
            received: 1,
            suspect: None,
            transit: None,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    /// RFC 3550 A.1; false when the source began anew.
    fn advance(&mut self, sequence: u16) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number")]
        let newest = self.highest as u16;
        let ahead = sequence.wrapping_sub(newest);
        if ahead < MAX_DROPOUT {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
        } else if ahead <= u16::MAX - MAX_MISORDER {
            if self.suspect == Some(sequence) {
                return false;
            }
            self.suspect = Some(sequence.wrapping_add(1));
        }
        self.received += 1;
        true
    }

    fn expected(&self) -> u64 {
        u64::from(self.highest.wrapping_sub(self.base)) + 1
    }

    fn lost(&self) -> i64 {
        let expected = i64::try_from(self.expected()).unwrap_or(i64::MAX);
        expected.saturating_sub(i64::try_from(self.received).unwrap_or(i64::MAX))
    }
}

/// Round trip from a report block about what we send (RFC 3550 §6.4.1): `now_ntp` is the middle
/// of the NTP time of arrival. `None` when no report of ours was seen, or the figures disagree.
#[must_use]
pub fn round_trip(now_ntp: u32, last_sr: u32, delay_since_last_sr: u32) -> Option<Duration> {
    if last_sr == 0 {
        return None;
    }
    let units = now_ntp.wrapping_sub(last_sr).checked_sub(delay_since_last_sr)?;
    // More than a minute is a peer whose clock arithmetic is wrong.
    (units < 60 << 16).then(|| Duration::from_micros((u64::from(units) * 1_000_000) >> 16))
}

/// What is known about a leg's audio at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// RTP packets sent.
    pub packets_sent: u64,
    /// RTP packets admitted.
    pub packets_received: u64,
    /// RTP packets that should have come and did not.
    pub packets_lost: u64,
    /// Audio frames that came too late to be played.
    pub packets_late: u64,
    /// Loss the peer reported of what we sent, in percent.
    pub remote_loss_percent: Option<f32>,
    /// Interarrival jitter at the end, in milliseconds.
    pub jitter_ms: f32,
    /// Greatest interarrival jitter, in milliseconds.
    pub jitter_peak_ms: f32,
    /// Round trip by RTCP, in milliseconds.
    pub round_trip_ms: Option<f32>,
    /// Estimated mean opinion score of what we hear, 1.0 to 4.5 (ITU-T G.107, P.800.1 MOS-CQE);
    /// `None` when nothing was received.
    pub mos: Option<f32>,
}

impl Quality {
    /// The summary of a reception, with MOS estimated from loss and one-way delay: half the round
    /// trip plus the playout buffer.
    #[must_use]
    pub fn of(reception: &Reception, late: u64, buffer_ms: f32, round_trip: Option<f32>) -> Self {
        let lost = reception.lost();
        let unheard = lost.saturating_add(late);
        let mos = (reception.received() > 0).then(|| {
            let loss_percent = percent(unheard, reception.expected());
            mos::estimate(loss_percent, round_trip.unwrap_or(0.0) / 2.0 + buffer_ms)
        });
        Self {
            packets_received: reception.received(),
            packets_lost: lost,
            packets_late: late,
            jitter_ms: reception.jitter_ms(),
            jitter_peak_ms: reception.jitter_peak_ms(),
            round_trip_ms: round_trip,
            mos,
            ..Self::default()
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { (part as f32 * 100.0 / whole as f32).min(100.0) }
}

fn clamp_24(lost: i64) -> i32 {
    i32::try_from(lost.clamp(CUMULATIVE_MIN, CUMULATIVE_MAX)).unwrap_or(0)
}

/// A duration on an RTP clock, wrapped.
#[expect(clippy::cast_possible_truncation, reason = "wraps as RTP timestamps do")]
fn clock_units(elapsed: Duration, clock_hz: u32) -> u32 {
    (elapsed.as_nanos() * u128::from(clock_hz) / 1_000_000_000) as u32
}

/// A duration in 1/65536 s, saturated.
fn sixty_fourths_k(elapsed: Duration) -> u32 {
    u32::try_from((elapsed.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}
