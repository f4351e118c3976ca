//! API keys, what they may do, and the proof that they were checked.
//!
//! A key reads `ak_<id>.<secret>`: a public id, then 256 random bits and a checksum that tells a
//! mistyped key from a wrong one. Only the SHA-256 of the whole text is kept. Invariant: the proofs
//! [`Authenticated`], [`ScopedTo`] and [`Operator`] come from an accepted key, or from the few
//! constructors that say in their name on whose authority they act.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::ids::{KeyId, OrganisationId};
use crate::secret::Secret;

const PREFIX: &str = "ak_";
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// The SHA-256 of a whole key.
pub(crate) type KeyHash = [u8; 32];

/// A new key: its text, to be shown once, and what is kept of it.
pub(crate) struct Minted {
    pub(crate) id: KeyId,
    pub(crate) text: Secret<String>,
    pub(crate) hash: KeyHash,
}

/// Makes a key from 256 bits of the operating system's randomness.
pub(crate) fn mint() -> Result<Minted, getrandom::Error> {
    let mut secret = [0_u8; SECRET_BYTES + CHECKSUM_BYTES];
    let (random, checksum) = secret.split_at_mut(SECRET_BYTES);
    getrandom::fill(random)?;
    checksum.copy_from_slice(&checksum_of(random));
    let id = KeyId::random();
    let text = format!("{PREFIX}{}.{}", id.as_uuid().simple(), URL_SAFE_NO_PAD.encode(secret));
    Ok(Minted { id, hash: hash(&text), text: Secret::new(text) })
}

/// The id in a key's text, when the text is one that [`mint`] could have made.
pub(crate) fn id_of(text: &str) -> Option<KeyId> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('.')?;
    let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
    let (random, checksum) = secret.split_at_checked(SECRET_BYTES)?;
    (checksum == checksum_of(random)).then(|| id.parse().ok()).flatten()
}

/// What is kept of a key. Its 256 random bits make a slow hash pointless.
pub(crate) fn hash(text: &str) -> KeyHash {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares in a time that does not depend on where the two differ.
pub(crate) fn hashes_match(a: &KeyHash, b: &KeyHash) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

fn checksum_of(random: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..]: KeyHash = Sha256::digest(random).into();
    [a, b, c, d]
}

macro_rules! scopes {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// One thing a key may do. An endpoint accepts any one of a set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Scope {
            $(#[doc = concat!("`", $name, "`")] $variant),+
        }

        impl Scope {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

scopes! {
    AgentsRead = "agents:read",
    AgentsManage = "agents:manage",
    TrunksRead = "trunks:read",
    TrunksManage = "trunks:manage",
    InboundRoutingConfigsRead = "inbound_routing_configs:read",
    InboundRoutingConfigsManage = "inbound_routing_configs:manage",
    PhoneNumbersRead = "phone_numbers:read",
    PhoneNumbersManage = "phone_numbers:manage",
    ManagedAccountsRead = "managed_accounts:read",
    ManagedAccountsManage = "managed_accounts:manage",
    ConversationsRead = "conversations:read",
    ConversationsReadSensitive = "conversations:read_sensitive",
    ConversationsManage = "conversations:manage",
    ConversationsDial = "conversations:dial",
    CampaignsRead = "campaigns:read",
    CampaignsManage = "campaigns:manage",
    ConcurrencyRead = "concurrency:read",
    ConcurrencyManage = "concurrency:manage",
    WebWidgetsRead = "web_widgets:read",
    WebWidgetsManage = "web_widgets:manage",
    MembersRead = "members:read",
    MembersManage = "members:manage",
    BillingManage = "billing:manage",
    OrganizationsManage = "organizations:manage",
    ChildOrganizationsManage = "child_organizations:manage",
    WorkflowsRead = "workflows:read",
    WorkflowsManage = "workflows:manage",
    KnowledgeBasesRead = "knowledge_bases:read",
    KnowledgeBasesManage = "knowledge_bases:manage",
    WebhooksRead = "webhooks:read",
    WebhooksManage = "webhooks:manage",
    OperatorRead = "operator:read",
    OperatorManage = "operator:manage",
}

/// The text names no scope, and no role where a role would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("names no scope or role")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.iter().copied().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u64);

impl ScopeSet {
    /// The set of these.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | Self::bit(*scope)))
    }

    /// Whether it holds this one.
    #[must_use]
    pub const fn holds(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Whether it holds at least one of these.
    #[must_use]
    pub fn holds_any(self, scopes: &[Scope]) -> bool {
        self.0 & Self::of(scopes).0 != 0
    }

    /// Whether it holds all that `other` holds.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// All that is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its scopes, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.holds(*scope))
    }

    const fn bit(scope: Scope) -> u64 {
        1 << (scope as u8)
    }
}

/// A named set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything within the organisation, but for internal dialling.
    Admin,
    /// Reading what is not sensitive.
    Viewer,
}

impl Role {
    /// What it holds.
    #[must_use]
    pub fn scopes(self) -> ScopeSet {
        let within = |scope: &&Scope| {
            !matches!(scope, Scope::ConversationsDial | Scope::OperatorRead | Scope::OperatorManage)
        };
        let held = |scope: &&Scope| match self {
            Self::Admin => true,
            Self::Viewer => scope.as_str().ends_with(":read"),
        };
        let scopes: Vec<_> = Scope::ALL.iter().filter(within).filter(held).copied().collect();
        ScopeSet::of(&scopes)
    }
}

