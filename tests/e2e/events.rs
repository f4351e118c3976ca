//! What customers' programs hear of calls: over webhooks and over the stream, with real calls.

use serde_json::{Value, json};
use support::gateway::{echo, from_here};
use support::receiver::{Listener, Receiver};
use support::sipp::Sipp;
use support::{Gateway, peer};

/// What lets the tests' receivers be reached.
const RECEIVERS_HERE: &[(&str, &str)] = &[
    ("fetch.allow_private_addresses", "true"),
    ("fetch.allow_plain_http", "true"),
    ("fetch.allow_any_port", "true"),
    ("webhooks.retry_first_seconds", "1"),
];

fn types(deliveries: &[Value]) -> Vec<&str> {
    deliveries.iter().filter_map(|told| told["event"]["type"].as_str()).collect()
}

#[test]
fn a_call_is_told_in_order_to_webhook_and_stream() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let mut gateway = Gateway::with(RECEIVERS_HERE);
    let line = gateway.echo_line();
    let receiver = Receiver::start(&[]);
    let hook = receiver.hook(&gateway, json!({}));
    let listener = Listener::open(&gateway, None);
    Sipp::new(&gateway, "call", &line.number).passes();

    let posted = receiver.awaits(3);
    assert_eq!(types(&posted), ["call.ringing", "call.answered", "call.ended"]);
    assert!(posted.iter().all(|told| told["genuine"] == true), "{posted:#?}");
    let record = gateway.ended_conversation();
    for (told, sequence) in posted.iter().zip(1..) {
        let event = &told["event"];
        assert_eq!(event["sequence"], sequence);
        assert_eq!(event["schema_version"], 1);
        assert_eq!(told["event_id"], event["id"]);
        for field in ["agent_id", "trunk_id", "direction", "user_id", "trunk_call_id"] {
            assert_eq!(event[field], record[field], "{field}");
        }
        assert_eq!(event["conversation_id"], record["id"]);
        assert_eq!(event["agent_number"], line.number);
    }
    let last = &posted[2]["event"];
    assert_eq!((&last["status"], &last["duration"]), (&json!("completed"), &record["duration"]));
    assert_eq!(last["end_reason"]["code"], "caller_hung_up");

    let streamed = listener.awaits("call.ended");
    let names: Vec<_> = streamed.iter().filter_map(|told| told["event"].as_str()).collect();
    assert_eq!(names, ["stream.opened", "call.ringing", "call.answered", "call.ended"]);
    assert_eq!(streamed[3]["data"], *last, "the same event on both ways");
    let again = Listener::open(&gateway, streamed[2]["id"].as_str());
    assert_eq!(again.awaits("call.ended")[1]["data"], *last);

    let path = format!("/core/webhooks/{hook}/deliveries?state=delivered");
    assert_eq!(gateway.rest().get(&path).as_array().map(Vec::len), Some(3));
    gateway.wait_until_quiet();
    gateway.signal(libc::SIGTERM);
    let told = listener.awaits("end");
    assert_eq!(told[4]["event"], "stream.ended");
    assert_eq!(told[4]["data"]["reason"], "draining");
    assert!(gateway.wait_for_exit(std::time::Duration::from_secs(15)).success());
}

#[test]
fn a_refused_call_is_told_with_the_words_of_its_record() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::with(RECEIVERS_HERE);
    let trunk = gateway.trunk("empty", from_here());
    gateway.number("+15550100200", &trunk);
    let receiver = Receiver::start(&[]);
    let _hook = receiver.hook(&gateway, json!({ "events": ["call.refused"] }));
    Sipp::new(&gateway, "refused", "+15550100200").set("status", 480).passes();
    let posted = receiver.awaits(1);
    let (event, decision) = (&posted[0]["event"], gateway.decision("+15550100200"));
    assert_eq!((&posted[0]["genuine"], &event["type"]), (&json!(true), &json!("call.refused")));
    assert_eq!(event["decision_id"], decision["id"]);
    assert_eq!(event["conversation_id"], Value::Null);
    assert_eq!(
        (&event["agent_number"], &event["trunk_id"]),
        (&json!("+15550100200"), &json!(trunk))
    );
    let why = &event["end_reason"];
    assert_eq!((&why["code"], &why["sip_code"]), (&json!("inbound_slot_empty"), &json!(480)));
    assert_eq!(why["text"], decision["explanation"]);
    gateway.finish();
}

#[test]
fn what_a_receiver_missed_arrives_after_a_crash_of_the_gateway() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::with(RECEIVERS_HERE);
    let line = gateway.line("+15550100100", from_here(), echo());
    let receiver = Receiver::start(&[500, 503]);
    let _hook = receiver.hook(&gateway, json!({}));
    Sipp::new(&gateway, "call", &line.number).passes();
    let _failed = receiver.awaits(1);
    let gateway = gateway.crash_and_restart();
    let posted = receiver.awaits(5);
    let taken: Vec<_> = posted.iter().filter(|told| told["status"] == 204).cloned().collect();
    assert_eq!(types(&taken), ["call.ringing", "call.answered", "call.ended"]);
    assert_eq!(taken[0]["event_id"], posted[0]["event_id"], "the same event again");
    gateway.finish();
}

#[test]
fn a_secret_is_changed_without_a_delivery_that_cannot_be_checked() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::with(RECEIVERS_HERE);
    let receiver = Receiver::start(&[]);
    let hook = receiver.hook(&gateway, json!({}));
    let ask =
        |what: &str| gateway.rest().post(&format!("/core/webhooks/{hook}/{what}"), &json!({}));
    let test = |count: usize| {
        let _ = gateway.rest().send("POST", &format!("/core/webhooks/{hook}/test"), None).ok();
        receiver.awaits(count).pop().unwrap_or_default()
    };
    assert_eq!(test(1)["signatures"], 1);
    let rotated = ask("rotate-secret");
    let told = test(2);
    assert_eq!(
        (&told["genuine"], &told["signatures"]),
        (&json!(true), &json!(2)),
        "by the old one"
    );
    receiver.learn(&rotated);
    let told = test(3);
    assert_eq!((&told["genuine"], &told["event"]["type"]), (&json!(true), &json!("webhook.test")));
    gateway.finish();
}
