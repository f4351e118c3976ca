//! Rate conversion by six between the wire's 8 kHz and the 48 kHz of noise suppression.
//!
//! Both directions use one linear-phase low-pass: a windowed sinc of [`TAPS`] taps at 48 kHz with
//! a Kaiser window, cut at 4 kHz. Upwards it runs as six phases of 32 taps, so that no zero is ever
//! multiplied; downwards only every sixth output is computed. State is kept from frame to
//! frame: cutting a signal into frames changes nothing. One frame in is always one frame out, and
//! nothing is allocated.
//!
//! Figures (held by the tests below):
//!
//! | | |
//! |---|---|
//! | pass band, up and down together | 0 to 3,400 Hz within ±0.1 dB |
//! | images above 4,600 Hz after going up | below −65 dB |
//! | aliases from above 4,600 Hz when going down | below −65 dB |
//! | delay up and down together | [`TAPS`] − 1 samples at 48 kHz = 3.98 ms |

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::frame::FRAME_SAMPLES;

/// Rate ratio: 48 kHz to 8 kHz.
pub const RATIO: usize = 6;
/// Samples of a 20 ms frame at 48 kHz.
pub const WIDE_SAMPLES: usize = FRAME_SAMPLES * RATIO;
/// Length of the filter in samples at 48 kHz.
pub const TAPS: usize = PHASE_TAPS * RATIO;

const PHASE_TAPS: usize = 32;
/// Lanes a dot product is summed in, so that the compiler can use vector registers: floating-point
/// sums may not be reordered otherwise.
const LANES: usize = 8;

/// Shape of the Kaiser window: about 67 dB of stop band.
const KAISER_BETA: f64 = 6.5;
const CUTOFF_HZ: f64 = 4_000.0;
const WIDE_RATE_HZ: f64 = 48_000.0;

struct Filter {
    /// Unity gain at 48 kHz, for going down. Symmetric, so it is its own mirror image.
    whole: [f32; TAPS],
    /// Six times the gain, one row per output phase and newest sample last, for going up.
    phases: [[f32; PHASE_TAPS]; RATIO],
}

static FILTER: LazyLock<Filter> = LazyLock::new(Filter::design);

impl Filter {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "tap numbers are small and coefficients are meant to be single precision"
    )]
    fn design() -> Self {
        let mut taps = [0.0_f64; TAPS];
        let centre = (TAPS - 1) as f64 / 2.0;
        for (at, tap) in taps.iter_mut().enumerate() {
            let offset = at as f64 - centre;
            let angle = 2.0 * PI * CUTOFF_HZ / WIDE_RATE_HZ * offset;
            let edge = offset / centre;
            let window = bessel_i0(KAISER_BETA * (1.0 - edge * edge).max(0.0).sqrt());
            // TAPS is even, so the offset is never zero.
            *tap = angle.sin() / offset * window;
        }
        let gain: f64 = taps.iter().sum();
        let whole = taps.map(|tap| (tap / gain) as f32);
        let mut phases = [[0.0; PHASE_TAPS]; RATIO];
        for (at, tap) in taps.iter().enumerate() {
            let row = phases.get_mut(at % RATIO);
            if let Some(slot) = row.and_then(|row| row.get_mut(PHASE_TAPS - 1 - at / RATIO)) {
                *slot = (tap / gain * RATIO as f64) as f32;
            }
        }
        Self { whole, phases }
    }
}

/// Modified Bessel function of the first kind, order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut n = 1.0;
    while term > sum * 1e-12 {
        term *= quarter / (n * n);
        sum += term;
        n += 1.0;
    }
    sum
}

/// Sum of products, in [`LANES`] partial sums. What is left over of the lanes is left out.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, _) = a.as_chunks::<LANES>();
    let (b, _) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

const NARROW_HISTORY: usize = PHASE_TAPS - 1;
const WIDE_HISTORY: usize = TAPS - 1;

/// 8 kHz to 48 kHz, in the scale of 16-bit samples.
pub struct Upsampler {
    filter: &'static Filter,
    /// The end of the last frame, then the current one.
    line: [f32; NARROW_HISTORY + FRAME_SAMPLES],
}

