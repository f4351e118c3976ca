//! `trunkline keys`: API keys made and revoked, and users let in, directly in the store.

use std::process::ExitCode;

use config::clock::Timestamp;
use config::credential::{Grants, Operator, Role, ScopeSet, ScopedTo};
use config::ids::{KeyId, OrganisationId};
use config::model::{Email, NewApiKey, NewMember, NewPersonalToken, Page};
use config::settings::Settings;
use config::store::{Store, StoreError};

use crate::cli::{Keys, KeysCommand};
use crate::clock;
use crate::run::{say, say_error};
use crate::serve::open_store;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// Runs one verb.
pub async fn run(keys: Keys, settings: Settings) -> ExitCode {
    let store = match open_store(&settings).await {
        Ok(store) => store,
        Err(error) => return failed(&error.to_string()),
    };
    let result = match keys.command {
        KeysCommand::Create { name, organization, days } => {
            create(&store, &name, organization, days).await
        }
        KeysCommand::List { organization } => list(&store, organization).await,
        KeysCommand::User { email, role, organization, days } => {
            let role = if role == "admin" { Role::Admin } else { Role::Viewer };
            let_in(&store, &email, role, organization, days).await
        }
        KeysCommand::Revoke { key, organization } => revoke(&store, &key, organization).await,
    };
    store.close().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    say_error(&format!("{why}\n"));
    ExitCode::FAILURE
}

/// The organisation that is named, or the only one there is.
async fn organisation(
    store: &Store,
    named: Option<String>,
) -> Result<ScopedTo<OrganisationId>, String> {
    if let Some(named) = named {
        let id: OrganisationId =
            named.parse().map_err(|_| format!("{named} is no organisation id"))?;
        return Ok(Operator::by_process().within(id));
    }
    let all = store.organisations(&Operator::by_process(), Page::default()).await;
    match all.map_err(explain)?.as_slice() {
        [only] => Ok(Operator::by_process().within(only.id)),
        [] => Err("the store has no organisation yet: run `trunkline serve` once".to_owned()),
        many => {
            let names: Vec<_> = many.iter().map(|o| format!("  {}  {}", o.id, o.name)).collect();
            Err(format!("which organisation? name it with --organization:\n{}", names.join("\n")))
        }
    }
}

async fn create(
    store: &Store,
    name: &str,
    named: Option<String>,
    days: Option<u32>,
) -> Result<(), String> {
    let scope = organisation(store, named).await?;
    let expires_at = days.map(in_days);
    let new = NewApiKey { name: name.to_owned(), expires_at, grants: Grants::default() };
    let by = Operator::by_process();
    let made = store.create_key_for(&by, scope.organisation(), new).await;
    let (key, secret) = made.map_err(explain)?;
    say(&format!("{}\n", secret.expose()));
    say_error(&format!("key {} \"{name}\": shown this once\n", key.key_id));
    Ok(())
}

fn in_days(days: u32) -> i64 {
    clock::unix_micros() / 1000 + i64::from(days) * MILLIS_PER_DAY
}

async fn let_in(
    store: &Store,
    email: &str,
    role: Role,
    named: Option<String>,
    days: Option<u32>,
) -> Result<(), String> {
    let by = Operator::by_process();
    let email: Email = email.parse().map_err(|_| format!("{email} is no e-mail address"))?;
    let organisation = organisation(store, named).await?.organisation();
    let scope = by.within(organisation);
    store.organisation(&scope).await.map_err(explain)?;
    let new = NewMember { email: email.clone(), name: String::new(), role };
    match store.add_member(&scope, ScopeSet::all(), new).await {
        Ok(_) | Err(StoreError::Conflict(_)) => {}
        Err(error) => return Err(explain(error)),
    }
    let user = store.user_with_email(&by, &email).await.map_err(explain)?;
    let expires_at = days.map(in_days);
    let new = NewPersonalToken { name: "made at the command line".to_owned(), expires_at };
    let made = store.create_token_for(&by, user.id, new).await;
    let (token, secret) = made.map_err(explain)?;
    say(&format!("{}\n", secret.expose()));
    let text = format!("token {} of {email}: shown this once\n", token.token_id);
    say_error(&format!("{text}use it with the header X-Anyreach-Org: {organisation}\n"));
    Ok(())
}

async fn list(store: &Store, named: Option<String>) -> Result<(), String> {
    let scope = organisation(store, named).await?;
    let keys = store.keys(&scope, Page::default()).await.map_err(explain)?;
    say(&format!("{:<36} {:<28} {:<28} NAME\n", "KEY", "CREATED", "EXPIRES"));
    for key in keys {
        let expires = key
            .expires_at
            .map_or_else(|| "never".to_owned(), |at| Timestamp::from_millis(at).to_string());
        let (id, created) = (key.key_id.to_string(), key.created_at.to_string());
        say(&format!("{id:<36} {created:<28} {expires:<28} {}\n", key.name));
    }
    Ok(())
}

async fn revoke(store: &Store, key: &str, named: Option<String>) -> Result<(), String> {
    let scope = organisation(store, named).await?;
    let id: KeyId =
        key.parse().map_err(|_| format!("{key} is no key id; see `trunkline keys list`"))?;
    store.revoke_key(&scope, id).await.map_err(explain)?;
    say(&format!("{id} revoked\n"));
    Ok(())
}

fn explain(error: StoreError) -> String {
    error.to_string()
}
