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
    /// Depth of the playout buffer at the end, in milliseconds.
    pub buffer_ms: f32,
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
            buffer_ms,
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
    let of_nanos = u64::from(elapsed.subsec_nanos()) * u64::from(clock_hz) / 1_000_000_000;
    elapsed.as_secs().wrapping_mul(u64::from(clock_hz)).wrapping_add(of_nanos) as u32
}

/// A duration in 1/65536 s, saturated.
fn sixty_fourths_k(elapsed: Duration) -> u32 {
    u32::try_from((elapsed.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: u32 = 7;

    struct Feed {
        reception: Reception,
        start: Instant,
    }

    impl Feed {
        fn new() -> Self {
            Self { reception: Reception::new(8_000), start: crate::clock::now() }
        }

        /// Packet `n` of a perfect sender, `late_ms` after its time.
        fn packet(&mut self, n: u32, late_ms: u64) {
            let time = self.start + Duration::from_millis(u64::from(n) * 20 + late_ms);
            #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
            let sequence = n as u16;
            self.reception.arrived(SSRC, sequence, Some(n.wrapping_mul(160)), time);
        }

        fn report(&mut self) -> ReportBlock {
            self.reception.report(self.start).unwrap()
        }
    }

    #[test]
    fn a_perfect_stream_has_no_loss_and_no_jitter() {
        let mut feed = Feed::new();
        (0..500).for_each(|n| feed.packet(n, 0));
        assert_eq!((feed.reception.expected(), feed.reception.lost()), (500, 0));
        assert_eq!(feed.reception.jitter_ms(), 0.0);
        let block = feed.report();
        assert_eq!(
            (block.fraction_lost, block.cumulative_lost, block.highest_sequence),
            (0, 0, 499)
        );
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0, 0));
    }

    #[test]
    fn loss_is_told_per_interval_and_in_all() {
        let mut feed = Feed::new();
        (0..100).filter(|n| n % 4 != 3 || *n == 99).for_each(|n| feed.packet(n, 0));
        let block = feed.report();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (61, 24));
        (100..200).for_each(|n| feed.packet(n, 0));
        let block = feed.report();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 24));
        assert_eq!(feed.reception.lost(), 24);
    }

    #[test]
    fn duplicates_make_the_loss_negative_and_the_fraction_zero() {
        let mut feed = Feed::new();
        (0..10).for_each(|n| {
            feed.packet(n, 0);
            feed.packet(n, 1);
        });
        let block = feed.report();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, -10));
        assert_eq!(feed.reception.lost(), 0);
    }

    #[test]
    fn sequence_wraps_are_counted() {
        let mut feed = Feed::new();
        (65_000..66_000).for_each(|n| feed.packet(n, 0));
        assert_eq!(feed.reception.expected(), 1_000);
        assert_eq!(feed.report().highest_sequence, 65_999);
        // Reordering across the wrap.
        let mut feed = Feed::new();
        [65_535, 65_537, 65_536, 65_538].into_iter().for_each(|n| feed.packet(n, 0));
        assert_eq!((feed.reception.expected(), feed.reception.lost()), (4, 0));
    }

    #[test]
    fn a_restart_needs_two_packets_and_is_no_loss() {
        let mut feed = Feed::new();
        (0..100).for_each(|n| feed.packet(n, 0));
        feed.packet(30_000, 0);
        assert_eq!(feed.reception.expected(), 100, "one odd packet is not believed");
        (30_001..30_100).for_each(|n| feed.packet(n, 0));
        assert_eq!(feed.reception.lost(), 0);
        assert_eq!(feed.report().highest_sequence, 30_099);
    }

    #[test]
    fn another_source_begins_anew_and_the_sums_stay() {
        let mut feed = Feed::new();
        (0..100).filter(|n| *n != 50).for_each(|n| feed.packet(n, 0));
        let time = feed.start + Duration::from_secs(3);
        for n in 0..50_u16 {
            feed.reception.arrived(8, 9_000 + n, Some(u32::from(n) * 160), time);
        }
        assert_eq!((feed.reception.expected(), feed.reception.lost()), (150, 1));
        assert_eq!(feed.report().ssrc, 8);
    }

    #[test]
    fn jitter_settles_at_the_mean_difference() {
        let mut feed = Feed::new();
        // Every other packet 16 ms late: |D| is 16 ms each time, and J tends to it.
        (0..400).for_each(|n| feed.packet(n, u64::from(n % 2) * 16));
        let jitter_ms = feed.reception.jitter_ms();
        assert!((jitter_ms - 16.0).abs() < 0.5, "{jitter_ms}");
        assert!(feed.reception.jitter_peak_ms() >= jitter_ms);
        assert!((120..=128).contains(&feed.report().jitter));
    }

    #[test]
    fn a_timestamp_jump_and_events_are_no_jitter() {
        let mut feed = Feed::new();
        (0..100).for_each(|n| feed.packet(n, 0));
        let time = feed.start + Duration::from_secs(2);
        feed.reception.arrived(SSRC, 100, Some(3_000_000_000), time);
        feed.reception.arrived(SSRC, 101, None, time + Duration::from_millis(500));
        feed.reception.arrived(SSRC, 102, Some(3_000_000_320), time + Duration::from_millis(40));
        assert_eq!(feed.reception.jitter_ms(), 0.0);
    }

    #[test]
    fn reports_echo_the_senders_and_give_the_round_trip() {
        let mut feed = Feed::new();
        feed.packet(0, 0);
        feed.reception.sender_report(0xABCD_0000, feed.start);
        let block = feed.reception.report(feed.start + Duration::from_millis(1_500)).unwrap();
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0xABCD_0000, 98_304));
        let half = 0x8000;
        let now = 0xABCD_0000_u32.wrapping_add(98_304 + half);
        let trip = round_trip(now, block.last_sr, block.delay_since_last_sr);
        assert_eq!(trip, Some(Duration::from_millis(500)));
        assert_eq!(round_trip(now, 0, 0), None);
        assert_eq!(round_trip(100, 90, 20), None, "more delay than time");
        assert_eq!(round_trip(61 << 16, 1, 0).map(|_| ()), None, "a minute is no round trip");
    }

    #[test]
    fn the_example_of_rfc_3550_section_6_4_1_gives_its_round_trip() {
        let trip = round_trip(0xB710_8000, 0xB705_2000, 0x0005_4000).unwrap();
        assert_eq!(trip, Duration::from_millis(6_125));
    }

    #[test]
    fn quality_sums_up() {
        let mut feed = Feed::new();
        (0..1_000).filter(|n| n % 100 != 50).for_each(|n| feed.packet(n, 0));
        let quality = Quality::of(&feed.reception, 0, 40.0, Some(60.0));
        assert_eq!((quality.packets_received, quality.packets_lost), (990, 10));
        assert!((4.2..4.41).contains(&quality.mos.unwrap()), "{quality:?}");
        let silent = Quality::of(&Reception::new(8_000), 0, 40.0, None);
        assert_eq!(silent.mos, None);
    }
}
