//! Rate conversion by six between the wire's 8 kHz and the 48 kHz of noise suppression.
//!
//! Both directions go by way of 16 kHz, through two linear-phase low-passes (windowed sincs with a
//! Kaiser window): a sharp half-band filter of [`HALF_TAPS`] taps between 8 and 16 kHz, of whose two
//! phases one is a mere delay, and a short filter of [`THIRD_TAPS`] taps between 16 and 48 kHz, where
//! the next image is far away. Together that is under half the work of one sharp filter at 48 kHz.
//!
//! Everything is kept in rows of one rate: a signal at 48 kHz is six rows of 8 kHz, one at 16 kHz is
//! two. A filter is then the same few multiplications for each sample of a row, which the compiler
//! turns into vectors without having to reorder any sum.
//!
//! ```text
//! up    8 kHz ──┬─ half-band ─ even row ─┐
//!               └─ delay ───── odd row ──┴─ six rows of phases ─ interleaved ─ 48 kHz
//! down  48 kHz ─ six rows ─┬─ even row ─ half-band ─┐
//!                          └─ odd row ── delay ─────┴─ 8 kHz
//! ```
//!
//! State is kept from frame to frame: cutting a signal into frames changes nothing. One frame in is
//! always one frame out, and nothing is allocated.
//!
//! Figures (held by the tests below):
//!
//! | | |
//! |---|---|
//! | pass band, up and down together | 0 to 3,400 Hz within ±0.1 dB |
//! | images above 4,600 Hz after going up | below −65 dB |
//! | aliases from above 4,600 Hz when going down | below −65 dB |
//! | delay up and down together | 34 samples at 8 kHz = 4.25 ms |

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::frame::FRAME_SAMPLES;

/// Rate ratio: 48 kHz to 8 kHz.
pub const RATIO: usize = 6;
/// Samples of a 20 ms frame at 48 kHz.
pub const WIDE_SAMPLES: usize = FRAME_SAMPLES * RATIO;
/// Length of the half-band filter in samples at 16 kHz.
pub const HALF_TAPS: usize = 59;
/// Length of the filter between 16 and 48 kHz, in samples at 48 kHz.
pub const THIRD_TAPS: usize = 31;

/// Taps of the half-band filter's even phase; the odd one is its centre alone.
const EVEN_TAPS: usize = HALF_TAPS / 2 + 1;
/// Rows of 8 kHz in a signal at 16 kHz.
const MIDDLE: usize = 2;
/// Taps between one row of 16 kHz and one of 48 kHz.
const ROW_TAPS: usize = THIRD_TAPS / RATIO + 1;
/// Samples of a row worked on at once.
const BLOCK: usize = 16;

const EVEN_HISTORY: usize = EVEN_TAPS - 1;
const ROW_HISTORY: usize = ROW_TAPS - 1;
/// Delay of the odd row through the half-band filter when going up: its centre, 29 samples at
/// 16 kHz, between an odd sample and an even one.
const ODD_DELAY_UP: usize = EVEN_HISTORY / 2;
/// The same when going down, where the even sample is the later one.
const ODD_DELAY_DOWN: usize = ODD_DELAY_UP + 1;

/// Lanes a dot product is summed in, so that the compiler can use vector registers: floating-point
/// sums may not be reordered otherwise.
const LANES: usize = 8;

/// Shape of the Kaiser window: about 67 dB of stop band.
const KAISER_BETA: f64 = 6.5;

/// Coefficients, each run of them oldest sample first.
struct Filter {
    /// The half-band filter's even phase. Symmetric, so it is its own mirror image.
    half: [f32; EVEN_TAPS],
    /// From the two rows of 16 kHz to each of the six of 48 kHz, at unity gain in every phase.
    up: [[[f32; ROW_TAPS]; MIDDLE]; RATIO],
    /// From the six rows of 48 kHz to each of the two of 16 kHz.
    down: [[[f32; ROW_TAPS]; RATIO]; MIDDLE],
}

static FILTER: LazyLock<Filter> = LazyLock::new(Filter::design);

