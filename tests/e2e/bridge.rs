//! Agents that are SIP endpoints: two legs, one conversation.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use support::baresip::{Audio, Baresip};
use support::callee::{Answering, Callee, PLAIN_ANSWER, Script};
use support::gateway::from_here;
use support::sipp::Sipp;
use support::sound::tune;
use support::{Gateway, Line, peer, wait};

use crate::audio::{CALLER, SCALE};

const NUMBER: &str = "+15550100100";

/// What agents say.
const AGENT: [u32; 4] = [1_610, 440, 1_130, 620];

/// Longer than any test: a microphone whose file ends would end the call.
const SECONDS: u32 = 30;

/// Silence, the notes, and silence until the end.
pub(crate) fn once(notes: &[u32]) -> Vec<i16> {
    let mut samples = vec![0; 8_000];
    samples.extend(tune(notes, 400));
    samples.resize(SECONDS as usize * 8_000, 0);
    samples
}

/// A SIP agent at this URI.
fn sip(uri: &str, more: &Value) -> Value {
    let mut runtime = json!({ "type": "sip", "uri": uri });
    for (name, value) in more.as_object().into_iter().flatten() {
        runtime[name] = value.clone();
    }
    runtime
}

/// A number that this agent answers.
fn line(gateway: &Gateway, agent: &Answering) -> Line {
    let runtime = sip(&format!("sip:agent@{}", agent.address), &json!({}));
    gateway.line(NUMBER, from_here(), runtime)
}

#[test]
fn the_agents_invite_is_what_its_template_says_and_names_the_conversation() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let agent = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let uri =
        format!("sip:bot-{{called_number}}@{};conversation={{conversation_id}}", agent.address);
    let headers = json!({ "X-Caller": "{caller_number}", "X-Fixed": "as it is" });
    let line = gateway.line(NUMBER, from_here(), sip(&uri, &json!({ "headers": headers })));
    Sipp::new(&gateway, "call", NUMBER).set("hops", 9).passes();
    let record = gateway.ended_conversation();
    let id = record["id"].as_str().unwrap();
    let invite = agent.passes().request("INVITE");
    let address = uri.split_once('@').unwrap().1.split(';').next().unwrap();
    assert_eq!(invite.uri(), format!("sip:bot-{NUMBER}@{address};conversation={id}"));
    assert_eq!(invite.header("X-Conversation-Id"), Some(id));
    assert_eq!(invite.header("X-Agent-Id"), Some(line.agent.as_str()));
    assert_eq!(invite.header("X-Agent-Version-Id"), record["agent_version_id"].as_str());
    assert_eq!(invite.header("X-Organization-Id"), record["organization_id"].as_str());
    assert_eq!(invite.header("X-Caller"), Some("+155501991"));
    assert_eq!(invite.header("X-Fixed"), Some("as it is"));
    // The caller's INVITE had 9.
    assert_eq!(invite.header("Max-Forwards"), Some("8"));
    let from = invite.header("From").unwrap();
    assert!(from.starts_with("<sip:+155501991@127.0.0.1>;tag="), "{from}");
    assert_eq!(record["status"], "completed");
    assert_eq!(record["end_reason"]["code"], "caller_hung_up");
    gateway.finish();
}

/// How the two legs of a call speak.
struct Legs {
    /// Of baresip as the caller.
    caller: &'static str,
    inbound: Value,
    /// Of baresip as the agent.
    agent: &'static str,
    runtime: Value,
}

