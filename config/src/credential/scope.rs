//! What credentials may do: scopes, roles that stand for sets of them, and what a key is granted.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

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
    /// All scopes there are.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Scope::ALL)
    }

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

/// A named set of scopes: what a member of an organisation is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_hold_what_the_contract_says() {
        let admin = Role::Admin.scopes();
        assert!(admin.holds(Scope::TrunksManage) && admin.holds(Scope::ConversationsReadSensitive));
        assert!(!admin.holds(Scope::OperatorRead) && !admin.holds(Scope::ConversationsDial));
        let viewer = Role::Viewer.scopes();
        assert!(viewer.holds(Scope::TrunksRead) && viewer.holds(Scope::ConversationsRead));
        assert!(!viewer.holds(Scope::ConversationsReadSensitive));
        assert!(!viewer.iter().any(|scope| scope.as_str().ends_with(":manage")));
        assert!(admin.covers(viewer) && !viewer.covers(admin));
        assert!(ScopeSet::all().covers(admin) && Scope::ALL.len() <= 64);
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
