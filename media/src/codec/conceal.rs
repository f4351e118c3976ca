//! What is played when nothing came: concealment of lost frames, and comfort noise (RFC 3389).
//!
//! ```text
//!            heard            missing              missing, after a description
//! Voice      as it came       last pitch period    –
//!                             repeated, fading
//!                             to silence by 60 ms
//! Noise      back to Voice    –                    comfort noise
//! ```
//!
//! A lost frame continues the last pitch period (found by correlation, 66 to 200 Hz), which keeps a
//! vowel a vowel; the gain falls from 10 ms on and reaches zero at 60 ms, because longer
//! repetition sounds like a machine. The first frame after a gap is blended in. No delay is added
//! and nothing is allocated.

use crate::codec::resample::{dot, round};
use crate::frame::{FRAME_SAMPLES, Frame};

/// Shortest and longest pitch period looked for, in samples: 200 Hz and 66 Hz.
const MIN_PERIOD: usize = 40;
const MAX_PERIOD: usize = 120;
/// Samples compared to find the period, a multiple of the lanes of a dot product.
const MATCH_SAMPLES: usize = 160;
/// Samples kept: the comparison, the longest shift, and the blend before it.
const HISTORY_SAMPLES: usize = 320;
/// Full gain until here, in samples since the loss began.
const HOLD_SAMPLES: usize = 80;
/// Silence from here on: 60 ms.
const FADED_SAMPLES: usize = 480;
/// Blend into the first frame after a gap: this much per lost frame, at most twice that.
const BLEND_SAMPLES: usize = 40;
/// The step between the last sample heard and the first one made is spread over this many.
const SEAM_SAMPLES: usize = 16;
/// Below this likeness a sound has no pitch, and the longest period is the least tonal.
const VOICED: f32 = 0.4;

/// Fills the gaps of one received stream.
#[derive(Clone)]
pub struct Concealer {
    /// The last samples played.
    history: [f32; HISTORY_SAMPLES],
    gap: Gap,
    repetition: Repetition,
    noise: ComfortNoise,
}

/// What is going on while frames are missing.
#[derive(Clone, Copy)]
enum Gap {
    /// None: the last frame was heard.
    None,
    /// Frames were lost: a period of sound is being repeated.
    Lost,
    /// The sender said that it is silent.
    Described,
}

impl Concealer {
    /// A stream in which nothing was heard yet. `seed` starts the comfort noise, any value will do.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self {
            history: [0.0; HISTORY_SAMPLES],
            gap: Gap::None,
            repetition: Repetition::SILENT,
            noise: ComfortNoise::new(seed),
        }
    }

    /// Takes a frame that came in time. After a gap its beginning is blended with what was played.
    pub fn heard(&mut self, frame: &mut Frame) {
        match self.gap {
            Gap::None => {}
            Gap::Lost => {
                let frames = self.repetition.made.div_ceil(FRAME_SAMPLES).min(2);
                blend_in(frame, BLEND_SAMPLES * frames, || self.repetition.next());
            }
            Gap::Described => blend_in(frame, BLEND_SAMPLES, || self.noise.next()),
        }
        self.gap = Gap::None;
        self.remember(frame);
    }

    /// Fills a frame that did not come.
    pub fn missing(&mut self, frame: &mut Frame) {
        if matches!(self.gap, Gap::None) {
            self.repetition = Repetition::of(&self.history);
            self.gap = Gap::Lost;
        }
        match self.gap {
            Gap::None | Gap::Lost => {
                frame.samples.fill_with(|| round(self.repetition.next()));
            }
            Gap::Described => frame.samples.fill_with(|| round(self.noise.next())),
        }
        self.remember(frame);
    }

    /// Takes the payload of a comfort noise packet (payload type 13, RFC 3389 §3): from now on
    /// missing frames are the noise it describes, until a frame is heard. An empty payload is
    /// ignored.
    pub fn described(&mut self, payload: &[u8]) {
        if self.noise.describe(payload) {
            self.gap = Gap::Described;
        }
    }

    fn remember(&mut self, frame: &Frame) {
        self.history.copy_within(FRAME_SAMPLES.., 0);
        let newest = self.history.iter_mut().skip(HISTORY_SAMPLES - FRAME_SAMPLES);
        for (kept, &sample) in newest.zip(&frame.samples) {
            *kept = f32::from(sample);
        }
    }
}

