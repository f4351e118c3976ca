//! The known races of RFC 3261 and RFC 5407: two messages that cross. Whoever wins, a call has one
//! ending and one record, both legs are closed, and nobody is left waiting.
//!
//! Every race is run in both orders and several times over: what crosses, crosses in a few
//! microseconds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::callee::{Callee, OWN, QUIET, Ringing, SDP, THEIRS, assert_ended, kind};
use crate::common::{Call, Gateway, PATIENCE, PEER, Phone, eventually, header, now, offer, status};

/// How often each order of a race is run.
const ROUNDS: usize = 4;

/// The number of the SIP agent.
const DESK: &str = "+15550100901";

/// A caller, the gateway, and a SIP agent.
struct Bridge {
    gateway: Gateway,
    phone: Phone,
    desk: Callee,
}

impl Bridge {
    fn new(settings: &[(&str, &str)]) -> Bridge {
        let gateway = Gateway::empty(settings);
        let desk = Callee::new(PEER, gateway.udp);
        gateway.desk(DESK, &desk.address(), &json!({}));
        let phone = Phone::new(PEER, gateway.udp);
        Bridge { gateway, phone, desk }
    }

    /// A call that both sides have taken.
    fn call(&self) -> (Call<'_>, Call<'_>) {
        let mut ringing = Ringing::begin(&self.phone, DESK, "");
        let invite = self.desk.expect("INVITE");
        self.desk.accept(&invite);
        self.desk.expect("ACK");
        let answer = ringing.response(200);
        (ringing.answered(&answer, true), self.desk.call(&invite, "callee"))
    }

    /// The newest record, which is over; nothing more comes to the agent, and its BYE is answered.
    #[track_caller]
    fn assert_one_ending(&self, calls: usize, codes: &[&str]) {
        let record = self.gateway.ended_conversations(calls).remove(0);
        let code = record["end_reason"]["code"].as_str().unwrap_or_default();
        assert!(codes.contains(&code), "{code}: {record:#}");
        println!("{code}");
    }

    fn finish(self) {
        let Bridge { mut gateway, .. } = self;
        gateway.assert_quiet();
    }
}

/// Sends both, in this order or the other.
fn cross(swapped: bool, one: impl FnOnce(), other: impl FnOnce()) {
    if swapped {
        other();
        one();
    } else {
        one();
        other();
    }
}

/// Both orders, several times; with the number of the round from 1.
fn rounds() -> impl Iterator<Item = (usize, bool)> {
    (0..ROUNDS * 2).map(|round| (round + 1, round % 2 == 1))
}

/// A request in a dialog that is sent and not waited for.
fn send(call: &mut Call<'_>, method: &str, sdp: &str) -> String {
    call.dialog.cseq += 1;
    let headers = if sdp.is_empty() { "" } else { SDP };
    let request = call.dialog.request(call.phone, method, headers, sdp);
    call.phone.send(request.as_bytes());
    request
}

/// The final response to a request, among whatever else comes.
#[track_caller]
fn final_response(phone: &Phone, request: &str) -> String {
    let branch = crate::common::parameter(request, "branch=");
    let until = now() + PATIENCE;
    while now() < until {
        let Some(text) = phone.receive(QUIET) else { continue };
        if text.contains(branch) && status(&text) >= 200 {
            return text;
        }
    }
    panic!("no answer to {request}");
}

