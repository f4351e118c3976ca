//! Trunks: one relation to one carrier or PBX.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    Invalid, check_count, check_name, check_password, check_token, hidden, is_host, present,
};
use crate::clock::Timestamp;
use crate::ids::{OrganisationId, TrunkId};
use crate::limits;
use crate::secret::Secret;

/// Whether a trunk's audio is encrypted (SDES-SRTP, RFC 4568).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub enum MediaEncryption {
    /// Never; an offer of nothing but SRTP is refused.
    #[default]
    #[serde(rename = "SIP_MEDIA_ENCRYPT_DISABLE", alias = "NONE", alias = "DISABLE")]
    Disable,
    /// As the other side offers.
    #[serde(rename = "SIP_MEDIA_ENCRYPT_ALLOW", alias = "ALLOW")]
    Allow,
    /// Always; an offer without usable SRTP is refused.
    #[serde(rename = "SIP_MEDIA_ENCRYPT_REQUIRE", alias = "REQUIRE")]
    Require,
}

/// What carries SIP to a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub enum Transport {
    /// Datagrams.
    #[default]
    #[serde(rename = "SIP_TRANSPORT_UDP", alias = "UDP")]
    Udp,
    /// A TCP connection.
    #[serde(rename = "SIP_TRANSPORT_TCP", alias = "TCP")]
    Tcp,
    /// A TLS connection.
    #[serde(rename = "SIP_TRANSPORT_TLS", alias = "TLS")]
    Tls,
}

/// How a call is handed to another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferMode {
    /// The gateway dials the new number itself and bridges the two.
    #[default]
    Bridge,
    /// The carrier is asked to (REFER, RFC 3515).
    Refer,
}

/// An audio codec a trunk may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Codec {
    /// G.711 mu-law.
    #[serde(rename = "PCMU")]
    Pcmu,
    /// G.711 A-law.
    #[serde(rename = "PCMA")]
    Pcma,
}

/// One entry of `allowed_addresses`: an address or a network, returned as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedAddress {
    text: String,
    network: IpNet,
}

impl AllowedAddress {
    /// Reads an IPv4 or IPv6 address or CIDR block. Host names are refused: a name's owner could
    /// move the permission.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address.to_canonical()),
            Err(_) => text.parse::<IpNet>().ok()?.trunc(),
        };
        Some(Self { text: text.to_owned(), network })
    }

    /// The addresses it permits; a single address is a network of one.
    #[must_use]
    pub const fn network(&self) -> IpNet {
        self.network
    }
}

