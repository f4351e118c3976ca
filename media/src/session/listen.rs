//! From packets to frames: playout buffer, decoder, concealment, noise cancellation.
//!
//! Whatever the network does, there is one frame for every tick.

use std::mem::offset_of;
use std::time::Instant;

use crate::codec::Codec;
use crate::codec::conceal::Concealer;
use crate::command::LegOptions;
use crate::frame::Frame;
use crate::jitter::{self, Jitter, Slot};
use crate::noise::NoiseReport;

use super::clean::Cleaning;
use super::prompt::Account;

/// Noise cancellation, to be switched on in mid-call.
pub(crate) type Suppressor = Box<Cleaning>;

/// The hearing side of one leg. What relayed packets need of it comes first.
#[repr(C)]
pub(super) struct Listener {
    suppressor: Option<Suppressor>,
    bypassed: bool,
    pub(super) codec: Codec,
    /// The source of the audio in the buffer; another one has its own numbering.
    ssrc: Option<u32>,
    buffer: jitter::Options,
    pub(super) jitter: Jitter,
    pub(super) concealer: Box<Concealer>,
    pub(super) account: Account,
}

impl Listener {
    /// What a relayed packet needs ends with this.
    pub(super) const HOT_BYTES: usize = offset_of!(Self, buffer);

    pub(super) fn new(codec: Codec, options: &LegOptions, noise_seed: u32) -> Self {
        let (min_ms, max_ms) = (options.jitter_min_ms, options.jitter_max_ms);
        let buffer = jitter::Options { min_ms, max_ms, silence: codec.silence() };
        Self {
            codec,
            buffer,
            jitter: Jitter::new(buffer),
            concealer: Box::new(Concealer::new(noise_seed)),
            account: Account::new(),
            suppressor: options.noise_cancellation.then(|| Box::new(Cleaning::new())),
            bypassed: false,
            ssrc: None,
        }
    }

    /// Another codec: what is buffered was encoded with the old one and goes.
    pub(super) fn change_codec(&mut self, codec: Codec) {
        if codec != self.codec {
            self.codec = codec;
            self.buffer.silence = codec.silence();
            self.jitter = Jitter::new(self.buffer);
            self.ssrc = None;
        }
    }

    pub(super) fn clean_with(&mut self, suppressor: Option<Suppressor>) {
        self.suppressor = suppressor;
    }

    /// Noise cancellation is on.
    pub(super) fn is_cleaned(&self) -> bool {
        self.suppressor.is_some()
    }

    /// Lets audio pass uncleaned for as long as `bypassed`.
    pub(super) fn bypass_cleaning(&mut self, bypassed: bool) {
        self.bypassed = bypassed;
    }

    /// Takes an audio packet: SSRC, sequence number, timestamp, payload.
    pub(super) fn push(&mut self, packet: (u32, u16, u32), payload: &[u8], now: Instant) {
        let (ssrc, sequence, timestamp) = packet;
        if self.ssrc.is_some_and(|known| known != ssrc) {
            self.jitter.reset();
        }
        self.ssrc = Some(ssrc);
        self.jitter.push(sequence, timestamp, payload, now);
    }

    /// Notes a packet without audio, so that its number is not taken for lost.
    pub(super) fn skip(&mut self, ssrc: u32, sequence: u16) {
        if self.ssrc == Some(ssrc) {
            self.jitter.skip(sequence);
        }
    }

    /// Takes a comfort noise packet: the sender is silent and says what its silence sounds like.
    pub(super) fn comfort(&mut self, ssrc: u32, sequence: u16, payload: &[u8]) {
        self.skip(ssrc, sequence);
        self.concealer.described(payload);
    }

    /// Cleans the payload of a packet on its way to another leg, if noise cancellation is on.
    pub(super) fn clean_codes(&mut self, ssrc: u32, codes: &mut [u8]) {
        let is_new = self.ssrc.replace(ssrc) != Some(ssrc);
        let Some(suppressor) = &mut self.suppressor else { return };
        if is_new || self.bypassed {
            suppressor.forget_rest();
        }
        if !self.bypassed {
            suppressor.process_codes(self.codec, codes);
        }
    }

    /// Gives the frame of this tick.
    pub(super) fn pull(&mut self, now: Instant) -> Frame {
        let slot = self.jitter.pull(now);
        let (mut frame, heard) = voice(self.codec, slot, &mut self.concealer);
        self.clean(&mut frame, heard);
        frame
    }

    /// Cleans a frame, if noise cancellation is on; `heard` says that it came from the wire.
    pub(super) fn clean(&mut self, frame: &mut Frame, heard: bool) {
        if let Some(suppressor) = self.suppressor.as_mut().filter(|_| !self.bypassed) {
            suppressor.process(frame, heard);
        }
    }

    /// Lets the audio of `ticks` pass unheard: its time is over.
    pub(super) fn let_pass(&mut self, now: Instant, ticks: u64) {
        for _ in 0..ticks.min(MAX_PASSED) {
            self.jitter.pull(now);
        }
    }

    /// Forgets what is buffered.
    pub(super) fn reset(&mut self) {
        self.jitter.reset();
        self.ssrc = None;
        if let Some(suppressor) = &mut self.suppressor {
            suppressor.forget_rest();
        }
    }

    pub(super) fn playout(&self) -> jitter::Counters {
        self.jitter.counters()
    }

    /// Delay the buffer adds, in milliseconds.
    pub(super) fn target_ms(&self) -> u32 {
        self.jitter.target_ms()
    }

    pub(super) fn noise_report(&self) -> Option<NoiseReport> {
        self.suppressor.as_ref()?.report()
    }
}

/// Decodes what the buffer gave, or bridges what it did not; true when it came from the wire.
pub(super) fn voice(codec: Codec, slot: Slot<'_>, concealer: &mut Concealer) -> (Frame, bool) {
    let mut frame = Frame::SILENCE;
    match slot {
        Slot::Frame(codes) => {
            codec.decode(codes, &mut frame.samples);
            concealer.heard(&mut frame);
            (frame, true)
        }
        Slot::Lost | Slot::Silence | Slot::Empty => {
            concealer.missing(&mut frame);
            (frame, false)
        }
    }
}

/// Everything a playout buffer can hold, and more.
const MAX_PASSED: u64 = 50;
