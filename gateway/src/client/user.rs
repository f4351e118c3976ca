//! `trunkline user` (of the node) and `trunkline member` (of the organisation).

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, key};

/// `trunkline user`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct User {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Debug, Subcommand)]
enum UserVerb {
    /// Everyone who has an account on the node, newest first; the operator's to see.
    #[command(after_help = "Example:\n  trunkline user list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Make a user, who belongs to no organisation yet.
    #[command(after_help = "Example:\n  \
        trunkline user create ada@example.com\n  \
        trunkline member add ada@example.com --role admin\n  \
        trunkline user token ada@example.com laptop > ada.key")]
    Create {
        /// Their e-mail address.
        email: String,
    },
    /// Delete a user, with their memberships and tokens.
    #[command(after_help = "Example:\n  trunkline user delete ada@example.com")]
    Delete {
        /// Their id or e-mail address.
        user: String,
    },
    /// Make a personal token for a user; it is printed this once and never again.
    #[command(after_help = "Example:\n  trunkline user token ada@example.com laptop --days 90")]
    Token {
        /// Their id or e-mail address.
        user: String,
        /// What it is for.
        name: String,
        /// Days until it expires; without it the token lasts until it is revoked.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
}

/// `trunkline member`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Member {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: MemberVerb,
}

#[derive(Debug, Subcommand)]
enum MemberVerb {
    /// Who belongs to the organisation, and as what.
    #[command(after_help = "Example:\n  trunkline member list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Let somebody in.
    #[command(after_help = "Example:\n  trunkline member add ada@example.com --role viewer")]
    Add {
        /// Their e-mail address.
        email: String,
        /// What the organisation calls them.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What they may do.
        #[arg(long, value_name = "ROLE")]
        role: Role,
    },
    /// Change what somebody may do, or what they are called.
    #[command(after_help = "Example:\n  trunkline member update ada@example.com --role admin")]
    Update {
        /// Their id or e-mail address.
        member: String,
        /// What the organisation calls them.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What they may do.
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
    },
    /// Show somebody out; the last admin stays.
    #[command(after_help = "Example:\n  trunkline member remove ada@example.com")]
    Remove {
        /// Their id or e-mail address.
        member: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Admin,
    Viewer,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }
}

const USERS: [&str; 2] = ["admin", "users"];
const MEMBERS: [&str; 2] = ["admin", "members"];

const USER_COLUMNS: &[Column] = &[
    ("ID", |user| field(user, "id")),
    ("E-MAIL", |user| field(user, "email")),
    ("CREATED", |user| moment(user, "created_at")),
];

const MEMBER_COLUMNS: &[Column] = &[
    ("USER", |member| field(member, "user_id")),
    ("E-MAIL", |member| field(member, "email")),
    ("NAME", |member| field(member, "name")),
    ("ROLE", |member| field(member, "role")),
    ("SINCE", |member| moment(member, "created_at")),
];

impl User {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            UserVerb::List { page } => {
                let listing = rest.list(&USERS, &Query::new(), page.wanted()).await?;
                shown.list("users", USER_COLUMNS, &listing.items, listing.more);
            }
            UserVerb::Create { email } => {
                shown.one(&rest.post(&USERS, &json!({ "email": email })).await?);
            }
            UserVerb::Delete { user } => {
                let id = find(&rest, &USERS, ("id", "user"), &user).await?;
                rest.delete(&["admin", "users", &id]).await?;
                shown.done(&format!("{user} deleted"), &json!({ "id": id }));
            }
            UserVerb::Token { user, name, days } => {
                let id = find(&rest, &USERS, ("id", "user"), &user).await?;
                let mut new = json!({ "name": name });
                body::set_if(&mut new, "expires_at", key::expiry(days));
                let path = ["admin", "users", &id, "personal-access-tokens"];
                key::show(&shown, &rest.post(&path, &new).await?);
            }
        }
        Ok(())
    }
}

impl Member {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            MemberVerb::List { page } => {
                let listing = rest.list(&MEMBERS, &Query::new(), page.wanted()).await?;
                shown.list("members", MEMBER_COLUMNS, &listing.items, listing.more);
            }
            MemberVerb::Add { email, name, role } => {
                let mut new = json!({ "email": email, "role": role.word() });
                body::set_if(&mut new, "name", name);
                shown.one(&rest.post(&MEMBERS, &new).await?);
            }
            MemberVerb::Update { member, name, role } => {
                let mut change = json!({});
                body::set_if(&mut change, "name", name);
                body::set_if(&mut change, "role", role.map(Role::word));
                if change == json!({}) {
                    return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
                }
                let id = find(&rest, &MEMBERS, ("user_id", "member"), &member).await?;
                shown.one(&rest.patch(&["admin", "members", &id], &change).await?);
            }
            MemberVerb::Remove { member } => {
                let id = find(&rest, &MEMBERS, ("user_id", "member"), &member).await?;
                rest.delete(&["admin", "members", &id]).await?;
                shown.done(&format!("{member} removed"), &json!({ "user_id": id }));
            }
        }
        Ok(())
    }
}

/// The id of whoever has this e-mail address; an id is itself.
async fn find(
    rest: &Rest,
    path: &[&str],
    (id, noun): (&str, &str),
    named: &str,
) -> Result<String, Failure> {
    if !named.contains('@') {
        return Ok(named.to_owned());
    }
    let all = rest.all(path, &Query::new()).await?;
    let has = |one: &&Value| field(one, "email").eq_ignore_ascii_case(named);
    let found = all.iter().find(has).map(|one| field(one, id));
    found.ok_or_else(|| Failure::not_found(noun, named))
}
