//! `trunkline demo`: the main job on loopback, with real sockets, a real store and a real API.
//!
//! Seven calls: over UDP to a number; over TLS with SRTP to an agent's own SIP address; a noisy
//! caller on a trunk with noise cancellation; one from an address that no trunk lists; an agent that
//! calls out through a carrier with digest, TLS and SRTP; a caller whose agent is a SIP endpoint; and
//! one that is handed to another number. What is reported was measured by the stand-ins at the ends,
//! or read back from the API.

pub mod audio;
pub mod desk;
pub mod files;
pub mod line;
pub mod onward;
pub mod phone;
pub mod report;
pub mod rest;
pub mod rtp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use config::settings::Settings;
use media::sdp::Encryption;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sip::Transport;

use crate::cli;
use crate::observe;
use crate::run::{say, say_error};
use crate::serve::{Gateway, Listening};

use files::Capture;
use phone::{Dial, Outcome, Talked};
use report::{CallReport, Outcome as Shown, Talk};
use rest::Rest;

/// Least likeness of the audio that came back, for a call to count as heard.
const MIN_LIKENESS: f32 = 0.8;

/// Least drop of the noise between words on the trunk with noise cancellation, in dB.
const MIN_QUIETER_DB: f32 = 6.0;

/// Level of the noisy caller's noise, in dBFS.
const NOISE_DBFS: f32 = -38.0;

