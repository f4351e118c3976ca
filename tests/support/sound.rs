//! Audio by its content: tunes that are written, WAV files, and the ear that tells which notes it
//! hears (Goertzel's algorithm, one filter for each note that may come).

use std::f64::consts::TAU;
use std::io;
use std::path::Path;

/// Samples in a second of telephone audio.
pub const RATE_HZ: u32 = 8_000;

/// Samples that the ear judges at a time: 50 ms, fine enough for filters 20 Hz wide.
const WINDOW: usize = 400;

/// Share of a window's power that one note must hold to count as heard.
const CLEAR: f64 = 0.6;

/// Power of a window, as mean square, below which it is silence: about -50 dBFS.
const SILENCE: f64 = 100.0 * 100.0;

/// One after another these notes, in Hz, each for so long, at -12 dBFS.
#[must_use]
pub fn tune(notes_hz: &[u32], note_ms: u32) -> Vec<i16> {
    let samples = note_ms * RATE_HZ / 1_000;
    let note = |hz: u32| {
        (0..samples).map(move |n| {
            let phase = TAU * f64::from(hz) * f64::from(n) / f64::from(RATE_HZ);
            to_sample(8_000.0 * phase.sin())
        })
    };
    notes_hz.iter().flat_map(|&hz| note(hz)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the amplitude is far inside i16")]
fn to_sample(value: f64) -> i16 {
    value.round() as i16
}

/// The notes of `scale_hz` that are heard, in order; a note that goes on is named once.
#[must_use]
pub fn notes(samples: &[i16], scale_hz: &[u32]) -> Vec<u32> {
    let mut heard = Vec::new();
    let mut before = None;
    for window in samples.chunks_exact(WINDOW) {
        let now = note(window, scale_hz);
        // Twice in a row: a window that two notes share belongs to neither.
        if now.is_some() && now == before && heard.last() != now.as_ref() {
            heard.extend(now);
        }
        before = now;
    }
    heard
}

/// The one note that fills a window.
fn note(window: &[i16], scale_hz: &[u32]) -> Option<u32> {
    let samples = f64::from(u32::try_from(window.len()).unwrap_or(u32::MAX));
    let power = window.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples;
    if power < SILENCE {
        return None;
    }
    let best = scale_hz.iter().map(|&hz| (hz, goertzel(window, hz)));
    let (hz, share) = best.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share / power > CLEAR).then_some(hz)
}

/// Mean square of the part of a window that lies at `hz`.
fn goertzel(window: &[i16], hz: u32) -> f64 {
    let step = TAU * f64::from(hz) / f64::from(RATE_HZ);
    let turn = 2.0 * step.cos();
    let (mut one, mut two) = (0.0, 0.0);
    for &sample in window {
        (one, two) = (f64::from(sample) + turn * one - two, one);
    }
    let samples = f64::from(u32::try_from(window.len()).unwrap_or(u32::MAX));
    let magnitude = one * one + two * two - turn * one * two;
    2.0 * magnitude / (samples * samples)
}

/// Whether `part` comes in `heard`, in order, with nothing else between.
#[must_use]
pub fn contains(heard: &[u32], part: &[u32]) -> bool {
    heard.windows(part.len()).any(|window| window == part)
}

/// Writes a mono WAV file of 16-bit samples.
///
/// # Errors
/// When the file cannot be written.
pub fn write_wav(path: &Path, samples: &[i16]) -> io::Result<()> {
    let bytes = u32::try_from(samples.len() * 2).map_err(io::Error::other)?;
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend(1_u16.to_le_bytes()); // PCM
    file.extend(1_u16.to_le_bytes()); // mono
    file.extend(RATE_HZ.to_le_bytes());
    file.extend((RATE_HZ * 2).to_le_bytes());
    file.extend(2_u16.to_le_bytes());
    file.extend(16_u16.to_le_bytes());
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    std::fs::write(path, file)
}

/// Reads the 16-bit samples of a mono WAV file, also of one that its writer never closed.
///
/// # Errors
/// When there is no such file, or it is none.
pub fn read_wav(path: &Path) -> io::Result<Vec<i16>> {
    let file = std::fs::read(path)?;
    let mark = file.windows(4).position(|four| four == b"data");
    let mark = mark.ok_or_else(|| io::Error::other("no data chunk"))?;
    let data = file.get(mark + 8..).unwrap_or_default();
    let pairs = data.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok());
    Ok(pairs.map(i16::from_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: [u32; 5] = [500, 700, 1_000, 1_400, 1_900];
    const NOTHING: [u32; 0] = [];

    #[test]
    fn a_tune_is_heard_note_by_note() {
        let played = [1_000, 500, 1_900, 700];
        assert_eq!(notes(&tune(&played, 300), &SCALE), played);
    }

    #[test]
    fn silence_and_noise_are_no_notes() {
        assert_eq!(notes(&[0; 8_000], &SCALE), NOTHING);
        let mut state = 1_u32;
        let noise: Vec<i16> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            i16::from_le_bytes([state.to_le_bytes()[2], state.to_le_bytes()[3]])
        })
        .take(8_000)
        .collect();
        assert_eq!(notes(&noise, &SCALE), NOTHING);
    }

    #[test]
    fn a_wav_file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tune.wav");
        let samples = tune(&[440], 100);
        write_wav(&path, &samples).unwrap();
        assert_eq!(read_wav(&path).unwrap(), samples);
    }
}
