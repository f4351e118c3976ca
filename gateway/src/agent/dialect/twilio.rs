//! Twilio Media Streams, the gateway's side of a bidirectional stream.
//!
//! All messages are JSON in text frames; audio is base64 of G.711 µ-law, 8 kHz, mono, without a file header.
//! Numbers that count are printed as strings. The order on the wire is fixed, and agents detect the protocol
//! by the first two messages:
//!
//! ```text
//! connected            no sequence number, no stream id
//! start        seq 1   ids, custom parameters, media format
//! media | dtmf | mark  seq 2 …, chunk 1 … for media alone, timestamp in ms since the start
//! stop         last    then the socket closes
//! ```
//!
//! The agent may send `media` (any number of octets), `mark` and `clear`, each with the `streamSid` it was
//! given. Anything else is a [`Warning`] and changes nothing; unknown members of a known message are ignored.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut as _, BytesMut};
use media::codec::g711;
use media::{FRAME_SAMPLES, Frame};
use serde::Deserialize;

use super::{AgentMessage, Incoming, Opening, StreamIds, Warning, Wire};

/// One stream's names and counters.
#[derive(Debug)]
pub struct Twilio {
    stream_sid: String,
    call_sid: String,
    account_sid: String,
    /// The number the next message carries; `start` is 1.
    sequence: u64,
    /// The number the next `media` message carries.
    chunk: u64,
}

impl Twilio {
    /// A stream that has sent nothing yet.
    pub fn new(ids: StreamIds) -> Twilio {
        Twilio {
            stream_sid: sid("MZ", &ids.stream),
            call_sid: sid("CA", &ids.call),
            account_sid: sid("AC", &ids.account),
            sequence: 1,
            chunk: 1,
        }
    }

    /// The stream's id, `MZ` and 32 hexadecimal digits.
    pub fn stream_sid(&self) -> &str {
        &self.stream_sid
    }

