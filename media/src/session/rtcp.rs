//! When to report and what to say: the RTCP of one leg (RFC 3550 §6.2, §6.3, §6.4).
//!
//! A session of two has no bandwidth to share, so reports leave at the minimum interval of 5 s,
//! randomised between half and one and a half of it (§6.3.1), the first one after half of that.

use std::time::{Duration, Instant};

use crate::clock::WallAnchor;
use crate::packet::rtcp::{self, Compound, Packet, ReportBlock, SenderInfo};
use crate::stats::{self, Reception};
use crate::stream::Stream;

/// The RTCP side of a leg: schedule, names, and what the peer told us.
pub(super) struct Rtcp {
    anchor: WallAnchor,
    next: Option<Instant>,
    random: u64,
    cname: [u8; CNAME_BYTES],
    /// Packets sent when the last report was made: more since then make the next one an SR.
    reported_packets: u64,
    round_trip: Option<Duration>,
    remote_lost: Option<i32>,
    remote_expected: u64,
}

impl Rtcp {
    /// RTCP named by `name`, reckoning wall-clock time from `anchor`.
    pub(super) fn new(anchor: WallAnchor, name: [u8; 8], random: u64) -> Self {
        Self {
            anchor,
            next: None,
            random,
            cname: hex(name),
            reported_packets: 0,
            round_trip: None,
            remote_lost: None,
            remote_expected: 0,
        }
    }

    /// True when a report is due; the next one is then scheduled.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match self.next {
            None => {
                self.next = Some(now + self.interval() / 2);
                false
            }
            Some(next) if now >= next => {
                self.next = Some(now + self.interval());
                true
            }
            Some(_) => false,
        }
    }

    /// Writes a compound report into `buffer` and returns its length.
    pub(super) fn write(
        &mut self,
        (buffer, bye): (&mut [u8], bool),
        stream: &Stream,
        reception: &mut Reception,
        now: Instant,
    ) -> Option<usize> {
        let spoke = stream.packets() > self.reported_packets;
        self.reported_packets = stream.packets();
        let block = reception.report(now).map(block);
        let compound = Compound {
            ssrc: stream.ssrc(),
            sender: spoke.then(|| self.sender_info(stream, now)),
            reports: block.as_slice(),
            cname: std::str::from_utf8(&self.cname).unwrap_or_default(),
            bye,
        };
        compound.write(buffer).ok()
    }

    /// Takes a report of the peer, which was admitted. It tells about quality and nothing else: a
    /// BYE does not end a call, that is for signalling to say.
    pub(super) fn heard(
        &mut self,
        packet: &Packet<'_>,
        ssrc: u32,
        reception: &mut Reception,
        now: Instant,
    ) {
        let reports = match packet {
            Packet::SenderReport { info, reports, .. } => {
                reception.sender_report(rtcp::ntp_middle(info.ntp), now);
                *reports
            }
            Packet::ReceiverReport { reports, .. } => *reports,
            Packet::Bye { .. } | Packet::Other { .. } => return,
        };
        for report in reports.filter(|report| report.ssrc == ssrc) {
            let arrived = rtcp::ntp_middle(self.anchor.ntp(now));
            let (sr, delay) = (report.last_sender_report, report.delay_since_last_sender_report);
            self.round_trip = stats::round_trip(arrived, sr, delay).or(self.round_trip);
            self.remote_lost = Some(report.cumulative_lost);
            self.remote_expected = self.reported_packets;
        }
    }

    /// The last round trip measured, in milliseconds.
    pub(super) fn round_trip_ms(&self) -> Option<f32> {
        self.round_trip.map(|trip| trip.as_secs_f32() * 1_000.0)
    }

    /// How much of what we sent the peer says it has lost, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(super) fn remote_loss_percent(&self) -> Option<f32> {
        let lost = self.remote_lost?.max(0) as f32;
        (self.remote_expected > 0).then(|| (lost * 100.0 / self.remote_expected as f32).min(100.0))
    }

    #[expect(clippy::cast_possible_truncation, reason = "RTCP counters wrap (RFC 3550 §6.4.1)")]
    fn sender_info(&self, stream: &Stream, now: Instant) -> SenderInfo {
        SenderInfo {
            ntp: self.anchor.ntp(now),
            rtp_timestamp: stream.timestamp(),
            packets: stream.packets() as u32,
            octets: stream.octets() as u32,
        }
    }

    /// Half to one and a half of [`INTERVAL`].
    fn interval(&mut self) -> Duration {
        // Xorshift: spreads reports of many calls, nothing more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        INTERVAL / 2 + Duration::from_millis(self.random % 5_000)
    }
}

