//! Noise cancellation of one leg, for frames that are played out and for packets that are relayed.
//!
//! The suppressor works on 20 ms. A relayed packet of another length is cut up and put together
//! again, so that it leaves with as much audio as it came with:
//!
//! ```text
//!   packets of 30 ms   ──1──┬──1──┬──1──   in
//!   frames of 20 ms      ──┬──┬──┬──┬──    cleaned as soon as they are full
//!   packets of 30 ms   ──1──┬──1──┬──1──   out, late by what the cutting takes: here 10 ms
//! ```
//!
//! Packets of 20, 40 or 60 ms wait for nothing. Nothing is invented for packets that are lost.

use crate::codec::Codec;
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::noise::{Cleaner, NoiseReport, Rnn};

/// The suppressor between its meters, and the cutting of packets.
pub(crate) struct Cleaning {
    cleaner: Cleaner<Rnn>,
    /// Audio that came and is no whole frame yet.
    begun: Frame,
    filled: usize,
    /// Cleaned audio, oldest first, that has not left yet.
    done: [i16; DONE_SAMPLES],
    ready: usize,
}

impl Cleaning {
    /// Noise cancellation that has heard silence so far. All it needs is allocated here.
    pub(crate) fn new() -> Self {
        Self {
            cleaner: Cleaner::new(Rnn::new()),
            begun: Frame::SILENCE,
            filled: 0,
            done: [0; DONE_SAMPLES],
            ready: 0,
        }
    }

    /// Cleans a frame; see [`Cleaner::process`].
    pub(super) fn process(&mut self, frame: &mut Frame, heard: bool) {
        self.cleaner.process(frame, heard);
    }

    /// Cleans the payload of a packet in place. One of more than [`PACKET_MAX`] stays as it is.
    pub(super) fn process_codes(&mut self, codec: Codec, codes: &mut [u8]) {
        if codes.len() > PACKET_MAX {
            return;
        }
        let mut rest = &*codes;
        while !rest.is_empty() {
            let room = FRAME_SAMPLES - self.filled;
            let (part, behind) = rest.split_at(rest.len().min(room));
            rest = behind;
            self.take(codec, part);
        }
        self.give(codec, codes);
    }

    /// Another stream begins, or audio passes uncleaned: what is left has no place in it.
    pub(super) fn forget_rest(&mut self) {
        self.filled = 0;
        self.ready = 0;
    }

    /// What it did so far.
    pub(super) fn report(&self) -> Option<NoiseReport> {
        self.cleaner.report()
    }

    /// Takes no more than is missing of a frame, and cleans the frame if it is full.
    fn take(&mut self, codec: Codec, codes: &[u8]) {
        let end = self.filled + codes.len();
        if let Some(room) = self.begun.samples.get_mut(self.filled..end) {
            codec.decode(codes, room);
            self.filled = end;
        }
        if self.filled < FRAME_SAMPLES {
            return;
        }
        self.filled = 0;
        self.cleaner.process(&mut self.begun, true);
        let end = self.ready + FRAME_SAMPLES;
        if let Some(room) = self.done.get_mut(self.ready..end) {
            room.copy_from_slice(&self.begun.samples);
            self.ready = end;
        }
    }

    /// Fills a packet with what is ready; silence goes first if that is not enough.
    fn give(&mut self, codec: Codec, codes: &mut [u8]) {
        let missing = codes.len().saturating_sub(self.ready);
        let taken = codes.len() - missing;
        let (silent, heard) = codes.split_at_mut(missing);
        silent.fill(codec.silence());
        codec.encode(self.done.get(..taken).unwrap_or_default(), heard);
        self.done.copy_within(taken..self.ready, 0);
        self.ready -= taken;
    }
}

/// Longest packet cleaned, in samples: 200 ms, which RFC 3551 §4.2 asks receivers to accept.
pub(super) const PACKET_MAX: usize = 1_600;

/// What can be ready: a packet, and what the one before it left.
const DONE_SAMPLES: usize = PACKET_MAX + 2 * FRAME_SAMPLES;

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of a loud tone, cut into packets of these lengths, cleaned.
    fn clean(lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut cleaning = Cleaning::new();
        let mut at = 0_i32;
        let clean_one = |length: &usize| {
            let mut codes: Vec<u8> = (0..*length)
                .map(|_| {
                    at += 1;
                    let level = if at / 8 % 2 == 0 { 8_000 } else { -8_000 };
                    crate::codec::g711::ulaw_encode(level)
                })
                .collect();
            cleaning.process_codes(Codec::Pcmu, &mut codes);
            codes
        };
        lengths.iter().map(clean_one).collect()
    }

    #[test]
    fn a_packet_leaves_with_as_much_audio_as_it_came_with() {
        for lengths in [vec![160; 6], vec![80; 12], vec![240; 4], vec![320, 480, 160], vec![1_600]]
        {
            let out: Vec<_> = clean(&lengths).iter().map(Vec::len).collect();
            assert_eq!(out, lengths);
        }
    }

    #[test]
    fn packets_of_whole_frames_do_not_wait_and_others_by_less_than_a_frame() {
        let whole = clean(&[160; 12]).concat();
        assert_eq!(clean(&[480; 4]).concat(), whole);
        for (length, late) in [(80, 80), (240, 80)] {
            let cut = clean(&vec![length; 1_920 / length]).concat();
            assert!(cut[..late].iter().all(|code| *code == 0xff), "{length}");
            assert_eq!(cut[late..], whole[..1_920 - late], "{length}");
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_left_alone() {
        let mut cleaning = Cleaning::new();
        let mut codes = [0x90; PACKET_MAX + 1];
        cleaning.process_codes(Codec::Pcmu, &mut codes);
        assert_eq!(codes, [0x90; PACKET_MAX + 1]);
    }
}
