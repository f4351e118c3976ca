//! What the settings promise their reader.

use std::collections::BTreeSet;

use super::read::Reader;
use super::source::Source;
use super::*;

fn parse(text: &str) -> Result<Settings, SettingsErrors> {
    Settings::parse(text, "trunkline.toml", [])
}

fn with_env(text: &str, env: &[(&str, &str)]) -> Result<Settings, SettingsErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::parse(text, "trunkline.toml", env)
}

fn lines(result: Result<Settings, SettingsErrors>) -> Vec<String> {
    result.expect_err("faulty settings").to_string().lines().map(str::to_owned).collect()
}

const EXAMPLE: &str = include_str!("../../trunkline.example.toml");

#[test]
fn no_file_at_all_gives_the_defaults() {
    assert_eq!(parse("").unwrap(), Settings::default());
    assert_eq!(Settings::load(None, []).unwrap(), Settings::default());
}

#[test]
fn the_example_file_equals_the_defaults() {
    assert_eq!(parse(EXAMPLE).unwrap(), Settings::default());
}

#[test]
fn the_example_file_shows_every_key_and_no_other() {
    let (source, _) = Source::read("", "", []);
    let mut reader = Reader::new(source);
    Settings::read(&mut reader);
    let known: BTreeSet<String> = reader.keys.keys().cloned().collect();

    let (source, errors) = Source::read(EXAMPLE, "", []);
    assert!(errors.is_empty());
    let shown: BTreeSet<String> = source
        .sections
        .iter()
        .flat_map(|(section, value)| {
            let source::Kind::Table(table) = &value.kind else { panic!("{section}") };
            table.keys().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(known, shown);
    assert!(known.len() > 40);
}

#[test]
fn every_key_of_the_example_file_is_explained_above_it() {
    let mut above = "";
    for line in EXAMPLE.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(above.starts_with('#'), "not explained: {line}");
        }
        above = line;
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let text = "[sip]\nudp = [\"127.0.0.1:5060\", \"nowhere\", \"x\"]\nhots = \"a\"\n\
                max_calls = 0\n\n[medai]\nworkers = 1\n[calls]\n  drain_seconds = \"1\"\n";
    assert_eq!(
        lines(parse(text)),
        [
            "trunkline.toml:2:26: sip.udp: expected an address with port, such as \
             \"127.0.0.1:5060\" or \"[::1]:5060\", found this text",
            "trunkline.toml:2:37: sip.udp: expected an address with port, such as \
             \"127.0.0.1:5060\" or \"[::1]:5060\", found this text",
            "trunkline.toml:3:8: sip.hots: unknown key; did you mean host?",
            "trunkline.toml:4:13: sip.max_calls: 0 is out of range: 1 to 16000",
            "trunkline.toml:6:2: medai: unknown section; did you mean media?",
            "trunkline.toml:9:19: calls.drain_seconds: expected a whole number without quotes that \
             fits u32, found this text",
        ]
    );
}

#[test]
fn bad_toml_is_told_with_line_and_column() {
    let all = lines(parse("[sip]\nhost = \n"));
    assert!(all.iter().any(|line| line.starts_with("trunkline.toml:2:")), "{all:?}");
}

#[test]
fn an_unknown_key_without_a_near_name_lists_what_there_is() {
    assert_eq!(
        lines(parse("[node]\nxyzzy = 1\n")),
        ["trunkline.toml:2:9: node.xyzzy: unknown key; there are name"]
    );
}

#[test]
fn a_variable_overrides_the_file() {
    let env = [
        ("TRUNKLINE_SIP__HOST", "sip.example.com"),
        ("TRUNKLINE_SIP__UDP", "0.0.0.0:5060, [::]:5060"),
        ("TRUNKLINE_SIP__ADVERTISE", "10.0.0.0/8=10.1.1.1,0.0.0.0/0=192.0.2.7"),
        ("TRUNKLINE_MEDIA__PORTS", "10000-19999"),
        ("TRUNKLINE_MEDIA__REALTIME", "false"),
        ("TRUNKLINE_CALLS__DRAIN_SECONDS", "7"),
        ("TRUNKLINE_STORE__SEAL_KEY", "/run/secrets/seal"),
        ("TRUNKLINE_CONFORMANCE", "not a setting"),
        ("HOME", "/root"),
    ];
    let settings = with_env("[sip]\nhost = \"other\"\n", &env).unwrap();
    assert_eq!(settings.sip.host, "sip.example.com");
    assert_eq!(settings.sip.udp.len(), 2);
    assert_eq!(settings.sip.advertise.len(), 2);
    assert_eq!(settings.media.ports, 10_000..=19_999);
    assert!(!settings.media.realtime);
    assert_eq!(settings.calls.drain_seconds, 7);
    assert_eq!(settings.store.seal_key.as_deref(), Some(Path::new("/run/secrets/seal")));
}

#[test]
fn a_faulty_variable_is_named() {
    let env = [("TRUNKLINE_SIP__MAX_CALLS", "many"), ("TRUNKLINE_SIP__PORT", "5060")];
    assert_eq!(
        lines(with_env("", &env)),
        [
            "$TRUNKLINE_SIP__MAX_CALLS: sip.max_calls: expected a whole number without quotes that \
             fits u32, found this text",
            "$TRUNKLINE_SIP__PORT: sip.port: unknown key; did you mean host?",
        ]
    );
}

#[test]
fn an_advertised_address_is_a_table() {
    let text = "[sip]\nadvertise = [{ peers = \"0.0.0.0/0\", address = \"198.51.100.4\" }]\n";
    let settings = parse(text).unwrap();
    assert_eq!(settings.sip.advertise.first().unwrap().address.to_string(), "198.51.100.4");
}

#[test]
fn a_certificate_and_its_key_come_together_or_not_at_all() {
    let tls = "[sip]\ntls = [\"127.0.0.1:5061\"]\n";
    assert!(parse(tls).is_ok(), "a self-signed certificate is made");
    let all = lines(parse(&format!("{tls}certificate = \"a.pem\"\n")));
    assert_eq!(all, ["settings: sip.private_key: needed with sip.certificate"]);
    let all = lines(parse(&format!("{tls}private_key = \"a.key\"\n")));
    assert_eq!(all, ["settings: sip.certificate: needed with sip.private_key"]);
    assert!(parse(&format!("{tls}certificate = \"a\"\nprivate_key = \"b\"\n")).is_ok());
}

#[test]
fn fewer_ports_than_calls_need_is_refused() {
    let all = lines(parse("[media]\nports = \"20001-20010\"\n"));
    assert_eq!(
        all,
        ["trunkline.toml:2:9: media.ports: has 4 pairs of ports but sip.max_calls is 2000: widen \
          the range or lower the calls"]
    );
}

#[test]
fn contradictions_are_refused() {
    for (text, key) in [
        ("[sip]\nudp = []\ntcp = []\n", "sip.udp"),
        ("[sip]\nhost = \"a b\"\n", "sip.host"),
        ("[sip]\nhost = \"-a.example\"\n", "sip.host"),
        ("[sip]\nhost = \"a.example:0\"\n", "sip.host"),
        ("[sip]\nuser_agent = \"x\\r\\nVia: y\"\n", "sip.user_agent"),
        ("[sip]\nudp = [\"127.0.0.1:5060\", \"127.0.0.1:5060\"]\n", "sip.udp"),
        (
            "[sip]\nadvertise = [{ peers = \"0.0.0.0/0\", address = \"0.0.0.0\" }]\n",
            "sip.advertise",
        ),
        ("[sip]\nnameservers = [\"192.0.2.53:0\"]\n", "sip.nameservers"),
        ("[sip]\nnameservers = [\"0.0.0.0:53\"]\n", "sip.nameservers"),
        ("[calls]\noutbound_concurrency = 0\n", "calls.outbound_concurrency"),
        ("[calls]\noutbound_concurrency = 10001\n", "calls.outbound_concurrency"),
        ("[media]\nbind = []\n", "media.bind"),
        ("[media]\nbind = [\"127.0.0.1\", \"127.0.0.2\"]\n", "media.bind"),
        ("[media]\nports = \"9-4\"\n", "media.ports"),
        ("[media]\njitter_min_ms = 300\n", "media.jitter_max_ms"),
        ("[api]\nlisten = \"127.0.0.1:9090\"\n", "observe.listen"),
        ("[api]\nlisten = \"127.0.0.1:5060\"\n", "api.listen"),
        ("[store]\nurl = \"mysql:x\"\n", "store.url"),
        ("[store]\ndata_dir = \"\"\n", "store.data_dir"),
        ("[managed]\npool_numbers = [\"+15551234567\"]\n", "managed.pool_address"),
        ("[managed]\npool_numbers = [\"5551234567\"]\n", "managed.pool_numbers"),
        ("[managed]\npool_address = \"carrier.example\"\n", "managed.pool_password"),
        ("[managed]\npool_address = \"sip:carrier.example\"\n", "managed.pool_address"),
        ("[managed]\npool_country = \"us\"\n", "managed.pool_country"),
        ("[managed]\npool_transport = \"sctp\"\n", "managed.pool_transport"),
        ("[managed]\nfirst_number_account = \"pool\"\n", "managed.first_number_account"),
        ("[managed]\nfirst_number_account = \"other\"\n", "managed.first_number_account"),
        ("[managed]\nfirst_number_country = \"de\"\n", "managed.first_number_country"),
        ("[managed]\ntwilio_auth_token = \"t\"\n", "managed.twilio_account_sid"),
        ("[managed]\ntwilio_account_sid = \"AC1/..\"\n", "managed.twilio_account_sid"),
        ("[managed]\ntwilio_api_url = \"http://twilio.example\"\n", "managed.twilio_api_url"),
        ("[managed]\ntwilio_api_url = \"http://127.0.0.1:1@e\"\n", "managed.twilio_api_url"),
        ("[node]\nname = \"a\\nb\"\n", "node.name"),
        ("[observe]\nlevel = \"\"\n", "observe.level"),
        ("sip = 4\n", "sip"),
    ] {
        let all = lines(parse(text));
        assert!(all.iter().any(|line| line.contains(&format!(": {key}: "))), "{text}: {all:?}");
    }
}

#[test]
fn host_names_and_addresses_with_and_without_port_are_taken() {
    for host in
        ["sip.example.com", "sip.example.com:5080", "192.0.2.1", "[2001:db8::1]:5060", "[::1]"]
    {
        assert!(parse(&format!("[sip]\nhost = \"{host}\"\n")).is_ok(), "{host}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let all = lines(Settings::load(Some(Path::new("/nonexistent/trunkline.toml")), []));
    assert_eq!(all.len(), 1);
    assert!(all[0].contains("cannot read /nonexistent/trunkline.toml"));
}

#[test]
fn messages_hold_neither_control_characters_nor_values() {
    let all =
        lines(parse("[store]\nseal_key = 1\n\"k\\u001b[31m\" = 1\n[api]\nlisten = \"hunter2\"\n"));
    assert_eq!(all.len(), 3);
    assert!(!all.concat().chars().any(char::is_control));
    assert!(!all.concat().contains("hunter2"));
}

#[test]
fn a_managed_account_is_read_and_its_secrets_stay_secret() {
    let text = "[managed]\npool_numbers = [\"+15551234567\"]\npool_address = \"carrier.example\"\n\
                pool_username = \"u\"\npool_transport = \"tls\"\n";
    let sid = format!("AC{}", "0".repeat(32));
    let env = [
        ("TRUNKLINE_MANAGED__POOL_PASSWORD", "canary-1"),
        ("TRUNKLINE_MANAGED__TWILIO_ACCOUNT_SID", sid.as_str()),
        ("TRUNKLINE_MANAGED__TWILIO_AUTH_TOKEN", "canary-2"),
    ];
    let settings = with_env(text, &env).unwrap();
    let password = settings.managed.pool_password.as_ref().unwrap();
    assert_eq!(password.expose(), "canary-1");
    assert_eq!(settings.managed.pool_transport, crate::model::Transport::Tls);
    assert!(!settings.managed.twilio_allowed_addresses.is_empty());
    assert!(!format!("{settings:?}").contains("canary"));
}
