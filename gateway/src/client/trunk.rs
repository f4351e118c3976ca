//! `trunkline trunk`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{MOST_ITEMS, Query, Rest};
use super::shown::{Column, Shown, field, moment};
use super::{EXIT_CODES, body, find};

/// `trunkline trunk`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Trunk {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's trunks, newest first.
    #[command(after_help = "Examples:\n  \
        trunkline trunk list\n  \
        trunkline trunk list --name office --json | jq -r '.[].inbound_uri'")]
    List {
        /// Part of the name, whatever the case.
        #[arg(long, value_name = "PART")]
        name: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One trunk, with everything it says.
    #[command(after_help = "Example:\n  trunkline trunk get 'Office PBX'")]
    Get {
        /// Its id or name.
        trunk: String,
    },
    /// Make a trunk.
    #[command(after_help = "Examples:\n  \
        trunkline trunk create 'Office PBX' --allow 192.0.2.0/24 --encryption allow\n  \
        trunkline trunk create Carrier --allow 198.51.100.7 --address sip.carrier.example \\\n    \
        --user acme --password-file carrier.password --transport tls\n  \
        trunkline trunk create Carrier --from carrier.yaml")]
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change a trunk: what is not named stays as it is.
    #[command(after_help = "Examples:\n  \
        trunkline trunk update 'Office PBX' --allow 192.0.2.0/24 --allow 2001:db8::/32\n  \
        trunkline trunk update Carrier --password-file new.password")]
    Update {
        /// Its id or name.
        trunk: String,
        /// A new name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Delete a trunk, which must carry no numbers.
    #[command(after_help = "Example:\n  trunkline trunk delete 'Office PBX'")]
    Delete {
        /// Its id or name.
        trunk: String,
    },
}

/// How much of a list is wanted.
#[derive(Debug, Args)]
pub(super) struct Page {
    /// At most this many, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 100, conflicts_with = "all",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl Page {
    pub(super) fn wanted(&self) -> usize {
        if self.all { MOST_ITEMS } else { usize::try_from(self.limit).unwrap_or(MOST_ITEMS) }
    }
}

/// What a trunk is made of.
#[derive(Debug, Args)]
struct Fields {
    /// YAML or JSON file with the fields as the API has them, `-` for standard input; `${NAME}` is taken
    /// from the environment. The flags below win over it.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// An address or network that may call; give it once for each.
    #[arg(long, value_name = "ADDRESS")]
    allow: Vec<String>,
    /// Whether callers' audio is encrypted, and ours to the carrier.
    #[arg(long, value_name = "POLICY")]
    encryption: Option<Encryption>,
    /// Clean callers' audio of noise.
    #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
    noise_cancellation: Option<bool>,
    /// The carrier's host, for calls out.
    #[arg(long, value_name = "HOST")]
    address: Option<String>,
    /// Our user at the carrier.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with our password at the carrier.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What carries SIP to the carrier.
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<Transport>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Encryption {
    Disable,
    Allow,
    Require,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Encryption {
    const fn word(self) -> &'static str {
        match self {
            Self::Disable => "SIP_MEDIA_ENCRYPT_DISABLE",
            Self::Allow => "SIP_MEDIA_ENCRYPT_ALLOW",
            Self::Require => "SIP_MEDIA_ENCRYPT_REQUIRE",
        }
    }
}

impl Transport {
    const fn word(self) -> &'static str {
        match self {
            Self::Udp => "SIP_TRANSPORT_UDP",
            Self::Tcp => "SIP_TRANSPORT_TCP",
            Self::Tls => "SIP_TRANSPORT_TLS",
        }
    }
}

const PATH: [&str; 2] = ["core", "trunks"];

const COLUMNS: &[Column] = &[
    ("ID", |trunk| field(trunk, "id")),
    ("NAME", |trunk| field(trunk, "name")),
    ("CALLS IN FROM", calls_in),
    ("CALLS OUT TO", |trunk| field(trunk, "outbound_config.address")),
    ("CREATED", |trunk| moment(trunk, "created_at")),
];

/// Who may call over a trunk, in a few words.
fn calls_in(trunk: &Value) -> String {
    let addresses = field(trunk, "inbound_config.allowed_addresses");
    let user = field(trunk, "inbound_config.auth_username");
    match (addresses.as_str(), user.as_str()) {
        ("-", "-") => "anywhere".to_owned(),
        ("-", user) => format!("anywhere, as {user}"),
        (addresses, "-") => addresses.to_owned(),
        (addresses, user) => format!("{addresses}, as {user}"),
    }
}

impl Trunk {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { name, page } => {
                let query: Query = name.into_iter().map(|name| ("name", name)).collect();
                let listing = rest.list(&PATH, &query, page.wanted()).await?;
                shown.list("trunks", COLUMNS, &listing.items, listing.more);
            }
            Verb::Get { trunk } => {
                let id = find::trunk(&rest, &trunk).await?;
                shown.one(&get(&rest, &id).await?);
            }
            Verb::Create { name, fields } => {
                let mut new = fields.start(json!({}))?;
                body::set(&mut new, "name", name);
                fields.lay_over(&mut new)?;
                let made = rest.post(&PATH, &new).await?;
                warn(&shown, &made);
                shown.one(&made);
            }
            Verb::Update { trunk, name, fields } => {
                let id = find::trunk(&rest, &trunk).await?;
                let change = fields.change(&rest, &id, name).await?;
                let changed = rest.put(&["core", "trunks", &id], &change).await?;
                warn(&shown, &changed);
                shown.one(&changed);
            }
            Verb::Delete { trunk } => {
                let id = find::trunk(&rest, &trunk).await?;
                rest.delete(&["core", "trunks", &id]).await?;
                shown.done(&format!("trunk {trunk} deleted"), &json!({ "id": id }));
            }
        }
        Ok(())
    }
}

