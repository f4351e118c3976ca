//! Test audio that is made here and measured here: no assets, no ears needed.

use media::frame::FRAME_SAMPLES;

/// Samples per second of everything in this file.
pub const RATE_HZ: u32 = 8_000;

/// A voice-like signal: syllables of a gliding harmonic tone under two formants, with pauses
/// between words. Deterministic; about −17 dBFS in syllables, digital silence in pauses.
#[must_use]
pub fn speech(seconds: u32) -> Vec<i16> {
    let count = (seconds * RATE_HZ) as usize;
    let mut phase = 0.0_f32;
    let samples = (0..count).map(|n| {
        let t = n as f32 / RATE_HZ as f32;
        let pitch = 118.0 + 22.0 * (t * 1.7).sin() + 14.0 * (t * 4.1).sin();
        phase = (phase + pitch / RATE_HZ as f32).fract();
        let (first, second) = (520.0 + 240.0 * (t * 2.3).sin(), 1500.0 + 500.0 * (t * 3.1).cos());
        let voice: f32 = (1..=20_u8)
            .map(|harmonic| {
                let frequency = pitch * f32::from(harmonic);
                let formant =
                    resonance(frequency, first, 130.0) + 0.6 * resonance(frequency, second, 190.0);
                formant * (std::f32::consts::TAU * phase * f32::from(harmonic)).sin()
            })
            .sum();
        to_sample(voice * envelope(t) * 5_200.0)
    });
    samples.collect()
}

/// Four syllables a second, three words in every 2.4 s with pauses between them.
fn envelope(t: f32) -> f32 {
    let in_phrase = t % 2.4;
    let talking =
        in_phrase < 0.75 || (1.0..1.5).contains(&in_phrase) || (1.7..2.1).contains(&in_phrase);
    let syllable = (std::f32::consts::PI * (t * 4.0).fract()).sin().powi(2);
    if talking { 0.15 + 0.85 * syllable } else { 0.0 }
}

fn resonance(frequency: f32, centre: f32, width: f32) -> f32 {
    let distance = (frequency - centre) / width;
    1.0 / (1.0 + distance * distance)
}

/// Adds fan-like noise: white noise through a gentle low-pass, plus mains hum. `level_dbfs` is its
/// root mean square. Deterministic for a seed.
pub fn add_noise(samples: &mut [i16], level_dbfs: f32, seed: u32) {
    let mut state = seed | 1;
    let mut low = 0.0_f32;
    // The low-pass leaves 0.39 of the white noise's root mean square, which is 1/√3 of its peak.
    let gain = 32_768.0 * 10.0_f32.powf(level_dbfs / 20.0) / (0.39 * 0.577);
    for (n, sample) in samples.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let white = state as f32 / u32::MAX as f32 * 2.0 - 1.0;
        low += 0.26 * (white - low);
        let hum = (std::f32::consts::TAU * 100.0 * n as f32 / RATE_HZ as f32).sin();
        *sample = to_sample(f32::from(*sample) + gain * (low + 0.05 * hum));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i16 just before")]
fn to_sample(value: f32) -> i16 {
    value.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
}

/// Root mean square in dB below full scale; digital silence is −99.
#[must_use]
pub fn level_dbfs(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return -99.0;
    }
    let power: f64 =
        samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum::<f64>() / samples.len() as f64;
    let level = 10.0 * (power / (32_768.0 * 32_768.0)).max(1e-12).log10();
    to_f32(level).max(-99.0)
}

#[expect(clippy::cast_possible_truncation, reason = "a figure for people")]
pub(super) fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Level of the quietest fifth of 20 ms frames, in dBFS: the noise between words.
#[must_use]
pub fn noise_floor_dbfs(samples: &[i16]) -> f32 {
    let mut levels: Vec<f32> = samples.chunks_exact(FRAME_SAMPLES).map(level_dbfs).collect();
    if levels.is_empty() {
        return -99.0;
    }
    levels.sort_by(f32::total_cmp);
    let quietest = levels.len().div_ceil(5);
    levels.iter().take(quietest).sum::<f32>() / quietest as f32
}

/// What came back of what was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Echo {
    /// Milliseconds from sending to hearing, the median over the call.
    pub delay_ms: u32,
    /// Normalised correlation, the mean over the call: 1 is the same audio, 0 has nothing to do
    /// with it.
    pub likeness: f32,
}

/// Half a second: what is looked for in one go. A playout buffer that slips or stretches a frame
/// shifts what follows, so each window is looked for on its own.
const WINDOW: usize = RATE_HZ as usize / 2;

/// Windows quieter than this are pauses and prove nothing, in dBFS.
const PAUSE_DBFS: f32 = -40.0;

/// What is heard begins with the first packet that came. When the first ones said were not answered,
/// because the call was still coming up, all of it stands too early by as much: up to 100 ms.
const EARLY: usize = RATE_HZ as usize / 10;

