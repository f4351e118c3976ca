//! Users, what they are to organisations, and their personal access tokens.
//!
//! A user is known to the node by an e-mail address. What an organisation calls a member is its own
//! affair, so that no organisation learns what a user is to another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, check_expiry, check_name};
use crate::clock::Timestamp;
use crate::credential::Role;
use crate::ids::{OrganisationId, TokenId, UserId};
use crate::limits;

/// An e-mail address, in lower case: one user, however they spell it.
///
/// Not the grammar of RFC 5322 §3.4.1 but what every mailbox in use has: one `@`, something on both
/// sides of it, nothing that a mail header or a log line could take for something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[schema(value_type = String, example = "ada@example.com")]
pub struct Email(String);

/// The text is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an e-mail address")]
pub struct NotAnEmail;

impl Email {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = NotAnEmail;

    fn from_str(text: &str) -> Result<Self, NotAnEmail> {
        let (local, domain) = text.split_once('@').ok_or(NotAnEmail)?;
        let plain = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        let label = |label: &str| {
            !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        let fits = !local.is_empty()
            && local.chars().all(plain)
            && domain.split('.').all(label)
            && text.len() <= limits::EMAIL_BYTES.value_usize();
        if fits { Ok(Self(text.to_lowercase())) } else { Err(NotAnEmail) }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A user, as the operator sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their address; no other user has it.
    pub email: Email,
    /// When they were made; unique among users.
    pub created_at: Timestamp,
}

/// A user to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewUser {
    /// Their address; no other user has it.
    pub email: Email,
}

/// A user, as an organisation they belong to sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    /// Which user.
    pub user_id: UserId,
    /// Their address.
    pub email: Email,
    /// What the organisation calls them; may be empty.
    pub name: String,
    /// What they may do here.
    pub role: Role,
    /// Since when they belong to it; unique among members.
    pub created_at: Timestamp,
    /// When this last changed.
    pub updated_at: Timestamp,
}

/// A member to be added.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewMember {
    /// Their address; the user is made if the node has none by it.
    pub email: Email,
    /// What the organisation calls them.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub name: String,
    /// What they may do here.
    pub role: Role,
}

impl NewMember {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.name.is_empty() { Ok(()) } else { check_name("name", &self.name) }
    }
}

/// A change to a member: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct MemberChange {
    /// What the organisation calls them.
    pub name: Option<String>,
    /// What they may do here.
    pub role: Option<Role>,
}

impl MemberChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        match self.name.as_deref() {
            None | Some("") => Ok(()),
            Some(name) => check_name("name", name),
        }
    }
}

/// One of a user's organisations: what `X-Anyreach-Org` may say beside their tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Membership {
    /// The organisation.
    pub organization_id: OrganisationId,
    /// Its name.
    pub name: String,
    /// What the user may do there.
    pub role: Role,
}

/// A personal access token, without its secret: the secret is shown once, when the token is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PersonalToken {
    /// The public half of the token.
    pub token_id: TokenId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its name, for people.
    pub name: String,
    /// When it stops working, in milliseconds since the epoch; `null` is never.
    pub expires_at: Option<i64>,
    /// When it last opened the API, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made; unique among tokens.
    pub created_at: Timestamp,
}

/// A personal access token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewPersonalToken {
    /// Its name, for people.
    pub name: String,
    /// When it stops working, in milliseconds since the epoch. Absent or `null` is never, or when the
    /// token that makes it does.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

impl NewPersonalToken {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        check_expiry(self.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_whatever_its_case() {
        let email: Email = "Ada.Lovelace+x@Example.COM".parse().unwrap();
        assert_eq!(email.to_string(), "ada.lovelace+x@example.com");
        assert!("ada@localhost".parse::<Email>().is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "ada",
            "@",
            "ada@",
            "@example.com",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a\r\n@b",
            "<a@b>",
            "a@.b",
            "a@b..c",
            "\"a\"@b",
            "a,b@c",
            "a@b;c",
            &long,
        ] {
            assert_eq!(bad.parse::<Email>(), Err(NotAnEmail), "{bad:?}");
        }
    }
}
