//! Twenty milliseconds of decoded audio: what crosses between a leg and its agent.
//!
//! Everything inside the product speaks 8 kHz mono 16-bit linear PCM in frames of this one length;
//! other packet times are re-cut by the jitter buffer, other rates by the resampler.

/// Sampling rate of every frame, in samples per second.
pub const SAMPLE_RATE_HZ: u32 = 8_000;
/// Samples in one frame.
pub const FRAME_SAMPLES: usize = 160;
/// Duration of one frame, in milliseconds.
pub const FRAME_MS: u32 = 20;

/// The level reported for a frame of zeros: one step of 16-bit audio is at about −90 dBFS.
pub const SILENCE_DBFS: f32 = -96.0;

/// 20 ms of 8 kHz mono PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Linear samples, host byte order.
    pub samples: [i16; FRAME_SAMPLES],
}

impl Frame {
    /// A frame of zeros.
    pub const SILENCE: Self = Self { samples: [0; FRAME_SAMPLES] };

    /// Root-mean-square level in dB against a square wave of full scale (the dBov of RFC 3389, so a
    /// sine of full scale measures −3 dB). Never below [`SILENCE_DBFS`].
    #[must_use]
    pub fn level_dbfs(&self) -> f32 {
        level_dbfs(&self.samples)
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::SILENCE
    }
}

/// [`Frame::level_dbfs`] of any run of samples.
pub(crate) fn level_dbfs(samples: &[i16]) -> f32 {
    const FULL_SCALE: f32 = 32_768.0;
    let mut energy = 0.0_f32;
    let mut count = 0.0_f32;
    for &sample in samples {
        let value = f32::from(sample) / FULL_SCALE;
        energy += value * value;
        count += 1.0;
    }
    if energy <= 0.0 {
        return SILENCE_DBFS;
    }
    (10.0 * (energy / count).log10()).max(SILENCE_DBFS)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test signals are made to fit")]
mod tests {
    use super::*;

    #[test]
    fn silence_has_the_lowest_level() {
        assert_eq!(Frame::SILENCE.level_dbfs(), SILENCE_DBFS);
    }

    #[test]
    fn a_full_scale_square_wave_is_zero_db_and_a_sine_three_below() {
        let mut frame = Frame::SILENCE;
        for (at, sample) in frame.samples.iter_mut().enumerate() {
            *sample = if at % 2 == 0 { i16::MAX } else { i16::MIN };
        }
        assert!(frame.level_dbfs().abs() < 0.01);
        for (at, sample) in frame.samples.iter_mut().enumerate() {
            let phase = std::f64::consts::TAU * at as f64 / 16.0;
            *sample = (phase.sin() * 32_767.0).round() as i16;
        }
        assert!((frame.level_dbfs() + 3.01).abs() < 0.01);
    }
}
