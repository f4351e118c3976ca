//! What a negotiation decides: the [`Plan`] the media worker runs, or why there is none.

use std::fmt;
use std::net::SocketAddr;

use crate::codec::Codec;
use crate::srtp::{MasterKey, Suite};

/// The outcome of one offer/answer exchange for one leg.
///
/// Directions are ours: [`Plan::send`] means that we may send to the peer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The one audio codec both sides use.
    pub codec: Codec,
    /// RTP payload type of audio, both ways.
    pub payload_type: u8,
    /// Payload type we put on telephone events we send (RFC 4733); `None`: the peer has none.
    pub dtmf_payload: Option<u8>,
    /// Payload type telephone events arrive with. Differs from [`Plan::dtmf_payload`] only when
    /// the peer answered our offer with a number of its own (RFC 3264 §6.1).
    pub dtmf_receive_payload: Option<u8>,
    /// Audio per packet we send, in milliseconds: what the peer asked for, 10 to 60.
    pub ptime_ms: u8,
    /// We may send: the peer listens and we do not hold it.
    pub send: bool,
    /// The peer may send: we listen and it does not hold us.
    pub receive: bool,
    /// Where the peer says it receives RTP. An unspecified address means that the description
    /// does not tell (hold by `c=0.0.0.0`, or a host name): the latch has to learn it.
    pub remote: SocketAddr,
    /// Where the peer receives RTCP (RFC 3605 or RTP port + 1); [`Plan::remote`] when muxed.
    pub remote_rtcp: SocketAddr,
    /// RTP and RTCP share one port (RFC 5761).
    pub rtcp_mux: bool,
    /// The keys when media is encrypted; `None` means plain RTP.
    pub srtp: Option<SrtpKeys>,
}

/// The SDES result of one leg (RFC 4568 §5.1). Its `Debug` leaves the keys out.
#[derive(Clone)]
pub struct SrtpKeys {
    /// The crypto suite, the same in both directions.
    pub suite: Suite,
    /// What we protect with.
    pub local: MasterKey,
    /// What the peer protects with.
    pub remote: MasterKey,
    /// Grows by one whenever [`SrtpKeys::local`] is another key than in the plan before; equal
    /// numbers mean: keep the context, its rollover counter and its replay window.
    pub local_epoch: u32,
    /// The same for [`SrtpKeys::remote`].
    pub remote_epoch: u32,
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKeys")
            .field("suite", &self.suite)
            .field("local_epoch", &self.local_epoch)
            .field("remote_epoch", &self.remote_epoch)
            .finish_non_exhaustive()
    }
}

/// Why an offer or an answer cannot be used; becomes 488 with a Warning (RFC 3261 §20.43).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Incompatible {
    /// No audio line, or every audio line has port 0.
    NoAudio,
    /// Audio, but no codec that we have.
    NoCodec,
    /// A transport we do not speak, such as DTLS-SRTP.
    Transport,
    /// We require SRTP and the peer has none that we could use.
    EncryptionRequired,
    /// The peer insists on SRTP and this leg is configured without.
    EncryptionRefused,
    /// SRTP is asked for, but no crypto line is usable: unknown suite, wrong key length, MKI,
    /// `UNENCRYPTED_*` or `UNAUTHENTICATED_*` session parameters.
    NoUsableCrypto,
    /// The media address is not one we ever send to (broadcast, loopback, our own port, …).
    BadAddress,
    /// The media address is a multicast group.
    Multicast,
    /// The peer is on another IP version than our media address.
    AddressFamily,
    /// Not a session description.
    Malformed,
    /// More than 64 KiB, 1024 lines or 8 media lines.
    TooLarge,
    /// An answer without an offer, or an offer while ours is open (RFC 3264 §4).
    OutOfTurn,
}

impl Incompatible {
    /// All of them, for tables and tests.
    pub const ALL: [Incompatible; 12] = [
        Incompatible::NoAudio,
        Incompatible::NoCodec,
        Incompatible::Transport,
        Incompatible::EncryptionRequired,
        Incompatible::EncryptionRefused,
        Incompatible::NoUsableCrypto,
        Incompatible::BadAddress,
        Incompatible::Multicast,
        Incompatible::AddressFamily,
        Incompatible::Malformed,
        Incompatible::TooLarge,
        Incompatible::OutOfTurn,
    ];

    /// The warn-code of RFC 3261 §20.43.
    #[must_use]
    pub const fn warning_code(self) -> u16 {
        match self {
            Self::NoAudio => 304,
            Self::NoCodec => 305,
            Self::Transport | Self::EncryptionRequired | Self::EncryptionRefused => 302,
            Self::NoUsableCrypto => 307,
            Self::BadAddress | Self::AddressFamily => 301,
            Self::Multicast => 330,
            Self::Malformed | Self::TooLarge | Self::OutOfTurn => 399,
        }
    }

    /// The warn-text, without quotes; also what people read in a trace.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoAudio => "No usable audio stream",
            Self::NoCodec => "No common audio codec, PCMU or PCMA is needed",
            Self::Transport => "Media transport not supported",
            Self::EncryptionRequired => "Encrypted media is required, offer RTP/SAVP with SDES",
            Self::EncryptionRefused => "Encrypted media is disabled, offer RTP/AVP",
            Self::NoUsableCrypto => "No usable crypto line, AES_CM_128_HMAC_SHA1_80 is needed",
            Self::BadAddress => "Media address not acceptable",
            Self::Multicast => "Multicast not available",
            Self::AddressFamily => "Media address of another IP version",
            Self::Malformed => "Session description not understood",
            Self::TooLarge => "Session description too large",
            Self::OutOfTurn => "Offer and answer out of turn",
        }
    }

    /// A stable word for metrics, records and the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoAudio => "no_audio",
            Self::NoCodec => "no_codec",
            Self::Transport => "media_transport",
            Self::EncryptionRequired => "encryption_required",
            Self::EncryptionRefused => "encryption_refused",
            Self::NoUsableCrypto => "no_usable_crypto",
            Self::BadAddress => "bad_media_address",
            Self::Multicast => "multicast",
            Self::AddressFamily => "address_family",
            Self::Malformed => "malformed_sdp",
            Self::TooLarge => "sdp_too_large",
            Self::OutOfTurn => "offer_out_of_turn",
        }
    }
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Incompatible {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_registered_warning_and_a_printable_text() {
        for why in Incompatible::ALL {
            assert!(matches!(why.warning_code(), 300..=307 | 330 | 331 | 370 | 399), "{why:?}");
            assert!(!why.text().contains(['"', '\\', '\r', '\n']), "{why:?}");
            assert!(why.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn a_plan_can_be_shown_without_its_keys() {
        let key = |byte| MasterKey::new([byte; crate::srtp::MASTER_BYTES]);
        let suite = Suite::AesCm128HmacSha1_80;
        let keys =
            SrtpKeys { suite, local: key(201), remote: key(202), local_epoch: 3, remote_epoch: 4 };
        let text = format!("{keys:?}");
        assert!(text.contains("local_epoch: 3") && !text.contains("20"), "{text}");
    }

    #[test]
    fn words_are_unique() {
        let mut words = Incompatible::ALL.map(Incompatible::word);
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
