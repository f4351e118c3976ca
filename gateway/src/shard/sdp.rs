//! What SIP says when media cannot be agreed on.

use media::sdp::Incompatible;

/// Warning header of RFC 3261 §20.43: code, who warns, and why in words.
pub(super) fn warning(agent: &str, why: Incompatible) -> String {
    let agent = if agent.is_empty() { "trunkline" } else { agent };
    format!("{} {agent} \"{}\"", why.warning_code(), why.text())
}
