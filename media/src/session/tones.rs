//! Keys as tones in the audio (ITU-T Q.23), for peers that have not agreed to telephone events.
//!
//! The pace is the one of telephone events: each event packet that would have been sent becomes
//! 20 ms of tone. The repetitions of the last one (RFC 4733 §2.5.1.4) become silence.

use std::f32::consts::TAU;

use crate::dtmf::Outgoing;
use crate::frame::{Frame, SAMPLE_RATE_HZ};

/// A generator of two tones that goes on from frame to frame without a click.
pub(super) struct Tones {
    /// Phases of the low and the high tone, in turns.
    phases: [f32; 2],
    over: bool,
}

impl Tones {
    pub(super) const fn new() -> Self {
        Self { phases: [0.0; 2], over: true }
    }

    /// The 20 ms of audio that stand for `event`.
    pub(super) fn frame(&mut self, event: &Outgoing) -> Frame {
        let [code, flags, ..] = event.payload;
        if event.marker {
            *self = Self { over: false, ..Self::new() };
        }
        let Some(pair) = FREQUENCIES_HZ.get(usize::from(code)).filter(|_| !self.over) else {
            return Frame::SILENCE;
        };
        self.over = flags & END_BIT != 0;
        let mut frame = Frame::SILENCE;
        for sample in &mut frame.samples {
            *sample = self.next(*pair);
        }
        frame
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "two amplitudes of a quarter of full scale; the sampling rate is small"
    )]
    fn next(&mut self, frequencies_hz: [f32; 2]) -> i16 {
        let mut sum = 0.0;
        for (phase, frequency) in self.phases.iter_mut().zip(frequencies_hz) {
            sum += AMPLITUDE * (*phase * TAU).sin();
            *phase = (*phase + frequency / SAMPLE_RATE_HZ as f32).fract();
        }
        sum as i16
    }
}

/// The end bit of an event (RFC 4733 §2.3).
const END_BIT: u8 = 0x80;

/// About −12 dB below full scale for each of the two tones.
const AMPLITUDE: f32 = 8_000.0;

/// Low and high tone by event code: 0 to 9, star, pound, A to D.
const FREQUENCIES_HZ: [[f32; 2]; 16] = [
    [941.0, 1336.0],
    [697.0, 1209.0],
    [697.0, 1336.0],
    [697.0, 1477.0],
    [770.0, 1209.0],
    [770.0, 1336.0],
    [770.0, 1477.0],
    [852.0, 1209.0],
    [852.0, 1336.0],
    [852.0, 1477.0],
    [941.0, 1209.0],
    [941.0, 1477.0],
    [697.0, 1633.0],
    [770.0, 1633.0],
    [852.0, 1633.0],
    [941.0, 1633.0],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtmf::Sender;

    /// Power of one frequency in a run of samples (Goertzel), per sample.
    fn power(samples: &[i16], frequency_hz: f32) -> f32 {
        let coefficient = 2.0 * (TAU * frequency_hz / SAMPLE_RATE_HZ as f32).cos();
        let (mut s1, mut s2) = (0.0, 0.0);
        for sample in samples {
            (s1, s2) = (f32::from(*sample) + coefficient * s1 - s2, s1);
        }
        (s1 * s1 + s2 * s2 - coefficient * s1 * s2) / (samples.len() as f32).powi(2)
    }

    #[test]
    fn every_key_is_its_two_tones_for_as_long_as_it_is_held() {
        for (code, key) in "0123456789*#ABCD".chars().enumerate() {
            let (mut sender, mut tones) = (Sender::new(SAMPLE_RATE_HZ), Tones::new());
            sender.start(key, 100).unwrap();
            let frames: Vec<_> =
                std::iter::from_fn(|| sender.next(0)).map(|e| tones.frame(&e)).collect();
            let (tone, after) = frames.split_at(5);
            assert!(after.iter().all(|frame| *frame == Frame::SILENCE), "{key}");
            let samples: Vec<i16> = tone.iter().flat_map(|frame| frame.samples).collect();
            let [low, high] = FREQUENCIES_HZ[code];
            for wanted in [low, high] {
                assert!(power(&samples, wanted) > 1e7, "{key} at {wanted}");
            }
            let others = FREQUENCIES_HZ.iter().flatten().filter(|f| **f != low && **f != high);
            for other in others {
                assert!(power(&samples, *other) < 1e6, "{key} at {other}");
            }
        }
    }
}
