//! Agents, callers and programs that fail in the middle of a call.

use support::bot::Bot;
use support::gateway::{from_here, websocket};
use support::sipp::Sipp;
use support::{Gateway, peer};

#[test]
fn an_agent_that_cannot_be_reached_is_480_to_the_caller() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = gateway.line("+15550100100", from_here(), websocket(&format!("ws://{free}/")));
    Sipp::new(&gateway, "refused_while_ringing", &line.number).set("status", 480).passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "failed");
    assert_eq!(record["end_reason"]["code"], "agent_refused");
    assert_eq!(record["end_reason"]["party"], "agent");
    gateway.finish();
}

#[test]
fn an_agent_that_never_accepts_is_480_once_its_time_is_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("calls.agent_connect_timeout_ms", "700")]);
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", mute.local_addr().unwrap());
    let line = gateway.line("+15550100100", from_here(), websocket(&url));
    Sipp::new(&gateway, "refused_while_ringing", &line.number).set("status", 480).passes();
    assert_eq!(gateway.ended_conversation()["end_reason"]["code"], "agent_timed_out");
    gateway.finish();
}

#[test]
fn a_caller_whose_agent_dies_is_hung_up_with_a_reason() {
    let Some(python) = peer::python_with_pipecat().filter(|_| peer::have(&["sipp"])) else {
        return;
    };
    let gateway = Gateway::start();
    let mut bot = Bot::start(&python, &[600], 300);
    let line = gateway.line("+15550100100", from_here(), websocket(&bot.url()));
    let call = Sipp::new(&gateway, "hung_up_by_the_gateway", &line.number).start();
    call.wait_for_message("ACK sip:");
    bot.tells("started");
    drop(bot);
    call.passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["end_reason"]["party"], "agent", "{record:#}");
    assert_eq!(record["end_reason"]["code"], "agent_lost", "{record:#}");
    gateway.finish();
}

#[test]
fn a_caller_who_sends_no_media_is_hung_up_when_the_time_is_over() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("media.timeout_seconds", "2")]);
    let line = gateway.echo_line();
    Sipp::new(&gateway, "hung_up_by_the_gateway", &line.number).passes();
    assert_eq!(gateway.ended_conversation()["end_reason"]["code"], "media_timed_out");
    gateway.finish();
}

#[test]
fn after_a_crash_the_next_start_closes_the_records_and_takes_calls() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let call = Sipp::new(&gateway, "call", &line.number).set("talk_ms", 30_000).start();
    call.wait_for_message("ACK sip:");
    support::wait::until("the record of the call", std::time::Duration::from_secs(5), || {
        (gateway.conversations().first()?["status"] == "in_progress").then_some(())
    });
    let gateway = gateway.crash_and_restart();
    drop(call);
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "failed");
    assert_eq!(record["end_reason"]["code"], "gateway_crash");
    Sipp::new(&gateway, "call", &line.number).passes();
    assert_eq!(gateway.ended_conversations(2).len(), 2);
    gateway.finish();
}