    /// `connected` and `start`.
    pub fn open(&mut self, opening: &Opening, scratch: &mut BytesMut) -> [Wire; 2] {
        scratch.put_slice(br#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
        let connected = text(scratch);
        self.head("start", scratch);
        put(
            scratch,
            format_args!(
                r#","start":{{"streamSid":"{}","accountSid":"{}","callSid":"{}","tracks":["inbound"],"customParameters":{{"#,
                self.stream_sid, self.account_sid, self.call_sid
            ),
        );
        put_parameters(opening, scratch);
        scratch.put_slice(
            br#"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}"#,
        );
        [connected, text(scratch)]
    }

    /// `media`: one frame of the caller, `elapsed_ms` after the stream began.
    pub fn audio(&mut self, frame: &Frame, elapsed_ms: u64, scratch: &mut BytesMut) -> Wire {
        let mut payload = [0; FRAME_SAMPLES];
        for (code, sample) in payload.iter_mut().zip(&frame.samples) {
            *code = g711::ulaw_encode(*sample);
        }
        let mut encoded = [0; PAYLOAD_CHARS];
        BASE64
            .encode_slice(payload, &mut encoded)
            .expect("the array has room for the base64 of one frame");
        self.head("media", scratch);
        put(
            scratch,
            format_args!(
                r#","media":{{"track":"inbound","chunk":"{}","timestamp":"{elapsed_ms}","payload":""#,
                self.chunk
            ),
        );
        scratch.put_slice(&encoded);
        scratch.put_slice(br#""}}"#);
        self.chunk += 1;
        text(scratch)
    }

    /// `dtmf`: a key the caller pressed.
    pub fn digit(&mut self, digit: char, scratch: &mut BytesMut) -> Wire {
        let mut buffer = [0; 4];
        self.head("dtmf", scratch);
        scratch.put_slice(br#","dtmf":{"track":"inbound_track","digit":"#);
        put_string(digit.encode_utf8(&mut buffer), scratch);
        scratch.put_slice(b"}}");
        text(scratch)
    }

    /// `mark`: the audio before the agent's mark has been played, or was cleared.
    pub fn mark(&mut self, name: &str, scratch: &mut BytesMut) -> Wire {
        self.head("mark", scratch);
        scratch.put_slice(br#","mark":{"name":"#);
        put_string(name, scratch);
        scratch.put_slice(b"}}");
        text(scratch)
    }

    /// `stop`: the last word before the socket closes.
    pub fn stop(&mut self, scratch: &mut BytesMut) -> Wire {
        self.head("stop", scratch);
        put(
            scratch,
            format_args!(
                r#","stop":{{"accountSid":"{}","callSid":"{}"}}}}"#,
                self.account_sid, self.call_sid
            ),
        );
        text(scratch)
    }

    /// Reads `media`, `mark` or `clear`. Audio is appended to `audio`.
    ///
    /// # Errors
    /// [`Warning::Undecodable`] for binary frames and payloads that are no base64, [`Warning::Unexpected`] for
    /// everything else that is not one of the three for this stream.
    pub fn decode<'a>(
        &self,
        message: Incoming<'a>,
        audio: &mut Vec<u8>,
    ) -> Result<AgentMessage<'a>, Warning> {
        let Incoming::Text(json) = message else {
            return Err(Warning::Undecodable);
        };
        let message: Message<'a> = serde_json::from_str(json).map_err(|_| Warning::Unexpected)?;
        if message.stream_sid.is_none_or(|sid| sid.0 != self.stream_sid) {
            return Err(Warning::Unexpected);
        }
        match (message.event.as_ref(), message.media, message.mark) {
            ("media", Some(media), _) => append_audio(&media.payload, audio),
            ("mark", _, Some(mark)) => Ok(AgentMessage::Mark(mark.name)),
            ("clear", _, _) => Ok(AgentMessage::Clear),
            _ => Err(Warning::Unexpected),
        }
    }

    /// The members that every message but `connected` begins with.
    fn head(&mut self, event: &str, scratch: &mut BytesMut) {
        put(
            scratch,
            format_args!(
                r#"{{"event":"{event}","sequenceNumber":"{}","streamSid":"{}""#,
                self.sequence, self.stream_sid
            ),
        );
        self.sequence += 1;
    }
}

/// Appends the octets of `payload`, or nothing when it is no base64.
fn append_audio<'a>(payload: &str, audio: &mut Vec<u8>) -> Result<AgentMessage<'a>, Warning> {
    let before = audio.len();
    match BASE64.decode_vec(payload, audio) {
        Ok(()) => Ok(AgentMessage::Audio),
        Err(_) => {
            audio.truncate(before);
            Err(Warning::Undecodable)
        }
    }
}

/// The three names the gateway always gives come last and win: an agent that reads only the last of two
/// equal members, and one that reads only the first, must see the same caller.
fn put_parameters(opening: &Opening, scratch: &mut BytesMut) {
    let ours = [
        ("from_number", opening.from_number.as_str()),
        ("to_number", opening.to_number.as_str()),
        ("conversation_id", opening.conversation_id.as_str()),
    ];
    let mut separator = "";
    for (at, (name, value)) in opening.parameters.iter().enumerate() {
        let repeated = opening.parameters.iter().skip(at + 1).any(|(later, _)| later == name);
        if repeated || ours.iter().any(|(reserved, _)| reserved == name) {
            continue;
        }
        put_member(separator, (name, value), scratch);
        separator = ",";
    }
    for member in ours {
        put_member(separator, member, scratch);
        separator = ",";
    }
}

fn put_member(separator: &str, (name, value): (&str, &str), scratch: &mut BytesMut) {
    scratch.put_slice(separator.as_bytes());
    put_string(name, scratch);
    scratch.put_u8(b':');
    put_string(value, scratch);
}

/// A JSON string with its quotes, escaped (RFC 8259 §7).
fn put_string(value: &str, scratch: &mut BytesMut) {
    serde_json::to_writer(scratch.writer(), value).expect("a growing buffer takes every string");
}

fn put(scratch: &mut BytesMut, arguments: std::fmt::Arguments<'_>) {
    scratch.write_fmt(arguments).expect("a growing buffer takes everything");
}

/// Takes what was written. The buffer keeps its memory: once the message is on the wire, the next one is
/// written over it.
fn text(scratch: &mut BytesMut) -> Wire {
    Wire::Text(scratch.split().freeze())
}

fn sid(prefix: &str, octets: &[u8; 16]) -> String {
    octets.iter().fold(String::from(prefix), |mut sid, octet| {
        write!(sid, "{octet:02x}").expect("a String takes everything");
        sid
    })
}

/// The members of an agent's message that matter.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(rename = "streamSid", borrow, default)]
    stream_sid: Option<Text<'a>>,
    #[serde(borrow, default)]
    media: Option<Media<'a>>,
    #[serde(borrow, default)]
    mark: Option<Mark<'a>>,
}

/// A string that is not copied unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Base64 of one frame of µ-law: 4 characters for each 3 octets begun (RFC 4648 §4).
const PAYLOAD_CHARS: usize = FRAME_SAMPLES.div_ceil(3) * 4;

/// Writes padding; reads with and without, because agents in other languages leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IDS: StreamIds = StreamIds { stream: [0xAB; 16], call: [0x01; 16], account: [0xFF; 16] };
    const STREAM_SID: &str = "MZabababababababababababababababab";

