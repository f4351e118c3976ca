//! Carriers with more than one server: failover over a real name server's records, and a proxy on the
//! route of every dialog.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde_json::{Value, json};
use support::baresip::{Audio, Baresip};
use support::callee::{Answering, Callee, PLAIN_ANSWER, Script};
use support::dns::{NameServer, Records};
use support::gateway::{echo, tone};
use support::kamailio::{Door, Kamailio};
use support::port::free_port;
use support::sipp::Sipp;
use support::{Gateway, peer, wait};

use crate::audio::{CALLER, SCALE, said};

const NUMBER: &str = "+15550100100";
const CALLEE: &str = "+15550200200";
const PASSWORD: &str = "correct horse battery";

/// A trunk to `address`; UDP unless `more` says otherwise.
fn outbound(address: &str, more: &Value) -> Value {
    let mut outbound =
        json!({ "address": address, "auth_username": "customer", "auth_password": PASSWORD });
    for (name, value) in more.as_object().into_iter().flatten() {
        outbound[name] = value.clone();
    }
    outbound
}

/// A gateway that asks this name server.
fn asking(names: &NameServer, more: &[(&str, &str)]) -> Gateway {
    let setting = names.setting();
    let mut changes = vec![("sip.nameservers", setting.as_str())];
    changes.extend(more);
    Gateway::with(&changes)
}

fn answering() -> Answering {
    Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 100)).start()
}

/// One call to `address`, which must be completed.
#[track_caller]
fn completes(gateway: &Gateway, address: &str) {
    let line = gateway.way_out(NUMBER, outbound(address, &json!({})), echo());
    let call = gateway.dial(&line, CALLEE);
    let record = gateway.ends(&call);
    assert_eq!(record["status"], "completed", "{record:#}");
}

#[test]
fn the_third_server_gets_the_call_when_the_first_is_closed_and_the_second_says_503() {
    if !peer::have(&["sipp", "dnsmasq"]) {
        return;
    }
    let second = Callee::new(Script::refuses(503, "Service Unavailable")).over_tcp().start();
    let third = Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 100)).over_tcp().start();
    let service = "_sip._tcp.carrier.test";
    // In another order than their priorities have.
    let names = Records::default()
        .server(service, "c.carrier.test", third.address.port(), (30, 0))
        .server(service, "a.carrier.test", free_port(), (10, 0))
        .server(service, "b.carrier.test", second.address.port(), (20, 0))
        .address("a.carrier.test")
        .address("b.carrier.test")
        .address("c.carrier.test")
        .serve();
    let gateway = asking(&names, &[]);
    let tcp = json!({ "transport": "SIP_TRANSPORT_TCP" });
    let line = gateway.way_out(NUMBER, outbound("carrier.test", &tcp), echo());
    let call = gateway.dial(&line, CALLEE);
    let record = gateway.ends(&call);
    assert_eq!(record["status"], "completed", "{record:#}");
    let refused = second.passes().request("INVITE");
    let taken = third.passes().request("INVITE");
    // The domain is what is called, whichever server it goes to.
    assert_eq!(taken.uri(), format!("sip:{CALLEE}@carrier.test"));
    assert_eq!(refused.uri(), taken.uri());
    let questions = names.questions();
    assert!(questions.contains(&format!("SRV {service}")), "{questions:?}");
    gateway.finish();
}

#[test]
fn a_server_that_stays_silent_is_left_for_the_next_in_time() {
    if !peer::have(&["sipp", "dnsmasq"]) {
        return;
    }
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let next = answering();
    let service = "_sip._udp.carrier.test";
    let names = Records::default()
        .server(service, "a.carrier.test", silent.local_addr().unwrap().port(), (1, 0))
        .server(service, "b.carrier.test", next.address.port(), (2, 0))
        .address("a.carrier.test")
        .address("b.carrier.test")
        .serve();
    let gateway = asking(&names, &[]);
    let line = gateway.way_out(NUMBER, outbound("carrier.test", &json!({})), echo());
    let (took, _) = wait::timed(|| {
        gateway.dial(&line, CALLEE);
        next.wait_for_message("INVITE sip:");
    });
    assert!(took > Duration::from_millis(1_800) && took < Duration::from_millis(4_000), "{took:?}");
    next.passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn weights_decide_between_servers_of_one_priority() {
    if !peer::have(&["sipp", "dnsmasq"]) {
        return;
    }
    const CALLS: u32 = 12;
    let service = "_sip._udp.carrier.test";
    let heavy = Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 100)).calls(CALLS).start();
    let light = Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 100)).calls(CALLS).start();
    let names = Records::default()
        .server(service, "light.carrier.test", light.address.port(), (1, 1))
        .server(service, "heavy.carrier.test", heavy.address.port(), (1, 10_000))
        .address("light.carrier.test")
        .address("heavy.carrier.test")
        .serve();
    let gateway = asking(&names, &[("calls.outbound_concurrency", "20")]);
    let line = gateway.way_out(NUMBER, outbound("carrier.test", &json!({})), echo());
    for _ in 0..CALLS {
        gateway.dial(&line, CALLEE);
    }
    let records = gateway.ended_conversations(CALLS as usize);
    assert!(records.iter().all(|record| record["status"] == "completed"), "{records:#?}");
    // One in ten thousand may stray: that two of twelve do happens once in a million runs.
    let strayed = light.messages().matches("ACK sip:").count();
    assert!(strayed <= 1, "{strayed} of {CALLS} went to the light one");
    gateway.finish();
}

