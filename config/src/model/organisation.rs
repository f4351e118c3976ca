//! Organisations and their API keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, check_expiry, check_name, present};
use crate::clock::Timestamp;
use crate::credential::Grants;
use crate::ids::{KeyId, OrganisationId};

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Organisation {
    /// Its id.
    pub id: OrganisationId,
    /// The organisation it is a part of; `null` at the root of a tree.
    pub parent_id: Option<OrganisationId>,
    /// Its name, for people.
    pub name: String,
    /// Most phone numbers it may register; `null` is the node's setting.
    pub max_phone_numbers: Option<u32>,
    /// When it was made; unique among organisations.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// An organisation to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
pub struct NewOrganisation {
    /// Its name, for people.
    pub name: String,
    /// The organisation it becomes a part of. Absent is one's own; an explicit `null` makes the root
    /// of a new tree, which takes the operator.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<OrganisationId>)]
    pub parent_id: Option<Option<OrganisationId>>,
    /// Most phone numbers it may register. Absent or `null` is what its parent has; only the operator
    /// may say another number.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub max_phone_numbers: Option<u32>,
}

impl NewOrganisation {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)
    }
}

/// A change to an organisation: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct OrganisationChange {
    /// A new name.
    pub name: Option<String>,
    /// Most phone numbers it may register, `null` for the node's setting; the operator's to say.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 0)]
    pub max_phone_numbers: Option<Option<u32>>,
}

impl OrganisationChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.name.as_deref().map_or(Ok(()), |name| check_name("name", name))
    }
}

/// An API key, without its secret: the secret is shown once, when the key is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    /// The public half of the key.
    pub key_id: KeyId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub grants: Grants,
    /// When it stops working, in milliseconds since the epoch; `null` is never.
    pub expires_at: Option<i64>,
    /// When it last opened the API, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made; unique among keys.
    pub created_at: Timestamp,
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewApiKey {
    /// Its name, for people.
    pub name: String,
    /// When it stops working, in milliseconds since the epoch; `null` is never.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// What it may do: `admin`, `viewer` or single scopes. Absent is `admin`.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub grants: Grants,
}

impl NewApiKey {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        check_expiry(self.expires_at)
    }
}
