//! The stream we send on one leg: SSRC, sequence and timestamp that go on through everything.
//!
//! Audio comes in 20 ms at a time and leaves in packets of the negotiated length (RFC 3551 §4.2).
//! Whatever happens in between (hold, a stall, a digit, a new plan), the timestamp keeps
//! counting real time and the sequence number counts packets, so that the peer sees one stream with
//! gaps, never a new one (RFC 3550 §5.1).
//!
//! The marker bit is set on the first packet and on the first one after a gap (RFC 3551 §4.1).
//!
//! Packets of another leg are relayed in the same stream ([`Stream::relay`]): they keep their
//! distances from each other and take up where the last packet of whatever kind left off.

mod mapping;

use crate::frame::{FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ};
use crate::packet::rtp::Header;

use mapping::{Mapping, Place};

/// One RTP packet to be built: header and payload.
pub(crate) struct Outgoing<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

/// The sending side of one leg. G.711: one byte is one sample is one tick of the RTP clock.
pub(crate) struct Stream {
    ssrc: u32,
    sequence: u16,
    /// Timestamp of the first sample in `pending`.
    timestamp: u32,
    payload_type: u8,
    packet_samples: usize,
    after_gap: bool,
    /// Elsewhere: a stream that is relayed has nothing in it.
    pending: Box<[u8; PENDING_BYTES]>,
    filled: usize,
    /// Where the packets being relayed lie; nothing of our own was sent since the last of them.
    mapping: Option<Mapping>,
    /// How far relayed packets have moved `timestamp` ahead of real time, in samples.
    lead: u32,
    packets: u64,
    octets: u64,
}

