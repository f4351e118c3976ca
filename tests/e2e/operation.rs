//! What an operator does while calls are up: health tests, stopping, reloading.

use std::process::Command;
use std::time::Duration;

use support::sipp::Sipp;
use support::{Gateway, peer, wait};

#[test]
fn options_is_answered_200() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    gateway.echo_line();
    Sipp::new(&gateway, "options", "ping").set("status", 200).passes();
    gateway.finish();
}

#[test]
fn a_stop_lets_live_calls_finish_and_turns_new_ones_away() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let mut gateway = Gateway::start();
    let line = gateway.echo_line();
    let live = Sipp::new(&gateway, "call", &line.number).set("talk_ms", 5_000).start();
    live.wait_for_message("SIP/2.0 200");
    gateway.signal(libc::SIGTERM);
    wait::until("health says draining", Duration::from_secs(5), || {
        (gateway.health() == (503, "draining".to_owned())).then_some(())
    });
    Sipp::new(&gateway, "options", "ping").set("status", 503).passes();
    let late = Sipp::new(&gateway, "refused_with_retry_after", &line.number);
    late.set("status", 503).passes();
    assert!(!gateway.has_exited());
    live.passes();
    let status = gateway.wait_for_exit(Duration::from_secs(15));
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_signal_hangs_up_at_once_and_the_caller_is_told() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let mut gateway = Gateway::start();
    let line = gateway.echo_line();
    let live = Sipp::new(&gateway, "hung_up_by_the_gateway", &line.number).start();
    live.wait_for_message("ACK sip:");
    gateway.signal(libc::SIGTERM);
    wait::until("health says draining", Duration::from_secs(5), || {
        (gateway.health().0 == 503).then_some(())
    });
    gateway.signal(libc::SIGTERM);
    live.passes();
    let status = gateway.wait_for_exit(Duration::from_secs(15));
    assert!(status.success(), "{status}");
}

#[test]
fn a_reload_shows_the_new_certificate_and_leaves_calls_alone() {
    if !peer::have(&["sipp", "openssl", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let live = Sipp::new(&gateway, "call", &line.number).set("talk_ms", 3_000).start();
    live.wait_for_message("SIP/2.0 200");
    let shown = || {
        let ask = format!(
            "import ssl; print(ssl.get_server_certificate(('127.0.0.1', {})))",
            gateway.tls.port()
        );
        let output = Command::new("python3").args(["-c", &ask]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let before = shown();
    assert!(before.starts_with("-----BEGIN CERTIFICATE-----"), "{before}");
    let data = gateway.folder().join("data");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "30", "-subj", "/CN=127.0.0.1", "-keyout"])
        .arg(data.join("self-signed.key"))
        .arg("-out")
        .arg(data.join("self-signed.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    gateway.signal(libc::SIGHUP);
    wait::until("another certificate is shown", Duration::from_secs(10), || {
        let now = shown();
        (now.starts_with("-----BEGIN") && now != before).then_some(())
    });
    live.passes();
    gateway.finish();
}
