//! What agents speak on their link: one dialect per vendor protocol, all behind one enum.
//!
//! A dialect is pure: it turns what happens on a call into wire messages and wire messages into what the
//! agent wants. It owns the counters and names its protocol has, and nothing else: no socket, no clock, no
//! queue. Adding one means a new module, a variant of [`Kind`] and [`Dialect`], and an arm per method.
//!
//! ```text
//!            open ─► messages ─┐
//!  caller's frame ─► audio    ─┤                    ┌─► Audio   (appended as µ-law)
//!           digit ─► digit    ─┼─► wire ══ agent ══ decode ─► Mark(name)
//!     mark played ─► mark     ─┤                    ├─► Clear
//!        call end ─► stop     ─┘                    └─► Err(Warning): noted, the stream goes on
//! ```
//!
//! Audio crosses this line as G.711 µ-law at 8 kHz towards the play-out queue and as [`media::Frame`]s
//! towards the agent.

pub mod twilio;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use media::Frame;

use self::twilio::Twilio;

/// The dialects an agent's configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// Twilio Media Streams, bidirectional.
    #[default]
    Twilio,
}

impl Kind {
    /// The word the agent's configuration uses.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Twilio => "twilio",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The configuration names a dialect this gateway does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such dialect")]
pub struct UnknownDialect;

impl FromStr for Kind {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Kind, UnknownDialect> {
        match name {
            "twilio" => Ok(Kind::Twilio),
            _ => Err(UnknownDialect),
        }
    }
}

/// The three names a stream goes by. Each is printed as 32 hexadecimal digits behind the prefix of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamIds {
    /// The stream: new for each link, random.
    pub stream: [u8; 16],
    /// The call: the octets of the conversation's UUID, so that a call can be found by what the agent knows.
    pub call: [u8; 16],
    /// The account: the octets of the organisation's UUID.
    pub account: [u8; 16],
}

/// What an agent is told when its stream starts. Has no `Debug`: it holds people's numbers.
#[derive(Clone)]
pub struct Opening {
    /// The names of stream, call and account.
    pub ids: StreamIds,
    /// The caller's number, E.164 where known.
    pub from_number: String,
    /// The number that was called.
    pub to_number: String,
    /// The conversation's id, as the API shows it.
    pub conversation_id: String,
    /// What the agent's configuration and the routing workflow add. A name used above is not replaced.
    pub parameters: Vec<(String, String)>,
}

/// A message for the agent, ready for the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// UTF-8 in a text frame.
    Text(Bytes),
    /// A binary frame.
    Binary(Bytes),
}

impl Wire {
    /// Octets of payload.
    pub fn len(&self) -> usize {
        match self {
            Wire::Text(bytes) | Wire::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message from the agent, as it came.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame.
    Binary(&'a [u8]),
}

/// What an agent wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage<'a> {
    /// Play what was appended to the caller's buffer: G.711 µ-law, 8 kHz, any number of octets.
    Audio,
    /// Say so when everything sent before this has been played.
    Mark(Cow<'a, str>),
    /// Forget everything not played yet.
    Clear,
    /// End the call.
    Hangup,
}

/// Something an agent did that its protocol does not know. It is told once per stream and kind, counted
/// always, and never ends the stream. The codes are those that Twilio's users look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// What should be audio or text is not: a binary frame, or base64 that is none. Code 31950.
    Undecodable,
    /// Not JSON, no known event, a part missing, or another stream's id. Code 31951.
    Unexpected,
    /// More audio sent ahead than the play-out queue may hold; the newest was not taken. Code 31952.
    QueueFull,
    /// More marks waiting, or longer names, than are kept; the newest was not taken. Code 31953.
    MarksFull,
    /// The agent reads slower than the caller speaks; the oldest audio was not sent. Code 31954.
    Behind,
}

impl Warning {
    /// Every kind, in the order of the codes.
    pub const ALL: [Warning; 5] = [
        Warning::Undecodable,
        Warning::Unexpected,
        Warning::QueueFull,
        Warning::MarksFull,
        Warning::Behind,
    ];

    /// The number shown to the agent's developer.
    pub fn code(self) -> u16 {
        match self {
            Warning::Undecodable => 31950,
            Warning::Unexpected => 31951,
            Warning::QueueFull => 31952,
            Warning::MarksFull => 31953,
            Warning::Behind => 31954,
        }
    }

    /// What to tell the agent's developer, in words.
    pub fn text(self) -> &'static str {
        match self {
            Warning::Undecodable => "a message held audio or text that cannot be decoded",
            Warning::Unexpected => {
                "a message is no JSON, or of no known kind, or for another stream"
            }
            Warning::QueueFull => "audio sent too far ahead was not taken",
            Warning::MarksFull => "too many marks are waiting, or a mark's name is too long",
            Warning::Behind => "the agent reads too slowly; audio of the caller was left out",
        }
    }
}

/// The state of one stream in the agent's own protocol.
#[derive(Debug)]
pub enum Dialect {
    /// Twilio Media Streams.
    Twilio(Twilio),
}

impl Dialect {
    /// A stream that has not said anything yet.
    pub fn new(kind: Kind, ids: StreamIds) -> Dialect {
        match kind {
            Kind::Twilio => Dialect::Twilio(Twilio::new(ids)),
        }
    }

