//! How each Rust type of a setting is written in TOML and in a variable.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::fault::Origin;
use super::sections::Advertise;
use super::source::{Kind, Table, Value};
use super::store_url::StoreUrl;
use crate::model::{AgentEnding, E164, Transport};
use crate::secret::Secret;

/// A value that does not fit, with the place of the part that does not.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) origin: Origin,
    pub(super) message: String,
}

/// A type that settings may have.
pub(super) trait FromValue: Sized {
    /// What a reader of the error should write, with an example.
    const EXPECTED: &'static str;

    /// Reads the type from text: a TOML string or a variable.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads the type from a located value; all wrong parts of a list are named.
    fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
        match &value.kind {
            Kind::Text(text) => Self::from_text(text).ok_or_else(|| wrong::<Self>(value)),
            Kind::Loose(text) => Self::from_text(text.trim()).ok_or_else(|| wrong::<Self>(value)),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

/// The message never quotes the value: it could be a secret put on the wrong line.
fn wrong<T: FromValue>(value: &Value) -> Vec<Wrong> {
    let found = match &value.kind {
        Kind::Text(_) | Kind::Loose(_) => "this text",
        Kind::Integer(_) => "an integer",
        Kind::Boolean(_) => "a boolean",
        Kind::List(_) => "a list",
        Kind::Table(_) => "a table",
        Kind::Foreign(name) => name,
    };
    let message = format!("expected {}, found {found}", T::EXPECTED);
    vec![Wrong { origin: value.origin.clone(), message }]
}

/// Types written as text and parsed with `FromStr`.
macro_rules! parsed {
    ($($type:ty => $expected:literal),+ $(,)?) => {$(
        impl FromValue for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )+};
}

parsed! {
    SocketAddr => "an address with port, such as \"127.0.0.1:5060\" or \"[::1]:5060\"",
    IpAddr => "an IP address, such as \"127.0.0.1\"",
    IpNet => "a network, such as \"10.0.0.0/8\"",
    String => "a text in quotes",
    PathBuf => "a path in quotes",
    StoreUrl => "a database URL in quotes, such as \"sqlite:trunkline.db\"",
    E164 => "a phone number in quotes, such as \"+15551234567\"",
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
        match &value.kind {
            Kind::Boolean(truth) => Ok(*truth),
            Kind::Loose(text) => Self::from_text(text.trim()).ok_or_else(|| wrong::<Self>(value)),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

impl FromValue for Secret<String> {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_text(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }
}

/// Whole numbers: bare in TOML, decimal digits in a variable.
macro_rules! whole_number {
    ($($type:ty),+) => {$(
        impl FromValue for $type {
            const EXPECTED: &'static str =
                concat!("a whole number without quotes that fits ", stringify!($type));

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
                let number = match &value.kind {
                    Kind::Integer(number) => Self::try_from(*number).ok(),
                    Kind::Loose(text) => Self::from_text(text.trim()),
                    _ => None,
                };
                number.ok_or_else(|| wrong::<Self>(value))
            }
        }
    )+};
}

whole_number!(u16, u32, usize);

impl FromValue for Transport {
    const EXPECTED: &'static str = "\"udp\", \"tcp\" or \"tls\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "udp" => Some(Self::Udp),
            "tcp" => Some(Self::Tcp),
            "tls" => Some(Self::Tls),
            _ => None,
        }
    }
}

impl FromValue for AgentEnding {
    const EXPECTED: &'static str = "\"hangup\" or \"playback\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "hangup" => Some(Self::Hangup),
            "playback" => Some(Self::Playback),
            _ => None,
        }
    }
}

/// A port range as text: `"20000-29999"`, both ends included.
impl FromValue for RangeInclusive<u16> {
    const EXPECTED: &'static str = "a range of ports, such as \"20000-29999\"";

    fn from_text(text: &str) -> Option<Self> {
        let (low, high) = text.split_once('-')?;
        Some(low.trim().parse().ok()?..=high.trim().parse().ok()?)
    }
}

/// An optional setting: the empty text means "none", so that every key can be shown in a file.
impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }

    fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
        match &value.kind {
            Kind::Text(text) | Kind::Loose(text) if text.is_empty() => Ok(None),
            _ => T::from_value(value).map(Some),
        }
    }
}

/// A list: an array in TOML, separated by commas in a variable (empty: no items).
impl<T: FromValue> FromValue for Vec<T> {
    const EXPECTED: &'static str = "a list in square brackets";

    fn from_text(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }

    fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
        match &value.kind {
            Kind::List(items) => {
                let (mut settled, mut wrongs) = (Self::with_capacity(items.len()), Vec::new());
                for item in items {
                    match T::from_value(item) {
                        Ok(item) => settled.push(item),
                        Err(more) => wrongs.extend(more),
                    }
                }
                if wrongs.is_empty() { Ok(settled) } else { Err(wrongs) }
            }
            Kind::Loose(text) => Self::from_text(text).ok_or_else(|| wrong::<T>(value)),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

/// `{ peers = "10.0.0.0/8", address = "192.0.2.1" }`; in a variable `10.0.0.0/8=192.0.2.1`.
impl FromValue for Advertise {
    const EXPECTED: &'static str =
        "a table such as { peers = \"0.0.0.0/0\", address = \"192.0.2.1\" }";

    fn from_text(text: &str) -> Option<Self> {
        let (peers, address) = text.split_once('=')?;
        Some(Self { peers: peers.trim().parse().ok()?, address: address.trim().parse().ok()? })
    }

    fn from_value(value: &Value) -> Result<Self, Vec<Wrong>> {
        let part = |table: &Table, name: &str| table.get(name).cloned();
        match &value.kind {
            Kind::Table(table) if table.len() == 2 => {
                match (part(table, "peers"), part(table, "address")) {
                    (Some(peers), Some(address)) => Ok(Self {
                        peers: IpNet::from_value(&peers)?,
                        address: IpAddr::from_value(&address)?,
                    }),
                    _ => Err(wrong::<Self>(value)),
                }
            }
            Kind::Text(text) | Kind::Loose(text) => {
                Self::from_text(text).ok_or_else(|| wrong::<Self>(value))
            }
            _ => Err(wrong::<Self>(value)),
        }
    }
}