impl fmt::Display for AllowedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for AllowedAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Drops empty strings; an empty list is no restriction, like `null`.
fn addresses<'de, D>(deserializer: D) -> Result<Option<Vec<AllowedAddress>>, D::Error>
where
    D: Deserializer<'de>,
{
    let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    let list = texts
        .iter()
        .filter(|text| !text.trim().is_empty())
        .map(|text| {
            AllowedAddress::parse(text)
                .ok_or_else(|| D::Error::custom("must hold only IP addresses and CIDR blocks"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((!list.is_empty()).then_some(list))
}

/// How calls come in over a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct InboundConfig {
    /// Noise suppression on the caller's audio.
    #[serde(default)]
    pub enable_noise_cancellation: bool,
    /// Whether the audio is encrypted.
    #[serde(default)]
    pub media_encryption: MediaEncryption,
    /// Source addresses that may call; `null` is everyone.
    #[serde(default, deserialize_with = "addresses")]
    #[schema(value_type = Option<Vec<String>>)]
    pub allowed_addresses: Option<Vec<AllowedAddress>>,
    /// Digest user that callers must authenticate as (RFC 8760), unique over all trunks.
    #[serde(default)]
    pub auth_username: Option<String>,
    /// Its password. Reads as `null`, whether there is one or not; absent or `null` keeps the stored
    /// one.
    #[serde(default, serialize_with = "hidden")]
    #[schema(value_type = Option<String>)]
    pub auth_password: Option<Secret<String>>,
    /// Whether a password is stored.
    #[serde(default, skip_deserializing)]
    #[schema(read_only)]
    pub auth_password_set: bool,
    /// Most calls at a time; one more is answered 503.
    #[serde(default)]
    pub max_concurrent_calls: Option<u32>,
    /// Most new calls in any second; one more is answered 503.
    #[serde(default)]
    pub calls_per_second: Option<u32>,
}

impl InboundConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        match (&self.auth_username, &self.auth_password) {
            (Some(name), _) => check_token("inbound_config.auth_username", name)?,
            (None, Some(_)) => {
                let message = "must be given with auth_password";
                return Err(Invalid::new("inbound_config.auth_username", message));
            }
            (None, None) => {}
        }
        check_password("inbound_config.auth_password", self.auth_password.as_ref())?;
        let list = self.allowed_addresses.as_ref().map_or(0, Vec::len);
        if u64::try_from(list).is_ok_and(|list| list > limits::ALLOWED_ADDRESSES.value) {
            let message = format!("must hold at most {}", limits::ALLOWED_ADDRESSES.value);
            return Err(Invalid::new("inbound_config.allowed_addresses", message));
        }
        let (calls, rate) = (self.max_concurrent_calls, self.calls_per_second);
        check_count("inbound_config.max_concurrent_calls", calls, limits::TRUNK_CALLS)?;
        check_count("inbound_config.calls_per_second", rate, limits::TRUNK_CALLS)?;
        Ok(())
    }
}

/// How calls go out over a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboundConfig {
    /// The carrier's host or domain, with an optional port; no scheme.
    pub address: String,
    /// Digest user at the carrier.
    pub auth_username: String,
    /// Its password. Reads as `null`, whether there is one or not; absent or `null` keeps the stored
    /// one.
    #[serde(default, serialize_with = "hidden")]
    #[schema(value_type = Option<String>)]
    pub auth_password: Option<Secret<String>>,
    /// Whether a password is stored.
    #[serde(default, skip_deserializing)]
    #[schema(read_only)]
    pub auth_password_set: bool,
    /// What carries SIP to the carrier.
    #[serde(default)]
    pub transport: Transport,
    /// Whether the audio is encrypted.
    #[serde(default)]
    pub media_encryption: MediaEncryption,
    /// User part of From, when the carrier wants other than the number.
    #[serde(default)]
    pub from_user: Option<String>,
    /// Host part of From, when the carrier wants other than our own.
    #[serde(default)]
    pub from_host: Option<String>,
    /// Whether to register with the carrier (RFC 3261 section 10).
    #[serde(default)]
    pub register: bool,
    /// How calls are handed on.
    #[serde(default)]
    pub transfer_mode: TransferMode,
    /// Codecs to offer, best first; `null` is the gateway's own order.
    #[serde(default)]
    pub codecs: Option<Vec<Codec>>,
    /// How long to let the callee ring, in seconds; `null` is the gateway's setting.
    #[serde(default)]
    pub ring_timeout_seconds: Option<u32>,
    /// How long a call may last, in seconds; `null` is the gateway's setting.
    #[serde(default)]
    pub max_duration_seconds: Option<u32>,
}

impl OutboundConfig {
    /// A way out to a carrier with nothing special about it.
    #[must_use]
    pub fn to(address: &str, auth_username: &str, auth_password: Secret<String>) -> Self {
        Self {
            address: address.to_owned(),
            auth_username: auth_username.to_owned(),
            auth_password: Some(auth_password),
            auth_password_set: false,
            transport: Transport::default(),
            media_encryption: MediaEncryption::default(),
            from_user: None,
            from_host: None,
            register: false,
            transfer_mode: TransferMode::default(),
            codecs: None,
            ring_timeout_seconds: None,
            max_duration_seconds: None,
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_host("outbound_config.address", &self.address)?;
        check_token("outbound_config.auth_username", &self.auth_username)?;
        check_password("outbound_config.auth_password", self.auth_password.as_ref())?;
        if let Some(user) = &self.from_user {
            check_token("outbound_config.from_user", user)?;
        }
        if let Some(host) = &self.from_host {
            check_host("outbound_config.from_host", host)?;
        }
        if self.codecs.as_ref().is_some_and(Vec::is_empty) {
            return Err(Invalid::new("outbound_config.codecs", "must not be empty"));
        }
        let (ring, call) = (self.ring_timeout_seconds, self.max_duration_seconds);
        let (ring_limit, call_limit) = (limits::TRUNK_RING_SECONDS, limits::TRUNK_DURATION_SECONDS);
        check_count("outbound_config.ring_timeout_seconds", ring, ring_limit)?;
        check_count("outbound_config.max_duration_seconds", call, call_limit)?;
        Ok(())
    }
}

/// Refuses what is not `host`, `host:port`, `[v6]` or `[v6]:port`.
fn check_host(field: &'static str, host: &str) -> Result<(), Invalid> {
    check_name(field, host)?;
    let scheme = host.split_once(':').map_or("", |(scheme, _)| scheme);
    let has_scheme = ["sip", "sips"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
    if has_scheme || !is_host(host) {
        let message = "must be a host name or address with an optional port, and no scheme";
        return Err(Invalid::new(field, message));
    }
    Ok(())
}

/// A trunk, as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Trunk {
    /// Its id.
    pub id: TrunkId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// Set when the platform runs it; then it is read-only here.
    pub managed_account_id: Option<String>,
    /// How calls come in; `null` is all defaults.
    pub inbound_config: Option<InboundConfig>,
    /// How calls go out; `null` is not at all.
    pub outbound_config: Option<OutboundConfig>,
    /// Where the customer points their carrier: unique to this trunk.
    pub inbound_uri: String,
    /// When it was made; unique among trunks.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A trunk to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewTrunk {
    /// Its name, for people.
    pub name: String,
    /// How calls come in.
    #[serde(default)]
    pub inbound_config: Option<InboundConfig>,
    /// How calls go out.
    #[serde(default)]
    pub outbound_config: Option<OutboundConfig>,
}

impl NewTrunk {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        self.inbound_config.as_ref().map_or(Ok(()), InboundConfig::validate)?;
        self.outbound_config.as_ref().map_or(Ok(()), OutboundConfig::validate)
    }
}