impl Filter {
    fn design() -> Self {
        let half = low_pass::<HALF_TAPS>(4_000.0 / 16_000.0);
        let third = low_pass::<THIRD_TAPS>(8_000.0 / 48_000.0);
        // With `delay` counted in samples of 8 kHz, row `b` of 16 kHz is 3·b samples of 48 kHz behind
        // the start of its group of six, and row `p` of 48 kHz is p samples behind.
        let tap = |distance: isize, row_tap: usize, gain: f64| {
            let at = distance.checked_add_unsigned(RATIO * (ROW_HISTORY - row_tap));
            let at = at.and_then(|at| usize::try_from(at).ok());
            single(gain * at.and_then(|at| third.get(at)).copied().unwrap_or(0.0))
        };
        let distance = |p: usize, b: usize| p.cast_signed() - (3 * b).cast_signed();
        Self {
            half: std::array::from_fn(|at| single(2.0 * half.get(2 * at).copied().unwrap_or(0.0))),
            up: std::array::from_fn(|p| {
                std::array::from_fn(|b| std::array::from_fn(|at| tap(distance(p, b), at, 3.0)))
            }),
            down: std::array::from_fn(|b| {
                std::array::from_fn(|p| std::array::from_fn(|at| tap(-distance(p, b), at, 1.0)))
            }),
        }
    }
}

/// A windowed sinc of unity gain; `cutoff` is a share of the sampling rate. `N` must be odd.
#[expect(clippy::cast_precision_loss, reason = "tap numbers are small")]
fn low_pass<const N: usize>(cutoff: f64) -> [f64; N] {
    let centre = (N / 2) as f64;
    let taps: [f64; N] = std::array::from_fn(|at| {
        let offset = at as f64 - centre;
        let edge = offset / centre;
        let window = bessel_i0(KAISER_BETA * (1.0 - edge * edge).max(0.0).sqrt());
        let angle = 2.0 * PI * cutoff * offset;
        window * if at == N / 2 { 2.0 * PI * cutoff } else { angle.sin() / offset }
    });
    let gain: f64 = taps.iter().sum();
    taps.map(|tap| tap / gain)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "coefficients are meant to be single precision"
)]
fn single(tap: f64) -> f32 {
    tap as f32
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

/// Adds to each sample of a block the products of the taps with the samples that lead up to it:
/// `line` begins with the history of the block's first sample.
///
/// A function of its own: inlined into its callers the compiler mixes it with what they do to the
/// block afterwards, and the sums leave the vector registers.
#[inline(never)]
fn accumulate<const TAPS: usize>(block: &mut [f32; BLOCK], taps: &[f32; TAPS], line: &[f32]) {
    for (tap, samples) in taps.iter().zip(line.windows(BLOCK)) {
        for (sum, sample) in block.iter_mut().zip(samples) {
            *sum += tap * sample;
        }
    }
}

/// The line from the sample that is `behind` before this block on, which is where its history begins.
#[inline]
fn reach(line: &[f32], begin: usize, behind: usize) -> &[f32] {
    let from = begin.saturating_sub(behind);
    line.get(from..from + behind + BLOCK).unwrap_or_default()
}

/// 8 kHz to 48 kHz, in the scale of 16-bit samples.
pub struct Upsampler {
    filter: &'static Filter,
    /// The end of the last frame, then the current one.
    narrow: [f32; EVEN_HISTORY + FRAME_SAMPLES],
    /// The even row of 16 kHz likewise; the odd one is `narrow`, later.
    even: [f32; ROW_HISTORY + FRAME_SAMPLES],
}

impl Upsampler {
    /// A converter that has heard silence so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            filter: &FILTER,
            narrow: [0.0; EVEN_HISTORY + FRAME_SAMPLES],
            even: [0.0; ROW_HISTORY + FRAME_SAMPLES],
        }
    }

    /// Converts one frame. The output is not rounded and may exceed 16 bits by the filter's ripple.
    pub fn process(&mut self, input: &[i16; FRAME_SAMPLES], output: &mut [f32; WIDE_SAMPLES]) {
        for (slot, &sample) in self.narrow.iter_mut().skip(EVEN_HISTORY).zip(input) {
            *slot = f32::from(sample);
        }
        let (outputs, _) = output.as_chunks_mut::<{ BLOCK * RATIO }>();
        for (at, output) in outputs.iter_mut().enumerate() {
            self.block(at * BLOCK, output);
        }
        self.narrow.copy_within(FRAME_SAMPLES.., 0);
        self.even.copy_within(FRAME_SAMPLES.., 0);
    }

    /// The block that begins at this sample of the frame.
    #[inline]
    fn block(&mut self, at: usize, output: &mut [f32; BLOCK * RATIO]) {
        let mut even = [0.0; BLOCK];
        accumulate(
            &mut even,
            &self.filter.half,
            reach(&self.narrow, at + EVEN_HISTORY, EVEN_HISTORY),
        );
        for (slot, sample) in self.even.iter_mut().skip(ROW_HISTORY + at).zip(even) {
            *slot = sample;
        }
        let even = reach(&self.even, at + ROW_HISTORY, ROW_HISTORY);
        let odd = reach(&self.narrow, at + EVEN_HISTORY - ODD_DELAY_UP, ROW_HISTORY);
        let mut rows = [[0.0; BLOCK]; RATIO];
        for (row, [from_even, from_odd]) in rows.iter_mut().zip(&self.filter.up) {
            accumulate(row, from_even, even);
            accumulate(row, from_odd, odd);
        }
        interleave(&rows, output);
    }
}