#[test]
fn caller_and_agent_hear_each_other_whatever_either_encrypts_and_encodes_with() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let require = "SIP_MEDIA_ENCRYPT_REQUIRE";
    let srtp = ";mediaenc=srtp-mand";
    let gateway = Gateway::start();
    let ways = [
        Legs { caller: "", inbound: json!({}), agent: "", runtime: json!({}) },
        Legs {
            caller: ";mediaenc=srtp-mand;audio_codecs=pcma/8000/1",
            inbound: json!({ "media_encryption": require }),
            agent: "",
            runtime: json!({ "transport": "SIP_TRANSPORT_TCP" }),
        },
        Legs {
            caller: "",
            inbound: json!({}),
            agent: ";mediaenc=srtp-mand;audio_codecs=pcma/8000/1",
            runtime: json!({ "media_encryption": require }),
        },
        Legs {
            caller: srtp,
            inbound: json!({ "media_encryption": require }),
            agent: srtp,
            runtime: json!({ "media_encryption": require }),
        },
    ];
    let calls: Vec<_> = ways
        .into_iter()
        .enumerate()
        .map(|(n, way)| {
            let agent = Baresip::answer_as("agent", way.agent, &once(&AGENT), SECONDS);
            let mut inbound = way.inbound;
            inbound["allowed_addresses"] = json!(["127.0.0.1"]);
            let number = format!("+1555010020{n}");
            let uri = format!("sip:agent@{}", agent.address());
            gateway.line(&number, inbound, sip(&uri, &way.runtime));
            let uri = format!("sip:{number}@{}", gateway.udp);
            (Baresip::call_as(&uri, way.caller, &once(&CALLER), SECONDS), agent)
        })
        .collect();
    for (n, (caller, agent)) in calls.into_iter().enumerate() {
        caller.hears(&SCALE, &AGENT);
        agent.hears(&SCALE, &CALLER);
        // Whoever hangs up, the other is told.
        let (leaves, mut stays) = if n % 2 == 0 { (caller, agent) } else { (agent, caller) };
        leaves.quit();
        stays.wait_for_end();
    }
    for record in gateway.ended_conversations(4) {
        assert_eq!(record["status"], "completed", "{record:#}");
        assert_eq!(record["quality"]["packets_lost"], 0, "{record:#}");
    }
    let mut codes: Vec<_> = gateway
        .conversations()
        .iter()
        .map(|record| record["end_reason"]["code"].as_str().unwrap().to_owned())
        .collect();
    codes.sort();
    assert_eq!(codes, ["agent_hung_up", "agent_hung_up", "caller_hung_up", "caller_hung_up"]);
    gateway.finish();
}

#[test]
fn keys_are_heard_across_in_both_directions() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let silence = vec![0; SECONDS as usize * 8_000];
    let agent = Baresip::answer("agent", Audio::Plain, &silence, SECONDS);
    let uri = format!("sip:agent@{}", agent.address());
    gateway.line(NUMBER, from_here(), sip(&uri, &json!({})));
    let uri = format!("sip:{NUMBER}@{}", gateway.udp);
    let mut caller = Baresip::call(&uri, Audio::Plain, &silence, SECONDS);
    caller.wait_for_answer();
    // Whoever speaks to baresip last is the one that it tells.
    let mut at_agent = agent.events();
    caller.press('5');
    at_agent.wait_for("CALL_DTMF_START", "5");
    let mut at_caller = caller.events();
    agent.press('#');
    at_caller.wait_for("CALL_DTMF_START", "#");
    caller.quit();
    assert_eq!(gateway.ended_conversation()["end_reason"]["code"], "caller_hung_up");
    gateway.finish();
}