/// Finds `sent` in `heard` by cross-correlation, up to one second late.
#[must_use]
pub fn find_echo(sent: &[i16], heard: &[i16]) -> Echo {
    let heard = [&[0; EARLY], heard].concat();
    let mut found: Vec<(usize, f32)> = sent
        .chunks_exact(WINDOW)
        .enumerate()
        .filter(|(_, window)| level_dbfs(window) > PAUSE_DBFS)
        .map(|(n, window)| find_window(window, heard.get(n * WINDOW..).unwrap_or(&[])))
        .collect();
    if found.is_empty() {
        return Echo { delay_ms: 0, likeness: 0.0 };
    }
    let likeness = found.iter().map(|(_, likeness)| likeness).sum::<f32>() / found.len() as f32;
    found.sort_unstable_by_key(|(lag, _)| *lag);
    let lag = found.get(found.len() / 2).map_or(0, |(lag, _)| lag.saturating_sub(EARLY));
    Echo { delay_ms: u32::try_from(lag * 1000 / RATE_HZ as usize).unwrap_or(u32::MAX), likeness }
}

/// Every lag is tried on one sample in seven, and the best one's neighbours on all: a bright voice is
/// no longer alike two samples away, so no lag may be left out.
fn find_window(window: &[i16], heard: &[i16]) -> (usize, f32) {
    let coarse = best_lag(window, heard, 0..RATE_HZ as usize + EARLY, 7);
    let around = coarse.0.saturating_sub(2)..coarse.0 + 3;
    best_lag(window, heard, around, 1)
}

fn best_lag(
    sent: &[i16],
    heard: &[i16],
    lags: impl Iterator<Item = usize>,
    stride: usize,
) -> (usize, f32) {
    lags.map(|lag| (lag, likeness(sent, heard.get(lag..).unwrap_or(&[]), stride)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, 0.0))
}

fn likeness(a: &[i16], b: &[i16], stride: usize) -> f32 {
    let (mut both, mut left, mut right) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (&x, &y) in a.iter().zip(b).step_by(stride) {
        let (x, y) = (f64::from(x), f64::from(y));
        both += x * y;
        left += x * x;
        right += y * y;
    }
    // Less than a whole window of audio is no echo, however alike the rest.
    if left < 1.0 || right < 1.0 || b.len() < a.len() {
        return 0.0;
    }
    to_f32(both / (left * right).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_found_where_it_is() {
        let sent = speech(3);
        let mut heard = vec![0_i16; 1000];
        heard.extend(&sent);
        let echo = find_echo(&sent, &heard);
        assert_eq!(echo.delay_ms, 125);
        assert!(echo.likeness > 0.99, "{echo:?}");
    }

    #[test]
    fn an_echo_whose_first_packets_are_missing_is_found() {
        let sent = speech(2);
        let heard = [&sent[320..], &[0; 4_000][..]].concat();
        let echo = find_echo(&sent, &heard);
        assert!(echo.likeness > 0.95 && echo.delay_ms == 0, "{echo:?}");
    }

    #[test]
    fn no_delay_escapes_the_search() {
        let sent = speech(1);
        for lag in [34, 113, 114, 115, 116] {
            let mut heard = vec![0_i16; lag];
            heard.extend(&sent);
            heard.extend([0; 4_000]);
            let echo = find_echo(&sent, &heard);
            assert!(echo.likeness > 0.99, "{lag} samples: {echo:?}");
        }
    }

    #[test]
    fn an_echo_is_found_although_a_frame_was_slipped_in_the_middle() {
        let sent = speech(4);
        let mut heard = vec![0; 800];
        heard.extend(&sent);
        heard.drain(16_000..16_160);
        heard.extend([0; 8_000]);
        let echo = find_echo(&sent, &heard);
        assert!(echo.likeness > 0.85, "{echo:?}");
    }

    #[test]
    fn silence_and_foreign_audio_are_no_echo() {
        let sent = speech(3);
        assert!(find_echo(&sent, &vec![0; 24_000]).likeness < 0.1);
        let mut noise = vec![0_i16; 24_000];
        add_noise(&mut noise, -20.0, 7);
        assert!(find_echo(&sent, &noise).likeness < 0.3);
    }

    #[test]
    fn noise_is_as_loud_as_asked_for() {
        let mut noise = vec![0_i16; 80_000];
        add_noise(&mut noise, -35.0, 3);
        let level = level_dbfs(&noise);
        assert!((level + 35.0).abs() < 1.5, "{level}");
    }

    #[test]
    fn the_voice_has_pauses_and_is_loud_enough_between_them() {
        let voice = speech(5);
        assert!(noise_floor_dbfs(&voice) < -90.0);
        let level = level_dbfs(&voice);
        assert!((-26.0..-10.0).contains(&level), "{level}");
    }
}