impl Upsampler {
    /// A converter that has heard silence so far.
    #[must_use]
    pub fn new() -> Self {
        Self { filter: &FILTER, line: [0.0; NARROW_HISTORY + FRAME_SAMPLES] }
    }

    /// Converts one frame. The output is not rounded and may exceed 16 bits by the filter's ripple.
    pub fn process(&mut self, input: &[i16; FRAME_SAMPLES], output: &mut [f32; WIDE_SAMPLES]) {
        for (slot, &sample) in self.line.iter_mut().skip(NARROW_HISTORY).zip(input) {
            *slot = f32::from(sample);
        }
        let (blocks, _) = output.as_chunks_mut::<RATIO>();
        for (window, block) in self.line.windows(PHASE_TAPS).zip(blocks) {
            for (sample, phase) in block.iter_mut().zip(&self.filter.phases) {
                *sample = dot(phase, window);
            }
        }
        self.line.copy_within(FRAME_SAMPLES.., 0);
    }
}

impl Default for Upsampler {
    fn default() -> Self {
        Self::new()
    }
}

/// 48 kHz to 8 kHz, in the scale of 16-bit samples.
pub struct Downsampler {
    filter: &'static Filter,
    line: [f32; WIDE_HISTORY + WIDE_SAMPLES],
}

impl Downsampler {
    /// A converter that has heard silence so far.
    #[must_use]
    pub fn new() -> Self {
        Self { filter: &FILTER, line: [0.0; WIDE_HISTORY + WIDE_SAMPLES] }
    }

    /// Converts one frame; what exceeds 16 bits is clipped.
    pub fn process(&mut self, input: &[f32; WIDE_SAMPLES], output: &mut [i16; FRAME_SAMPLES]) {
        for (slot, &sample) in self.line.iter_mut().skip(WIDE_HISTORY).zip(input) {
            *slot = sample;
        }
        let windows = self.line.windows(TAPS).step_by(RATIO);
        for (window, sample) in windows.zip(output.iter_mut()) {
            *sample = round(dot(&self.filter.whole, window));
        }
        self.line.copy_within(WIDE_SAMPLES.., 0);
    }
}