#[test]
fn a_name_without_servers_is_looked_up_as_an_address_and_a_port_asks_for_no_servers() {
    if !peer::have(&["sipp", "dnsmasq"]) {
        return;
    }
    let (wanted, decoy) = (answering(), free_port());
    let names = Records::default()
        .address("carrier.test")
        .address("decoy.test")
        .server("_sip._udp.carrier.test", "decoy.test", decoy, (1, 1))
        .serve();
    let gateway = asking(&names, &[]);
    completes(&gateway, &format!("carrier.test:{}", wanted.address.port()));
    wanted.passes();
    assert_eq!(names.questions().iter().filter(|asked| asked.starts_with("SRV")).count(), 0);
    gateway.finish();
}

#[test]
fn a_name_with_nothing_but_an_ipv6_address_is_called_there() {
    if !peer::have(&["sipp", "dnsmasq"]) {
        return;
    }
    let script = Script::answers_and_hangs_up(PLAIN_ANSWER, 100);
    let carrier = Callee::new(script).on(Ipv6Addr::LOCALHOST.into()).start();
    let names = Records::default().address_v6("six.test").serve();
    let here = "[\"127.0.0.1:0\", \"[::1]:0\"]";
    let media = "[\"127.0.0.1\", \"::1\"]";
    let gateway = asking(&names, &[("sip.udp", here), ("media.bind", media)]);
    completes(&gateway, &format!("six.test:{}", carrier.address.port()));
    let invite = carrier.passes().request("INVITE");
    assert!(invite.text().contains("c=IN IP6 ::1"), "{}", invite.text());
    gateway.finish();
}

#[test]
fn a_name_that_does_not_exist_ends_the_call_and_the_record_names_it() {
    if !peer::have(&["dnsmasq"]) {
        return;
    }
    let names = Records::default().address("other.test").serve();
    let gateway = asking(&names, &[]);
    let line = gateway.way_out(NUMBER, outbound("nowhere.test", &json!({})), echo());
    for _ in 0..2 {
        let call = gateway.dial(&line, CALLEE);
        let record = gateway.ends(&call);
        assert_eq!(record["status"], "failed", "{record:#}");
        assert_eq!(record["end_reason"]["code"], "carrier_unreachable");
        let text = record["end_reason"]["text"].as_str().unwrap_or_default();
        assert!(text.contains("nowhere.test"), "{record:#}");
    }
    // The second call knew the answer.
    let asked = names.questions();
    let servers = asked.iter().filter(|asked| *asked == "SRV _sip._udp.nowhere.test").count();
    assert_eq!(servers, 1, "{asked:?}");
    gateway.finish();
}

#[test]
fn a_proxy_that_asks_for_credentials_gets_them_for_every_request_and_is_in_every_route() {
    if !peer::have(&["sipp", "kamailio"]) {
        return;
    }
    for (transport, algorithm) in [("udp", "MD5"), ("tcp", "SHA-256")] {
        let script = Script::answers(PLAIN_ANSWER);
        let carrier = match transport {
            "tcp" => Callee::new(script).over_tcp().start(),
            _ => Callee::new(script).start(),
        };
        let door = Door { user: "customer", password: PASSWORD, algorithm };
        let proxy = Kamailio::start(carrier.address, transport, Some(door));
        let gateway = Gateway::start();
        let address = proxy.address.to_string();
        let line = gateway.way_out(NUMBER, outbound(&address, &json!({})), echo());
        let call = gateway.dial(&line, CALLEE);
        gateway.reaches(&call, "in_progress");
        gateway.ask(&call, "hangup", &json!({}));
        let called = carrier.passes();
        // Twice in its route: where the call came in, and where it went on.
        let routes = called.messages.matches("Record-Route:").count();
        assert!(routes >= 1, "{}", called.messages);
        assert_eq!(gateway.ends(&call)["status"], "completed");
        let notes = proxy.notes();
        for wanted in
            ["challenged INVITE", "let in INVITE", "let in BYE", "routed ACK", "routed BYE"]
        {
            assert!(notes.iter().any(|note| note == wanted), "no {wanted}: {notes:?}");
        }
        assert!(notes.iter().all(|note| !note.starts_with("astray")), "{notes:?}");
        gateway.finish();
    }
}