    fn opening(parameters: &[(&str, &str)]) -> Opening {
        Opening {
            ids: IDS,
            from_number: "+15550001".into(),
            to_number: "+15550002".into(),
            conversation_id: "01010101-0101-0101-0101-010101010101".into(),
            parameters: parameters.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        }
    }

    fn json_of(wire: &Wire) -> Value {
        let Wire::Text(bytes) = wire else { panic!("this dialect has text only") };
        serde_json::from_slice(bytes).expect("what we write is JSON")
    }

    fn agent(text: &str) -> (Result<AgentMessage<'_>, Warning>, Vec<u8>) {
        let mut audio = Vec::new();
        let message = Twilio::new(IDS).decode(Incoming::Text(text), &mut audio);
        (message, audio)
    }

    #[test]
    fn the_first_two_messages_are_connected_and_start() {
        let mut scratch = BytesMut::new();
        let [connected, start] = Twilio::new(IDS).open(&opening(&[("tier", "gold")]), &mut scratch);
        assert_eq!(
            json_of(&connected),
            json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        );
        let call_sid = format!("CA{}", "01".repeat(16));
        let account_sid = format!("AC{}", "ff".repeat(16));
        assert_eq!(
            json_of(&start),
            json!({
                "event": "start", "sequenceNumber": "1", "streamSid": STREAM_SID,
                "start": {
                    "streamSid": STREAM_SID, "accountSid": account_sid, "callSid": call_sid,
                    "tracks": ["inbound"],
                    "customParameters": {
                        "tier": "gold", "from_number": "+15550001", "to_number": "+15550002",
                        "conversation_id": "01010101-0101-0101-0101-010101010101",
                    },
                    "mediaFormat":
                        {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                },
            })
        );
    }

    #[test]
    fn a_parameter_never_replaces_the_callers_number_and_names_stay_unique() {
        let mut scratch = BytesMut::new();
        let parameters = [("from_number", "+1900"), ("x", "old"), ("x", "new")];
        let [_, start] = Twilio::new(IDS).open(&opening(&parameters), &mut scratch);
        let Wire::Text(bytes) = &start else { panic!() };
        let text = std::str::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("from_number").count(), 1);
        assert_eq!(json_of(&start)["start"]["customParameters"]["from_number"], "+15550001");
        assert_eq!(json_of(&start)["start"]["customParameters"]["x"], "new");
    }