/// Runs the demo.
pub async fn run(args: cli::Demo) -> ExitCode {
    if args.verbose {
        let settings = config::settings::ObserveSettings::default();
        if let Err(error) = observe::start_logs(&settings) {
            say_error(&format!("{error}\n"));
        }
    }
    match demo(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say_error(&format!("\nthe demo failed: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// What was provisioned through the API.
struct Provisioned {
    rest: Rest,
    number: &'static str,
    quiet_number: &'static str,
    closed_number: &'static str,
    agent: String,
}

/// The gateway's ends that the calls need.
struct Ends {
    udp: SocketAddr,
    tls: SocketAddr,
    roots: rustls::RootCertStore,
}

async fn demo(args: &cli::Demo) -> io::Result<bool> {
    std::fs::create_dir_all(&args.output)?;
    let folder = args.output.join("data");
    // Every demo begins with an empty store.
    let _ = std::fs::remove_dir_all(&folder);
    step("starting the gateway on free loopback ports");
    let certificate = onward::carrier_certificate(&folder)?;
    let gateway = Gateway::start(settings(&folder, &certificate.certificate)).await?;
    let ends = ends(&gateway.listening)?;
    done(&format!("SIP on {} (UDP), {} (TLS)", ends.udp, ends.tls));
    let desks = onward::Desks::open(certificate).await?;
    let provisioned = provision(&gateway, &desks).await?;
    let capture = Capture::default();
    let voice = audio::speech(args.talk);
    let mut calls = Vec::new();
    let (first, heard) = call_number(&ends, &provisioned, &voice, &capture).await?;
    calls.push(first);
    calls.push(call_agent(&ends, &provisioned, &voice).await?);
    calls.push(call_noisy(&ends, &provisioned, &voice).await?);
    calls.push(call_refused(&ends, &provisioned).await?);
    calls.extend(desks.calls(&provisioned.rest, &ends, &voice).await?);
    let files = write_files(&args.output, &voice, &heard, &capture)?;
    say(&report::render(&calls, &files));
    if args.keep {
        keep(&gateway, &provisioned, &ends).await;
    }
    gateway.drain(Duration::from_secs(1)).await;
    gateway.stop().await;
    Ok(calls.iter().all(|call| call.passed))
}

fn step(text: &str) {
    say(&format!("  · {text} … "));
}

fn done(text: &str) {
    say(&format!("{text}\n"));
}

/// Everything on loopback; the stand-in carrier's certificate is believed.
fn settings(folder: &Path, carrier: &Path) -> Settings {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Settings::default();
    settings.sip.udp = vec![any];
    settings.sip.tcp = vec![any];
    settings.sip.tls = vec![any];
    settings.sip.host = "127.0.0.1".to_owned();
    settings.api.listen = any;
    settings.observe.listen = any;
    settings.store.data_dir = folder.to_owned();
    settings.agents.allow_plain_ws = true;
    settings.agents.allow_private_addresses = true;
    settings.media.quarantine_seconds = 1;
    settings.sip.extra_roots = Some(carrier.to_owned());
    settings
}

fn ends(listening: &Listening) -> io::Result<Ends> {
    let missing = || io::Error::other("a listener is missing");
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = &listening.certificate {
        let certificates = rustls::pki_types::CertificateDer::pem_file_iter(path);
        for certificate in certificates.map_err(io::Error::other)?.flatten() {
            roots.add(certificate).map_err(io::Error::other)?;
        }
    }
    Ok(Ends {
        udp: *listening.udp.first().ok_or_else(missing)?,
        tls: *listening.tls.first().ok_or_else(missing)?,
        roots,
    })
}

/// Organisation and key are the first start's; everything else goes through the REST API.
async fn provision(gateway: &Gateway, desks: &onward::Desks) -> io::Result<Provisioned> {
    step("creating trunks, numbers and agents through the REST API");
    let api = gateway.listening.api.ok_or_else(|| io::Error::other("no API listener"))?;
    let made = gateway.bootstrap.as_ref();
    let (_, key) = made.ok_or_else(|| io::Error::other("the store was not empty"))?;
    let rest = Rest::new(api, key.expose());
    let numbers = ["+15550100100", "+15550100200", "+15550100300"];
    let trunks = [
        json!({"name": "demo PBX", "inbound_config": {"allowed_addresses": ["127.0.0.0/29"]}}),
        json!({"name": "demo PBX, quiet", "inbound_config":
            {"allowed_addresses": ["127.0.0.0/29"], "enable_noise_cancellation": true}}),
        json!({"name": "somebody else's PBX", "inbound_config":
            {"allowed_addresses": ["192.0.2.0/24"]}}),
    ];
    for (number, trunk) in numbers.iter().zip(trunks) {
        let trunk = rest.post("/core/trunks", trunk).await?;
        let body = json!({"phone_number": number, "trunk_id": text(&trunk, "id")});
        rest.post("/core/phone-numbers", body).await?;
    }
    let agent = rest.post("/core/agents", json!({"name": "Echo"})).await?;
    let agent = text(&agent, "id");
    let config = json!({"config": {"runtime": {"type": "builtin", "builtin": "echo"}}});
    rest.post(&format!("/core/agents/{agent}/versions"), config).await?;
    let publish = json!({"phone_numbers": numbers, "direction": "inbound"});
    rest.post(&format!("/core/agents/{agent}/versions/1/publish"), publish).await?;
    rest.post(&format!("/core/agents/{agent}/deploy-as-sip"), json!({})).await?;
    desks.provision(&rest, &agent).await?;
    done("6 trunks, 6 numbers, 2 agents");
    let [number, quiet_number, closed_number] = numbers;
    Ok(Provisioned { rest, number, quiet_number, closed_number, agent })
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

async fn call_number(
    ends: &Ends,
    provisioned: &Provisioned,
    voice: &[i16],
    capture: &Capture,
) -> io::Result<(CallReport, Vec<i16>)> {
    step(&format!("a PBX calls {} over UDP", provisioned.number));
    let uri = format!("sip:{}@{}", provisioned.number, ends.udp);
    let mut dial = Dial::new(Transport::Udp, ends.udp, uri.clone(), voice.to_vec());
    dial.capture = Some(capture.clone());
    let outcome = phone::call(dial).await?;
    let heard = match &outcome {
        Outcome::Talked(talked) => talked.heard.samples.clone(),
        _ => Vec::new(),
    };
    let expect = Expect { likeness: MIN_LIKENESS, cleaned_of: None };
    let (shown, passed) = judge(provisioned, outcome, voice, expect).await?;
    let report = CallReport {
        title: "A PBX calls a number".to_owned(),
        wire: "UDP · G.711 µ-law · plain RTP".to_owned(),
        dialled: uri,
        outcome: shown,
        passed,
    };
    Ok((report, heard))
}

async fn call_agent(
    ends: &Ends,
    provisioned: &Provisioned,
    voice: &[i16],
) -> io::Result<CallReport> {
    step("a PBX calls the agent's own address over TLS with SRTP");
    let uri = format!("sip:{}@127.0.0.1:{};transport=tls", provisioned.agent, ends.tls.port());
    let mut dial = Dial::new(Transport::Tls, ends.tls, uri.clone(), voice.to_vec());
    dial.encryption = Encryption::Require;
    dial.roots = ends.roots.clone();
    let outcome = phone::call(dial).await?;
    let expect = Expect { likeness: MIN_LIKENESS, cleaned_of: None };
    let (shown, passed) = judge(provisioned, outcome, voice, expect).await?;
    Ok(CallReport {
        title: "A PBX calls an agent by its id".to_owned(),
        wire: "TLS · G.711 µ-law · SRTP (SDES, AES_CM_128_HMAC_SHA1_80)".to_owned(),
        dialled: uri,
        outcome: shown,
        passed,
    })
}

async fn call_noisy(
    ends: &Ends,
    provisioned: &Provisioned,
    voice: &[i16],
) -> io::Result<CallReport> {
    step(&format!("a noisy caller calls {}, whose trunk cancels noise", provisioned.quiet_number));
    let uri = format!("sip:{}@{}", provisioned.quiet_number, ends.udp);
    let mut noisy = voice.to_vec();
    audio::add_noise(&mut noisy, NOISE_DBFS, 1);
    let dial = Dial::new(Transport::Udp, ends.udp, uri.clone(), noisy.clone());
    let outcome = phone::call(dial).await?;
    let expect = Expect { likeness: MIN_LIKENESS, cleaned_of: Some(&noisy) };
    let (shown, passed) = judge(provisioned, outcome, voice, expect).await?;
    Ok(CallReport {
        title: "A noisy caller on a trunk with noise cancellation".to_owned(),
        wire: "UDP · G.711 µ-law · plain RTP".to_owned(),
        dialled: uri,
        outcome: shown,
        passed,
    })
}

async fn call_refused(ends: &Ends, provisioned: &Provisioned) -> io::Result<CallReport> {
    step("a stranger calls a number whose trunk does not list its address");
    let uri = format!("sip:{}@{}", provisioned.closed_number, ends.udp);
    let mut dial = Dial::new(Transport::Udp, ends.udp, uri.clone(), Vec::new());
    dial.from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
    dial.patience = Duration::from_secs(2);
    let outcome = phone::call(dial).await?;
    let decision = find_decision(&provisioned.rest, provisioned.closed_number).await?;
    let (rule, explanation) = (text(&decision, "rule"), text(&decision, "explanation"));
    let silent = matches!(outcome, Outcome::Silence);
    let passed = silent && rule == "source_not_allowed";
    done(if passed { "refused, and explained" } else { "not refused as it should be" });
    let seen = match outcome {
        Outcome::Silence => "no answer at all: a stranger learns nothing".to_owned(),
        Outcome::Refused { status, reason, .. } => format!("{status} {reason}"),
        Outcome::Talked(_) => "the call was answered!".to_owned(),
    };
    Ok(CallReport {
        title: "A call from an address that is not allowed".to_owned(),
        wire: "UDP from 127.0.0.66".to_owned(),
        dialled: uri,
        outcome: Shown::Refused { seen, rule, explanation },
        passed,
    })
}

/// What an answered call must show.
struct Expect<'a> {
    likeness: f32,
    /// The noisy audio that was said, when the noise is to be gone.
    cleaned_of: Option<&'a [i16]>,
}

async fn judge(
    provisioned: &Provisioned,
    outcome: Outcome,
    voice: &[i16],
    expect: Expect<'_>,
) -> io::Result<(Shown, bool)> {
    let talked = match outcome {
        Outcome::Talked(talked) => talked,
        Outcome::Refused { status, reason, warning } => {
            done("refused");
            let why = format!("{status} {reason} {}", warning.unwrap_or_default());
            return Ok((Shown::Failed(why), false));
        }
        Outcome::Silence => {
            done("no answer");
            return Ok((Shown::Failed("no answer".to_owned()), false));
        }
    };
    let record = find_conversation(&provisioned.rest, &talked.sip_call_id).await?;
    let echo = audio::find_echo(voice, &talked.heard.samples);
    let noise = expect.cleaned_of.map(|noisy| {
        // The suppressor learns the noise during the first second.
        let settled = talked.heard.samples.get(12_000..).unwrap_or(&[]);
        let end = settled.len().saturating_sub(8_000);
        let settled = settled.get(..end).unwrap_or(&[]);
        (audio::noise_floor_dbfs(noisy), audio::noise_floor_dbfs(settled))
    });
    let back = echo.likeness >= expect.likeness;
    let quiet = noise.is_none_or(|(before, after)| before - after >= MIN_QUIETER_DB);
    let closed = text(&record, "status") == "completed";
    done(if back { "answered, talked, hung up" } else { "answered, but not heard" });
    let shown =
        Talk { set_up: set_up(&talked), noise, ..figures(&talked.heard, &record, (echo, back)) };
    Ok((Shown::Talked(Box::new(shown)), back && quiet && closed))
}

/// How fast a call that was dialled came up.
fn set_up(talked: &Talked) -> String {
    let (ringing, answered) = (talked.ringing_ms, talked.set_up_ms);
    format!("ringing after {ringing:.1} ms, answered after {answered:.1} ms")
}

/// What one end measured, and what the record says.
fn figures(heard: &rtp::Heard, record: &Value, (echo, back): (audio::Echo, bool)) -> Talk {
    let quality = &record["quality"];
    Talk {
        set_up: String::new(),
        sent: heard.sent,
        received: heard.received,
        lost: quality["packets_lost"].as_u64().unwrap_or_default(),
        mos: audio::to_f32(quality["mos"].as_f64().unwrap_or_default()),
        echo,
        back,
        noise: None,
        notes: Vec::new(),
        record: format!(
            "{}, ended by the {}: {}",
            text(record, "status"),
            text(&record["end_reason"], "party"),
            text(&record["end_reason"], "code")
        ),
    }
}

/// Records are written behind the call's back: the closed one is asked for until it is there.
async fn find_conversation(rest: &Rest, sip_call_id: &str) -> io::Result<Value> {
    for _ in 0..50 {
        let listed = rest.get("/core/conversations?limit=20").await?;
        let found = listed.as_array().into_iter().flatten().find(|conversation| {
            conversation["trunk_call_id"] == sip_call_id && !conversation["end_reason"].is_null()
        });
        if let Some(found) = found {
            return Ok(found.clone());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other("the call's record did not appear"))
}

async fn find_decision(rest: &Rest, called: &str) -> io::Result<Value> {
    for _ in 0..50 {
        let listed = rest.get("/core/calls/decisions?limit=20").await?;
        let found = listed.as_array().into_iter().flatten().find(|d| d["called_number"] == called);
        if let Some(found) = found {
            return Ok(found.clone());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other("the decision record did not appear"))
}

fn write_files(
    folder: &Path,
    said: &[i16],
    heard: &[i16],
    capture: &Capture,
) -> io::Result<Vec<String>> {
    let wav = folder.join("call-1.wav");
    files::write_wav(&wav, said, heard)?;
    let pcap = folder.join("call-1.pcap");
    capture.write(&pcap)?;
    Ok(vec![
        format!("{}  what the first caller said (left) and heard (right)", wav.display()),
        format!("{}  its {} packets, SIP and RTP", pcap.display(), capture.len()),
    ])
}

/// Stays up until Ctrl-C, and says how to dial.
async fn keep(gateway: &Gateway, provisioned: &Provisioned, ends: &Ends) {
    let tcp = gateway.listening.tcp.first().map(ToString::to_string).unwrap_or_default();
    let api = gateway.listening.api.map(|api| api.to_string()).unwrap_or_default();
    let observe = gateway.listening.observe.map(|at| at.to_string()).unwrap_or_default();
    let key = gateway.bootstrap.as_ref().map(|(_, key)| key.expose().clone()).unwrap_or_default();
    say(&format!(
        "\nThe gateway stays up. Dial it from a softphone on this machine, without registration:\n\n  \
         sip:{}@{}                      UDP; the agent echoes you\n  \
         sip:{}@{}                      UDP; echo, noise cancelled\n  \
         sip:{}@{};transport=tcp\n  \
         sip:{}@127.0.0.1:{};transport=tls   SRTP if you offer it\n\n  \
         API      http://{api}/core/conversations   Authorization: Bearer {key}\n  \
         metrics  http://{observe}/metrics\n\n\
         Ctrl-C stops it.\n",
        provisioned.number,
        ends.udp,
        provisioned.quiet_number,
        ends.udp,
        provisioned.agent,
        tcp,
        provisioned.agent,
        ends.tls.port(),
    ));
    let _ = tokio::signal::ctrl_c().await;
}
