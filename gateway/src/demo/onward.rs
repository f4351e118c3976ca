//! The demo's calls that go on from the gateway: out through a carrier, to an agent that is a SIP
//! endpoint, and from an agent to another number.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use media::sdp::Encryption;
use serde_json::{Value, json};
use sip::Transport;
use tokio::task::JoinHandle;

use super::desk::{Desk, Manner, Seen};
use super::phone::{self, Dial, Outcome};
use super::report::{CallReport, Outcome as Shown, Talk};
use super::rest::Rest;
use super::{Ends, MIN_LIKENESS, audio, done, figures, set_up, step, text};
use crate::clock;
use crate::net::tls::{self, ServerIdentity};

/// The user and password that the stand-in carrier demands.
const CREDENTIALS: (&str, &str) = ("demo", "a password of the demo's");

/// Whom the agent calls.
const CALLEE: &str = "+15550100900";

/// Whom the caller is handed to.
const COLLEAGUE: &str = "+15550100901";

/// The number that dials out, the one a SIP agent answers, and the one whose caller is handed on.
const NUMBERS: [&str; 3] = ["+15550100400", "+15550100500", "+15550100600"];

/// How long the caller talks with the agent before being handed on.
const BEFORE_TRANSFER: Duration = Duration::from_millis(1_500);

/// Whoever is called from here.
pub(super) struct Desks {
    carrier: Desk,
    agent: Desk,
    colleague: Desk,
}

/// The certificate that the stand-in carrier shows; the gateway is told to trust it.
pub(super) fn carrier_certificate(folder: &Path) -> io::Result<tls::Files> {
    std::fs::create_dir_all(folder)?;
    let files = tls::Files {
        certificate: folder.join("carrier.pem"),
        private_key: folder.join("carrier.key"),
    };
    tls::self_sign(&files, vec!["127.0.0.1".to_owned()])?;
    Ok(files)
}

impl Desks {
    pub(super) async fn open(certificate: tls::Files) -> io::Result<Self> {
        Ok(Desks {
            carrier: Desk::over_tls(ServerIdentity::load(certificate)?).await?,
            agent: Desk::over_udp().await?,
            colleague: Desk::over_udp().await?,
        })
    }

    /// Trunks, numbers and agents of these calls, through the API.
    pub(super) async fn provision(&self, rest: &Rest, echo: &str) -> io::Result<()> {
        let (user, password) = CREDENTIALS;
        let address = |at: SocketAddr| at.to_string();
        let inbound = json!({"allowed_addresses": ["127.0.0.0/29"]});
        let trunks = [
            json!({"name": "demo carrier", "inbound_config": inbound, "outbound_config": {
                "address": address(self.carrier.address), "transport": "SIP_TRANSPORT_TLS",
                "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE",
                "auth_username": user, "auth_password": password}}),
            json!({"name": "demo PBX with a SIP agent", "inbound_config": inbound}),
            json!({"name": "demo PBX that hands on", "inbound_config": inbound, "outbound_config": {
                "address": address(self.colleague.address), "auth_username": user,
                "auth_password": password}}),
        ];
        for (number, trunk) in NUMBERS.iter().zip(trunks) {
            let trunk = rest.post("/core/trunks", trunk).await?;
            let body = json!({"phone_number": number, "trunk_id": text(&trunk, "id")});
            rest.post("/core/phone-numbers", body).await?;
        }
        let [out, to_sip, handed_on] = NUMBERS;
        let publish = |numbers: Value| json!({"phone_numbers": numbers, "direction": "both"});
        let version = format!("/core/agents/{echo}/versions/1/publish");
        rest.post(&version, publish(json!([out, handed_on]))).await?;
        let agent = rest.post("/core/agents", json!({"name": "SIP agent"})).await?;
        let agent = text(&agent, "id");
        let uri = format!("sip:{{called_number}}@{}", self.agent.address);
        let config = json!({"config": {"runtime": {"type": "sip", "uri": uri}}});
        rest.post(&format!("/core/agents/{agent}/versions"), config).await?;
        let path = format!("/core/agents/{agent}/versions/1/publish");
        rest.post(&path, publish(json!([to_sip]))).await?;
        Ok(())
    }