#[test]
fn cancel_crosses_the_agents_200() {
    let bridge = Bridge::new(&[]);
    for (round, swapped) in rounds() {
        let ringing = Ringing::begin(&bridge.phone, DESK, "");
        let invite = bridge.desk.expect("INVITE");
        cross(swapped, || ringing.cancel(), || bridge.desk.accept(&invite));
        // Whoever wins: the agent's answer is acknowledged, and ended.
        bridge.desk.expect("ACK");
        let (mut cancelled, mut answered) = (None, None);
        eventually("CANCEL and INVITE are answered", PATIENCE, || {
            if let Some(text) = bridge.phone.receive(QUIET) {
                match (&*kind(&text), status(&text)) {
                    ("200 CANCEL" | "481 CANCEL", code) => cancelled = Some(code),
                    ("200 INVITE" | "487 INVITE", _) => answered = Some(text),
                    _ => {}
                }
            }
            cancelled.is_some() && answered.is_some()
        });
        let answer = answered.unwrap();
        if status(&answer) == 487 {
            ringing.acknowledge_refusal();
        } else {
            let mut call = ringing.answered(&answer, true);
            header(&answer, "To").clone_into(&mut call.dialog.to);
            call.hang_up();
        }
        bridge.desk.take_bye();
        bridge.assert_one_ending(round, &["caller_cancelled", "caller_hung_up"]);
    }
    bridge.finish();
}

#[test]
fn bye_crosses_bye() {
    let bridge = Bridge::new(&[]);
    for (round, swapped) in rounds() {
        let (mut caller, mut agent) = bridge.call();
        let (mut one, mut other) = (String::new(), String::new());
        cross(
            swapped,
            || one = send(&mut caller, "BYE", ""),
            || other = send(&mut agent, "BYE", ""),
        );
        // Each may also get one of ours; both of theirs are answered 200 all the same.
        for (phone, request) in [(&bridge.phone, &one), (&bridge.desk.phone, &other)] {
            let answer = final_response(phone, request);
            assert_eq!(status(&answer), 200, "{answer}");
        }
        bridge.assert_one_ending(round, &["caller_hung_up", "agent_hung_up"]);
    }
    // A BYE of ours that crosses theirs is not answered by peers who are gone: it times out.
    bridge.gateway.wait_until_quiet();
}

#[test]
fn a_hang_up_of_ours_crosses_the_callees_bye() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({}));
    for (_, swapped) in rounds() {
        let id = gateway.place(OWN, &agent);
        let mut call = callee.take();
        let mut bye = String::new();
        let hang_up = || {
            // 409 when the callee was quicker.
            let status = gateway.try_hang_up(&id);
            assert!([200, 202, 409].contains(&status), "{status}");
        };
        cross(swapped, || bye = send(&mut call, "BYE", ""), hang_up);
        let mut theirs = false;
        eventually("the callee's BYE is answered", PATIENCE, || {
            if let Some(text) = callee.next(QUIET) {
                if kind(&text) == "BYE" {
                    callee.answer(&text, "200 OK", "", "");
                }
                theirs |= kind(&text) == "200 BYE";
            }
            theirs
        });
        let record = gateway.ended(&id);
        let code = record["end_reason"]["code"].as_str().unwrap().to_owned();
        assert!(["callee_hung_up", "operator_hung_up"].contains(&&*code), "{record:#}");
        for text in callee.rest() {
            assert_eq!(kind(&text), "BYE");
            callee.answer(&text, "200 OK", "", "");
        }
    }
    finish(gateway);
}

fn finish(mut gateway: Gateway) {
    gateway.assert_quiet();
}

#[test]
fn reinvites_that_cross_are_refused_with_491() {
    let bridge = Bridge::new(&[]);
    let (mut caller, mut agent) = bridge.call();
    let held = offer(PEER, 9, "RTP/AVP 0", "a=sendonly\r\n");
    let answer = caller.reinvite(&held);
    assert_eq!(status(&answer), 200, "{answer}");
    // The hold is carried across; the agent's own offer was on its way.
    let carried = bridge.desk.expect("INVITE");
    let theirs = send(&mut agent, "INVITE", &bridge.desk.sdp());
    let refused = final_response(&bridge.desk.phone, &theirs);
    assert_eq!(status(&refused), 491, "{refused}");
    acknowledge(&agent, &theirs, &refused);
    // The agent refuses ours for the same reason: the session stays as it was, and goes on.
    bridge.desk.answer(&carried, "491 Request Pending", "", "");
    bridge.desk.expect("ACK");
    let again = agent.reinvite(&bridge.desk.sdp());
    assert_eq!(status(&again), 200, "{again}");
    assert!(caller.is_up() && agent.is_up());
    caller.hang_up();
    bridge.desk.take_bye();
    bridge.assert_one_ending(1, &["caller_hung_up"]);
    bridge.finish();
}

