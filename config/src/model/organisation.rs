//! Organisations and their API keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, check_name};
use crate::clock::Timestamp;
use crate::credential::Grants;
use crate::ids::{KeyId, OrganisationId};

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Organisation {
    /// Its id.
    pub id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// Most phone numbers it may register; `null` is the node's setting.
    pub max_phone_numbers: Option<u32>,
    /// When it was made; unique among organisations.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
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
        if self.expires_at.is_some_and(|at| at <= 0) {
            return Err(Invalid::new("expires_at", "must be milliseconds since the epoch"));
        }
        Ok(())
    }
}
