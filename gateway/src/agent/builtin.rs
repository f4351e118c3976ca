//! Clips for the agent that needs nothing outside: made by formula, so that no sound file ships.
//!
//! A clip is PCM at 8 kHz, mono, ready for `media`'s playback end. All begin and end at zero, peak well below
//! full scale, and are whole numbers of 20 ms frames long, so that a repeated one has no click at the seam.

use std::f32::consts::TAU;
use std::sync::Arc;

use media::{FRAME_SAMPLES, SAMPLE_RATE_HZ};

/// The clips an agent's configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clip {
    /// Three rising notes and a pause: "connected, and you can hear me".
    Greeting,
    /// A steady 440 Hz at -20 dBFS, one second: for measuring a line.
    Tone,
    /// One second of ring back and four of silence: 440 + 480 Hz.
    Ringback,
    /// One second of nothing, to hold a line open.
    Silence,
}

impl Clip {
    /// Every clip.
    pub const ALL: [Clip; 4] = [Clip::Greeting, Clip::Tone, Clip::Ringback, Clip::Silence];

    /// The word the configuration uses.
    pub fn name(self) -> &'static str {
        match self {
            Clip::Greeting => "greeting",
            Clip::Tone => "tone",
            Clip::Ringback => "ringback",
            Clip::Silence => "silence",
        }
    }

    /// The clip of this name, if there is one.
    pub fn named(name: &str) -> Option<Clip> {
        Clip::ALL.into_iter().find(|clip| clip.name() == name)
    }

    /// The samples, 8 kHz mono. Made anew at each call: keep them and share them.
    pub fn samples(self) -> Arc<[i16]> {
        let mut samples = Vec::new();
        match self {
            Clip::Greeting => {
                for (hz, ms) in [(523.25, 180), (659.25, 180), (783.99, 420)] {
                    note(&[hz], ms, &mut samples);
                }
                rest(500, &mut samples);
            }
            Clip::Tone => note(&[440.0], 1000, &mut samples),
            Clip::Ringback => {
                note(&[440.0, 480.0], 1000, &mut samples);
                rest(4000, &mut samples);
            }
            Clip::Silence => rest(1000, &mut samples),
        }
        samples.resize(samples.len().next_multiple_of(FRAME_SAMPLES), 0);
        samples.into()
    }
}

/// Appends the sum of sines at -20 dBFS in all, faded in and out over [`FADE_MS`] so that nothing clicks.
fn note(frequencies_hz: &[f32], ms: u32, samples: &mut Vec<i16>) {
    let (length, fade) = (samples_in(ms), samples_in(FADE_MS));
    let share = PEAK / as_f32(frequencies_hz.len());
    for at in 0..length {
        let seconds = as_f32(at) / as_f32(samples_in(1000));
        let sum: f32 = frequencies_hz.iter().map(|hz| (TAU * hz * seconds).sin() * share).sum();
        let edge = at.min(length - 1 - at).min(fade);
        samples.push(to_sample(sum * as_f32(edge) / as_f32(fade)));
    }
}

fn rest(ms: u32, samples: &mut Vec<i16>) {
    samples.resize(samples.len() + samples_in(ms), 0);
}

fn samples_in(ms: u32) -> usize {
    ms as usize * (SAMPLE_RATE_HZ as usize / 1000)
}

#[expect(clippy::cast_precision_loss, reason = "a clip has far fewer than 2^24 samples")]
fn as_f32(count: usize) -> f32 {
    count as f32
}

#[expect(clippy::cast_possible_truncation, reason = "|value| ≤ PEAK, which an i16 holds")]
fn to_sample(value: f32) -> i16 {
    value as i16
}

/// -20 dBFS.
const PEAK: f32 = 3277.0;

const FADE_MS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_is_found_by_its_name() {
        for clip in Clip::ALL {
            assert_eq!(Clip::named(clip.name()), Some(clip));
        }
        assert_eq!(Clip::named("opera"), None);
    }

    #[test]
    fn clips_are_whole_frames_begin_and_end_at_zero_and_never_shout() {
        for clip in Clip::ALL {
            let samples = clip.samples();
            assert!(!samples.is_empty() && samples.len() % FRAME_SAMPLES == 0, "{clip:?}");
            assert_eq!((samples[0], samples[samples.len() - 1]), (0, 0), "{clip:?}");
            assert!(samples.iter().all(|sample| sample.unsigned_abs() <= 3277), "{clip:?}");
        }
    }

    #[test]
    fn no_clip_jumps_from_one_sample_to_the_next() {
        for clip in Clip::ALL {
            let samples = clip.samples();
            let steepest = samples.windows(2).map(|w| w[0].abs_diff(w[1])).max();
            assert!(steepest < Some(2200), "{clip:?} jumps by {steepest:?}");
        }
    }

    #[test]
    fn the_tone_is_440_hz_and_the_silence_is_silent() {
        let tone = Clip::Tone.samples();
        let rises = tone.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        assert!((438..=441).contains(&rises), "{rises} cycles in a second");
        assert!(Clip::Silence.samples().iter().all(|sample| *sample == 0));
    }
}