/// The ACK of a refusal: within the transaction.
fn acknowledge(call: &Call<'_>, request: &str, answer: &str) {
    let branch = crate::common::parameter(request, "branch=");
    let mut dialog = call.dialog.clone();
    header(answer, "To").clone_into(&mut dialog.to);
    call.phone.send(dialog.request_with(call.phone, "ACK", ("", ""), branch).as_bytes());
}

#[test]
fn a_200_after_our_cancel_is_acknowledged_and_hung_up() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({}));
    for (_, swapped) in rounds() {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        callee.answer(&invite, "180 Ringing", "", "");
        gateway.await_status(&id, "ringing");
        cross(swapped, || gateway.hang_up(&id), || callee.accept(&invite));
        callee.expect("ACK");
        // When the 200 came first this is a call that was hung up, else one that was cancelled.
        let record = gateway.ended(&id);
        let code = record["end_reason"]["code"].as_str().unwrap().to_owned();
        assert!(["call_cancelled", "operator_hung_up"].contains(&&*code), "{record:#}");
        let mut byes = 0;
        for text in callee.rest() {
            byes += u32::from(kind(&text) == "BYE");
            if kind(&text) != "ACK" {
                callee.answer(&text, "200 OK", "", "");
            }
        }
        assert_eq!(byes, 1, "{record:#}");
    }
    finish(gateway);
}

#[test]
fn an_update_meets_an_open_reinvite() {
    let bridge = Bridge::new(&[]);
    let (mut caller, _agent) = bridge.call();
    // Without an offer of theirs ours is in the 200, and open until the ACK.
    let invite = send(&mut caller, "INVITE", "");
    let answer = final_response(&bridge.phone, &invite);
    assert_eq!(status(&answer), 200, "{answer}");
    let number = caller.dialog.cseq;
    let sdp = offer(PEER, 11, "RTP/AVP 0", "");
    let update = send(&mut caller, "UPDATE", &sdp);
    let refused = final_response(&bridge.phone, &update);
    assert!([491, 500].contains(&status(&refused)), "{refused}");
    let mut ack = caller.dialog.clone();
    ack.cseq = number;
    bridge.phone.send(ack.request(&bridge.phone, "ACK", SDP, &sdp).as_bytes());
    // Now it is the caller's turn.
    let answer = caller.ask("UPDATE", SDP, &sdp);
    assert_eq!(status(&answer), 200, "{answer}");
    caller.hang_up();
    bridge.desk.take_bye();
    bridge.assert_one_ending(1, &["caller_hung_up"]);
    bridge.finish();
}

#[test]
fn a_forked_200_after_the_end_of_the_call_is_ended_too() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({}));
    let id = gateway.place(OWN, &agent);
    let invite = callee.expect("INVITE");
    callee.answer_as(&invite, "180 Ringing", "late", ("", ""));
    callee.accept(&invite);
    callee.expect("ACK");
    gateway.await_status(&id, "in_progress");
    gateway.hang_up(&id);
    callee.take_bye();
    let record = gateway.ended(&id);
    callee.answer_as(&invite, "200 OK", "late", (SDP, &callee.sdp()));
    let ack = callee.expect("ACK");
    assert!(header(&ack, "To").contains(";tag=late"), "{ack}");
    let bye = callee.take_bye();
    assert!(header(&bye, "To").contains(";tag=late"), "{bye}");
    assert_eq!(gateway.conversation(&id), record, "what is over does not change");
    assert_eq!(gateway.conversations().len(), 1);
    finish(gateway);
}