/// A change to a trunk: an absent key leaves things as they are, `null` removes a config, and a
/// config that is given replaces the stored one whole (but for an absent password, which stays).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
pub struct TrunkChange {
    /// A new name.
    #[serde(default)]
    pub name: Option<String>,
    /// A new way in, or none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<InboundConfig>)]
    pub inbound_config: Option<Option<InboundConfig>>,
    /// A new way out, or none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<OutboundConfig>)]
    pub outbound_config: Option<Option<OutboundConfig>>,
}

impl TrunkChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.name.as_ref().map_or(Ok(()), |name| check_name("name", name))?;
        self.inbound_config.iter().flatten().try_for_each(InboundConfig::validate)?;
        self.outbound_config.iter().flatten().try_for_each(OutboundConfig::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn short_names_are_read_and_long_ones_written() {
        let config: InboundConfig =
            serde_json::from_value(json!({"media_encryption": "REQUIRE"})).unwrap();
        assert_eq!(config.media_encryption, MediaEncryption::Require);
        let text = serde_json::to_value(&config).unwrap();
        assert_eq!(text["media_encryption"], "SIP_MEDIA_ENCRYPT_REQUIRE");
        assert_eq!(serde_json::from_value::<Transport>(json!("TLS")).unwrap(), Transport::Tls);
    }

    #[test]
    fn empty_addresses_vanish_and_an_empty_list_is_no_restriction() {
        let read = |list| {
            serde_json::from_value::<InboundConfig>(json!({"allowed_addresses": list}))
                .map(|config| config.allowed_addresses)
        };
        assert_eq!(read(json!(["", " "])).unwrap(), None);
        assert_eq!(read(json!(null)).unwrap(), None);
        let list = read(json!(["192.0.2.7", "", "2001:db8::/32"])).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&list).unwrap(), json!(["192.0.2.7", "2001:db8::/32"]));
        assert_eq!(list[0].network().to_string(), "192.0.2.7/32");
        assert!(read(json!(["carrier.example.com"])).is_err());
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let address = AllowedAddress::parse("::ffff:192.0.2.7").unwrap();
        assert_eq!(address.network().to_string(), "192.0.2.7/32");
    }

    #[test]
    fn a_password_goes_in_and_never_out() {
        let config: InboundConfig = serde_json::from_value(
            json!({"auth_username": "pbx", "auth_password": "canary", "auth_password_set": true}),
        )
        .unwrap();
        assert!(!config.auth_password_set, "the flag is ours to set");
        assert_eq!(config.auth_password.as_ref().unwrap().expose(), "canary");
        assert!(!serde_json::to_string(&config).unwrap().contains("canary"));
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn a_change_tells_absent_from_null() {
        let change: TrunkChange = serde_json::from_value(json!({"inbound_config": null})).unwrap();
        assert_eq!(change.inbound_config, Some(None));
        assert_eq!(change.outbound_config, None);
    }

    #[test]
    fn an_outbound_address_is_a_bare_host() {
        let good = "sip.carrier.example sip.carrier.example. 192.0.2.1 192.0.2.1:5080 sipgate.de pbx \
            pbx:1 a-b.c--d:65535 _sip._udp.carrier.example 3com.example [2001:db8::1] [::]:5061";
        for good in good.split_whitespace() {
            assert_eq!(check_host("address", good), Ok(()), "{good}");
        }
        let bad = "h:0 h:99999 h: h:-1 h:+1 h:5060:1 h:x :5060 [::1]:99999 [::1]:0 [::1]: [::1]5060 \
            [::1 ::1 [ ]:[ [] [1.2.3.4] [fe80::1%eth0] ::: . .. a..b -a.b a-.b .a 1.2.3.4:70000 \
            1.2.3.4:0 256.1.1.1 1.2.3 1.2.3.4.5 1.2.3.4. 5060 sip:carrier.example SIP:5060 sips:h \
            u@h h;transport=tcp h/x h?x h%41 \u{e4}.example";
        for bad in bad.split_whitespace().chain(["", "a b", "h\r\n", " h", &"a".repeat(64)]) {
            assert!(check_host("address", bad).is_err(), "{bad}");
        }
    }
}