impl Stream {
    /// A stream that starts at the given numbers; they should be random (RFC 3550 §5.1).
    pub(crate) fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self {
            ssrc,
            sequence,
            timestamp,
            payload_type: 0,
            packet_samples: FRAME_SAMPLES,
            after_gap: true,
            pending: Box::new([0; PENDING_BYTES]),
            filled: 0,
            mapping: None,
            lead: 0,
            packets: 0,
            octets: 0,
        }
    }

    /// What audio is sent as from now on. `ptime_ms` is brought between 10 and 60.
    pub(crate) fn configure(&mut self, payload_type: u8, ptime_ms: u8) {
        self.payload_type = payload_type;
        self.packet_samples = usize::from(ptime_ms.clamp(10, 60)) * SAMPLES_PER_MS;
    }

    /// Takes 20 ms of encoded audio and gives every packet that is full.
    pub(crate) fn push(&mut self, codes: &[u8; FRAME_SAMPLES], mut emit: impl FnMut(Outgoing<'_>)) {
        let end = self.filled + FRAME_SAMPLES;
        if let Some(room) = self.pending.get_mut(self.filled..end) {
            room.copy_from_slice(codes);
            self.filled = end;
        }
        let mut sent = 0;
        while self.filled - sent >= self.packet_samples {
            let header = self.next_header(self.payload_type, self.after_gap, self.timestamp);
            let payload = self.pending.get(sent..sent + self.packet_samples).unwrap_or_default();
            emit(Outgoing { header, payload });
            self.octets += payload.len() as u64;
            self.after_gap = false;
            self.advance(self.packet_samples);
            sent += self.packet_samples;
        }
        self.pending.copy_within(sent..self.filled, 0);
        self.filled -= sent;
    }

    /// Sends a telephone event in place of 20 ms of audio (RFC 4733 §2.5.1). Its timestamp is the
    /// one it began at, whatever ours is by now.
    pub(crate) fn push_event(
        &mut self,
        payload_type: u8,
        event: &crate::dtmf::Outgoing,
        emit: impl FnOnce(Outgoing<'_>),
    ) {
        let header = self.next_header(payload_type, event.marker, event.timestamp);
        emit(Outgoing { header, payload: &event.payload });
        self.octets += event.payload.len() as u64;
        self.skip(1);
    }

    /// Lets `frames` of 20 ms pass without audio, as if silence had been left out.
    pub(crate) fn skip(&mut self, frames: u64) {
        let samples = frames.wrapping_mul(FRAME_SAMPLES as u64);
        self.drop_pending();
        #[expect(clippy::cast_possible_truncation, reason = "timestamps wrap (RFC 3550 §5.1)")]
        let samples = samples as u32;
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.after_gap = true;
    }

    /// Takes a packet of another stream into this one: the header it gets here, its payload being
    /// `samples` of audio or none. `None` for a packet that was here before or comes too late.
    pub(crate) fn relay(
        &mut self,
        source: &Header,
        payload_type: u8,
        samples: usize,
    ) -> Option<Header> {
        let place = self.mapping.as_mut().map_or(Place::Elsewhere, |known| known.place(source));
        let (sequence, timestamp, newest, anew) = match place {
            Place::Taken => return None,
            Place::At { sequence, timestamp, newest } if self.is_near(timestamp) => {
                (sequence, timestamp, newest, false)
            }
            Place::At { sequence, newest, .. } => {
                let timestamp = self.timestamp;
                self.mapping.as_mut()?.retime(source, timestamp);
                (sequence, timestamp, newest, true)
            }
            Place::Elsewhere => {
                self.drop_pending();
                let (sequence, timestamp) = (self.sequence, self.timestamp);
                self.mapping = Some(Mapping::anchored(source, sequence, timestamp));
                (sequence, timestamp, true, true)
            }
        };
        if newest {
            self.sequence = sequence.wrapping_add(1);
        }
        self.lead_to(timestamp.wrapping_add(u32::try_from(samples).unwrap_or(0)));
        self.after_gap = true;
        self.packets += 1;
        let marker = source.marker || anew;
        Some(Header { payload_type, marker, sequence, timestamp, ssrc: self.ssrc })
    }

    /// Counts the payload of a packet that was relayed.
    pub(crate) fn count_octets(&mut self, octets: usize) {
        self.octets += octets as u64;
    }

    /// The stream being relayed is interrupted: what comes of it next takes up behind what was sent.
    pub(crate) fn interrupt(&mut self) {
        self.mapping = None;
    }

    /// A packet of the stream being relayed is not for our receiver: its number is not missed.
    pub(crate) fn leave_out(&mut self, source: &Header) {
        if let Some(mapping) = &mut self.mapping {
            mapping.leave_out(source);
        }
    }

    /// Lets 20 ms pass in which nothing of our own is sent. Relayed packets move the timestamp
    /// themselves, at the pace of their sender.
    pub(crate) fn pass(&mut self) {
        let frame = FRAME_MS * SAMPLE_RATE_HZ / 1_000;
        self.timestamp = self.timestamp.wrapping_add(frame.saturating_sub(self.lead));
        self.lead = self.lead.saturating_sub(frame);
    }

    /// Timestamp of the next sample to be pushed.
    pub(crate) fn timestamp(&self) -> u32 {
        self.timestamp.wrapping_add(u32::try_from(self.filled).unwrap_or(0))
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent so far.
    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload octets sent so far.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    fn next_header(&mut self, payload_type: u8, marker: bool, timestamp: u32) -> Header {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        // What is relayed next takes up behind this one.
        self.mapping = None;
        self.lead = 0;
        self.packets += 1;
        Header { payload_type, marker, sequence, timestamp, ssrc: self.ssrc }
    }

    /// What waited for a full packet is not sent any more, but its time has passed.
    fn drop_pending(&mut self) {
        let waiting = std::mem::take(&mut self.filled);
        self.advance(waiting);
    }

    /// Everything before `end` is sent.
    fn lead_to(&mut self, end: u32) {
        let ahead = end.wrapping_sub(self.timestamp);
        if ahead <= LEAD_MAX {
            self.timestamp = end;
            self.lead = (self.lead + ahead).min(LEAD_MAX);
        }
    }

    /// `timestamp` may be that of a packet of now, delayed or early as networks have it.
    fn is_near(&self, timestamp: u32) -> bool {
        timestamp.wrapping_sub(self.timestamp).wrapping_add(LEAD_MAX) <= 2 * LEAD_MAX
    }

    fn advance(&mut self, samples: usize) {
        self.timestamp = self.timestamp.wrapping_add(u32::try_from(samples).unwrap_or(0));
    }
}

/// G.711 at 8 kHz.
const SAMPLES_PER_MS: usize = 8;

/// Most that can wait: just less than the longest packet, and one frame.
const PENDING_BYTES: usize = 60 * SAMPLES_PER_MS + FRAME_SAMPLES;

/// Ten seconds: packets whose timestamps are further from real time are of another time line.
const LEAD_MAX: u32 = 80_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// (sequence, timestamp, marker, payload length) of each packet.
    type Sent = Vec<(u16, u32, bool, usize)>;

    fn push(stream: &mut Stream, frames: usize) -> Sent {
        let mut sent = Vec::new();
        for _ in 0..frames {
            stream.push(&[0xff; FRAME_SAMPLES], |out| {
                let Header { sequence, timestamp, marker, .. } = out.header;
                sent.push((sequence, timestamp, marker, out.payload.len()));
            });
        }
        sent
    }

    fn stream(ptime_ms: u8) -> Stream {
        let mut stream = Stream::new(7, u16::MAX, u32::MAX - 159);
        stream.configure(0, ptime_ms);
        stream
    }

    #[test]
    fn frames_of_20_ms_become_packets_and_numbers_wrap() {
        let sent = push(&mut stream(20), 2);
        assert_eq!(sent, [(u16::MAX, u32::MAX - 159, true, 160), (0, 0, false, 160)]);
    }

    #[test]
    fn every_packet_length_leaves_at_its_own_pace() {
        for (ptime_ms, frames, packets) in [(10, 3, 6), (30, 3, 2), (40, 4, 2), (60, 7, 2)] {
            let sent = push(&mut stream(ptime_ms), frames);
            assert_eq!(sent.len(), packets, "{ptime_ms} ms");
            let samples = u32::from(ptime_ms) * 8;
            for pair in sent.windows(2) {
                assert_eq!(pair[1].1.wrapping_sub(pair[0].1), samples, "{ptime_ms} ms");
                assert!(!pair[1].2);
            }
        }
    }

    #[test]
    fn a_gap_moves_the_timestamp_but_not_the_sequence_and_sets_the_marker() {
        let mut stream = stream(20);
        push(&mut stream, 1);
        stream.skip(50);
        assert_eq!(push(&mut stream, 1), [(0, 50 * 160, true, 160)]);
    }

    #[test]
    fn audio_that_waited_for_a_full_packet_is_dropped_by_a_gap_but_its_time_counts() {
        let mut stream = stream(60);
        let start = stream.timestamp();
        push(&mut stream, 2);
        stream.skip(1);
        assert_eq!(stream.timestamp(), start.wrapping_add(480));
        assert_eq!(push(&mut stream, 3), [(u16::MAX, start.wrapping_add(480), true, 480)]);
    }

    #[test]
    fn an_event_takes_the_place_of_audio_in_the_same_numbering() {
        let mut stream = stream(20);
        push(&mut stream, 1);
        let event = crate::dtmf::Outgoing { payload: [5, 0, 0, 160], timestamp: 0, marker: true };
        for sequence in 0..3 {
            stream.push_event(101, &event, |out| {
                assert_eq!((out.header.sequence, out.header.timestamp), (sequence, 0));
                assert_eq!(out.header.payload_type, 101);
            });
        }
        assert_eq!(push(&mut stream, 1), [(3, 480, true, 160)]);
        assert_eq!(stream.packets(), 5);
        assert_eq!(stream.octets(), 332);
    }

    /// A packet of another stream, 20 ms of audio.
    fn theirs(ssrc: u32, sequence: u16, timestamp: u32) -> Header {
        Header { payload_type: 8, marker: false, sequence, timestamp, ssrc }
    }

    fn relay(stream: &mut Stream, source: Header) -> Option<(u16, u32, bool)> {
        let header = stream.relay(&source, 0, 160)?;
        assert_eq!((header.ssrc, header.payload_type), (7, 0));
        Some((header.sequence, header.timestamp, header.marker))
    }

    #[test]
    fn relayed_packets_follow_our_own_and_ours_follow_them() {
        let mut stream = Stream::new(7, 10, 1_000);
        stream.configure(0, 20);
        push(&mut stream, 2);
        assert_eq!(relay(&mut stream, theirs(1, 500, 90_000)), Some((12, 1_320, true)));
        assert_eq!(relay(&mut stream, theirs(1, 501, 90_160)), Some((13, 1_480, false)));
        assert_eq!(relay(&mut stream, theirs(1, 503, 90_480)), Some((15, 1_800, false)));
        assert_eq!(push(&mut stream, 2), [(16, 1_960, true, 160), (17, 2_120, false, 160)]);
        assert_eq!(relay(&mut stream, theirs(1, 502, 90_320)), Some((18, 2_280, true)));
    }

    #[test]
    fn another_source_takes_up_where_the_last_left_off_in_time() {
        let mut stream = Stream::new(7, 10, 1_000);
        relay(&mut stream, theirs(1, 500, 90_000));
        stream.pass();
        // A second of silence.
        (0..50).for_each(|_| stream.pass());
        let next = relay(&mut stream, theirs(2, 9, 5));
        assert_eq!(next, Some((11, 1_160 + 50 * 160, true)));
    }

    #[test]
    fn the_clock_is_the_senders_while_it_sends_and_ours_while_it_does_not() {
        let mut stream = Stream::new(7, 10, 0);
        for n in 0..100_u16 {
            let sent = relay(&mut stream, theirs(1, n, u32::from(n) * 160));
            assert_eq!(sent.map(|(_, timestamp, _)| timestamp), Some(u32::from(n) * 160));
            stream.pass();
        }
        assert_eq!(stream.timestamp(), 16_000);
        // Packets of 60 ms, each of them late by a tick.
        for n in 100..120_u16 {
            (0..3).for_each(|_| stream.pass());
            let source = theirs(1, n, 16_000 + u32::from(n - 100) * 480);
            let header = stream.relay(&source, 0, 480).unwrap();
            assert_eq!(header.timestamp, 16_000 + u32::from(n - 100) * 480);
        }
        let ahead = stream.timestamp() - (16_000 + 20 * 480);
        assert!(ahead <= 480, "{ahead}");
    }

    #[test]
    fn another_time_line_under_the_same_numbers_goes_on_in_ours() {
        let mut stream = Stream::new(7, 10, 0);
        relay(&mut stream, theirs(1, 0, 1_000));
        stream.pass();
        let jumped = relay(&mut stream, theirs(1, 1, 3_000_000_000));
        assert_eq!(jumped, Some((11, 160, true)));
        stream.pass();
        let next = relay(&mut stream, theirs(1, 2, 3_000_000_160));
        assert_eq!(next, Some((12, 320, false)));
    }

    #[test]
    fn an_event_keeps_its_timestamp_through_the_relay() {
        let mut stream = Stream::new(7, 10, 0);
        relay(&mut stream, theirs(1, 0, 1_000));
        for n in 1..5 {
            stream.pass();
            let header = stream.relay(&theirs(1, n, 1_160), 101, 0).unwrap();
            assert_eq!((header.sequence, header.timestamp), (10 + n, 160));
        }
        stream.pass();
        assert_eq!(relay(&mut stream, theirs(1, 5, 1_800)), Some((15, 800, false)));
    }
}