fn block(report: stats::ReportBlock) -> ReportBlock {
    ReportBlock {
        ssrc: report.ssrc,
        fraction_lost: report.fraction_lost,
        cumulative_lost: report.cumulative_lost,
        highest_sequence: report.highest_sequence,
        jitter: report.jitter,
        last_sender_report: report.last_sr,
        delay_since_last_sender_report: report.delay_since_last_sr,
    }
}

fn hex(name: [u8; 8]) -> [u8; CNAME_BYTES] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = [0; CNAME_BYTES];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(name) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    text
}

/// RFC 3550 §6.2: the minimum interval of a session's reports.
const INTERVAL: Duration = Duration::from_secs(5);

/// A random CNAME in hexadecimal (RFC 7022 §4.2): it tells nothing about the host.
const CNAME_BYTES: usize = 16;

/// Room for any compound of ours, before protection: SR with one block, SDES, BYE.
pub(super) const COMPOUND_BYTES: usize = 28 + 24 + 12 + CNAME_BYTES + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn rtcp() -> (Rtcp, Instant) {
        let anchor = WallAnchor::now();
        (Rtcp::new(anchor, *b"trunklin", 99), anchor.at)
    }

    #[test]
    fn reports_are_due_every_five_seconds_give_or_take_half() {
        let (mut rtcp, start) = rtcp();
        let due: Vec<u64> = (0..60_000)
            .step_by(20)
            .filter(|ms| rtcp.is_due(start + Duration::from_millis(*ms)))
            .collect();
        assert!((1_250..=3_770).contains(&due[0]), "{due:?}");
        assert!((8..=23).contains(&due.len()), "{due:?}");
        for pair in due.windows(2) {
            assert!((2_500..=7_520).contains(&(pair[1] - pair[0])), "{due:?}");
        }
    }

    #[test]
    fn the_largest_compound_fits() {
        let (mut rtcp, start) = rtcp();
        let (mut stream, mut reception) = (Stream::new(1, 2, 3), Reception::new(8_000));
        stream.configure(0, 20);
        stream.push(&[0; 160], |_| ());
        reception.arrived(9, 1, Some(0), start);
        let mut buffer = [0; COMPOUND_BYTES];
        let len = rtcp.write((&mut buffer, true), &stream, &mut reception, start).unwrap();
        let kinds: Vec<_> = rtcp::parse(&buffer[..len])
            .unwrap()
            .map(|packet| match packet {
                Packet::SenderReport { ssrc, info, reports } => {
                    assert_eq!((ssrc, info.packets, info.octets), (1, 1, 160));
                    assert_eq!(reports.map(|report| report.ssrc).collect::<Vec<_>>(), [9]);
                    200
                }
                Packet::ReceiverReport { .. } => 201,
                Packet::Bye { .. } => 203,
                Packet::Other { packet_type } => packet_type,
            })
            .collect();
        assert_eq!(kinds, [200, 202, 203]);
        let len = rtcp.write((&mut buffer, false), &stream, &mut reception, start).unwrap();
        assert_eq!(buffer[1], 201, "nothing was sent in between");
        assert!(len < COMPOUND_BYTES);
    }
}