#[test]
fn a_caller_may_hang_up_before_its_ack_or_without_any() {
    let bridge = Bridge::new(&[]);
    for (round, late_ack) in rounds() {
        let mut ringing = Ringing::begin(&bridge.phone, DESK, "");
        let invite = bridge.desk.expect("INVITE");
        bridge.desk.accept(&invite);
        bridge.desk.expect("ACK");
        let answer = ringing.response(200);
        let mut call = ringing.answered(&answer, false);
        let ack = call.dialog.request(&bridge.phone, "ACK", "", "");
        let bye = send(&mut call, "BYE", "");
        if late_ack {
            bridge.phone.send(ack.as_bytes());
        }
        assert_eq!(status(&final_response(&bridge.phone, &bye)), 200);
        bridge.desk.take_bye();
        bridge.assert_one_ending(round, &["caller_hung_up"]);
        // The 200 is not repeated any more.
        if round == 1 {
            let later = bridge.phone.receive(Duration::from_millis(1_200));
            assert_eq!(later, None);
        }
    }
    bridge.finish();
}

#[test]
fn our_bye_waits_for_the_ack() {
    let bridge = Bridge::new(&[]);
    let mut ringing = Ringing::begin(&bridge.phone, DESK, "");
    let invite = bridge.desk.expect("INVITE");
    bridge.desk.accept(&invite);
    bridge.desk.expect("ACK");
    let answer = ringing.response(200);
    let id = bridge.gateway.only_conversation();
    bridge.gateway.hang_up(&id);
    bridge.desk.take_bye();
    // RFC 3261 §15: no BYE before the ACK, or before the 200 has been given up.
    while let Some(text) = bridge.phone.receive(QUIET) {
        assert_eq!(kind(&text), "200 INVITE", "{text}");
    }
    let call = ringing.answered(&answer, true);
    let mut bye = String::new();
    eventually("BYE comes", PATIENCE, || {
        bye = bridge.phone.receive(QUIET).unwrap_or_default();
        kind(&bye) == "BYE"
    });
    let ok = crate::callee::response(call.phone.address, &bye, "200 OK", "", ("", ""));
    bridge.phone.send(ok.as_bytes());
    bridge.assert_one_ending(1, &["operator_hung_up"]);
    bridge.finish();
}

#[test]
fn a_call_is_withdrawn_while_the_agent_is_being_reached() {
    let gateway = Gateway::empty(&[]);
    let (carrier, desk) = (Callee::new(PEER, gateway.udp), Callee::new(PEER, gateway.udp));
    gateway.caller(OWN, &carrier.address(), &json!({}));
    let runtime = json!({"type": "sip", "uri": format!("sip:desk@{}", desk.address())});
    let agent = gateway.agent(runtime, &[]);
    let publish = json!({"phone_numbers": [OWN], "direction": "outbound"});
    let path = format!("/core/agents/{agent}/versions/1/publish");
    assert_eq!(gateway.call("POST", &path, Some(&publish)).status, 200);
    for (_, swapped) in rounds() {
        let id = gateway.place(OWN, &agent);
        let invite = desk.expect("INVITE");
        cross(swapped, || gateway.hang_up(&id), || desk.answer(&invite, "180 Ringing", "", ""));
        let cancel = desk.expect("CANCEL");
        desk.answer(&cancel, "200 OK", "", "");
        desk.answer(&invite, "487 Request Terminated", "", "");
        desk.expect("ACK");
        assert_ended(&gateway.ended(&id), "cancelled", "call_cancelled", "operator");
    }
    assert_eq!(carrier.rest(), Vec::<String>::new(), "nobody was dialled");
    finish(gateway);
}

/// Answers every request that has come, as one whose call is over; the branches of the final
/// responses that have come.
fn answer_all(phone: &Phone) -> String {
    let mut branches = String::new();
    while let Some(text) = phone.receive(Duration::from_millis(10)) {
        let line = match &*kind(&text) {
            "BYE" => "200 OK",
            "INVITE" => "487 Request Terminated",
            _ if status(&text) >= 200 => {
                branches += crate::common::parameter(&text, "branch=");
                continue;
            }
            _ => continue,
        };
        let answer = crate::callee::response(phone.address, &text, line, "", ("", ""));
        phone.send(answer.as_bytes());
    }
    branches
}

