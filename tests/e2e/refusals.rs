//! Calls that are refused: what the caller sees, and what the customer can read about it.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use support::gateway::{echo, from_here};
use support::sipp::{PLAIN, SAVP_ONLY, Sipp};
use support::{Gateway, peer};

#[test]
fn a_number_that_nobody_has_is_404_to_a_listed_source() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    gateway.echo_line();
    Sipp::new(&gateway, "refused", "+15550100999").set("status", 404).passes();
    let decision = gateway.decision("+15550100999");
    assert_eq!(decision["rule"], "number_not_found");
    assert_eq!(decision["sip_status"], 404);
    assert_eq!(decision["source_ip"], "127.0.0.1");
    gateway.finish();
}

#[test]
fn a_source_that_no_trunk_lists_hears_nothing_and_the_customer_reads_why() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
    let caller = Sipp::new(&gateway, "silence", &line.number).from(stranger);
    let called = caller.set("silent_ms", 1_500).passes();
    assert_eq!(called.received("SIP/2.0"), 0, "{}", called.messages);
    let decision = gateway.decision(&line.number);
    assert_eq!(decision["rule"], "source_not_allowed");
    assert_eq!(decision["source_ip"], "127.0.0.66");
    assert!(decision["sip_status"].is_null(), "{decision}");
    assert!(!decision["explanation"].as_str().unwrap_or_default().is_empty(), "{decision}");
    assert!(gateway.conversations().is_empty());
    gateway.finish();
}

#[test]
fn a_number_without_an_agent_is_480() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let trunk = gateway.trunk("empty", from_here());
    gateway.number("+15550100200", &trunk);
    Sipp::new(&gateway, "refused", "+15550100200").set("status", 480).passes();
    assert_eq!(gateway.decision("+15550100200")["rule"], "inbound_slot_empty");
    gateway.finish();
}

#[test]
fn a_plain_offer_is_488_where_encryption_is_required() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let inbound = json!({
        "allowed_addresses": ["127.0.0.1"],
        "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE",
    });
    let line = gateway.line("+15550100300", inbound, echo());
    let caller = Sipp::new(&gateway, "refused", &line.number).set("sdp", PLAIN);
    let called = caller.set("status", 488).passes();
    assert!(called.messages.contains("Warning: "), "{}", called.messages);
    assert_eq!(gateway.decision(&line.number)["rule"], "media_incompatible");
    gateway.finish();
}

#[test]
fn an_offer_of_srtp_alone_is_488_where_encryption_is_disabled() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let caller = Sipp::new(&gateway, "refused", &line.number).set("sdp", SAVP_ONLY);
    caller.set("status", 488).passes();
    assert_eq!(gateway.decision(&line.number)["rule"], "media_incompatible");
    gateway.finish();
}

#[test]
fn one_call_more_than_the_trunk_may_have_is_503_with_retry_after() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let inbound = json!({ "allowed_addresses": ["127.0.0.1"], "max_concurrent_calls": 1 });
    let line = gateway.line("+15550100400", inbound, echo());
    let first = Sipp::new(&gateway, "call", &line.number).set("talk_ms", 3_000).start();
    first.wait_for_message("SIP/2.0 200");
    let second = Sipp::new(&gateway, "refused_with_retry_after", &line.number);
    second.set("status", 503).passes();
    first.passes();
    assert_eq!(gateway.decision(&line.number)["rule"], "trunk_full");
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn a_source_that_no_trunk_lists_is_403_where_the_settings_say_so() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("sip.strangers", "\"refuse\"")]);
    let line = gateway.echo_line();
    let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
    let caller = Sipp::new(&gateway, "refused", &line.number).from(stranger);
    caller.set("status", 403).passes();
    assert_eq!(gateway.decision(&line.number)["sip_status"], 403);
    gateway.finish();
}
