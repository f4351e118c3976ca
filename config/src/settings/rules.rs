//! What only two settings together, or a value's grammar, can get wrong.

use super::Settings;
use super::read::Reader;
use crate::limits::POOL_NUMBERS;
use crate::model::is_host;

/// Checks every rule; each broken one is recorded with the place of the setting to change.
pub(super) fn check(settings: &Settings, reader: &mut Reader) {
    names(settings, reader);
    sip(settings, reader);
    media(settings, reader);
    listeners(settings, reader);
    store(settings, reader);
    llm(settings, reader);
    managed(settings, reader);
}

fn names(settings: &Settings, reader: &mut Reader) {
    let node = &settings.node.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if node.is_empty() || node.len() > 64 || !node.chars().all(plain) {
        reader.fault("node.name", "1 to 64 letters, digits, '-', '_' or '.'");
    }
    let agent = &settings.sip.user_agent;
    if agent.is_empty() || agent.len() > 128 || !agent.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        reader.fault("sip.user_agent", "1 to 128 printable ASCII characters");
    }
    if !is_host(&settings.sip.host) {
        let message = "a DNS name or an address with an optional port, such as \"sip.example.com\" \
                       or \"192.0.2.1:5060\"";
        reader.fault("sip.host", message);
    }
}

fn sip(settings: &Settings, reader: &mut Reader) {
    let sip = &settings.sip;
    if sip.udp.is_empty() && sip.tcp.is_empty() && sip.tls.is_empty() {
        reader.fault("sip.udp", "no listener at all: give udp, tcp or tls an address");
    }
    if sip.nameservers.iter().any(|server| server.port() == 0 || server.ip().is_unspecified()) {
        reader.fault("sip.nameservers", "an address and port such as \"192.0.2.53:53\"");
    }
    match (&sip.certificate, &sip.private_key) {
        (Some(_), None) => reader.fault("sip.private_key", "needed with sip.certificate"),
        (None, Some(_)) => reader.fault("sip.certificate", "needed with sip.private_key"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    for (index, line) in sip.advertise.iter().enumerate() {
        if sip.advertise.iter().skip(index + 1).any(|other| other.peers == line.peers) {
            reader.fault("sip.advertise", format!("{} is listed twice", line.peers));
        }
        if line.address.is_unspecified() || line.address.is_multicast() {
            let message = format!("{} is not an address that a peer can reach", line.address);
            reader.fault("sip.advertise", message);
        }
    }
}

fn media(settings: &Settings, reader: &mut Reader) {
    let media = &settings.media;
    let four = media.bind.iter().filter(|address| address.is_ipv4()).count();
    let six = media.bind.len() - four;
    if media.bind.is_empty() || four > 1 || six > 1 {
        reader.fault("media.bind", "one address, or one of each family");
    }
    if media.jitter_min_ms > media.jitter_max_ms {
        let message = format!("is less than media.jitter_min_ms ({})", media.jitter_min_ms);
        reader.fault("media.jitter_max_ms", message);
    }
    let (low, high) = (*media.ports.start(), *media.ports.end());
    if low < 1_024 || low > high {
        reader.fault("media.ports", "a rising range above 1023, such as \"20000-29999\"");
        return;
    }
    // A leg takes an even port and the odd one after it.
    let first = u32::from(low) + u32::from(low % 2);
    let pairs = (u32::from(high) + 1).saturating_sub(first) / 2;
    if pairs < settings.sip.max_calls {
        let message = format!(
            "has {pairs} pairs of ports but sip.max_calls is {}: widen the range or lower the calls",
            settings.sip.max_calls
        );
        reader.fault("media.ports", message);
    }
}

fn listeners(settings: &Settings, reader: &mut Reader) {
    let (api, observe, sip) = (settings.api.listen, settings.observe.listen, &settings.sip);
    if api.port() != 0 && api == observe {
        reader.fault("observe.listen", "is the same as api.listen");
    }
    let streams: Vec<_> = sip.tcp.iter().chain(&sip.tls).copied().collect();
    for (key, listen) in [("api.listen", api), ("observe.listen", observe)] {
        if listen.port() != 0 && streams.contains(&listen) {
            reader.fault(key, "is the same as a TCP or TLS listener of sip");
        }
    }
    let shared = |address| sip.tcp.contains(address) && !sip.tcp.is_empty();
    if sip.tls.iter().filter(|address| address.port() != 0).any(shared) {
        reader.fault("sip.tls", "is the same as a listener in sip.tcp");
    }
    for (key, list) in [("sip.udp", &sip.udp), ("sip.tcp", &sip.tcp), ("sip.tls", &sip.tls)] {
        for (index, address) in list.iter().enumerate() {
            let again = list.iter().skip(index + 1).any(|other| other == address);
            if address.port() != 0 && again {
                reader.fault(key, format!("{address} is listed twice"));
            }
        }
    }
}

fn store(settings: &Settings, reader: &mut Reader) {
    let url = &settings.store.url;
    if !url.is_postgres() && url.sqlite_path().is_none_or(str::is_empty) {
        let why = "must be \"sqlite:\" and a path, or a URL that begins with \"postgres://\"";
        reader.fault("store.url", why);
    }
    if settings.store.data_dir.as_os_str().is_empty() {
        reader.fault("store.data_dir", "must name a folder");
    }
    let directive = |c: char| c.is_ascii_alphanumeric() || "=,:_-[]{}*.".contains(c);
    if settings.observe.level.is_empty() || !settings.observe.level.chars().all(directive) {
        reader.fault("observe.level", "a level such as \"info\", or \"info,sip=debug\"");
    }
}

fn llm(settings: &Settings, reader: &mut Reader) {
    let llm = &settings.llm;
    let Some(url) = &llm.base_url else {
        if llm.model.is_some() || llm.api_key.is_some() {
            reader.fault("llm.base_url", "needed with llm.model and llm.api_key");
        }
        return;
    };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_plain = |c: char| c.is_ascii_graphic() && c != '@' && c != '?' && c != '#';
    if rest.is_none_or(|rest| rest.is_empty() || !rest.chars().all(is_plain)) {
        reader.fault("llm.base_url", "a URL such as \"https://api.openai.com/v1\"");
    }
    if llm.model.is_none() {
        reader.fault("llm.model", "needed with llm.base_url");
    }
    let key = llm.api_key.as_ref().map_or("", |key| key.expose());
    if !key.chars().all(|c| c.is_ascii_graphic()) {
        reader.fault("llm.api_key", "printable ASCII characters without spaces");
    }
}

fn managed(settings: &Settings, reader: &mut Reader) {
    let managed = &settings.managed;
    let pool = managed.pool_address.is_some();
    for (key, is_given) in [
        ("managed.pool_username", managed.pool_username.is_some()),
        ("managed.pool_password", managed.pool_password.is_some()),
        ("managed.pool_numbers", !managed.pool_numbers.is_empty()),
    ] {
        match (pool, is_given) {
            (true, false) => reader.fault(key, "needed with managed.pool_address"),
            (false, true) => reader.fault("managed.pool_address", format!("needed with {key}")),
            (true, true) | (false, false) => {}
        }
    }
    if managed.pool_address.as_ref().is_some_and(|address| !is_host(address)) {
        reader.fault("managed.pool_address", "a host name or address with an optional port");
    }
    if managed.pool_numbers.len() > POOL_NUMBERS.value_usize() {
        let message = format!("at most {} numbers", POOL_NUMBERS.value);
        reader.fault("managed.pool_numbers", message);
    }
    for (key, country) in [
        ("managed.pool_country", &managed.pool_country),
        ("managed.first_number_country", &managed.first_number_country),
    ] {
        if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
            reader.fault(key, "two capital letters, such as \"US\"");
        }
    }
    let has_account = match managed.first_number_account.as_deref() {
        None => true,
        Some("pool") => pool,
        Some("twilio") => managed.twilio_account_sid.is_some(),
        Some(_) => false,
    };
    if !has_account {
        let message = "\"pool\" or \"twilio\", whose settings must be given too";
        reader.fault("managed.first_number_account", message);
    }
    twilio(settings, reader);
}

fn twilio(settings: &Settings, reader: &mut Reader) {
    let managed = &settings.managed;
    match (&managed.twilio_account_sid, &managed.twilio_auth_token) {
        (Some(_), None) => {
            reader.fault("managed.twilio_auth_token", "needed with managed.twilio_account_sid");
        }
        (None, Some(_)) => {
            reader.fault("managed.twilio_account_sid", "needed with managed.twilio_auth_token");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let is_sid = |sid: &String| {
        sid.strip_prefix("AC")
            .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if !managed.twilio_account_sid.as_ref().is_none_or(is_sid) {
        reader.fault("managed.twilio_account_sid", "\"AC\" and 32 hexadecimal digits");
    }
    for (key, url) in [
        ("managed.twilio_api_url", &managed.twilio_api_url),
        ("managed.twilio_trunking_url", &managed.twilio_trunking_url),
    ] {
        // The auth token goes there: unencrypted only where it does not leave the machine.
        let inside = ["http://127.0.0.1:", "http://[::1]:"];
        let is_safe = url.starts_with("https://") || inside.iter().any(|own| url.starts_with(own));
        if !is_safe || url.contains(['@', '?', '#']) {
            reader.fault(key, "an https:// URL");
        }
    }
}
