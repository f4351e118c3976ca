//! The far side of a leg: who hears the caller, and whom the caller hears.
//!
//! The other leg of a bridged call hears packets rather than frames: what it hears never comes here
//! but is relayed as it arrives; see [`super::relay`].

use std::sync::Arc;

use crate::command::Far;
use crate::doorbell::Doorbell;
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::port::{Down, Up, WorkerPort};

/// A [`Far`] at work.
pub(crate) enum FarSide {
    Agent(WorkerPort),
    /// What was heard last; elsewhere, so that no other session makes room for it.
    Echo(Box<Option<Frame>>),
    Playback(Playback),
    Nobody,
    Leg(OtherLeg),
}

/// What a leg knows of the one it is bridged with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OtherLeg {
    /// Its peer has agreed to telephone events, so they are relayed to it.
    pub(crate) takes_events: bool,
}

/// What the far side wants the caller to hear next.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
pub(super) enum Speech {
    Frame(Frame),
    Digit { digit: char, duration_ms: u32 },
}

impl From<Far> for FarSide {
    fn from(far: Far) -> Self {
        match far {
            Far::Agent(port) => Self::Agent(port),
            Far::Echo => Self::Echo(Box::default()),
            Far::Nobody => Self::Nobody,
            Far::Playback { clip, repeat } => {
                Self::Playback(Playback { clip, repeat, position: 0, end_told: false })
            }
        }
    }
}

impl FarSide {
    /// The far side hears 20 ms of the caller.
    pub(super) fn hear(&mut self, frame: &Frame) {
        match self {
            Self::Agent(port) => port.give(Up::Frame(*frame)),
            Self::Echo(heard) => **heard = Some(*frame),
            Self::Playback(_) | Self::Nobody | Self::Leg(_) => {}
        }
    }

    /// The far side learns that the caller pressed a key.
    pub(super) fn hear_digit(&mut self, digit: char, duration_ms: u32) {
        if let Self::Agent(port) = self {
            port.give(Up::Digit { digit, duration_ms });
        }
    }

    /// Takes what the caller is to hear in this tick; `None` is silence.
    pub(super) fn speak(&mut self) -> Option<Speech> {
        match self {
            Self::Agent(port) => Some(match port.take()? {
                Down::Frame(frame) => Speech::Frame(frame),
                Down::Digit { digit, duration_ms } => Speech::Digit { digit, duration_ms },
            }),
            Self::Echo(heard) => heard.take().map(Speech::Frame),
            Self::Playback(playback) => playback.next().map(Speech::Frame),
            Self::Nobody | Self::Leg(_) => None,
        }
    }

    /// How much an agent has said that was not taken yet.
    pub(super) fn waiting(&self) -> u64 {
        match self {
            Self::Agent(port) => port.waiting(),
            _ => 0,
        }
    }

    /// Says whether an agent's next word is to be told at the door.
    pub(super) fn await_speech(&self, awaited: bool) {
        if let Self::Agent(port) = self {
            port.await_speech(awaited);
        }
    }

    /// The door at which an agent's words are told.
    pub(super) fn live_at(&self, bell: &Arc<Doorbell>, door: usize) {
        if let Self::Agent(port) = self {
            port.live_at(bell, door);
        }
    }

    /// A frame of this side was handed to the wire.
    pub(super) fn count_played(&self) {
        if let Self::Agent(port) = self {
            port.count_played();
        }
    }

    /// True once, when a clip that does not repeat has come to its end.
    pub(super) fn take_end(&mut self) -> bool {
        match self {
            Self::Playback(playback) => playback.take_end(),
            _ => false,
        }
    }

    /// Frames that an agent did not pull in time.
    pub(super) fn overruns(&self) -> u64 {
        match self {
            Self::Agent(port) => port.overruns(),
            _ => 0,
        }
    }

    /// The other leg, if this one is bridged.
    pub(super) fn other_leg(&self) -> Option<OtherLeg> {
        match self {
            Self::Leg(other) => Some(*other),
            _ => None,
        }
    }

    /// Somebody outside waits for frames from us.
    pub(super) fn is_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }
}

/// A clip being played.
pub(crate) struct Playback {
    clip: Arc<[i16]>,
    repeat: bool,
    position: usize,
    end_told: bool,
}

impl Playback {
    fn next(&mut self) -> Option<Frame> {
        if self.position >= self.clip.len() {
            if !self.repeat || self.clip.is_empty() {
                return None;
            }
            self.position = 0;
        }
        let rest = self.clip.get(self.position..)?;
        let mut samples = [0; FRAME_SAMPLES];
        for (sample, source) in samples.iter_mut().zip(rest) {
            *sample = *source;
        }
        self.position += FRAME_SAMPLES;
        Some(Frame { samples })
    }

    fn take_end(&mut self) -> bool {
        let ended = !self.repeat && self.position >= self.clip.len();
        ended && !std::mem::replace(&mut self.end_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn playback(samples: usize, repeat: bool) -> FarSide {
        let clip = (1..=samples).map(|n| i16::try_from(n).unwrap()).collect();
        Far::Playback { clip, repeat }.into()
    }

    fn first_sample(side: &mut FarSide) -> Option<i16> {
        match side.speak()? {
            Speech::Frame(frame) => Some(frame.samples[0]),
            Speech::Digit { .. } => None,
        }
    }

    #[test]
    fn a_clip_plays_once_is_filled_up_and_tells_its_end_once() {
        let mut side = playback(200, false);
        assert_eq!(first_sample(&mut side), Some(1));
        assert!(!side.take_end());
        let Some(Speech::Frame(last)) = side.speak() else { panic!("a second frame") };
        assert_eq!(last.samples[39..41], [200, 0]);
        assert!(side.take_end());
        assert!(!side.take_end());
        assert_eq!(first_sample(&mut side), None);
    }

    #[test]
    fn a_repeated_clip_starts_over_and_never_ends() {
        let mut side = playback(320, true);
        let heard: Vec<_> = (0..5).map(|_| first_sample(&mut side)).collect();
        assert_eq!(heard, [Some(1), Some(161), Some(1), Some(161), Some(1)]);
        assert!(!side.take_end());
    }

    #[test]
    fn an_empty_clip_is_silence_whether_repeated_or_not() {
        assert_eq!(first_sample(&mut playback(0, true)), None);
        let mut once = playback(0, false);
        assert_eq!(first_sample(&mut once), None);
        assert!(once.take_end());
    }

    #[test]
    fn an_echo_is_heard_once() {
        let mut side = FarSide::from(Far::Echo);
        assert!(side.speak().is_none());
        side.hear(&Frame { samples: [5; FRAME_SAMPLES] });
        assert_eq!(first_sample(&mut side), Some(5));
        assert!(side.speak().is_none());
    }
}