    #[test]
    fn names_and_values_of_any_text_stay_one_json_string() {
        let evil = "\"},\u{0}\n\\\u{2028}é\u{1F600}";
        let mut scratch = BytesMut::new();
        let mut twilio = Twilio::new(IDS);
        let [_, start] = twilio.open(&opening(&[(evil, evil)]), &mut scratch);
        assert_eq!(json_of(&start)["start"]["customParameters"][evil], evil);
        assert_eq!(json_of(&twilio.mark(evil, &mut scratch))["mark"]["name"], evil);
        assert_eq!(json_of(&twilio.digit('"', &mut scratch))["dtmf"]["digit"], "\"");
    }

    #[test]
    fn sequence_numbers_count_messages_and_chunks_count_media() {
        let mut scratch = BytesMut::new();
        let mut twilio = Twilio::new(IDS);
        twilio.open(&opening(&[]), &mut scratch);
        let frame = Frame { samples: [0; FRAME_SAMPLES] };
        let media = json_of(&twilio.audio(&frame, 20, &mut scratch));
        let silence = BASE64.encode([0xFF; FRAME_SAMPLES]);
        assert_eq!(
            media,
            json!({
                "event": "media", "sequenceNumber": "2", "streamSid": STREAM_SID,
                "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": silence},
            })
        );
        let dtmf = json_of(&twilio.digit('5', &mut scratch));
        assert_eq!(
            dtmf,
            json!({
                "event": "dtmf", "sequenceNumber": "3", "streamSid": STREAM_SID,
                "dtmf": {"track": "inbound_track", "digit": "5"},
            })
        );
        let second = json_of(&twilio.audio(&frame, 60, &mut scratch));
        assert_eq!(second["media"]["chunk"], "2");
        assert_eq!(second["media"]["timestamp"], "60");
        assert_eq!(second["sequenceNumber"], "4");
        let stop = json_of(&twilio.stop(&mut scratch));
        assert_eq!(stop["sequenceNumber"], "5");
        assert_eq!(stop["stop"]["callSid"], format!("CA{}", "01".repeat(16)));
    }

    #[test]
    fn messages_are_written_over_the_same_memory() {
        let mut scratch = BytesMut::with_capacity(1024);
        let mut twilio = Twilio::new(IDS);
        let frame = Frame { samples: [1000; FRAME_SAMPLES] };
        let mut places = Vec::new();
        for at in 0..1000 {
            let Wire::Text(bytes) = twilio.audio(&frame, at * 20, &mut scratch) else { panic!() };
            places.push(bytes.as_ptr() as usize);
        }
        let spread = places.iter().max().unwrap() - places.iter().min().unwrap();
        assert!(spread < 1024, "messages lie {spread} octets apart");
    }

    #[test]
    fn audio_of_any_size_is_appended() {
        for length in [0, 1, 2, 159, 160, 161, 8000, 640_000] {
            let octets: Vec<u8> = (0..=255).cycle().take(length).collect();
            let payload = BASE64.encode(&octets);
            let text = format!(
                r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{"payload":"{payload}"}}}}"#
            );
            let (message, audio) = agent(&text);
            assert_eq!(message, Ok(AgentMessage::Audio));
            assert_eq!(audio, octets);
        }
    }

    #[test]
    fn base64_may_lack_its_padding_and_be_escaped() {
        for payload in ["//4=", "//4", r"\/\/4=", r"\u002f/4"] {
            let text = format!(
                r#"{{"media":{{"payload":"{payload}"}},"streamSid":"{STREAM_SID}","event":"media"}}"#
            );
            let (message, audio) = agent(&text);
            assert_eq!(message, Ok(AgentMessage::Audio), "{payload}");
            assert_eq!(audio, [0xFF, 0xFE]);
        }
    }

    #[test]
    fn members_nobody_asked_for_are_ignored() {
        let text = format!(
            r#"{{"event":"media","streamSid":"{STREAM_SID}","sequenceNumber":7,"x":[{{}}],
                "media":{{"payload":"/w==","track":"outbound","timestamp":12}}}}"#
        );
        assert_eq!(agent(&text), (Ok(AgentMessage::Audio), vec![0xFF]));
        let text = format!(r#"{{"event":"clear","streamSid":"{STREAM_SID}","why":null}}"#);
        assert_eq!(agent(&text).0, Ok(AgentMessage::Clear));
        let text = format!(
            r#"{{"event":"mark","streamSid":"{STREAM_SID}","mark":{{"name":"a\"b","n":1}}}}"#
        );
        assert_eq!(agent(&text).0, Ok(AgentMessage::Mark("a\"b".into())));
    }

    #[test]
    fn what_is_no_message_for_this_stream_is_unexpected() {
        let foreign = format!("MZ{}", "00".repeat(16));
        for text in [
            String::new(),
            "null".into(),
            "hello".into(),
            "[]".into(),
            "{".into(),
            r#"{"event":"clear"}"#.into(),
            r#"{"event":7,"streamSid":"x"}"#.into(),
            format!(r#"{{"streamSid":"{STREAM_SID}"}}"#),
            format!(r#"{{"event":"clear","streamSid":"{foreign}"}}"#),
            format!(r#"{{"event":"clear","streamSid":"{}"}}"#, STREAM_SID.to_uppercase()),
            format!(r#"{{"event":"dance","streamSid":"{STREAM_SID}"}}"#),
            format!(r#"{{"event":"start","streamSid":"{STREAM_SID}"}}"#),
            format!(r#"{{"event":"media","streamSid":"{STREAM_SID}"}}"#),
            format!(r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{}}}}"#),
            format!(r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{"payload":1}}}}"#),
            format!(r#"{{"event":"mark","streamSid":"{STREAM_SID}","mark":"x"}}"#),
            format!(r#"{{"event":"clear","streamSid":"{STREAM_SID}"}} {{}}"#),
            "[".repeat(100_000),
        ] {
            assert_eq!(agent(&text), (Err(Warning::Unexpected), vec![]), "{text:.80}");
        }
    }

    #[test]
    fn what_is_no_audio_is_undecodable_and_appends_nothing() {
        for payload in ["*", "AAAA=AAA", "AAAA\\nAAAA", "A", "é"] {
            let text = format!(
                r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{"payload":"{payload}"}}}}"#
            );
            assert_eq!(agent(&text), (Err(Warning::Undecodable), vec![]), "{payload}");
        }
        let mut audio = vec![7];
        let binary = Twilio::new(IDS).decode(Incoming::Binary(&[1, 2, 3]), &mut audio);
        assert_eq!(binary, Err(Warning::Undecodable));
        assert_eq!(audio, [7]);
    }

    #[test]
    fn no_damaged_message_panics_or_leaves_audio_behind_an_error() {
        let twilio = Twilio::new(IDS);
        let whole = format!(
            r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{"payload":"AAAA/w=="}}}}"#
        );
        let mut random = 0x5EED_u64;
        let mut below = |bound: usize| {
            // Knuth's MMIX generator: the same damage in every run.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).unwrap() % bound
        };
        let mut understood = 0;
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                match below(3) {
                    0 => bytes.truncate(at + 1),
                    1 => bytes[at] = b"\"\\{}[]:,=A\xC3\x00"[below(12)],
                    _ => bytes.insert(at, whole.as_bytes()[below(whole.len())]),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let mut audio = vec![9];
            match twilio.decode(Incoming::Text(&text), &mut audio) {
                Ok(_) => understood += 1,
                Err(_) => assert_eq!(audio, [9], "{text}"),
            }
        }
        assert!((10..10_000).contains(&understood), "{understood} of 20000");
    }
}