async fn get(rest: &Rest, id: &str) -> Result<Value, Failure> {
    rest.get(&["core", "trunks", id], &Query::new()).await
}

/// What the API warns of, such as a trunk that takes calls from anywhere.
pub(super) fn warn(shown: &Shown, trunk: &Value) {
    let warnings = trunk.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        shown.aside(&format!("warning: {}", super::shown::plain(warning)));
    }
}

impl Fields {
    /// The file, or `otherwise`.
    fn start(&self, otherwise: Value) -> Result<Value, Failure> {
        self.from.as_deref().map_or(Ok(otherwise), body::object)
    }

    const fn touches_inbound(&self) -> bool {
        !self.allow.is_empty() || self.encryption.is_some() || self.noise_cancellation.is_some()
    }

    const fn touches_outbound(&self) -> bool {
        self.address.is_some()
            || self.user.is_some()
            || self.password_file.is_some()
            || self.transport.is_some()
    }

    fn lay_over(&self, trunk: &mut Value) -> Result<(), Failure> {
        if !self.allow.is_empty() {
            body::set(trunk, "inbound_config.allowed_addresses", json!(self.allow));
        }
        body::set_if(trunk, "inbound_config.enable_noise_cancellation", self.noise_cancellation);
        body::set_if(trunk, "outbound_config.address", self.address.clone());
        body::set_if(trunk, "outbound_config.auth_username", self.user.clone());
        if let Some(path) = &self.password_file {
            let password = body::password(path)?;
            body::set(trunk, "outbound_config.auth_password", password.expose().as_str());
        }
        body::set_if(trunk, "outbound_config.transport", self.transport.map(Transport::word));
        if let Some(policy) = self.encryption.map(Encryption::word) {
            body::set(trunk, "inbound_config.media_encryption", policy);
            if trunk.get("outbound_config").is_some_and(Value::is_object) {
                body::set(trunk, "outbound_config.media_encryption", policy);
            }
        }
        Ok(())
    }

    /// The body of a change. A config that is given replaces the stored one whole, so flags are laid
    /// over what is stored; its password reads as `null` there, and `null` keeps it.
    async fn change(&self, rest: &Rest, id: &str, name: Option<String>) -> Result<Value, Failure> {
        let mut change = self.start(json!({}))?;
        if self.touches_inbound() || self.touches_outbound() {
            let stored = get(rest, id).await?;
            for (config, touched) in [
                ("inbound_config", self.touches_inbound()),
                ("outbound_config", self.touches_outbound() || self.encryption.is_some()),
            ] {
                let stored = stored.get(config).filter(|stored| stored.is_object());
                if let (true, None, Some(stored)) = (touched, change.get(config), stored) {
                    body::set(&mut change, config, stored.clone());
                }
            }
            self.lay_over(&mut change)?;
        }
        body::set_if(&mut change, "name", name);
        if change.as_object().is_some_and(serde_json::Map::is_empty) {
            return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
        }
        Ok(change)
    }
}
