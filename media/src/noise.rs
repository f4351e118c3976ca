//! Noise suppression behind a trait, and the meter that shows what it did.
//!
//! The engine is RNNoise (crate `nnnoiseless`): it wants 10 ms at 48 kHz in the scale of 16-bit
//! samples, so a frame goes up by six, through the net as two halves, and down again. That adds
//! 10 ms (the net overlaps its windows) and 4.25 ms (the two filters) to what is heard. It removes
//! fans, streets and hiss; it does not remove other people talking.
//!
//! Invariant: after construction nothing is allocated.

use nnnoiseless::DenoiseState;

use crate::codec::resample::{Downsampler, Upsampler, WIDE_SAMPLES};
use crate::frame::{Frame, SILENCE_DBFS};

/// Something that takes noise out of a stream, frame by frame, in place. It may delay the audio by
/// a fixed time; it must give one frame for each frame.
pub trait NoiseSuppressor: Send {
    /// Replaces the frame by a cleaner one.
    fn process(&mut self, frame: &mut Frame);
}

/// RNNoise, one direction of one leg. About 45 KiB of state, all of it allocated at construction.
pub struct Rnn {
    state: Box<DenoiseState<'static>>,
    up: Upsampler,
    down: Downsampler,
    noisy: [f32; WIDE_SAMPLES],
    clean: [f32; WIDE_SAMPLES],
}

impl Rnn {
    /// A suppressor that has heard silence so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: DenoiseState::new(),
            up: Upsampler::new(),
            down: Downsampler::new(),
            noisy: [0.0; WIDE_SAMPLES],
            clean: [0.0; WIDE_SAMPLES],
        }
    }
}

impl Default for Rnn {
    fn default() -> Self {
        Self::new()
    }
}

impl NoiseSuppressor for Rnn {
    fn process(&mut self, frame: &mut Frame) {
        self.up.process(&frame.samples, &mut self.noisy);
        let (noisy, _) = self.noisy.as_chunks::<{ DenoiseState::FRAME_SIZE }>();
        let (clean, _) = self.clean.as_chunks_mut::<{ DenoiseState::FRAME_SIZE }>();
        for (noisy, clean) in noisy.iter().zip(clean) {
            self.state.process_frame(clean, noisy);
        }
        self.down.process(&self.clean, &mut frame.samples);
    }
}

/// Noise in the pauses of a leg, before and after suppression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseReport {
    /// As it came, in dB against full scale.
    pub before_dbfs: f32,
    /// As the agent heard it, in dB against full scale.
    pub after_dbfs: f32,
}

/// Estimates the noise floor of a stream: the level that a tenth of its frames do not exceed.
///
/// People pause for more than a tenth of any call, so the quietest tenth is the noise between
/// words. Levels are counted in a histogram of one decibel; nothing else is kept.
#[derive(Clone, Debug)]
pub struct NoiseMeter {
    /// Bin `n` counts frames of −n to −n−1 dBFS; the last also takes digital silence.
    bins: [u32; BINS],
    frames: u32,
}

const BINS: usize = 97;
/// Frames below which an estimate would be a guess: one second.
const MIN_FRAMES: u32 = 50;
/// A tenth of the frames are at or below the floor.
const FLOOR_SHARE: u32 = 10;

impl NoiseMeter {
    /// A meter that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bins: [0; BINS], frames: 0 }
    }

    /// Counts a frame. Only frames that were heard: concealed ones would blur the estimate.
    pub fn observe(&mut self, frame: &Frame) {
        if let Some(bin) = self.bins.get_mut(bin_of(frame.level_dbfs())) {
            *bin = bin.saturating_add(1);
            self.frames = self.frames.saturating_add(1);
        }
    }

    /// The noise floor in dB against full scale (see [`Frame::level_dbfs`]), or `None` within the
    /// first second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "there are 97 bins")]
    pub fn floor_dbfs(&self) -> Option<f32> {
        if self.frames < MIN_FRAMES {
            return None;
        }
        let wanted = self.frames.div_ceil(FLOOR_SHARE);
        let mut seen = 0_u32;
        for (at, &count) in self.bins.iter().enumerate().rev() {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                // The middle of the bin; the last one is digital silence.
                return Some((-0.5 - at as f32).max(SILENCE_DBFS));
            }
        }
        None
    }
}

impl Default for NoiseMeter {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "held between zero and the number of bins"
)]
fn bin_of(level_dbfs: f32) -> usize {
    (-level_dbfs).clamp(0.0, 96.0) as usize
}

/// A suppressor between two meters: what a leg with noise cancellation runs.
pub struct Cleaner<S = Rnn> {
    suppressor: S,
    before: NoiseMeter,
    after: NoiseMeter,
}