/// Fades the first `len` samples of a frame in from what would have been played otherwise.
#[expect(clippy::cast_precision_loss, reason = "a frame has 160 samples")]
fn blend_in(frame: &mut Frame, len: usize, mut other: impl FnMut() -> f32) {
    for (at, sample) in frame.samples.iter_mut().take(len).enumerate() {
        let weight = (at + 1) as f32 / (len + 1) as f32;
        *sample = round(f32::from(*sample) * weight + other() * (1.0 - weight));
    }
}

/// One period of sound, repeated and faded.
#[derive(Clone, Copy)]
struct Repetition {
    cycle: [f32; MAX_PERIOD],
    period: usize,
    /// Where in the cycle the next sample is.
    at: usize,
    /// Samples made so far.
    made: usize,
    /// Step from the last sample heard, spread over the first [`SEAM_SAMPLES`].
    seam: f32,
}

impl Repetition {
    const SILENT: Self = Self {
        cycle: [0.0; MAX_PERIOD],
        period: MAX_PERIOD,
        at: 0,
        made: FADED_SAMPLES,
        seam: 0.0,
    };

    #[expect(
        clippy::indexing_slicing,
        clippy::cast_precision_loss,
        reason = "period + its quarter is at most 150 of the 320 samples kept; fields are small"
    )]
    fn of(history: &[f32; HISTORY_SAMPLES]) -> Self {
        let period = period_of(history);
        let start = HISTORY_SAMPLES - period;
        let mut cycle = [0.0; MAX_PERIOD];
        cycle[..period].copy_from_slice(&history[start..]);
        // The end of the cycle turns into what stood before its beginning, so that it joins itself.
        let quarter = period / 4;
        for step in 0..quarter {
            let weight = (step + 1) as f32 / quarter as f32;
            let before = history[start - quarter + step];
            let sample = &mut cycle[period - quarter + step];
            *sample += (before - *sample) * weight;
        }
        let seam = history[HISTORY_SAMPLES - 1] - history[start - 1];
        Self { cycle, period, at: 0, made: 0, seam }
    }

    #[expect(clippy::cast_precision_loss, reason = "counted to 480 at most")]
    fn next(&mut self) -> f32 {
        if self.made >= FADED_SAMPLES {
            return 0.0;
        }
        let mut sample = self.cycle.get(self.at).copied().unwrap_or_default();
        if self.made < SEAM_SAMPLES {
            sample += self.seam * (1.0 - (self.made + 1) as f32 / SEAM_SAMPLES as f32);
        }
        let faded = self.made.saturating_sub(HOLD_SAMPLES) as f32;
        sample *= 1.0 - faded / (FADED_SAMPLES - HOLD_SAMPLES) as f32;
        self.at = (self.at + 1) % self.period;
        self.made += 1;
        sample
    }
}

/// The shift at which the last samples look most like those before, by normalised correlation.
#[expect(clippy::indexing_slicing, reason = "160 + 120 samples are fewer than the 320 kept")]
fn period_of(history: &[f32; HISTORY_SAMPLES]) -> usize {
    const START: usize = HISTORY_SAMPLES - MATCH_SAMPLES;
    let recent = &history[START..];
    let energy = dot(recent, recent);
    let mut best = (VOICED, MAX_PERIOD);
    for period in MIN_PERIOD..=MAX_PERIOD {
        let shifted = &history[START - period..HISTORY_SAMPLES - period];
        let (product, other) = (dot(recent, shifted), dot(shifted, shifted));
        // One is added so that silence is like nothing instead of a division by zero.
        let likeness = product / ((energy * other).sqrt() + 1.0);
        // A multiple of the period fits as well; it has to be better by something to be taken.
        if likeness > best.0 + 0.01 {
            best = (likeness, period);
        }
    }
    best.1
}

