//! Calls as SIPp makes them.

use std::net::Ipv6Addr;

use serde_json::json;
use support::gateway::{echo, from_here, websocket};
use support::sipp::Sipp;
use support::{Gateway, peer};

/// A TCP port that takes connections and never says a word.
fn mute_agent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/agent", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn a_call_over_udp_is_answered_and_recorded() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    Sipp::new(&gateway, "call", &line.number).passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "completed");
    assert_eq!(record["direction"], "inbound");
    assert_eq!(record["agent_number"], line.number);
    assert_eq!(record["agent_id"], line.agent);
    assert_eq!(record["trunk_id"], line.trunk);
    assert_eq!(record["end_reason"]["code"], "caller_hung_up");
    assert_eq!(record["end_reason"]["party"], "caller");
    gateway.finish();
}

#[test]
fn a_call_over_tcp_is_answered_and_recorded() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    Sipp::new(&gateway, "call", &line.number).over_tcp(&gateway).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn a_call_over_tls_is_answered_and_recorded() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    Sipp::new(&gateway, "call", &line.number).over_tls(&gateway).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    assert!(gateway.metric("gateway_sip_messages_total", "transport=\"tls\"") > 0.0);
    gateway.finish();
}

#[test]
fn a_call_without_an_offer_gets_one_and_its_answer_is_taken_from_the_ack() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    Sipp::new(&gateway, "late_offer", &line.number).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn an_agent_is_called_by_its_id_once_it_is_deployed() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let path = format!("/core/agents/{}/deploy-as-sip", line.agent);
    let deployed = gateway.rest().post(&path, &json!({}));
    assert_eq!(deployed["deployed"], true);
    Sipp::new(&gateway, "call", &line.agent).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn an_invite_that_is_sent_again_is_no_second_call() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let (_agent, url) = mute_agent();
    let line = gateway.line("+15550100100", from_here(), websocket(&url));
    Sipp::new(&gateway, "retransmitted", &line.number).passes();
    assert_eq!(gateway.ended_conversation()["end_reason"]["code"], "caller_cancelled");
    gateway.finish();
}

#[test]
fn a_200_comes_again_until_its_ack_arrives() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let called = Sipp::new(&gateway, "late_ack", &line.number).passes();
    // The first, those after 0.5 and 1.5 s (RFC 3261 section 13.3.1.4), and that of the BYE.
    assert_eq!(called.received("SIP/2.0 200"), 4, "{}", called.messages);
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn a_caller_who_gives_up_while_it_rings_gets_200_and_487() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let (_agent, url) = mute_agent();
    let line = gateway.line("+15550100100", from_here(), websocket(&url));
    Sipp::new(&gateway, "cancelled", &line.number).passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "cancelled");
    assert_eq!(record["end_reason"]["code"], "caller_cancelled");
    gateway.finish();
}

#[test]
fn hold_and_resume_get_the_directions_of_rfc_3264() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    Sipp::new(&gateway, "hold_and_resume", &line.number).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn thirty_calls_at_once_are_all_answered() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let caller = Sipp::new(&gateway, "call", &line.number).calls(30).set("talk_ms", 2_000);
    caller.passes();
    let records = gateway.ended_conversations(30);
    assert!(records.iter().all(|record| record["status"] == "completed"), "{records:#?}");
    gateway.finish();
}

#[test]
fn a_call_over_ipv6_is_answered_and_recorded() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let here = "[\"[::1]:0\"]";
    let gateway = Gateway::with(&[("sip.udp", here), ("media.bind", "[\"::1\"]")]);
    let inbound = json!({ "allowed_addresses": ["::1"] });
    let line = gateway.line("+15550100100", inbound, echo());
    Sipp::new(&gateway, "call", &line.number).from(Ipv6Addr::LOCALHOST.into()).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}