    /// What goes out first, in this order, before any audio.
    pub fn open(&mut self, opening: &Opening, scratch: &mut BytesMut) -> Vec<Wire> {
        match self {
            Dialect::Twilio(twilio) => twilio.open(opening, scratch).into(),
        }
    }

    /// 20 ms of the caller's audio that ended `elapsed_ms` after the stream began.
    pub fn audio(&mut self, frame: &Frame, elapsed_ms: u64, scratch: &mut BytesMut) -> Wire {
        match self {
            Dialect::Twilio(twilio) => twilio.audio(frame, elapsed_ms, scratch),
        }
    }

    /// A key the caller pressed; `None` where the dialect has no word for keys.
    pub fn digit(&mut self, digit: char, scratch: &mut BytesMut) -> Option<Wire> {
        match self {
            Dialect::Twilio(twilio) => Some(twilio.digit(digit, scratch)),
        }
    }

    /// Everything before this mark was played or cleared; `None` where the dialect has no marks.
    pub fn mark(&mut self, name: &str, scratch: &mut BytesMut) -> Option<Wire> {
        match self {
            Dialect::Twilio(twilio) => Some(twilio.mark(name, scratch)),
        }
    }

    /// The last message before the link closes; `None` where closing says it all.
    pub fn stop(&mut self, scratch: &mut BytesMut) -> Option<Wire> {
        match self {
            Dialect::Twilio(twilio) => Some(twilio.stop(scratch)),
        }
    }

    /// Reads one message of the agent. Audio is appended to `audio` as µ-law.
    ///
    /// # Errors
    /// A [`Warning`] when the message is none of this dialect. Nothing is appended then, and the stream is as
    /// it was.
    pub fn decode<'a>(
        &self,
        message: Incoming<'a>,
        audio: &mut Vec<u8>,
    ) -> Result<AgentMessage<'a>, Warning> {
        match self {
            Dialect::Twilio(twilio) => twilio.decode(message, audio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_found_by_the_name_it_prints() {
        assert_eq!(Kind::Twilio.to_string().parse(), Ok(Kind::Twilio));
        assert_eq!("Twilio".parse::<Kind>(), Err(UnknownDialect));
        assert_eq!("".parse::<Kind>(), Err(UnknownDialect));
    }

    #[test]
    fn every_warning_has_its_own_code_and_text() {
        for (at, one) in Warning::ALL.iter().enumerate() {
            for other in &Warning::ALL[at + 1..] {
                assert_ne!(one.code(), other.code());
                assert_ne!(one.text(), other.text());
            }
        }
    }
}