/// Reflection coefficients used; RFC 3389 puts no limit, implementations send ten at most.
const MAX_ORDER: usize = 12;
/// No description makes noise louder than this many dB below overload.
const LOUDEST_DBOV: u8 = 30;

/// Noise of a described level and spectrum: white noise through an all-pole lattice filter.
#[derive(Clone)]
struct ComfortNoise {
    random: u32,
    /// Gain of the excitation now, and where it moves to.
    gain: f32,
    target: f32,
    reflections: [f32; MAX_ORDER],
    delays: [f32; MAX_ORDER + 1],
}

impl ComfortNoise {
    const fn new(seed: u32) -> Self {
        Self {
            // The generator stays at zero once it is there.
            random: seed | 1,
            gain: 0.0,
            target: 0.0,
            reflections: [0.0; MAX_ORDER],
            delays: [0.0; MAX_ORDER + 1],
        }
    }

    /// Level and coefficients of RFC 3389 §3; false if there are none.
    fn describe(&mut self, payload: &[u8]) -> bool {
        let Some((&level, coefficients)) = payload.split_first() else { return false };
        let level = (level & 0x7f).max(LOUDEST_DBOV);
        self.reflections = [0.0; MAX_ORDER];
        let mut remaining = 1.0;
        for (reflection, &code) in self.reflections.iter_mut().zip(coefficients) {
            // k = 258 · (N − 127) / 32768, and 255 is not used.
            let value = (f32::from(code.min(254)) - 127.0) * 258.0 / 32_768.0;
            *reflection = value;
            remaining *= 1.0 - value * value;
        }
        // Evenly spread numbers have a root mean square of 1/√3; the filter adds 1/√remaining.
        let level = 32_768.0 * 10.0_f32.powf(-f32::from(level) / 20.0);
        self.target = level * (3.0 * remaining).sqrt();
        true
    }

    fn next(&mut self) -> f32 {
        // A quarter of the way every 10 ms or so: levels change without a step.
        self.gain += (self.target - self.gain) / 256.0;
        let mut forward = self.gain * self.white();
        for (at, &reflection) in self.reflections.iter().enumerate().rev() {
            let [delay, next] = self
                .delays
                .get_mut(at..)
                .and_then(<[f32]>::first_chunk_mut)
                .expect("there is one delay more than there are coefficients");
            forward -= reflection * *delay;
            *next = *delay + reflection * forward;
        }
        let [first, ..] = &mut self.delays;
        *first = forward;
        forward
    }