#[test]
fn holding_is_carried_across_and_so_is_going_on() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = Script::call()
        .answer(PLAIN_ANSWER)
        .reinvited(&format!("{PLAIN_ANSWER}\na=recvonly"))
        .reinvited(&format!("{PLAIN_ANSWER}\na=inactive"))
        .reinvited(PLAIN_ANSWER)
        .expect("BYE")
        .reply(200, "OK");
    let agent = Callee::new(script).start();
    line(&gateway, &agent);
    let caller = Sipp::new(&gateway, "hold_and_resume", NUMBER);
    caller.set("between_ms", 300).passes();
    let offers = agent.passes().requests("INVITE");
    let directions: Vec<_> = offers
        .iter()
        .map(|offer| {
            let directions = ["a=sendonly", "a=recvonly", "a=inactive"];
            let mut lines = offer.text().lines();
            lines.find(|line| directions.contains(line)).unwrap_or("a=sendrecv").to_owned()
        })
        .collect();
    assert_eq!(directions, ["a=sendrecv", "a=sendonly", "a=inactive", "a=sendrecv"]);
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn what_an_agent_is_told_last_is_true_even_when_it_answers_holding_late() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    // The caller is back before the agent has said yes to the hold: it is told of that at once, and once.
    let script = Script::call()
        .answer(PLAIN_ANSWER)
        .invite()
        .pause(400)
        .answer(&format!("{PLAIN_ANSWER}\na=recvonly"))
        .reinvited(PLAIN_ANSWER)
        .expect("BYE")
        .reply(200, "OK");
    let agent = Callee::new(script).start();
    line(&gateway, &agent);
    let caller = Sipp::new(&gateway, "hold_and_resume", NUMBER).set("talk_ms", 2_000).start();
    let offers = || {
        let messages = agent.messages();
        let offers =
            messages.split("message received").filter(|text| text.contains("\nINVITE sip:"));
        let mut offers: Vec<_> = offers.map(str::to_owned).collect();
        // A slow machine repeats one that was not answered in half a second.
        offers.dedup_by_key(|text| {
            text.lines().find(|line| line.starts_with("CSeq:")).map(str::to_owned)
        });
        offers
    };
    let last =
        wait::until("the third offer", Duration::from_secs(5), || offers().into_iter().nth(2));
    let held = ["a=sendonly", "a=recvonly", "a=inactive"];
    let last = last.split("-----").next().unwrap();
    assert!(!held.iter().any(|direction| last.contains(direction)), "{last}");
    caller.passes();
    agent.passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

/// One end of a call's audio, in the hands of the test.
struct Ear {
    socket: UdpSocket,
    sent: u16,
}

impl Ear {
    fn open() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Ear { socket, sent: 0 }
    }

    /// An answer that names it.
    fn sdp(&self) -> String {
        PLAIN_ANSWER.replace("[media_port]", &self.socket.local_addr().unwrap().port().to_string())
    }

    /// Says 20 ms of G.711 to whatever port this offer names.
    fn say(&mut self, offer: &str) {
        let port = offer.split_once("m=audio ").unwrap().1.split(' ').next().unwrap();
        self.sent += 1;
        let mut packet = vec![0x80, 0];
        packet.extend(self.sent.to_be_bytes());
        packet.extend((u32::from(self.sent) * 160).to_be_bytes());
        packet.extend([0, 0, 0, 7]);
        packet.extend([0x55; 160]);
        let to: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        self.socket.send_to(&packet, to).unwrap();
    }

    /// Whether a packet has come.
    fn hears(&self) -> bool {
        let mut octets = [0; 2_000];
        let mut came = false;
        while let Ok(read) = self.socket.recv(&mut octets) {
            // No RTCP: the same 20 ms.
            came |= octets[..read].ends_with(&[0x55; 100]);
        }
        came
    }
}

#[test]
fn a_caller_on_hold_is_not_heard_and_hears_the_agent_until_it_goes_on() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let (mut callee, mut bot) = (Ear::open(), Ear::open());
    let script = Script::call()
        .answer(&callee.sdp())
        .reinvited(&format!("{}\na=recvonly", callee.sdp()))
        .reinvited(&callee.sdp())
        .expect("BYE")
        .reply(200, "OK");
    let carrier = Callee::new(script).start();
    let script = Script::call()
        .answer(&bot.sdp())
        .pause(600)
        .request("INVITE", "", &format!("{}\na=sendonly", bot.sdp()))
        .pause(1_500)
        .request("INVITE", "", &bot.sdp())
        .expect("BYE")
        .reply(200, "OK");
    let agent = Callee::new(script).start();
    let outbound = json!({
        "address": carrier.address.to_string(), "auth_username": "x", "auth_password": "y",
    });
    let runtime = sip(&format!("sip:agent@{}", agent.address), &json!({}));
    let call = gateway.dial(&gateway.way_out(NUMBER, outbound, runtime), "+15550200200");
    gateway.reaches(&call, "in_progress");
    let (to_carrier, to_agent) = (carrier.messages(), agent.messages());
    let limit = Duration::from_secs(5);
    let passes = |from: &mut Ear, offer: &str, to: &Ear, limit| {
        let heard = wait::try_until(limit, || {
            from.say(offer);
            to.hears().then_some(())
        });
        heard.is_some()
    };
    // Every offer of a leg names the same port.
    assert!(passes(&mut callee, &to_carrier, &bot, limit), "the callee was not heard");
    assert!(passes(&mut bot, &to_agent, &callee, limit), "the agent was not heard");
    let acknowledged = |peer: &Answering, count| {
        let what = format!("{count} ACKs");
        let seen = || (peer.messages().matches("ACK sip:").count() == count).then_some(());
        wait::until(&what, limit, seen);
    };
    acknowledged(&carrier, 2);
    let _ = bot.hears();
    let short = Duration::from_millis(200);
    assert!(!passes(&mut callee, &to_carrier, &bot, short), "heard though on hold");
    assert!(passes(&mut bot, &to_agent, &callee, limit), "the agent was not heard on hold");
    acknowledged(&carrier, 3);
    assert!(passes(&mut callee, &to_carrier, &bot, limit), "not heard after the hold");
    gateway.ask(&call, "hangup", &json!({}));
    let offers = carrier.passes().requests("INVITE");
    assert!(offers[1].text().contains("a=sendonly"), "{}", offers[1].text());
    assert!(!offers[2].text().contains("a=sendonly"), "{}", offers[2].text());
    agent.passes();
    assert_eq!(gateway.ends(&call)["status"], "completed");
    gateway.finish();
}