#[test]
fn reinvite_crosses_bye() {
    let bridge = Bridge::new(&[]);
    let mut calls = 0;
    for same_side in [false, true] {
        for (_, swapped) in rounds() {
            let (mut caller, mut agent) = bridge.call();
            let held = offer(PEER, 9, "RTP/AVP 0", "a=sendonly\r\n");
            let (mut invite, mut bye) = (String::new(), String::new());
            if same_side {
                invite = send(&mut caller, "INVITE", &held);
                bye = send(&mut caller, "BYE", "");
            } else {
                cross(
                    swapped,
                    || invite = send(&mut caller, "INVITE", &held),
                    || bye = send(&mut agent, "BYE", ""),
                );
            }
            let (mut caller_heard, mut agent_heard) = (String::new(), String::new());
            eventually("both are answered", PATIENCE, || {
                caller_heard += &answer_all(&bridge.phone);
                agent_heard += &answer_all(&bridge.desk.phone);
                let answered = |request: &str| {
                    let branch = crate::common::parameter(request, "branch=");
                    [&caller_heard, &agent_heard].iter().any(|heard| heard.contains(branch))
                };
                answered(&invite) && answered(&bye)
            });
            calls += 1;
            bridge.assert_one_ending(calls, &["caller_hung_up", "agent_hung_up"]);
        }
    }
    bridge.gateway.wait_until_quiet();
}

#[test]
fn our_cancel_waits_for_a_provisional_response() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({}));
    for (round, swapped) in rounds() {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        if round == 1 {
            gateway.hang_up(&id);
            // RFC 3261 §9.1: nothing may be cancelled before the other side has said anything.
            assert_eq!(callee.rest(), Vec::<String>::new());
            callee.answer(&invite, "100 Trying", "", "");
        } else {
            let ring = || callee.answer(&invite, "183 Session Progress", "", "");
            cross(swapped, || gateway.hang_up(&id), ring);
        }
        let cancel = callee.expect("CANCEL");
        let branch = |text: &str| crate::common::parameter(text, "branch=").to_owned();
        assert_eq!(branch(&cancel), branch(&invite), "of the same transaction");
        callee.answer(&cancel, "200 OK", "", "");
        callee.answer(&invite, "487 Request Terminated", "", "");
        callee.expect("ACK");
        assert_ended(&gateway.ended(&id), "cancelled", "call_cancelled", "operator");
    }
    finish(gateway);
}

#[test]
fn refer_crosses_bye() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({"transfer_mode": "refer"}));
    for (round, swapped) in rounds() {
        let id = gateway.place(OWN, &agent);
        let mut call = callee.take();
        gateway.await_status(&id, "in_progress");
        let mut bye = String::new();
        if round % 4 == 0 {
            // Accepted, and then the caller hangs up before anybody knows how it went.
            assert_eq!(gateway.hand_on(&id, THEIRS), 202);
            let refer = callee.expect("REFER");
            callee.answer(&refer, "202 Accepted", "", "");
            bye = send(&mut call, "BYE", "");
        } else {
            cross(
                swapped,
                || {
                    let _ = gateway.hand_on(&id, THEIRS);
                },
                || bye = send(&mut call, "BYE", ""),
            );
        }
        let branch = crate::common::parameter(&bye, "branch=").to_owned();
        eventually("BYE is answered", PATIENCE, || {
            let text = callee.next(QUIET).unwrap_or_default();
            if kind(&text) == "REFER" {
                callee.answer(&text, "481 Call/Transaction Does Not Exist", "", "");
            }
            text.contains(&branch) && status(&text) == 200
        });
        let record = gateway.ended(&id);
        assert_ended(&record, "completed", "callee_hung_up", "callee");
        let transfer = &record["transfer"];
        assert!(*transfer == Value::Null || transfer["status"] == "failed", "{record:#}");
        for text in callee.rest() {
            callee.answer(&text, "481 Call/Transaction Does Not Exist", "", "");
        }
    }
    finish(gateway);
}
