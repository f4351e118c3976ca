//! Calls that are judged by what is heard at both ends.

use std::time::Duration;

use serde_json::json;
use support::baresip::{Audio, Baresip};
use support::bot::Bot;
use support::gateway::{echo, from_here, tone, websocket};
use support::sipp::Sipp;
use support::sound::{contains, notes, tune};
use support::{Gateway, peer, wait};

/// Every note that may come, in Hz: none is a multiple of another.
pub(crate) const SCALE: [u32; 8] = [440, 620, 770, 950, 1_130, 1_390, 1_610, ENDLESS];

/// What callers say.
pub(crate) const CALLER: [u32; 4] = [770, 1_390, 620, 950];

/// What the bot plays at key 0.
const ENDLESS: u32 = 2_200;

/// What the bot says.
const BOT: [u32; 3] = [1_610, 1_130, 1_610];

/// The same as samples, between silence.
pub(crate) fn said() -> Vec<i16> {
    // Silence first: the call is not up at once.
    let mut samples = vec![0; 8_000];
    samples.extend(tune(&CALLER, 400));
    samples.extend(vec![0; 8_000]);
    samples
}

#[test]
fn a_plain_call_from_baresip_gets_its_own_words_back() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let uri = format!("sip:{}@{}", line.number, gateway.udp);
    let mut phone = Baresip::call(&uri, Audio::Plain, &said(), 6);
    phone.wait_for_answer();
    let heard = phone.ends();
    assert!(contains(&heard.notes(&SCALE), &CALLER), "{:?}\n{}", heard.notes(&SCALE), heard.output);
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "completed");
    assert_eq!(record["quality"]["packets_lost"], 0, "{record:#}");
    gateway.finish();
}

#[test]
fn an_srtp_call_over_tls_from_baresip_gets_its_own_words_back() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let inbound = json!({
        "allowed_addresses": ["127.0.0.1"],
        "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE",
    });
    let line = gateway.line("+15550100100", inbound, echo());
    let uri = format!("sip:{}@{};transport=tls", line.number, gateway.tls);
    let mut phone = Baresip::call(&uri, Audio::Srtp, &said(), 6);
    phone.wait_for_answer();
    let heard = phone.ends();
    assert!(contains(&heard.notes(&SCALE), &CALLER), "{:?}\n{}", heard.notes(&SCALE), heard.output);
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    assert!(gateway.metric("gateway_sip_messages_total", "transport=\"tls\"") > 0.0);
    gateway.finish();
}

#[test]
fn a_caller_hears_the_clip_of_a_playback_agent() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.line("+15550100100", from_here(), tone());
    let uri = format!("sip:{}@{};transport=tcp", line.number, gateway.tcp);
    let mut phone = Baresip::call(&uri, Audio::Plain, &said(), 4);
    phone.wait_for_answer();
    let heard = phone.ends();
    assert_eq!(heard.notes(&SCALE), [440], "{}", heard.output);
    gateway.finish();
}

#[test]
fn sipp_plays_audio_and_as_much_comes_back() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said.ulaw");
    let encoded: Vec<u8> =
        said().iter().map(|&sample| media::codec::g711::ulaw_encode(sample)).collect();
    std::fs::write(&file, encoded).unwrap();
    let caller = Sipp::new(&gateway, "call_with_audio", &line.number);
    caller.set("audio", file.display()).set("talk_ms", 3_000).passes();
    let quality = &gateway.ended_conversation()["quality"];
    let (received, sent) = (&quality["packets_received"], &quality["packets_sent"]);
    assert!(received.as_u64().unwrap_or_default() >= 100, "{quality:#}");
    assert!(sent.as_u64().unwrap_or_default() >= 100, "{quality:#}");
    assert_eq!(quality["packets_lost"], 0, "{quality:#}");
    gateway.finish();
}

#[test]
fn a_pipecat_agent_and_its_caller_hear_each_other() {
    let Some(python) = peer::python_with_pipecat().filter(|_| peer::have(&["baresip"])) else {
        return;
    };
    let gateway = Gateway::start();
    let mut bot = Bot::start(&python, &BOT, 500);
    let line = gateway.line("+15550100100", from_here(), websocket(&bot.url()));
    let uri = format!("sip:{}@{}", line.number, gateway.udp);
    let mut phone = Baresip::call(&uri, Audio::Plain, &said(), 6);
    phone.wait_for_answer();
    let started = bot.tells("started");
    assert_eq!(started["kind"], "twilio", "{started}");
    let parameters = &started["call"]["body"];
    assert_eq!(parameters["to_number"], line.number, "{started}");
    assert_eq!(parameters["from_number"], "+15550199", "{started}");
    let heard = phone.ends();
    assert!(contains(&heard.notes(&SCALE), &BOT), "{:?}\n{}", heard.notes(&SCALE), heard.output);
    let caller = notes(&bot.heard(), &SCALE);
    let record = gateway.ended_conversation();
    let late = gateway.metric("gateway_media_missed_ticks_total", "");
    assert!(
        contains(&caller, &CALLER),
        "the bot heard {caller:?}; {late} ticks were missed; {:#}",
        record["quality"]
    );
    assert_eq!(record["end_reason"]["code"], "caller_hung_up");
    gateway.finish();
}

#[test]
fn a_pipecat_agent_reads_keys_is_interrupted_and_hangs_up() {
    let Some(python) = peer::python_with_pipecat().filter(|_| peer::have(&["baresip"])) else {
        return;
    };
    let gateway = Gateway::start();
    let mut bot = Bot::start(&python, &BOT, 300);
    let line = gateway.line("+15550100100", from_here(), websocket(&bot.url()));
    let uri = format!("sip:{}@{}", line.number, gateway.udp);
    // A microphone whose file ends would end the call.
    let mut phone = Baresip::call(&uri, Audio::Plain, &[0; 30 * 8_000], 25);
    phone.wait_for_answer();
    bot.tells("started");
    let step = Duration::from_secs(5);
    let mut pressed = String::new();
    let mut press = |key| {
        phone.press(key);
        pressed.push(key);
        wait::until(&format!("the bot is told of {pressed}"), step, || {
            (bot.digits() == pressed).then_some(())
        });
    };
    press('5');
    press('0');
    wait::until("the bot's endless tone", step, || {
        notes(&phone.heard_so_far(), &SCALE).contains(&ENDLESS).then_some(())
    });
    press('1');
    // The bot has sent many seconds ahead; "clear" must silence what the gateway still holds.
    wait::until("silence after the interruption", step, || {
        let heard = phone.heard_so_far();
        let last = heard.get(heard.len().checked_sub(4_000)?..)?;
        notes(last, &SCALE).is_empty().then_some(())
    });
    press('#');
    let record = gateway.ended_conversation();
    assert_eq!(record["end_reason"]["code"], "agent_hung_up", "{record:#}");
    phone.ends();
    gateway.finish();
}

#[test]
fn a_key_that_comes_in_signalling_reaches_a_pipecat_agent() {
    let Some(python) = peer::python_with_pipecat().filter(|_| peer::have(&["sipp"])) else {
        return;
    };
    let gateway = Gateway::start();
    let mut bot = Bot::start(&python, &BOT, 300);
    let line = gateway.line("+15550100100", from_here(), websocket(&bot.url()));
    Sipp::new(&gateway, "key_by_info", &line.number).set("key", "7").passes();
    bot.tells("ended");
    assert_eq!(bot.digits(), "7");
    gateway.finish();
}