    /// Xorshift: good enough to be heard as hiss.
    #[expect(clippy::cast_precision_loss, reason = "the lower bits of noise do not matter")]
    fn white(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random.cast_signed() as f32 / 2_147_483_648.0
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test signals are made to fit")]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// A voiced sound of 125 Hz with overtones.
    fn voice(from: usize) -> Frame {
        Frame {
            samples: std::array::from_fn(|at| {
                let time = (from + at) as f64 / 8_000.0;
                let sum: f64 =
                    (1..8).map(|n| (TAU * 125.0 * f64::from(n) * time).sin() / f64::from(n)).sum();
                (sum * 5_000.0).round() as i16
            }),
        }
    }

    fn after_voice(frames: usize) -> Concealer {
        let mut concealer = Concealer::new(1);
        for at in 0..frames {
            concealer.heard(&mut voice(at * FRAME_SAMPLES));
        }
        concealer
    }

    fn missing(concealer: &mut Concealer) -> Frame {
        let mut frame = Frame::SILENCE;
        concealer.missing(&mut frame);
        frame
    }

    fn difference(a: &Frame, b: &Frame) -> f64 {
        let pairs = a.samples.iter().zip(&b.samples);
        let error: f64 = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        let energy: f64 = b.samples.iter().map(|&b| f64::from(b).powi(2)).sum();
        10.0 * (error / energy).log10()
    }

    #[test]
    fn without_a_gap_frames_pass_untouched() {
        let mut concealer = Concealer::new(1);
        for at in 0..5 {
            let mut frame = voice(at * FRAME_SAMPLES);
            concealer.heard(&mut frame);
            assert_eq!(frame, voice(at * FRAME_SAMPLES));
        }
    }

    #[test]
    fn a_lost_frame_of_a_steady_voice_is_hardly_heard() {
        let mut concealer = after_voice(5);
        let made = missing(&mut concealer);
        let error = difference(&made, &voice(5 * FRAME_SAMPLES));
        println!("error {error:.1} dB");
        // What is left is the fade from 10 ms on.
        assert!(error < -20.0, "{error}");
    }

    #[test]
    fn sixty_milliseconds_fade_to_silence() {
        let mut concealer = after_voice(5);
        let levels: Vec<_> = (0..5).map(|_| missing(&mut concealer).level_dbfs()).collect();
        assert!(levels[0] > levels[1] + 1.0 && levels[1] > levels[2] + 3.0, "{levels:?}");
        assert!(levels[2] > -60.0, "{levels:?}");
        assert_eq!(missing(&mut concealer), Frame::SILENCE);
        assert!(levels[3] <= -96.0 && levels[4] <= -96.0, "{levels:?}");
    }

    #[test]
    fn there_is_no_click_at_either_end_of_a_gap() {
        for lost in 1..6 {
            // A pitch that is no whole number of samples, so that nothing fits by chance.
            let tone = |from: usize| Frame {
                samples: std::array::from_fn(|at| {
                    let angle = TAU * 151.7 * (from + at) as f64 / 8_000.0;
                    (angle.sin() * 10_000.0).round() as i16
                }),
            };
            let mut concealer = Concealer::new(1);
            let mut played = Vec::new();
            for at in 0..20 {
                let mut frame = tone(at * FRAME_SAMPLES);
                if (8..8 + lost).contains(&at) {
                    concealer.missing(&mut frame);
                } else {
                    concealer.heard(&mut frame);
                }
                played.extend(frame.samples.map(i32::from));
            }
            let natural = (TAU * 151.7 / 8_000.0 * 10_000.0) as i32;
            let step = played.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap();
            assert!(step < natural * 2, "{lost}: {step} against {natural}");
        }
    }

    #[test]
    fn nothing_heard_yet_is_silence() {
        assert_eq!(missing(&mut Concealer::new(1)), Frame::SILENCE);
    }

    #[test]
    fn comfort_noise_has_the_level_it_was_described_with() {
        for coefficients in [&[][..], &[200, 80, 140], &[20, 127, 127, 127, 127, 127, 127, 160]] {
            let mut concealer = Concealer::new(77);
            concealer.described(&[&[50], coefficients].concat());
            for _ in 0..20 {
                missing(&mut concealer);
            }
            let levels = (0..100).map(|_| f64::from(missing(&mut concealer).level_dbfs()));
            let mean = levels.sum::<f64>() / 100.0;
            assert!((mean + 50.0).abs() < 1.5, "{mean} {coefficients:?}");
        }
    }

    #[test]
    fn no_description_is_loud_or_unstable() {
        for level in [0, 29, 30, 31, 90, 127, 128, 255] {
            for code in [0, 1, 127, 254, 255] {
                let mut concealer = Concealer::new(3);
                concealer.described(&[level, code, code, code]);
                for _ in 0..30 {
                    assert!(missing(&mut concealer).level_dbfs() < -20.0, "{level} {code}");
                }
            }
        }
    }

    #[test]
    fn a_voice_after_described_silence_is_heard_again() {
        let mut concealer = after_voice(3);
        concealer.described(&[60]);
        missing(&mut concealer);
        let mut frame = voice(0);
        concealer.heard(&mut frame);
        assert_eq!(frame.samples[80..], voice(0).samples[80..]);
        // And a loss after that is a loss again, not noise.
        assert!(missing(&mut concealer).level_dbfs() > -30.0);
    }

    #[test]
    fn an_empty_description_is_no_description() {
        let mut concealer = after_voice(3);
        concealer.described(&[]);
        assert!(missing(&mut concealer).level_dbfs() > -30.0);
    }
}
