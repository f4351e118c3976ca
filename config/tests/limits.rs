//! Holds the table of limits equal to the constants of the crates that enforce them.

use std::path::Path;

use config::limits::{self, Limit};

/// Where each limit that another crate or module keeps is written down.
const PLACES: &[(Limit, &str, &str)] = &[
    (limits::SIP_MESSAGE_BYTES, "gateway/sip/src/message.rs", "MAX_MESSAGE_BYTES"),
    (limits::SIP_HEADER_LINES, "gateway/sip/src/message.rs", "MAX_HEADER_LINES"),
    (limits::SIP_HEADER_BYTES, "gateway/sip/src/message.rs", "MAX_HEADER_BYTES"),
    (limits::SIP_VIAS, "gateway/sip/src/message.rs", "MAX_VIAS"),
    (limits::SDP_BYTES, "media/src/sdp/parse.rs", "BYTES_MAX"),
    (limits::SDP_LINES, "media/src/sdp/parse.rs", "LINES_MAX"),
    (limits::SDP_MEDIA_LINES, "media/src/sdp/parse.rs", "MEDIA_MAX"),
    (limits::SDP_FORMATS, "media/src/sdp/parse.rs", "FORMATS_MAX"),
    (limits::SRTP_STREAMS, "media/src/srtp/context.rs", "MAX_STREAMS"),
    (limits::AGENT_MESSAGE_BYTES, "gateway/src/agent/link.rs", "MAX_MESSAGE_OCTETS"),
    (limits::AGENT_MARKS, "gateway/src/agent/playout.rs", "MAX_MARKS"),
    (limits::RUNTIME_URL_CHARACTERS, "gateway/src/agent/link.rs", "MAX_URL_OCTETS"),
];

#[test]
fn the_table_says_what_the_crates_enforce() -> Result<(), Box<dyn std::error::Error>> {
    for (limit, file, constant) in PLACES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = std::fs::read_to_string(&path)?;
        let declared = text.split_once(&format!("const {constant}: usize = "));
        let value = declared.and_then(|(_, rest)| rest.split_once(';')).map(|(value, _)| value);
        let value = value.ok_or_else(|| format!("{file} has no {constant}"))?;
        let factors = value.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>());
        let product = factors.product::<Result<u64, _>>()?;
        assert_eq!(product, limit.value, "{} is {constant} of {file}", limit.name);
    }
    Ok(())
}

#[test]
fn the_pages_of_the_table_are_those_of_the_store() {
    assert_eq!(limits::API_PAGE.value_u32(), config::model::Page::MAX);
    assert_eq!(limits::API_PAGE_DEFAULT.value_u32(), config::model::Page::DEFAULT);
}