#[test]
fn an_agent_that_refuses_or_stays_silent_is_480_to_the_caller() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let busy = Callee::new(Script::refuses(486, "Busy Here")).start();
    line(&gateway, &busy);
    Sipp::new(&gateway, "refused_while_ringing", NUMBER).set("status", 480).passes();
    busy.passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "failed", "{record:#}");
    assert_eq!(record["end_reason"]["code"], "agent_refused");
    assert_eq!(record["end_reason"]["party"], "agent");

    let rings = Script::call().reply(180, "Ringing").expect("CANCEL").reply(200, "OK").terminated();
    let rings = Callee::new(rings).start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [rings.address, silent.local_addr().unwrap()];
    for (n, address) in addresses.into_iter().enumerate() {
        let more = json!({ "connect_timeout_ms": 700 });
        let runtime = sip(&format!("sip:agent@{address}"), &more);
        let number = format!("+1555010020{n}");
        gateway.line(&number, from_here(), runtime);
        Sipp::new(&gateway, "refused_while_ringing", &number).set("status", 480).passes();
    }
    rings.passes();
    for record in gateway.ended_conversations(3).iter().take(2) {
        assert_eq!(record["end_reason"]["code"], "agent_timed_out", "{record:#}");
    }
    gateway.finish();
}

#[test]
fn a_caller_who_gives_up_takes_the_agents_call_along() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script =
        Script::call().reply(180, "Ringing").expect("CANCEL").reply(200, "OK").terminated();
    let agent = Callee::new(script).start();
    line(&gateway, &agent);
    Sipp::new(&gateway, "cancelled", NUMBER).set("ring_ms", 500).passes();
    agent.passes();
    assert_eq!(gateway.ended_conversation()["status"], "cancelled");
    gateway.finish();
}

#[test]
fn an_agent_with_a_password_is_given_its_own_credentials() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let asks =
        "WWW-Authenticate: Digest realm=\"agents\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"";
    let script = Script::call()
        .refuse(401, "Unauthorized", asks)
        .invite()
        .answer(PLAIN_ANSWER)
        .expect("BYE")
        .reply(200, "OK");
    let agent = Callee::new(script).start();
    let more = json!({ "auth_username": "gateway", "auth_password": "a password of its own" });
    let runtime = sip(&format!("sip:agent@{}", agent.address), &more);
    gateway.line(NUMBER, from_here(), runtime);
    Sipp::new(&gateway, "call", NUMBER).passes();
    let [first, second] = agent.passes().requests("INVITE").try_into().unwrap();
    assert_eq!(first.header("Authorization"), None);
    let given = second.header("Authorization").unwrap();
    assert!(
        given.contains("username=\"gateway\"") && given.contains("realm=\"agents\""),
        "{given}"
    );
    gateway.finish();
}
