//! The stream we send on one leg: SSRC, sequence and timestamp that go on through everything.
//!
//! Audio comes in 20 ms at a time and leaves in packets of the negotiated length (RFC 3551 §4.2).
//! Whatever happens in between (hold, a stall, a digit, a new plan), the timestamp keeps
//! counting real time and the sequence number counts packets, so that the peer sees one stream with
//! gaps, never a new one (RFC 3550 §5.1).
//!
//! The marker bit is set on the first packet and on the first one after a gap (RFC 3551 §4.1).

use crate::frame::FRAME_SAMPLES;
use crate::packet::rtp::Header;

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
    pending: [u8; PENDING_BYTES],
    filled: usize,
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
            pending: [0; PENDING_BYTES],
            filled: 0,
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
        let waiting = std::mem::take(&mut self.filled);
        self.advance(waiting);
        #[expect(clippy::cast_possible_truncation, reason = "timestamps wrap (RFC 3550 §5.1)")]
        let samples = samples as u32;
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.after_gap = true;
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
        self.packets += 1;
        Header { payload_type, marker, sequence, timestamp, ssrc: self.ssrc }
    }

    fn advance(&mut self, samples: usize) {
        self.timestamp = self.timestamp.wrapping_add(u32::try_from(samples).unwrap_or(0));
    }
}

/// G.711 at 8 kHz.
const SAMPLES_PER_MS: usize = 8;

/// Most that can wait: just less than the longest packet, and one frame.
const PENDING_BYTES: usize = 60 * SAMPLES_PER_MS + FRAME_SAMPLES;

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
}