    /// The three calls, one after another.
    pub(super) async fn calls(
        self,
        rest: &Rest,
        ends: &Ends,
        voice: &[i16],
    ) -> io::Result<Vec<CallReport>> {
        let out = call_out(self.carrier, rest, voice).await?;
        let agent = call_sip_agent(self.agent, rest, ends, voice).await?;
        let handed_on = call_handed_on(self.colleague, rest, ends, voice).await?;
        Ok(vec![out, agent, handed_on])
    }
}

async fn call_out(desk: Desk, rest: &Rest, voice: &[i16]) -> io::Result<CallReport> {
    step(&format!("an agent calls {CALLEE} through a carrier that wants a password, TLS and SRTP"));
    let dialled = format!("sip:{CALLEE}@{}", desk.address);
    let callee = desk.answer(Manner {
        credentials: Some(CREDENTIALS),
        encryption: Encryption::Require,
        say: Some(voice.to_vec()),
    });
    let ordered = clock::now();
    let [number, ..] = NUMBERS;
    let order = json!({"channel": "telephone", "user_id": CALLEE, "agent_number": number});
    let placed = rest.post("/core/conversations", order).await?;
    let id = text(field(&placed, "conversation"), "id");
    let answered = wait_for(rest, &id, |record| !field(record, "answered_at").is_null()).await?;
    let set_up = ordered.elapsed();
    // The callee says its piece to the end; then the agent's side hangs up.
    tokio::time::sleep(of_voice(voice) + Duration::from_millis(800)).await;
    rest.post(&format!("/core/conversations/{id}/hangup"), json!({})).await?;
    let seen = finish(callee).await?;
    let record = wait_for(rest, &id, |record| !field(record, "end_reason").is_null()).await?;
    let echo = audio::find_echo(voice, &seen.heard.samples);
    let back = echo.likeness >= MIN_LIKENESS;
    let passed = back
        && seen.challenged == 1
        && seen.authenticated
        && seen.secured
        && text(&answered, "direction") == "outbound"
        && text(&record, "status") == "completed";
    done(if passed {
        "challenged, authenticated, answered, talked"
    } else {
        "not as it should be"
    });
    let talk = Talk {
        set_up: format!("answered {:.1} ms after the order", set_up.as_secs_f32() * 1000.0),
        notes: vec![
            (
                "digest",
                format!(
                    "{} challenged, {}",
                    times(seen.challenged),
                    if seen.authenticated {
                        "the right credentials came"
                    } else {
                        "never satisfied"
                    }
                ),
            ),
            ("shown number", seen.from.clone()),
        ],
        ..figures(&seen.heard, &record, (echo, back))
    };
    Ok(CallReport {
        title: "An agent calls out through a carrier".to_owned(),
        wire: "TLS, certificate checked · digest · G.711 µ-law · SRTP".to_owned(),
        dialled,
        outcome: Shown::Talked(Box::new(talk)),
        passed,
    })
}

async fn call_sip_agent(
    desk: Desk,
    rest: &Rest,
    ends: &Ends,
    voice: &[i16],
) -> io::Result<CallReport> {
    let [_, number, _] = NUMBERS;
    step(&format!("a PBX calls {number}, whose agent is a SIP endpoint"));
    let agent = desk.answer(echoing());
    let uri = format!("sip:{number}@{}", ends.udp);
    let dial = Dial::new(Transport::Udp, ends.udp, uri.clone(), voice.to_vec());
    let talked = match phone::call(dial).await? {
        Outcome::Talked(talked) => talked,
        other => return Ok(failed("A PBX calls an agent that is a SIP endpoint", uri, &other)),
    };
    let seen = finish(agent).await?;
    let record = super::find_conversation(rest, &talked.sip_call_id).await?;
    let echo = audio::find_echo(voice, &talked.heard.samples);
    let back = echo.likeness >= MIN_LIKENESS;
    let named = seen.conversation.as_deref() == field(&record, "id").as_str();
    let passed = back && named && text(&record, "status") == "completed";
    done(if passed { "bridged, talked, both legs ended" } else { "not as it should be" });
    let talk = Talk {
        set_up: set_up(&talked),
        notes: vec![(
            "agent's leg",
            format!(
                "{} packets relayed to it; its INVITE {} the conversation",
                seen.heard.received,
                if named { "named" } else { "did not name" }
            ),
        )],
        ..figures(&talked.heard, &record, (echo, back))
    };
    Ok(CallReport {
        title: "A PBX calls an agent that is a SIP endpoint".to_owned(),
        wire: "UDP on both legs · G.711 µ-law · relayed packet by packet".to_owned(),
        dialled: uri,
        outcome: Shown::Talked(Box::new(talk)),
        passed,
    })
}