impl Default for Downsampler {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "clipping is what a sample beyond 16 bits gets"
)]
pub(crate) fn round(sample: f32) -> i16 {
    sample.round() as i16
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test signals are made to fit")]
mod tests {
    use super::*;

    fn sine(frequency: f64, rate: f64, amplitude: f64, at: usize) -> f64 {
        amplitude * (2.0 * PI * frequency * at as f64 / rate).sin()
    }

    /// Power of a signal at one frequency against a sine of the given amplitude, in dB.
    fn level_at(signal: &[f64], frequency: f64, rate: f64, amplitude: f64) -> f64 {
        let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
        for (at, sample) in signal.iter().enumerate() {
            let turn = at as f64 / (signal.len() - 1) as f64;
            let window = 0.42 - 0.5 * (2.0 * PI * turn).cos() + 0.08 * (4.0 * PI * turn).cos();
            let angle = 2.0 * PI * frequency * at as f64 / rate;
            re += sample * window * angle.cos();
            im += sample * window * angle.sin();
            weight += window;
        }
        20.0 * (2.0 * re.hypot(im) / weight / amplitude + 1e-12).log10()
    }

    fn upsample(frequency: f64, frames: usize) -> Vec<f64> {
        let mut up = Upsampler::new();
        let mut wide = [0.0; WIDE_SAMPLES];
        let mut out = Vec::new();
        for frame in 0..frames {
            let input = std::array::from_fn(|at| {
                sine(frequency, 8_000.0, 16_000.0, frame * FRAME_SAMPLES + at).round() as i16
            });
            up.process(&input, &mut wide);
            out.extend(wide.iter().map(|&sample| f64::from(sample)));
        }
        out.split_off(2 * WIDE_SAMPLES)
    }

    fn downsample(frequency: f64, frames: usize) -> Vec<f64> {
        let mut down = Downsampler::new();
        let mut narrow = [0; FRAME_SAMPLES];
        let mut out = Vec::new();
        for frame in 0..frames {
            let input = std::array::from_fn(|at| {
                sine(frequency, 48_000.0, 16_000.0, frame * WIDE_SAMPLES + at) as f32
            });
            down.process(&input, &mut narrow);
            out.extend(narrow.iter().map(|&sample| f64::from(sample)));
        }
        out.split_off(2 * FRAME_SAMPLES)
    }

    #[test]
    fn images_are_rejected_by_65_db() {
        let mut worst = f64::MIN;
        for frequency in [200.0, 300.0, 1_000.0, 2_000.0, 3_000.0, 3_400.0] {
            let wide = upsample(frequency, 12);
            let images = [8_000.0, 16_000.0, 24_000.0]
                .map(|centre| [centre - frequency, centre + frequency])
                .concat();
            for image in images.into_iter().filter(|&image| image < 23_950.0) {
                worst = worst.max(level_at(&wide, image, 48_000.0, 16_000.0));
            }
        }
        println!("worst image {worst:.1} dB");
        assert!(worst < -65.0, "{worst}");
    }

    #[test]
    fn aliases_are_rejected_by_65_db() {
        let mut worst = f64::MIN;
        for step in 0..60 {
            let frequency = 4_600.0 + 311.0 * f64::from(step);
            let folded = (frequency % 8_000.0).min(8_000.0 - frequency % 8_000.0);
            let narrow = downsample(frequency, 12);
            worst = worst.max(level_at(&narrow, folded, 8_000.0, 16_000.0));
        }
        println!("worst alias {worst:.1} dB");
        assert!(worst < -65.0, "{worst}");
    }

    #[test]
    fn the_pass_band_is_flat_to_3400_hz_there_and_back() {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for frequency in [100.0, 300.0, 700.0, 1_500.0, 2_500.0, 3_000.0, 3_200.0, 3_400.0] {
            let mut up = Upsampler::new();
            let mut down = Downsampler::new();
            let (mut wide, mut narrow) = ([0.0; WIDE_SAMPLES], [0; FRAME_SAMPLES]);
            let mut out = Vec::new();
            for frame in 0..14 {
                let input = std::array::from_fn(|at| {
                    sine(frequency, 8_000.0, 16_000.0, frame * FRAME_SAMPLES + at).round() as i16
                });
                up.process(&input, &mut wide);
                down.process(&wide, &mut narrow);
                out.extend(narrow.iter().map(|&sample| f64::from(sample)));
            }
            let level = level_at(&out[2 * FRAME_SAMPLES..], frequency, 8_000.0, 16_000.0);
            (low, high) = (low.min(level), high.max(level));
        }
        println!("pass band {low:.3} to {high:.3} dB");
        assert!(low > -0.1 && high < 0.1, "{low} {high}");
    }

    #[test]
    fn there_and_back_takes_four_milliseconds() {
        let (mut up, mut down) = (Upsampler::new(), Downsampler::new());
        let (mut wide, mut narrow) = ([0.0; WIDE_SAMPLES], [0; FRAME_SAMPLES]);
        let mut input = [0; FRAME_SAMPLES];
        input[50] = 20_000;
        up.process(&input, &mut wide);
        down.process(&wide, &mut narrow);
        let peak = (0..FRAME_SAMPLES).max_by_key(|&at| narrow[at]).unwrap();
        // 191 samples at 48 kHz are 31.8 at 8 kHz.
        assert_eq!(peak - 50, 32);
    }

    #[test]
    fn full_scale_is_clipped_and_never_wraps() {
        let mut down = Downsampler::new();
        let mut narrow = [0; FRAME_SAMPLES];
        for _ in 0..3 {
            down.process(&[40_000.0; WIDE_SAMPLES], &mut narrow);
        }
        assert_eq!(narrow, [i16::MAX; FRAME_SAMPLES]);
    }

    #[test]
    fn frames_join_without_a_seam() {
        let wide = upsample(440.0, 6);
        let largest_step = 16_000.0 * 2.0 * PI * 440.0 / 48_000.0;
        for pair in wide.windows(2) {
            assert!((pair[1] - pair[0]).abs() < largest_step * 1.05);
        }
    }
}