/// One entry of what a key is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A role: it follows the role's meaning as that grows.
    Role(Role),
    /// A single scope.
    Scope(Scope),
}

impl FromStr for Grant {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        match text {
            "admin" => Ok(Self::Role(Role::Admin)),
            "viewer" => Ok(Self::Role(Role::Viewer)),
            scope => scope.parse().map(Self::Scope),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Role(Role::Admin) => "admin",
            Self::Role(Role::Viewer) => "viewer",
            Self::Scope(scope) => scope.as_str(),
        })
    }
}

/// What a key is granted, as it was asked for. The default is the role `admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Exactly these.
    #[must_use]
    pub const fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// What the first key of a fresh store holds: its organisation, and the node.
    #[must_use]
    pub fn bootstrap() -> Self {
        Self(vec![
            Grant::Role(Role::Admin),
            Grant::Scope(Scope::OperatorRead),
            Grant::Scope(Scope::OperatorManage),
        ])
    }

    /// What they come to.
    #[must_use]
    pub fn scopes(&self) -> ScopeSet {
        self.0.iter().fold(ScopeSet::default(), |set, grant| {
            set.union(match grant {
                Grant::Role(role) => role.scopes(),
                Grant::Scope(scope) => ScopeSet::of(&[*scope]),
            })
        })
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self(vec![Grant::Role(Role::Admin)])
    }
}

impl Serialize for Grants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let grants = names.iter().map(|name| name.parse()).collect::<Result<_, UnknownScope>>();
        grants.map(Self).map_err(D::Error::custom)
    }
}

/// Proof that the bearer may act within one `T`.
///
/// Verbs of the store that touch an organisation's rows take one, so that no row of another can be
/// reached by naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopedTo<T>(T);

impl ScopedTo<OrganisationId> {
    /// On the gateway's own authority: it knows the organisation from the trunk a call came over.
    #[must_use]
    pub const fn by_gateway(organisation: OrganisationId) -> Self {
        Self(organisation)
    }

    /// Which organisation.
    #[must_use]
    pub const fn organisation(&self) -> OrganisationId {
        self.0
    }
}

/// Proof that the bearer may act on the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator(());

impl Operator {
    /// On the program's own authority, as at the command line.
    #[must_use]
    pub const fn by_process() -> Self {
        Self(())
    }
}

/// An accepted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authenticated {
    key: KeyId,
    organisation: ScopedTo<OrganisationId>,
    scopes: ScopeSet,
}

impl Authenticated {
    /// Only the store's key table makes one, when it has compared a key.
    pub(crate) const fn by_key(key: KeyId, organisation: OrganisationId, scopes: ScopeSet) -> Self {
        Self { key, organisation: ScopedTo(organisation), scopes }
    }

    /// Which key.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// The organisation it is bound to.
    #[must_use]
    pub const fn organisation(&self) -> ScopedTo<OrganisationId> {
        self.organisation
    }

    /// What it may do.
    #[must_use]
    pub const fn scopes(&self) -> ScopeSet {
        self.scopes
    }

    /// The whole node to look at, if it may.
    #[must_use]
    pub fn operator_read(&self) -> Option<Operator> {
        self.scopes.holds_any(&[Scope::OperatorRead, Scope::OperatorManage]).then_some(Operator(()))
    }

    /// The whole node to change, if it may.
    #[must_use]
    pub fn operator_manage(&self) -> Option<Operator> {
        self.scopes.holds(Scope::OperatorManage).then_some(Operator(()))
    }
}

/// The key is missing, malformed, unknown, wrong, expired or revoked: a caller never learns which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is not valid")]
pub struct Unauthenticated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_carries_its_id_and_a_checksum() {
        let minted = mint().unwrap();
        let text = minted.text.expose();
        assert!(text.starts_with("ak_"));
        assert_eq!(id_of(text), Some(minted.id));
        assert!(hashes_match(&minted.hash, &hash(text)));
        assert!(!hashes_match(&minted.hash, &hash("ak_")));
    }

    #[test]
    fn a_mistyped_key_is_no_key() {
        let text = mint().unwrap().text.expose().clone();
        let last = if text.ends_with('A') { 'Q' } else { 'A' };
        let mistyped = format!("{}{last}", &text[..text.len() - 1]);
        for bad in ["", "ak_", "ak_.", "pat_x.y", &mistyped, &text[3..], &text[..20]] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn roles_hold_what_the_contract_says() {
        let admin = Role::Admin.scopes();
        assert!(admin.holds(Scope::TrunksManage) && admin.holds(Scope::ConversationsReadSensitive));
        assert!(!admin.holds(Scope::OperatorRead) && !admin.holds(Scope::ConversationsDial));
        let viewer = Role::Viewer.scopes();
        assert!(viewer.holds(Scope::TrunksRead) && viewer.holds(Scope::ConversationsRead));
        assert!(!viewer.holds(Scope::ConversationsReadSensitive));
        assert!(!viewer.iter().any(|scope| scope.as_str().ends_with(":manage")));
    }

    #[test]
    fn grants_read_as_they_are_written() {
        let text = r#"["viewer","operator:read"]"#;
        let grants: Grants = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&grants).unwrap(), text);
        assert!(grants.scopes().holds(Scope::OperatorRead));
        assert!(serde_json::from_str::<Grants>(r#"["root"]"#).is_err());
    }
}