impl Default for Upsampler {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "both indices come from the arrays' own types")]
fn interleave(rows: &[[f32; BLOCK]; RATIO], output: &mut [f32; BLOCK * RATIO]) {
    for at in 0..BLOCK {
        for row in 0..RATIO {
            output[at * RATIO + row] = rows[row][at];
        }
    }
}

/// 48 kHz to 8 kHz, in the scale of 16-bit samples.
pub struct Downsampler {
    filter: &'static Filter,
    /// The six rows of 48 kHz: the end of the last frame, then the current one.
    wide: [[f32; ROW_HISTORY + FRAME_SAMPLES]; RATIO],
    even: [f32; EVEN_HISTORY + FRAME_SAMPLES],
    odd: [f32; ODD_DELAY_DOWN + FRAME_SAMPLES],
}

impl Downsampler {
    /// A converter that has heard silence so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            filter: &FILTER,
            wide: [[0.0; ROW_HISTORY + FRAME_SAMPLES]; RATIO],
            even: [0.0; EVEN_HISTORY + FRAME_SAMPLES],
            odd: [0.0; ODD_DELAY_DOWN + FRAME_SAMPLES],
        }
    }

    /// Converts one frame; what exceeds 16 bits is clipped.
    pub fn process(&mut self, input: &[f32; WIDE_SAMPLES], output: &mut [i16; FRAME_SAMPLES]) {
        let (groups, _) = input.as_chunks::<RATIO>();
        for (row, line) in self.wide.iter_mut().enumerate() {
            for (slot, group) in line.iter_mut().skip(ROW_HISTORY).zip(groups) {
                *slot = group.get(row).copied().unwrap_or_default();
            }
        }
        let (outputs, _) = output.as_chunks_mut::<BLOCK>();
        for (at, output) in outputs.iter_mut().enumerate() {
            self.block(at * BLOCK, output);
        }
        for line in &mut self.wide {
            line.copy_within(FRAME_SAMPLES.., 0);
        }
        self.even.copy_within(FRAME_SAMPLES.., 0);
        self.odd.copy_within(FRAME_SAMPLES.., 0);
    }

    /// The block that begins at this sample of the frame.
    #[inline]
    fn block(&mut self, at: usize, output: &mut [i16; BLOCK]) {
        let [mut even, mut odd] = [[0.0; BLOCK]; MIDDLE];
        let [to_even, to_odd] = &self.filter.down;
        for ((line, to_even), to_odd) in self.wide.iter().zip(to_even).zip(to_odd) {
            let line = reach(line, at + ROW_HISTORY, ROW_HISTORY);
            accumulate(&mut even, to_even, line);
            accumulate(&mut odd, to_odd, line);
        }
        for (slot, sample) in self.even.iter_mut().skip(EVEN_HISTORY + at).zip(even) {
            *slot = sample;
        }
        for (slot, sample) in self.odd.iter_mut().skip(ODD_DELAY_DOWN + at).zip(odd) {
            *slot = sample;
        }
        let mut sum = [0.0; BLOCK];
        accumulate(&mut sum, &self.filter.half, reach(&self.even, at + EVEN_HISTORY, EVEN_HISTORY));
        accumulate(&mut sum, &[1.0], reach(&self.odd, at, 0));
        for (sample, sum) in output.iter_mut().zip(sum) {
            // The half-band taps are scaled for going up, where half of the samples are missing.
            *sample = round(sum / 2.0);
        }
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
    fn there_and_back_takes_four_milliseconds_and_a_quarter() {
        let (mut up, mut down) = (Upsampler::new(), Downsampler::new());
        let (mut wide, mut narrow) = ([0.0; WIDE_SAMPLES], [0; FRAME_SAMPLES]);
        let mut input = [0; FRAME_SAMPLES];
        input[50] = 20_000;
        up.process(&input, &mut wide);
        down.process(&wide, &mut narrow);
        let peak = (0..FRAME_SAMPLES).max_by_key(|&at| narrow[at]).unwrap();
        assert_eq!(peak - 50, 34);
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