async fn call_handed_on(
    desk: Desk,
    rest: &Rest,
    ends: &Ends,
    voice: &[i16],
) -> io::Result<CallReport> {
    let [.., number] = NUMBERS;
    step(&format!("a PBX calls {number}; the agent hands the caller to {COLLEAGUE}"));
    let title = "A caller is handed to another number";
    let colleague = desk.answer(echoing());
    let uri = format!("sip:{number}@{}", ends.udp);
    let dial = Dial::new(Transport::Udp, ends.udp, uri.clone(), voice.to_vec());
    let call = tokio::spawn(phone::call(dial));
    let live = find_live(rest, number).await?;
    tokio::time::sleep(BEFORE_TRANSFER).await;
    let order = json!({"transfer_number": COLLEAGUE});
    rest.post(&format!("/core/conversations/{live}/transfer"), order).await?;
    let talked = match call.await.map_err(io::Error::other)?? {
        Outcome::Talked(talked) => talked,
        other => return Ok(failed(title, uri, &other)),
    };
    let seen = finish(colleague).await?;
    let record = super::find_conversation(rest, &talked.sip_call_id).await?;
    // What was said after the hand-over came back from the colleague, not from the agent.
    let half = voice.len() / 2;
    let after = |samples: &[i16]| samples.get(half..).unwrap_or(&[]).to_vec();
    let echo = audio::find_echo(&after(voice), &after(&talked.heard.samples));
    let back = echo.likeness >= MIN_LIKENESS;
    let handed_on = text(&record, "status") == "transferred"
        && text(field(&record, "transfer"), "status") == "completed";
    let passed = back && handed_on && seen.heard.received > 0;
    done(if passed { "handed on, and they talked" } else { "not as it should be" });
    let talk = Talk {
        set_up: set_up(&talked),
        notes: vec![
            (
                "transfer",
                format!(
                    "{} to {COLLEAGUE}, who saw {}",
                    text(field(&record, "transfer"), "status"),
                    seen.from
                ),
            ),
            ("colleague", format!("{} packets of the caller's", seen.heard.received)),
        ],
        ..figures(&talked.heard, &record, (echo, back))
    };
    Ok(CallReport {
        title: title.to_owned(),
        wire: "UDP · cold transfer: dialled and bridged by the gateway".to_owned(),
        dialled: uri,
        outcome: Shown::Talked(Box::new(talk)),
        passed,
    })
}

/// A field of a reply; null when it is not there.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn echoing() -> Manner {
    Manner { credentials: None, encryption: Encryption::Allow, say: None }
}

fn of_voice(voice: &[i16]) -> Duration {
    Duration::from_millis(voice.len() as u64 * 1_000 / u64::from(audio::RATE_HZ))
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn failed(title: &str, dialled: String, outcome: &Outcome) -> CallReport {
    done("not answered");
    let why = match outcome {
        Outcome::Refused { status, reason, .. } => format!("{status} {reason}"),
        _ => "no answer".to_owned(),
    };
    let (title, wire, outcome) = (title.to_owned(), "UDP".to_owned(), Shown::Failed(why));
    CallReport { title, wire, dialled, outcome, passed: false }
}

async fn finish(desk: JoinHandle<io::Result<Seen>>) -> io::Result<Seen> {
    desk.await.map_err(io::Error::other)?
}

/// The conversation, once it is as wanted.
async fn wait_for(rest: &Rest, id: &str, wanted: impl Fn(&Value) -> bool) -> io::Result<Value> {
    for _ in 0..200 {
        let record = rest.get(&format!("/core/conversations/{id}")).await?;
        if wanted(&record) {
            return Ok(record);
        }
        if !field(&record, "end_reason").is_null() {
            let why = field(&record, "end_reason");
            return Err(io::Error::other(format!("the call ended at once: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(io::Error::other("the call did not come so far in time"))
}

/// The conversation of the call that is up on this number.
async fn find_live(rest: &Rest, number: &str) -> io::Result<String> {
    for _ in 0..100 {
        let listed = rest.get("/core/conversations?status=in_progress").await?;
        let calls = listed.as_array().into_iter().flatten();
        if let Some(found) = calls.into_iter().find(|call| call["agent_number"] == number) {
            return Ok(text(found, "id"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(io::Error::other("the call did not come up"))
}