#[test]
fn a_proxy_with_two_transports_carries_a_call_in_and_finds_its_way_back() {
    if !peer::have(&["sipp", "kamailio"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    for transport in ["udp", "tcp"] {
        let next = if transport == "tcp" { gateway.tcp } else { gateway.udp };
        let proxy = Kamailio::start(next, transport, None);
        // Hold and resume: re-INVITEs of the caller.
        Sipp::new(&gateway, "hold_and_resume", &line.number).through(proxy.address).passes();
        // A BYE of ours.
        let caller = Sipp::new(&gateway, "hung_up_by_the_gateway", &line.number);
        let calling = caller.through(proxy.address).start();
        calling.wait_for_message("ACK sip:");
        let live = wait::until("the call is up", Duration::from_secs(10), || {
            let all = gateway.conversations();
            all.into_iter().find(|record| record["status"] == "in_progress")
        });
        gateway.ask(live["id"].as_str().unwrap(), "hangup", &json!({}));
        calling.passes();
        let notes = proxy.notes();
        assert_eq!(notes.iter().filter(|note| *note == "routed BYE").count(), 2, "{notes:?}");
        assert!(notes.iter().all(|note| !note.starts_with("astray")), "{notes:?}");
    }
    assert_eq!(gateway.ended_conversations(4).len(), 4);
    gateway.finish();
}

#[test]
fn holding_keys_and_referring_go_by_the_route_of_the_proxy() {
    if !peer::have(&["sipp", "kamailio"]) {
        return;
    }
    // It takes no keys as events: they go as INFO.
    let keyless = "m=audio [media_port] RTP/AVP 0\na=rtpmap:0 PCMU/8000";
    let carrier_script = Script::call()
        .answer(keyless)
        .reinvited(keyless)
        .reinvited(keyless)
        .expect("INFO")
        .reply(200, "OK")
        .expect("REFER")
        .reply(202, "Accepted")
        .notify("terminated;reason=noresource", "SIP/2.0 200 OK")
        .expect("BYE")
        .reply(200, "OK");
    let carrier = Callee::new(carrier_script).over_tcp().start();
    let proxy = Kamailio::start(carrier.address, "tcp", None);
    let held = format!("{PLAIN_ANSWER}\na=sendonly");
    let agent_script = Script::call()
        .answer(PLAIN_ANSWER)
        .pause(300)
        .request("INVITE", "", &held)
        .pause(300)
        .request("INVITE", "", PLAIN_ANSWER)
        .pause(300)
        .request("INFO", "Content-Type: application/dtmf-relay", "Signal=5\nDuration=160")
        .expect("BYE")
        .reply(200, "OK");
    let agent = Callee::new(agent_script).start();
    let gateway = Gateway::start();
    let runtime = json!({ "type": "sip", "uri": format!("sip:agent@{}", agent.address) });
    let more = json!({ "transfer_mode": "refer" });
    let address = proxy.address.to_string();
    let line = gateway.way_out(NUMBER, outbound(&address, &more), runtime);
    let call = gateway.dial(&line, CALLEE);
    carrier.wait_for_message("Signal=5");
    gateway.ask(&call, "transfer", &json!({ "transfer_number": "+15550300300" }));
    agent.passes();
    let called = carrier.passes();
    assert!(called.requests("INVITE")[1].text().contains("a=sendonly"), "{}", called.messages);
    assert_eq!(gateway.ends(&call)["status"], "transferred");
    let notes = proxy.notes();
    for method in ["ACK", "INVITE", "INFO", "REFER", "NOTIFY", "BYE"] {
        assert!(notes.contains(&format!("routed {method}")), "no {method}: {notes:?}");
    }
    assert!(notes.iter().all(|note| !note.starts_with("astray")), "{notes:?}");
    gateway.finish();
}

#[test]
fn baresip_as_the_callee_hears_itself_from_the_echo_plain_and_encrypted() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let ways = [
        (Audio::Plain, "SIP_MEDIA_ENCRYPT_DISABLE", "SIP_TRANSPORT_UDP"),
        (Audio::Srtp, "SIP_MEDIA_ENCRYPT_REQUIRE", "SIP_TRANSPORT_TCP"),
    ];
    let calls: Vec<_> = ways
        .into_iter()
        .enumerate()
        .map(|(n, (audio, policy, transport))| {
            let phone = Baresip::answer(CALLEE, audio, &said(), 25);
            let more = json!({ "media_encryption": policy, "transport": transport });
            let address = phone.address().to_string();
            let number = format!("+1555010020{n}");
            let line = gateway.way_out(&number, outbound(&address, &more), echo());
            (phone, gateway.dial(&line, CALLEE), audio)
        })
        .collect();
    for (phone, call, audio) in calls {
        phone.hears(&SCALE, &CALLER);
        gateway.ask(&call, "hangup", &json!({}));
        let record = gateway.ends(&call);
        assert_eq!(record["status"], "completed", "{record:#}");
        assert_eq!(record["quality"]["encrypted"], audio == Audio::Srtp, "{record:#}");
    }
    gateway.finish();
}

#[test]
fn baresip_as_the_callee_hears_the_clip_of_an_agent_and_hangs_up() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let phone = Baresip::answer(CALLEE, Audio::Plain, &[0; 30 * 8_000], 25);
    let line = gateway.way_out(NUMBER, outbound(&phone.address().to_string(), &json!({})), tone());
    let call = gateway.dial(&line, CALLEE);
    phone.hears(&SCALE, &[440]);
    phone.quit();
    let record = gateway.ends(&call);
    assert_eq!(record["end_reason"]["code"], "callee_hung_up", "{record:#}");
    gateway.finish();
}