impl<S: NoiseSuppressor> Cleaner<S> {
    /// Puts meters on both sides of this suppressor.
    #[must_use]
    pub const fn new(suppressor: S) -> Self {
        Self { suppressor, before: NoiseMeter::new(), after: NoiseMeter::new() }
    }

    /// Cleans one frame in place. `heard` says whether it came from the wire; concealed frames pass
    /// through the suppressor, so that its delay stays what it is, but are not metered.
    pub fn process(&mut self, frame: &mut Frame, heard: bool) {
        if heard {
            self.before.observe(frame);
        }
        self.suppressor.process(frame);
        if heard {
            self.after.observe(frame);
        }
    }

    /// What it did so far; `None` within the first second.
    #[must_use]
    pub fn report(&self) -> Option<NoiseReport> {
        let (before_dbfs, after_dbfs) = self.before.floor_dbfs().zip(self.after.floor_dbfs())?;
        Some(NoiseReport { before_dbfs, after_dbfs })
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test signals are made to fit")]
mod tests {
    use super::*;

    /// A small generator, so that the tests hear the same noise every time.
    struct Noise(u32);

    impl Noise {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(self.0 >> 16) / 32_768.0 - 1.0
        }

        fn frame(&mut self, amplitude: f64) -> Frame {
            Frame { samples: std::array::from_fn(|_| (self.next() * amplitude).round() as i16) }
        }
    }

    /// Something a voice detector takes for a vowel: a pulse train through two resonances.
    fn vowel(from: usize, amplitude: f64) -> Frame {
        let samples = std::array::from_fn(|at| {
            let time = (from + at) as f64 / 8_000.0;
            let sum: f64 = (1..24)
                .map(|harmonic| {
                    let frequency = 130.0 * f64::from(harmonic);
                    let near = |formant: f64| 1.0 / (1.0 + ((frequency - formant) / 120.0).powi(2));
                    let gain = near(700.0) + 0.6 * near(1_220.0) + 0.3 * near(2_600.0) + 0.02;
                    gain * (std::f64::consts::TAU * frequency * time).sin()
                })
                .sum();
            (sum * amplitude).clamp(-32_000.0, 32_000.0).round() as i16
        });
        Frame { samples }
    }

    #[test]
    fn steady_noise_falls_by_more_than_ten_db() {
        let mut cleaner = Cleaner::new(Rnn::new());
        let mut noise = Noise(1);
        for _ in 0..200 {
            cleaner.process(&mut noise.frame(400.0), true);
        }
        let report = cleaner.report().unwrap();
        println!("noise floor {:.1} to {:.1} dBFS", report.before_dbfs, report.after_dbfs);
        assert!(report.before_dbfs - report.after_dbfs > 10.0, "{report:?}");
    }

    #[test]
    fn a_voice_comes_through() {
        let mut rnn = Rnn::new();
        let mut noise = Noise(2);
        let (mut before, mut after) = (0.0, 0.0);
        for at in 0..150 {
            let mut frame = vowel(at * 160, 3_000.0);
            let hiss = noise.frame(60.0);
            for (sample, hiss) in frame.samples.iter_mut().zip(hiss.samples) {
                *sample = sample.saturating_add(hiss);
            }
            before += f64::from(frame.level_dbfs());
            rnn.process(&mut frame);
            after += f64::from(frame.level_dbfs());
        }
        let change = (after - before) / 150.0;
        println!("voice changed by {change:.1} dB");
        assert!(change > -3.0, "{change}");
    }

    #[test]
    fn silence_stays_silence() {
        let mut rnn = Rnn::new();
        for _ in 0..20 {
            let mut frame = Frame::SILENCE;
            rnn.process(&mut frame);
            assert_eq!(frame, Frame::SILENCE);
        }
    }

    #[test]
    fn the_meter_finds_the_noise_between_words() {
        let mut meter = NoiseMeter::new();
        let mut noise = Noise(3);
        for at in 0..300 {
            let loud = at % 10 < 7;
            meter.observe(&noise.frame(if loud { 8_000.0 } else { 80.0 }));
        }
        // Even noise of amplitude 80 has an RMS of 46: −57 dBFS.
        let floor = meter.floor_dbfs().unwrap();
        assert!((floor + 57.0).abs() < 1.5, "{floor}");
    }

    #[test]
    fn the_meter_says_nothing_within_the_first_second() {
        let mut meter = NoiseMeter::new();
        for _ in 0..49 {
            meter.observe(&Frame::SILENCE);
        }
        assert_eq!(meter.floor_dbfs(), None);
        meter.observe(&Frame::SILENCE);
        assert_eq!(meter.floor_dbfs(), Some(SILENCE_DBFS));
    }

    #[test]
    fn concealed_frames_are_not_metered() {
        let mut cleaner = Cleaner::new(Rnn::new());
        for _ in 0..100 {
            cleaner.process(&mut Frame::SILENCE.clone(), false);
        }
        assert_eq!(cleaner.report(), None);
    }
}
